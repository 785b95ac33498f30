"""What the API answers. The views write these from read models; tests hold every answer against its shape."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

LastEvent = Literal[
    "queued", "scheduled", "sent", "delivered", "delivery_delayed", "bounced", "complained", "opened", "clicked",
    "failed", "canceled", "suppressed",
]  # fmt: skip


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class FaultOut(Answer):
    field: str = Field(description="The path of the field, such as `to[3]`; empty for the whole body.")
    code: str = Field(description="A stable word.")
    message: str = Field(description="What is wrong, and what to do.")
    index: int | None = Field(description="The position of the mail in a batch.")


class Error(Answer):
    #: Resend's spelling
    statusCode: int
    name: str
    message: str
    errors: list[FaultOut]
    request_id: str | None


class EmailAccepted(Answer):
    id: str
    ids: list[str] | None = Field(
        None, description="Only where `merge` made several mails of it, in the order of `to`."
    )


class BatchFault(Answer):
    index: int
    message: str


class BatchAccepted(Answer):
    data: list[EmailAccepted]
    errors: list[BatchFault] | None = Field(None, description="Only with `x-batch-validation: permissive`.")


class TagOut(Answer):
    name: str
    value: str


class DeliveryOut(Answer):
    """One recipient: where its copy stands, why, and what comes next."""

    id: str
    recipient: str
    field: Literal["to", "cc", "bcc"]
    status: str
    reason: str
    category: str
    reply: str
    host: str
    attempts: int
    next_attempt_at: str | None
    settled_at: str | None
    opened_at: str | None
    clicked_at: str | None


class EmailLine(Answer):
    id: str
    message_id: str
    to: list[str]
    from_: str = Field(alias="from")
    created_at: str
    subject: str
    bcc: list[str]
    cc: list[str]
    reply_to: list[str]
    last_event: LastEvent
    scheduled_at: str | None


class Email(EmailLine):
    object: Literal["email"]
    html: str | None
    text: str | None
    headers: dict[str, str] = Field(description="Those that the request brought.")
    tags: list[TagOut]
    metadata: dict[str, str]
    stream: str
    priority: Literal["high", "normal", "bulk"]
    deliver_before: str | None
    content_note: str | None = Field(description="Why a content that should be there cannot be shown.")
    redacted_at: str | None = Field(description="Its content was taken away then, as was asked for.")
    deliveries: list[DeliveryOut]


class EmailChanged(Answer):
    object: Literal["email"]
    id: str


class EmailList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[EmailLine]
    next: str | None = Field(
        description="The cursor of the following page, in the same direction. With filters a page may be short, even "
        "empty, and yet have more behind it."
    )


WebhookFormat = Literal["native", "postmark", "sendgrid", "mailgun"]


class WebhookCreated(Answer):
    object: Literal["webhook"]
    id: str
    signing_secret: str


class WebhookLine(Answer):
    id: str
    created_at: str
    status: Literal["enabled", "disabled"]
    endpoint: str
    events: list[str] = Field(description="Empty: all but the opt-in ones.")
    format: WebhookFormat
    basic_auth: bool = Field(description="A user and a password go along; they are shown to nobody.")
    disabled_reason: str = Field(description="Why it is off; empty while it is on.")
    failing_since: str | None = Field(description="The first failure since the last 2xx.")


class Webhook(WebhookLine):
    object: Literal["webhook"]
    signing_secret: str


class WebhookChanged(Answer):
    object: Literal["webhook"]
    id: str


class WebhookTested(Answer):
    object: Literal["webhook_event"]
    id: str = Field(description="The event's id; it is told to this endpoint alone.")


class WebhookReplayed(Answer):
    object: Literal["webhook_replay"]
    replayed: int = Field(description="Events that are due now; those that waited already are not counted.")
    has_more: bool = Field(description="A replay is bounded: ask again, for a window from `next_from` on.")
    next_from: str | None


WebhookEventStatus = Literal["pending", "attempting", "success", "failed"]


class WebhookEventLine(Answer):
    """One event of one endpoint. `attempting`: it failed and is tried again."""

    id: str
    type: str
    created_at: str
    status: WebhookEventStatus
    tries: int = Field(description="Since it was first told, or last replayed.")
    next_attempt_at: str | None


class WebhookEvent(WebhookEventLine):
    object: Literal["webhook_event"]
    payload: dict[str, Any] = Field(description="The body, as it is signed.")


class WebhookEventList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[WebhookEventLine]


class WebhookAttempt(Answer):
    """One POST and what came back."""

    id: str
    http_status_code: int | None = Field(description="Null where no complete answer came; `error` says why.")
    response: str = Field(description="The first 2 KB of the answer's body.")
    sent_at: str
    elapsed_ms: int
    error: str
    endpoint: str = Field(description="Where it went.")
    address: str = Field(description="The IP address that the URL was pinned to.")


class WebhookAttemptList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[WebhookAttempt]


class EventTold(Answer):
    """The body of a webhook, and the event's id (`msg_` and this is the `webhook-id` header)."""

    id: str
    type: str
    created_at: str
    data: dict[str, Any]


class EventPage(Answer):
    object: Literal["list"]
    has_more: bool
    next: str | None = Field(description="The cursor: `after` of the next request, also when `data` is empty.")
    data: list[EventTold]


class WebhookDeleted(Answer):
    object: Literal["webhook"]
    id: str
    deleted: Literal[True]


class WebhookList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[WebhookLine]


class SuppressionLine(Answer):
    id: str
    email: str
    origin: Literal["bounce", "complaint", "manual"]
    source_id: str | None
    created_at: str
    reason: str = Field(description="bounce, complaint, unsubscribe, manual or import.")
    stream: str = Field(description="`*` is every stream.")
    detail: str = Field(description="The reply, report or words that led here.")
    expires_at: str | None


class Suppression(SuppressionLine):
    object: Literal["suppression"]


class SuppressionAdded(Answer):
    object: Literal["suppression"]
    id: str


class SuppressionRemoved(SuppressionAdded):
    deleted: Literal[True]


class SuppressionsAdded(Answer):
    data: list[SuppressionAdded]


class SuppressionsRemoved(Answer):
    data: list[SuppressionRemoved]


class SuppressionList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[SuppressionLine]


class ErasureLine(Answer):
    id: str
    status: Literal["asked", "running", "waiting", "done"] = Field(
        description="waiting: some mails are still to leave to somebody else, or to be read; it goes on by itself."
    )
    suppressions: Literal["keep", "drop"]
    found: dict[str, int] = Field(description="By kind: rows that went, or that lost the address.")
    waiting: int
    created_at: str
    done_at: str | None


class Erasure(ErasureLine):
    object: Literal["erasure"]


class ErasureList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[ErasureLine]


class Live(Answer):
    status: Literal["ok"]


class Ready(Answer):
    status: Literal["ok", "waiting"]
    parts: dict[str, str] = Field(description="`ok`, or why the part does not answer.")


class VariableOut(Answer):
    key: str
    type: str
    fallback_value: Any


class TemplateLine(Answer):
    id: str
    name: str
    alias: str | None
    status: Literal["draft", "published"]
    created_at: str
    updated_at: str
    published_at: str | None


class TemplateList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[TemplateLine]


class Template(TemplateLine):
    """The draft; `status` says whether a version of it is sent from."""

    object: Literal["template"]
    current_version_id: str | None = Field(description="The version that mails are sent from.")
    has_unpublished_versions: bool = Field(description="Whether the draft differs from that version.")
    from_: str | None = Field(alias="from")
    subject: str | None
    reply_to: list[str] | None
    html: str | None
    text: str | None
    variables: list[VariableOut]
    language: Literal["native", "handlebars", "mustachio"]
    redact: Literal["content", "everything"] | None = Field(description="What its mails do not keep.")


class TemplateChanged(Answer):
    object: Literal["template"]
    id: str


class TemplateDeleted(TemplateChanged):
    deleted: Literal[True]


class TemplatePreview(Answer):
    object: Literal["template_preview"]
    id: str
    subject: str | None
    html: str | None
    text: str | None
    missing_variables: list[str] = Field(description="They have no fallback, and stand there as their keys.")


class LogLine(Answer):
    id: str
    request_id: str = Field(description="The `X-Request-Id` of the answer: the request's own where it had one.")
    created_at: str
    endpoint: str
    method: str
    response_status: int
    user_agent: str
    duration_ms: int
    api_key_id: str


class LogList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[LogLine]


class Log(LogLine):
    object: Literal["log"]
    request_body: Any = Field(description="An outline: long texts cut, without secrets and files.")
    response_body: Any
