"""POST /emails/check: what is answered, and its description."""

from __future__ import annotations

from typing import Literal

from drf_spectacular.utils import extend_schema, extend_schema_view
from pydantic import Field

from mailapi.schemas.answers import Answer
from mailapi.schemas.emails import SendEmail
from mailapi.schemas.openapi import _answers as answers_of


class RecipientOut(Answer):
    address: str
    field: Literal["to", "cc", "bcc"]
    status: Literal["queued", "suppressed"]


class RouteOut(Answer):
    domain: str
    site: str = Field(description="The receiver as its mail is paced, such as google.com; empty without a way.")
    hosts: list[str] = Field(description="MX hosts in the order in which they would be tried, up to five.")
    tls: str
    reason: str = Field(description="Why there is no way; empty where there is one.")


class ObjectionOut(Answer):
    level: Literal["error", "warning", "advice"] = Field(description="error: it would not arrive so.")
    code: str
    field: str
    message: str


class EmailCheck(Answer):
    object: Literal["email_check"]
    sendable: bool = Field(description="No objection is an error.")
    mails: int = Field(description="With `merge` one for each recipient.")
    size: int = Field(description="Octets of the largest, as composed, before its signature.")
    recipients: list[RecipientOut]
    routes: list[RouteOut]
    objections: list[ObjectionOut]


describe_check = extend_schema_view(
    post=extend_schema(
        operation_id="checkEmail", summary="What would become of this mail?", tags=["emails"], request=SendEmail,
        responses=answers_of(EmailCheck, 400, 413, 422),
        description="Nothing is stored or sent. What POST /emails would refuse is refused here alike, but for the "
        "state of the sender domain, which is an objection. DNS is asked for 8 s at most; no receiver is spoken to.",
    )
)  # fmt: skip
