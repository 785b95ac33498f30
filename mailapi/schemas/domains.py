"""Shapes of /domains: what is asked, what is answered, and their description."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from django.conf import settings
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from pydantic import Field, PlainValidator, StrictBool, WithJsonSchema

from deliveries.domains import MOST_STREAMS
from deliveries.models import SendingDomain
from deliveries.read.domains import TLS_WORDS
from deliveries.routing.published import domain_name
from mailapi.schemas.answers import Answer
from mailapi.schemas.faults import Shape, fault
from mailapi.schemas.openapi import _answers as answers
from mailapi.schemas.openapi import _list as listing
from mailapi.schemas.options import REDACTED, Redact, Stream

#: RFC 1035 §2.3.1, and Resend's rule: begins with a letter
_LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
#: Resend's words and ours → what is kept
_TLS: dict[str, str] = {word: tls.value for tls, word in TLS_WORDS.items()} | {
    t.value: t.value for t in SendingDomain.Tls
}


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise fault("wrong_type", "Must be a string such as example.com.")
    try:
        return domain_name(value, invented=settings.SANDBOX)
    except ValueError as e:
        raise fault("invalid_domain", str(e)) from None


def _label(value: Any) -> str:
    label = value.lower() if isinstance(value, str) else ""
    if not _LABEL.fullmatch(label):
        raise fault("invalid_label", "Must be one label: a letter first, then letters, digits and hyphens; 63 at most.")
    return label


def _tls(value: Any) -> str:
    if not isinstance(value, str) or value not in _TLS:
        raise fault("invalid_parameter", "Must be opportunistic, enforced or verify.")
    return _TLS[value]


_Label = Annotated[
    str,
    PlainValidator(_label),
    WithJsonSchema({"type": "string", "pattern": r"^[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$"}),
]
_Tls = Annotated[str, PlainValidator(_tls), WithJsonSchema({"type": "string", "enum": sorted(_TLS)})]


class Capabilities(Shape):
    """Known from Resend. Every domain sends; one that has receiving addresses (panel) receives."""

    sending: Literal["enabled"] | None = None
    receiving: Literal["disabled"] | None = None


class UpdateDomain(Shape):
    """What is not there stays as it is."""

    capabilities: Capabilities | None = Field(default=None, description="Without effect; what is not so is refused.")
    open_tracking: StrictBool | None = None
    click_tracking: StrictBool | None = None
    unsubscribe_streams: Annotated[tuple[Stream, ...], Field(max_length=MOST_STREAMS)] | None = Field(
        default=None, description="Streams whose mails can be left with one click where a mail does not say it."
    )
    redact_streams: Annotated[dict[Stream, Redact], Field(max_length=MOST_STREAMS)] | None = Field(
        default=None, description="`{stream: content | everything}`, of its mails. " + REDACTED
    )
    tls: _Tls | None = Field(
        default=None,
        description="opportunistic (may): STARTTLS where it is offered. enforced (must): encrypted or not at all. "
        "verify: and the certificate names the MX host.",
    )
    custom_return_path: _Label | None = Field(default=None, description="The label below the domain that gets bounces.")
    tracking_subdomain: _Label | None = Field(default=None, description="The label below the domain of tracking links.")
    dkim_ed25519: StrictBool | None = Field(
        default=None,
        description="A second DKIM signature (RFC 8463) beside the RSA one, with a key and a record of its own; made "
        "while that record is seen.",
    )

    def wishes(self) -> dict[str, Any]:
        """By column; what was not asked for is missing."""
        asked = {
            "open_tracking": self.open_tracking,
            "click_tracking": self.click_tracking,
            "unsubscribe_streams": None if (named := self.unsubscribe_streams) is None else sorted(set(named)),
            "redact_streams": self.redact_streams,
            "tls": self.tls,
            "return_path": self.custom_return_path,
            "tracking_label": self.tracking_subdomain,
            "dkim_ed25519": self.dkim_ed25519,
        }
        return {name: value for name, value in asked.items() if value is not None}


class CreateDomain(UpdateDomain):
    """A domain to send from."""

    name: Annotated[str, PlainValidator(_name), WithJsonSchema({"type": "string", "example": "example.com"})]
    region: Annotated[str, Field(max_length=40)] | None = Field(
        default=None, description="Known from Resend; without effect, since everything is where you installed it."
    )


Standing = Literal["not_started", "pending", "verified", "failed", "temporary_failure"]


class RecordOut(Answer):
    """One record to publish, and what DNS says of it."""

    record: Literal["DKIM", "SPF", "DMARC", "Tracking"]
    name: str = Field(description="Below the registered domain, as DNS providers ask for it.")
    type: Literal["TXT", "MX", "CNAME"]
    value: str
    ttl: str
    priority: int = Field(0, description="Of an MX.")
    status: Standing = Field(description="temporary_failure: DNS could not be asked, which says nothing.")
    fqdn: str = Field(description="The whole name.")
    required: bool = Field(description="Without it the domain may not send.")
    found: list[str] = Field(description="What stands there.")
    advice: str = Field(description="What to change; empty where all is well.")


class CapabilitiesOut(Answer):
    sending: Literal["enabled"]
    receiving: Literal["enabled", "disabled"] = Field(description="enabled: it has receiving addresses.")


class DomainLine(Answer):
    id: str
    name: str
    status: Standing
    created_at: str
    region: str
    capabilities: CapabilitiesOut


class Domain(DomainLine):
    object: Literal["domain"]
    records: list[RecordOut]
    open_tracking: bool
    click_tracking: bool
    unsubscribe_streams: list[str]
    redact_streams: dict[str, Redact]
    tracking_subdomain: str
    dkim_ed25519: bool = Field(description="A second DKIM signature is wanted; made while its record is seen.")
    tls: Literal["opportunistic", "enforced", "verify"]
    custom_return_path: str
    return_path_status: Literal["verified", "pending"] = Field(description="verified: bounces go there.")
    verified_at: str | None
    missing_since: str | None = Field(description="Since then its DKIM record is missing; 72 hours later it fails.")
    checked_at: str | None
    next_check_at: str | None = Field(description="When it is looked at again by itself.")


class DomainList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[DomainLine]


class DomainDeleted(Answer):
    object: Literal["domain"]
    id: str
    deleted: Literal[True]


class ClaimRecord(Answer):
    type: Literal["TXT"]
    name: str
    value: str
    ttl: str


class DomainClaim(Answer):
    """A domain goes over to this account, whoever had it verified, once its DNS says so."""

    object: Literal["domain_claim"]
    id: str
    name: str
    status: Literal["pending", "verified", "completed", "expired"] = Field(
        description="verified: its record was seen; completed: the DKIM record too, and the domain went over."
    )
    domain_id: str = Field(description="The domain, with the DKIM record that is to be published as well.")
    region: str
    record: ClaimRecord
    blocked_reason: None
    failure_reason: None
    created_at: str
    expires_at: str


_DOMAIN_ID = OpenApiParameter("domain_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
_TAG = ["domains"]
describe_domains = extend_schema_view(
    get=listing("domains", "listDomains", DomainList, "domains"),
    post=extend_schema(
        operation_id="createDomain", summary="Add a domain", tags=_TAG, request=CreateDomain,
        responses=answers(Domain, 400, 413, 422, status=201),
        description="`records` says what to publish in its DNS zone; then verify it.",
    ),
)  # fmt: skip
describe_domain = extend_schema_view(
    get=extend_schema(
        operation_id="getDomain", summary="A domain, its records and what DNS says of them", tags=_TAG, request=None,
        parameters=[_DOMAIN_ID], responses=answers(Domain, 404),
    ),
    patch=extend_schema(
        operation_id="updateDomain", summary="Change a domain", tags=_TAG, request=UpdateDomain,
        parameters=[_DOMAIN_ID], responses=answers(Domain, 400, 404, 413, 422),
    ),
    delete=extend_schema(
        operation_id="deleteDomain", summary="Remove a domain", tags=_TAG, request=None, parameters=[_DOMAIN_ID],
        responses=answers(DomainDeleted, 404),
        description="With its DKIM keys, receiving addresses and the API keys that are restricted to it. Mail of it "
        "that still waits fails.",
    ),
)  # fmt: skip
describe_domain_verify = extend_schema_view(
    post=extend_schema(
        operation_id="verifyDomain", summary="Look at its records now", tags=_TAG, request=None,
        parameters=[_DOMAIN_ID], responses=answers(Domain, 400, 404, 413, 422),
        description="Takes up to some seconds. From then on it is looked at by itself; `domain.updated` tells changes.",
    ),
)  # fmt: skip
describe_domain_rotate = extend_schema_view(
    post=extend_schema(
        operation_id="rotateDkim", summary="A new DKIM key", tags=_TAG, request=None, parameters=[_DOMAIN_ID],
        responses=answers(Domain, 400, 404, 413, 422),
        description="Publish its record; once it is seen the key signs, and the old one's record may go after 7 days. "
        "With `dkim_ed25519` there is a new key of each type, and each turns by itself.",
    ),
)  # fmt: skip
describe_claims = extend_schema_view(
    post=extend_schema(
        operation_id="claimDomain", summary="Claim a domain that another account has verified", tags=_TAG,
        request=CreateDomain, responses=answers(DomainClaim, 400, 413, 422, status=201),
        description="Adds the domain where you do not have it. Publish `record` and the domain's DKIM record.",
    ),
)  # fmt: skip
describe_claim = extend_schema_view(
    get=extend_schema(
        operation_id="getDomainClaim", summary="How a claim stands", tags=_TAG, request=None, parameters=[_DOMAIN_ID],
        responses=answers(DomainClaim, 404),
    ),
)  # fmt: skip
describe_claim_verify = extend_schema_view(
    post=extend_schema(
        operation_id="verifyDomainClaim", summary="Look for the records of a claim now", tags=_TAG, request=None,
        parameters=[_DOMAIN_ID], responses=answers(DomainClaim, 400, 404, 413, 422),
    ),
)  # fmt: skip
