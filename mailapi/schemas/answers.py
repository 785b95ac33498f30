"""What the API answers. The views write these from read models; tests hold every answer against its shape."""

from __future__ import annotations

from typing import Literal

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
    tags: list[TagOut]
    deliveries: list[DeliveryOut]


class EmailList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[EmailLine]


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


class Webhook(WebhookLine):
    object: Literal["webhook"]
    signing_secret: str


class WebhookDeleted(Answer):
    object: Literal["webhook"]
    id: str
    deleted: Literal[True]


class WebhookList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[WebhookLine]


class DomainLine(Answer):
    id: str
    name: str
    status: Literal["verified", "pending"]
    created_at: str
    region: str


class DomainList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[DomainLine]


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


class Live(Answer):
    status: Literal["ok"]


class Ready(Answer):
    status: Literal["ok", "waiting"]
    parts: dict[str, str] = Field(description="`ok`, or why the part does not answer.")
