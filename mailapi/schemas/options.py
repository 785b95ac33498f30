"""What may be asked of any mail, however its content comes: labels, stream, priority, times."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StrictBool, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from deliveries import states
from deliveries.states import ORDINARY_STREAM, REDACT_WORDS, STREAM, Lane
from mailapi.schemas.faults import Shape, fault
from mailapi.schemas.times import End, When

MAX_TAGS = 75
MAX_METADATA = 50
_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")
_METADATA_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def plain_text(value: str) -> str:
    if "\0" in value:
        raise fault("control_character", "The text contains NUL (U+0000); remove it.")
    return value


class TagIn(Shape):
    """A label of the mail, for webhooks and filters."""

    name: Annotated[str, Field(pattern=None, json_schema_extra={"pattern": f"^{_TAG.pattern}$"})]
    value: Annotated[str, Field(json_schema_extra={"pattern": "^[A-Za-z0-9_-]{0,256}$"})] = ""

    @classmethod
    def wrong(cls, text: str) -> bool:
        return _TAG.fullmatch(text) is None


def _tag(tag: TagIn) -> TagIn:
    for name, text in (("name", tag.name), ("value", tag.value)):
        if (text or name == "name") and TagIn.wrong(text):
            why = f"A tag's {name} has 1 to 256 ASCII letters, digits, _ and -."
            raise ValidationError.from_exception_data(
                "tag", [InitErrorDetails(type=fault("invalid_tag", why), loc=(name,), input=None)]
            )
    return tag


def each_wrong(name: str, wrong: Iterator[tuple[tuple[str, ...], str, str]]) -> None:
    """Raise every (path, code, words) as one error."""
    if found := [InitErrorDetails(type=fault(code, why), loc=path, input=None) for path, code, why in wrong]:
        raise ValidationError.from_exception_data(name, found)


def _metadata(value: dict[str, str]) -> dict[str, str]:
    if len(value) > MAX_METADATA:
        raise fault("too_many", f"Has {len(value)} keys; {MAX_METADATA} are allowed.")
    each_wrong("metadata", _wrong_metadata(value))
    return value


def _wrong_metadata(value: dict[str, str]) -> Iterator[tuple[tuple[str, ...], str, str]]:
    for key, text in value.items():
        if not _METADATA_KEY.fullmatch(key):
            yield (key,), "invalid_metadata", "A key has 1 to 64 ASCII letters, digits, _, - and dots."
        elif len(text) > 1024:
            yield (key,), "too_long", "The value is longer than 1024 characters."
        elif "\0" in text:
            yield (key,), "control_character", "The value contains NUL (U+0000); remove it."


def _stream(value: str) -> str:
    if not STREAM.fullmatch(value):
        raise fault("invalid_stream", "A stream has 1 to 64 lower-case ASCII letters, digits, - and _, such as news.")
    return value


Metadata = Annotated[dict[str, str], AfterValidator(_metadata)]
Stream = Annotated[str, AfterValidator(_stream)]
StreamOrAll = Annotated[str, AfterValidator(lambda value: value if value == "*" else _stream(value))]
Priority = Literal["high", "normal", "bulk"]
Redact = Literal["content", "everything"]
REDACTED = (
    "Once the last recipient's delivery is final, content takes html, text, header fields and attachments away, "
    "everything subject and metadata too."
)


class Options(Shape):
    """The options of a mail."""

    tags: Annotated[tuple[Annotated[TagIn, AfterValidator(_tag)], ...], Field(max_length=MAX_TAGS)] = ()
    scheduled_at: When = None
    metadata: Metadata = Field(
        default={},
        description="For webhooks and for you; the recipient never sees it. Values of up to 1024 characters.",
        json_schema_extra={"maxProperties": MAX_METADATA, "propertyNames": {"pattern": f"^{_METADATA_KEY.pattern}$"}},
    )
    stream: Stream = Field(
        default=ORDINARY_STREAM,
        description="The kind of mail: who unsubscribes from one stream still gets the others.",
        json_schema_extra={"pattern": f"^{STREAM.pattern}$"},
    )
    priority: Priority = Field(default="normal", description="high overtakes normal, normal overtakes bulk.")
    deliver_before: End | None = None
    unsubscribe: StrictBool | None = Field(
        default=None,
        description="Adds List-Unsubscribe with one click (RFC 8058): who uses it gets no more mail of this stream. "
        "Without it the domain's `unsubscribe_streams` and a `{{{UNSUBSCRIBE_URL}}}` in the body decide.",
    )

    redact: Redact | None = Field(
        default=None, description=f"{REDACTED} The domain's `redact_streams` and the template may ask for it as well."
    )

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Options:
        if isinstance(self.deliver_before, datetime) and self.scheduled_at and self.deliver_before <= self.scheduled_at:
            each_wrong("mail", iter([(("deliver_before",), "invalid_time", "Must be later than `scheduled_at`.")]))
        return self

    def options(self) -> dict[str, Any]:
        """As fields of a Draft."""
        return {
            "tags": tuple((tag.name, tag.value) for tag in self.tags),
            "metadata": tuple(self.metadata.items()),
            "stream": self.stream,
            "lane": Lane[self.priority.upper()],
            "scheduled_at": self.scheduled_at,
            "deliver_before": self._end(),
            "unsubscribe": self.unsubscribe,
            "redact": REDACT_WORDS[self.redact] if self.redact else states.Redact.NOTHING,
        }

    def _end(self) -> datetime | None:
        if isinstance(self.deliver_before, timedelta):
            return (self.scheduled_at or datetime.now(UTC)) + self.deliver_before
        return self.deliver_before
