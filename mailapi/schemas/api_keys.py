"""Shapes of /api-keys: what is asked, what is answered, and their description."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from pydantic import AfterValidator, Field, PlainValidator, StrictBool, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from deliveries.errors import Fault
from deliveries.keys import MOST_REQUESTS, network
from mailapi.schemas.answers import Answer
from mailapi.schemas.faults import Shape, fault
from mailapi.schemas.openapi import _answers as answers
from mailapi.schemas.openapi import _list as listing
from mailapi.schemas.times import moment as moment_of

MOST_NETWORKS = 50
Permission = Literal["owner_access", "full_access", "sending_access", "read_access"]


def _name(value: str) -> str:
    if not value.strip() or not value.isprintable():
        raise fault("invalid_parameter", "Must be one line of text that tells what the key is for.")
    return value.strip()


def _network(value: Any) -> str:
    if not isinstance(value, str):
        raise fault("wrong_type", "Must be a string such as 203.0.113.0/24.")
    try:
        return network(value)
    except ValueError as e:
        raise fault("invalid_network", str(e)) from None


def _networks(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise fault("wrong_type", "Must be a list.")
    if len(value) > MOST_NETWORKS:
        raise fault("too_many", f"Has {len(value)} elements; {MOST_NETWORKS} are allowed.")
    found, wrong = [], []
    for i, text in enumerate(value):
        try:
            found.append(_network(text))
        except PydanticCustomError as e:
            wrong.append(InitErrorDetails(type=e, loc=(i,), input=None))
    if wrong:
        raise ValidationError.from_exception_data("ip_allow", wrong)
    return list(dict.fromkeys(found))


def _rate(value: Any) -> int:
    if type(value) is not int:
        raise fault("wrong_type", "Must be a whole number of requests a second.")
    if not 1 <= value <= MOST_REQUESTS:
        raise fault("invalid_parameter", f"Must be from 1 to {MOST_REQUESTS} requests a second, or null.")
    return value


def _end(value: Any) -> datetime:
    if not isinstance(value, str):
        raise fault("wrong_type", "Must be a string such as 2030-01-31T09:00:00Z.")
    moment = moment_of(value)
    if moment <= datetime.now(UTC):
        raise fault("invalid_time", "That time has passed; leave it out for a key without end.")
    return moment


def _domain_id(value: Any) -> UUID:
    try:
        return UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise fault("invalid_id", "Must be the id of a domain, a UUID.") from None


_Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_name)]
_DomainId = Annotated[UUID, PlainValidator(_domain_id), WithJsonSchema({"type": "string", "format": "uuid"})]
_End = Annotated[datetime, PlainValidator(_end), WithJsonSchema({"type": "string", "format": "date-time"})]
_Rate = Annotated[
    int, PlainValidator(_rate), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MOST_REQUESTS})
]
_Networks = Annotated[
    list[str],
    PlainValidator(_networks),
    WithJsonSchema({"type": "array", "items": {"type": "string"}, "maxItems": MOST_NETWORKS}),
]


class CreateApiKey(Shape):
    """A key, and what it may do."""

    name: _Name
    permission: Permission = Field(
        default="full_access",
        description="owner_access (ours): also POST /erasures; only such a key gives it on. read_access (ours): GET "
        "alone, and no signing secrets.",
    )
    domain_id: _DomainId | None = Field(
        default=None, description="Sends from this domain only; goes with sending_access."
    )
    ip_allow: _Networks = Field(default=[], description="Addresses and networks it may be used from; empty: all.")
    expires_at: _End | None = Field(default=None, description="Refused from then on.")
    rate_limit: _Rate | None = Field(
        default=None, description="Requests a second; null: as many as the installation allows a key."
    )
    test: StrictBool = Field(
        default=False,
        description="`re_test_…`: what it sends goes to the receiver lab, whatever the recipient; no domain has to be "
        "verified.",
    )

    def limits(self) -> dict[str, Any]:
        """As keys.create() takes them."""
        return {
            "domain_id": self.domain_id, "networks": self.ip_allow, "test": self.test, "expires_at": self.expires_at,
            "rate_limit": self.rate_limit,
        }  # fmt: skip


class UpdateApiKey(Shape):
    """What is not there stays as it is."""

    resets: ClassVar[frozenset[str]] = frozenset({"rate_limit"})

    name: _Name | None = None
    ip_allow: _Networks | None = None
    rate_limit: _Rate | None = Field(default=None, description="null: as many as the installation allows a key.")

    def wishes(self) -> dict[str, Any]:
        """By column; what was not asked for is missing."""
        asked: dict[str, Any] = {"name": self.name, "networks": self.ip_allow}
        limit = {"rate_limit": self.rate_limit} if "rate_limit" in self.model_fields_set else {}
        return {name: value for name, value in asked.items() if value is not None} | limit


def across_fields(data: dict[str, Any]) -> list[Fault]:
    if data.get("domain_id") is not None and data.get("permission") != "sending_access":
        return [Fault("domain_id", "invalid_parameter", "Goes with permission sending_access.")]
    return []


class ApiKeyCreated(Answer):
    id: str
    token: str = Field(description="Shown this once; only its hash is kept.")


class ApiKeyLine(Answer):
    id: str
    name: str
    created_at: str
    last_used_at: str | None = Field(description="To a minute.")
    permission: Permission
    domain_id: str | None
    prefix: str = Field(description="How the key begins.")
    ip_allow: list[str]
    rate_limit: int | None = Field(description="Requests a second; null: as many as the installation allows a key.")
    test: bool
    expires_at: str | None
    suspended: bool = Field(description="By the operator: refused, and its mail held, until released.")


class ApiKeyList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[ApiKeyLine]


class ApiKeyChanged(Answer):
    object: Literal["api_key"]
    id: str


class ApiKeyDeleted(ApiKeyChanged):
    deleted: Literal[True]


_KEY_ID = OpenApiParameter("key_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
_TAG = ["api-keys"]
describe_api_keys = extend_schema_view(
    get=listing("API keys", "listApiKeys", ApiKeyList, "api-keys"),
    post=extend_schema(
        operation_id="createApiKey", summary="Make an API key", tags=_TAG, request=CreateApiKey,
        responses=answers(ApiKeyCreated, 400, 413, 422, status=201),
        description="It can do no more than the key that makes it: networks, end, rate and test are handed on.",
    ),
)  # fmt: skip
describe_api_key = extend_schema_view(
    patch=extend_schema(
        operation_id="updateApiKey", summary="Rename an API key, or change where and how often it is used",
        tags=_TAG, request=UpdateApiKey, parameters=[_KEY_ID], responses=answers(ApiKeyChanged, 400, 404, 413, 422),
    ),
    delete=extend_schema(
        operation_id="deleteApiKey", summary="Revoke an API key", tags=_TAG, request=None, parameters=[_KEY_ID],
        responses=answers(ApiKeyDeleted, 404),
        description="It sends nothing from this moment on, and is refused everywhere within five seconds.",
    ),
)  # fmt: skip
