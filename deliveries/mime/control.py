"""Header fields of a raw mail that speak to us: taken out before it leaves, and read into what the API's fields say.

| field | as in the API |
|---|---|
| `X-Tag`, `X-PM-Tag` (repeatable), `X-Tags` (by comma) | `tags`; `name` or `name=value` |
| `X-Metadata-<key>`, `X-PM-Metadata-<key>` | `metadata` |
| `X-Stream`, `X-PM-Message-Stream` | `stream` |
| `X-Idempotency-Key` | the Idempotency-Key |
| `X-Scheduled-At`, `X-Deliver-Before` | `scheduled_at`, `deliver_before` |
| `X-Unsubscribe` | `unsubscribe` |
| `X-Redact` | `redact` |

`X-Mailgun-…`, `X-SMTPAPI` and others of Postmark's are read by deliveries.mime.foreign. Other fields pass through.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from deliveries.errors import BadInput, Fault
from deliveries.mime import foreign
from deliveries.states import ORDINARY_STREAM, REDACT_WORDS, Redact, Tracking

MAX_TAGS = 75
MAX_METADATA = 50
MAX_VALUE = 1024
MAX_SCHEDULE = timedelta(days=30)

_TAG_FIELDS = frozenset({"x-tag", "x-tags", "x-pm-tag"})
_STREAM_FIELDS = frozenset({"x-stream", "x-pm-message-stream"})
_TIME_FIELDS = frozenset({"x-scheduled-at", "x-deliver-before"})
_KEY, _UNSUBSCRIBE, _REDACT = "x-idempotency-key", "x-unsubscribe", "x-redact"
_METADATA = ("x-metadata-", "x-pm-metadata-")
_OURS = (*_TAG_FIELDS, *_STREAM_FIELDS, *_TIME_FIELDS, _KEY, _UNSUBSCRIBE, _REDACT)
_NAMES = frozenset(name.encode() for name in (*_OURS, *foreign.FIELDS))
_METADATA_NAMES = tuple(n.encode() for n in _METADATA)

_TAG = re.compile(r"([A-Za-z0-9_-]{1,256})(?:=([A-Za-z0-9_-]{0,256}))?")
_STREAM = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_METADATA_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_YES, _NO = ("true", "yes", "1", "on"), ("false", "no", "0", "off")


@dataclass(frozen=True, slots=True)
class Control:
    """What the control fields ask for; None and empty where they say nothing."""

    tags: tuple[tuple[str, str], ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    stream: str | None = None
    idempotency_key: str | None = None
    scheduled_at: datetime | None = None  #: None also for a time that has passed: at once
    deliver_before: datetime | None = None
    times: tuple[datetime | None, ...] = (None, None)  #: both as they were written, passed or not
    unsubscribe: bool | None = None
    redact: Redact = Redact.NOTHING
    untracked: Tracking = Tracking.NOTHING


def is_control(name: bytes) -> bool:
    """Whether a field of that name (lower case) speaks to us."""
    return name in _NAMES or name.startswith(_METADATA_NAMES)


def read_control(fields: Sequence[tuple[str, str]], now: datetime, late: list[Fault] | None = None) -> Control:
    """BadInput names every field whose value cannot be understood. Of a field that counts once the last one does.

    That a time has passed is no fault of a mail that was taken before: `late`, where given, is told of it instead.
    """
    faults: list[Fault] = []
    tags: list[tuple[str, str]] = []
    metadata: dict[str, str] = {}
    streams: list[str] = []
    times: dict[str, datetime | None] = {}
    key = unsubscribe = None
    redact = Redact.NOTHING
    orders = foreign.Orders()
    for name, value in fields:
        if name in _TAG_FIELDS:
            tags += _tags(name, value, faults)
        elif name.startswith(_METADATA):
            key_of_it = name.partition("metadata-")[2]
            if not _METADATA_KEY.fullmatch(key_of_it) or len(value) > MAX_VALUE:
                why = f"{name}: a key has 1 to 64 ASCII letters, digits, _, - and dots, a value {MAX_VALUE} characters."
                faults.append(Fault(name, "invalid_metadata", why))
            metadata[key_of_it] = value
        elif name in _STREAM_FIELDS:
            postmark = name.startswith("x-pm-")
            streams.append(ORDINARY_STREAM if postmark and value == foreign.POSTMARK_STREAM else value)
        elif name in _TIME_FIELDS:
            times[name] = _time(name, value, now, faults)
            if name == "x-deliver-before" and (moment := times[name]) and moment <= now:
                (faults if late is None else late).append(Fault(name, "invalid_time", f"{name} has passed already."))
        elif name == _KEY:
            key = value
        elif name == _UNSUBSCRIBE:
            unsubscribe = _flag(name, value, faults)
        elif name == _REDACT:
            redact = _redact(name, value, faults)
        elif name in foreign.FIELDS:
            orders.read(name, value)
    faults += orders.faults
    tags += orders.tags
    metadata = orders.metadata | metadata
    if orders.stream and not streams:
        streams, unsubscribe = [orders.stream], True if unsubscribe is None else unsubscribe
    if orders.scheduled_at and "x-scheduled-at" not in times:
        times["x-scheduled-at"] = _ahead(orders.time_field, orders.scheduled_at, now, faults)
    if streams and not _STREAM.fullmatch(streams[-1]):
        faults.append(
            Fault("x-stream", "invalid_stream", "A stream has 1 to 64 lower-case ASCII letters, digits, _ and -.")
        )
    if key is not None and not (1 <= len(key) <= 256 and key.isprintable()):
        why = "X-Idempotency-Key must have 1 to 256 printable characters."
        faults.append(Fault(_KEY, "invalid_idempotency_key", why))
    scheduled, before = times.get("x-scheduled-at"), times.get("x-deliver-before")
    if scheduled and before and before <= scheduled:
        faults.append(Fault("x-deliver-before", "invalid_time", "x-deliver-before must be later than x-scheduled-at."))
    if len(tags) > MAX_TAGS or len(metadata) > MAX_METADATA:
        faults.append(Fault("x-tag", "too_many", f"At most {MAX_TAGS} tags and {MAX_METADATA} metadata are kept."))
    if faults:
        raise BadInput(faults)
    return Control(
        tags=tuple(tags),
        metadata=tuple(metadata.items()),
        stream=streams[-1] if streams else None,
        idempotency_key=key,
        scheduled_at=scheduled if scheduled and scheduled > now else None,
        deliver_before=before,
        times=(scheduled, before),
        unsubscribe=unsubscribe,
        redact=redact,
        untracked=orders.untracked,
    )


def _tags(name: str, value: str, faults: list[Fault]) -> list[tuple[str, str]]:
    found = []
    for word in value.split(",") if name == "x-tags" else [value]:
        if match := _TAG.fullmatch(word.strip()):
            found.append((match[1], match[2] or ""))
        else:
            why = f"{name}: a tag is name or name=value, 1 to 256 ASCII letters, digits, _ and - each."
            faults.append(Fault(name, "invalid_tag", why))
    return found


def _time(name: str, value: str, now: datetime, faults: list[Fault]) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the first and the last day of the calendar, in some zones
        why = f"{name}: write the time in ISO 8601 with a zone, such as 2030-01-31T09:00:00Z."
        faults.append(Fault(name, "invalid_time", why))
        return None
    return _ahead(name, moment, now, faults)


def _ahead(name: str, moment: datetime, now: datetime, faults: list[Fault]) -> datetime:
    if moment - now > MAX_SCHEDULE:
        faults.append(Fault(name, "invalid_time", f"{name} is more than {MAX_SCHEDULE.days} days ahead."))
    return moment


def _flag(name: str, value: str, faults: list[Fault]) -> bool | None:
    if value.lower() in _YES + _NO:
        return value.lower() in _YES
    faults.append(Fault(name, "invalid_value", f"{name} is true or false."))
    return None


def _redact(name: str, value: str, faults: list[Fault]) -> Redact:
    if value.lower() not in REDACT_WORDS:
        faults.append(Fault(name, "invalid_value", f"{name} is {' or '.join(REDACT_WORDS)}."))
    return REDACT_WORDS.get(value.lower(), Redact.NOTHING)
