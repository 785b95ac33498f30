"""POST and PATCH of /webhooks, and what may be asked of one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails

from deliveries.endpoints import MOST_OVERLAP, OVERLAP
from deliveries.errors import Fault
from deliveries.states import EventType
from mailapi.schemas.faults import Shape, fault
from mailapi.schemas.times import moment

KNOWN = sorted(str(event) for event in EventType)
_MOST_HOURS = MOST_OVERLAP // timedelta(hours=1)


def unknown_event(field: str) -> Fault:
    return Fault(field, "unknown_event", f"There is no such event; known are {', '.join(KNOWN)}.")


def _events(value: list[str]) -> list[str]:
    wrong = [
        InitErrorDetails(type=fault("unknown_event", unknown_event("").message), loc=(i,), input=None)
        for i, name in enumerate(value)
        if name not in KNOWN
    ]
    if wrong:
        raise ValidationError.from_exception_data("events", wrong)
    return value


def _id(value: Any) -> UUID:
    try:
        return UUID(value)
    except (ValueError, TypeError, AttributeError):
        raise fault("invalid_id", "Must be the id of an event, a UUID.") from None


def _hours(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST_HOURS:
        raise fault("invalid_parameter", f"Must be a whole number from 0 to {_MOST_HOURS}.")
    return value


def _flag(value: Any) -> bool:
    if value is not True:
        raise fault("invalid_parameter", "Must be true, or not be there.")
    return True


_URL = "May carry user:password@ before the host, which are kept apart and sent as Basic authentication."
Url = Annotated[str, Field(max_length=2000, description=_URL)]
Events = Annotated[
    list[str],
    Field(max_length=50, json_schema_extra={"items": {"type": "string", "enum": KNOWN}}),
    AfterValidator(_events),
]
Moment = Annotated[datetime, PlainValidator(moment), WithJsonSchema({"type": "string", "format": "date-time"})]


class CreateWebhook(Shape):
    """A URL that hears events. `endpoint` is Resend's word; `url` is taken too."""

    endpoint: Url | None = None
    url: Url | None = None
    events: Events = Field(default=[], description="Empty: all but the opt-in ones.")
    format: Literal["native", "postmark", "sendgrid", "mailgun"] = Field(
        default="native",
        description="The body and signature of another service, for a receiver that was written for it. Of sendgrid "
        "the `signing_secret` is the public key.",
    )


class UpdateWebhook(Shape):
    """What is not there stays as it is. `enabled` forgets earlier failures."""

    endpoint: Url | None = None
    url: Url | None = None
    events: Events | None = Field(default=None, description="Empty: all but the opt-in ones.")
    status: Literal["enabled", "disabled"] | None = None


class RotateSecret(Shape):
    overlap_hours: Annotated[
        int,
        PlainValidator(_hours),
        WithJsonSchema({"type": "integer", "minimum": 0, "maximum": _MOST_HOURS}),
    ] = Field(
        default=OVERLAP // timedelta(hours=1),
        description="So long the secret before signs beside the new one; 0 ends it now.",
    )


class ReplayWebhook(Shape):
    """One event, or a window, or all that failed."""

    event_id: Annotated[UUID, PlainValidator(_id), WithJsonSchema({"type": "string", "format": "uuid"})] | None = None
    from_: Moment | None = Field(default=None, alias="from", description="The window's beginning, included.")
    to: Moment | None = Field(default=None, description="Its end, not included; without it now.")
    failed: Annotated[bool, PlainValidator(_flag), WithJsonSchema({"const": True})] | None = None


def across_fields(data: dict[str, Any]) -> list[Fault]:
    if not any(data.get(name) is not None for name in ("endpoint", "url")):
        return [Fault("endpoint", "missing_required_field", "Missing `endpoint` field; it is required.")]
    return one_url(data)


def one_url(data: dict[str, Any]) -> list[Fault]:
    if all(data.get(name) is not None for name in ("endpoint", "url")):
        return [Fault("url", "invalid_parameter", "Use either endpoint or url.")]
    return []


def one_kind(data: dict[str, Any]) -> list[Fault]:
    """Which events are to be told again is said in one way."""
    kinds = [name for name in ("event_id", "from", "failed") if data.get(name) is not None]
    if len(kinds) != 1:
        return [Fault("", "invalid_parameter", "Use one of event_id, from (with to) and failed.")]
    if data.get("to") is not None and kinds != ["from"]:
        return [Fault("to", "invalid_parameter", "Goes with from.")]
    return []
