"""POST /suppressions, /suppressions/batch/add and /suppressions/batch/remove."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, Field, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails, PydanticCustomError

from deliveries.errors import Fault
from deliveries.mime.address import folded, parse_address
from deliveries.states import STREAM
from mailapi.schemas.faults import Shape, fault
from mailapi.schemas.options import StreamOrAll
from mailapi.schemas.times import moment

MAX_BATCH = 100


def address_of(value: Any) -> str:
    if not isinstance(value, str):
        raise fault("wrong_type", "Must be a string such as ann@example.com.")
    try:
        return folded(parse_address(value.strip()).addr_spec)
    except ValueError as e:
        raise fault("invalid_address", str(e)) from None


def _addresses(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise fault("wrong_type", "Must be a list.")
    if not 1 <= len(value) <= MAX_BATCH:
        raise fault("too_many" if value else "too_short", f"Has {len(value)} elements; 1 to {MAX_BATCH} are allowed.")
    found, wrong = [], []
    for i, text in enumerate(value):
        try:
            found.append(address_of(text))
        except PydanticCustomError as e:
            wrong.append(InitErrorDetails(type=e, loc=(i,), input=None))
    if wrong:
        raise ValidationError.from_exception_data("emails", wrong)
    return found


def _in_future(value: Any) -> datetime:
    at = moment(value)
    if at <= datetime.now(UTC):
        raise fault("invalid_time", "The time has passed; leave it out for a suppression without end.")
    return at


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise fault("control_character", "The text contains NUL (U+0000); remove it.")
    return value


_Email = Annotated[str, PlainValidator(address_of), WithJsonSchema({"type": "string", "format": "email"})]
_Emails = Annotated[
    list[str],
    PlainValidator(_addresses),
    WithJsonSchema(
        {"type": "array", "items": {"type": "string", "format": "email"}, "minItems": 1, "maxItems": MAX_BATCH}
    ),
]


class _Terms(Shape):
    stream: StreamOrAll = Field(
        default="*",
        description="Mail of this stream only; `*` is every stream.",
        json_schema_extra={"pattern": rf"^(\*|{STREAM.pattern})$"},
    )
    detail: Annotated[str, Field(max_length=1000), AfterValidator(_no_nul)] = Field(
        default="", description="Why, in words."
    )
    expires_at: Annotated[
        datetime | None, PlainValidator(_in_future), WithJsonSchema({"type": "string", "format": "date-time"})
    ] = Field(default=None, description="When mail goes there again; absent: never.")


class AddSuppression(_Terms):
    """An address that gets no mail from now on."""

    email: _Email


class AddSuppressions(_Terms):
    """Up to 100 addresses at once."""

    emails: _Emails


class RemoveSuppressions(Shape):
    """By address or by id; what is not on the list is passed over."""

    emails: _Emails | None = None
    ids: Annotated[list[UUID], Field(min_length=1, max_length=MAX_BATCH)] | None = None


def one_of_both(data: dict[str, Any]) -> list[Fault]:
    given = [name for name in ("emails", "ids") if data.get(name) is not None]
    if not given:
        return [Fault("emails", "missing_required_field", "Missing `emails` field; give it or `ids`.")]
    if len(given) == 2:
        return [Fault("ids", "invalid_parameter", "Use either emails or ids.")]
    return []
