"""When a mail is to leave (ISO 8601 or words), and by when it must have arrived."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from mailapi.schemas import phrases
from mailapi.schemas.faults import fault

MAX_SCHEDULE = timedelta(days=30)

_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")
#: a date of digits: `2026-12-24 at 9am` and `2026-12-24 21:30 ET` are words
_LIKE_ISO = re.compile(r"\d{4}-\d\d-\d\d(?:T|$| \d\d:\d\d(?!.*[A-Za-z]{2}))")


def moment(value: Any) -> datetime:
    """RFC 3339 with a zone → UTC; anything else is a fault."""
    try:
        if not isinstance(value, str) or not _ISO.match(value):
            raise ValueError
        at = datetime.fromisoformat(value)
    except ValueError:
        raise fault("invalid_time", "Write the time in ISO 8601, such as 2030-01-31T09:00:00Z.") from None
    if at.tzinfo is None:
        raise fault("invalid_time", "The time has no zone; end it with Z or an offset such as +02:00.")
    try:
        return at.astimezone(UTC)
    except OverflowError:  # the years 1 and 9999
        return at.replace(tzinfo=UTC)


def _when(value: Any) -> datetime | None:
    """A time that has passed means now; one in words is none, since it may have been meant otherwise."""
    if not isinstance(value, str):
        raise fault("wrong_type", "Must be a string such as 2030-01-31T09:00:00Z or `tomorrow at 9am ET`.")
    now = datetime.now(UTC)
    at = moment(value) if _LIKE_ISO.match(value) else _words(value, now)
    if at <= now:
        return None
    if at - now > MAX_SCHEDULE:
        raise fault("invalid_time", f"A mail can be scheduled up to {MAX_SCHEDULE.days} days ahead.")
    return at


def _words(value: str, now: datetime) -> datetime:
    try:
        at = phrases.moment(value, now)
    except ValueError as why:
        message = f"The time is not understood: {why}. Or write it in ISO 8601, such as 2030-01-31T09:00:00Z."
        raise fault("invalid_time", message) from None
    if at < now:
        raise fault("invalid_time", "That time has passed; name one that is to come, or leave it out.")
    return at


def _end(value: Any) -> datetime | timedelta:
    """A moment that is to come, or a length of time from when the mail is due."""
    longest = int(MAX_SCHEDULE.total_seconds())
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= longest:
            raise fault("invalid_time", f"Must be 1 to {longest} seconds, or a time such as 2030-01-31T09:00:00Z.")
        return timedelta(seconds=value)
    if not isinstance(value, str):
        raise fault("wrong_type", "Must be a number of whole seconds, or a time such as 2030-01-31T09:00:00Z.")
    at, now = moment(value), datetime.now(UTC)
    if at <= now:
        raise fault("invalid_time", "The time has passed, so the mail could only expire; name a later one.")
    if at - now > 2 * MAX_SCHEDULE:
        raise fault("invalid_time", f"Must be at most {2 * MAX_SCHEDULE.days} days ahead.")
    return at


When = Annotated[
    datetime | None,
    PlainValidator(_when),
    WithJsonSchema(
        {
            "type": "string",
            "description": "ISO 8601 with a zone, or words: `in 5 minutes`, `tomorrow at 9am`, `Friday at 3pm ET` (UTC "
            "where no zone is named). Up to 30 days ahead.",
            "examples": ["2030-01-31T09:00:00Z", "in 1 hour"],
        }
    ),
]
End = Annotated[
    datetime | timedelta,
    PlainValidator(_end),
    WithJsonSchema({
        "oneOf": [
            {"type": "integer", "minimum": 1, "maximum": int(MAX_SCHEDULE.total_seconds())},
            {"type": "string", "format": "date-time"},
        ],
        "description": "A time with a zone, or seconds from when the mail is due. What has not been delivered by then "
        "never leaves: the event is `email.expired`.",
    }),
]  # fmt: skip
