"""POST /emails/check: what is answered, and its description."""

from __future__ import annotations

from datetime import datetime
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


class MtaStsOut(Answer):
    mode: Literal["enforce", "testing", "none", "published", "not_known"] = Field(
        description="RFC 8461. published: there is a policy, which is fetched with the first mail and not for a check."
    )
    covers: bool | None = Field(description="Whether the policy names every MX host; null where that is not known.")


class LastTlsOut(Answer):
    host: str
    worked: bool = Field(description="False: the mail went, or was to go, in clear.")
    version: str = Field(description="Such as TLSv1.3; empty in clear.")
    verified: bool = Field(description="The certificate was one that counts for the host.")
    at: datetime


class RouteOut(Answer):
    domain: str
    site: str = Field(description="The receiver as its mail is paced, such as google.com; empty without a way.")
    hosts: list[str] = Field(description="MX hosts in the order in which they would be tried, up to five.")
    tls: str
    reason: str = Field(description="Why there is no way; empty where there is one.")
    mx: Literal["found", "implicit", "null", "none", "fixed", "not_known"] = Field(
        description="implicit: no MX, the domain itself takes mail (RFC 5321 §5.1). null: it takes none (RFC 7505). "
        "fixed: a route of this installation, DNS is not asked."
    )
    mta_sts: MtaStsOut
    dane: Literal["all", "some", "none", "not_known"] = Field(
        description="Hosts bound by validated TLSA records (RFC 7672); not_known without a nameserver that validates."
    )
    last_tls: LastTlsOut | None = Field(
        description="How TLS went in this account's last conversation with one of the hosts; null where there was none."
    )


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
        "state of the sender domain, which is an objection. DNS is asked for 8 s at most; no receiver is spoken to: "
        "what is told of one comes from DNS and this account's own mail.",
    )
)  # fmt: skip
