"""POST /webhooks."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import InitErrorDetails

from deliveries.errors import Fault
from deliveries.states import EventType
from mailapi.schemas.faults import Shape, fault

_KNOWN = sorted(str(event) for event in EventType)


def _events(value: list[str]) -> list[str]:
    wrong = [
        InitErrorDetails(
            type=fault("unknown_event", f"There is no such event; known are {', '.join(_KNOWN)}."), loc=(i,), input=None
        )
        for i, name in enumerate(value)
        if name not in _KNOWN
    ]
    if wrong:
        raise ValidationError.from_exception_data("events", wrong)
    return value


class CreateWebhook(Shape):
    """A URL that hears events. `endpoint` is Resend's word; `url` is taken too."""

    endpoint: Annotated[str, Field(max_length=2000)] | None = None
    url: Annotated[str, Field(max_length=2000)] | None = None
    events: Annotated[
        list[str],
        Field(max_length=50, json_schema_extra={"items": {"type": "string", "enum": _KNOWN}}),
        AfterValidator(_events),
    ] = Field(default=[], description="Empty: all but the opt-in ones.")


def across_fields(data: dict[str, Any]) -> list[Fault]:
    given = [name for name in ("endpoint", "url") if data.get(name) is not None]
    if not given:
        return [Fault("endpoint", "missing_required_field", "Missing `endpoint` field; it is required.")]
    if len(given) == 2:
        return [Fault("url", "invalid_parameter", "Use either endpoint or url.")]
    return []
