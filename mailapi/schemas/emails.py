"""POST /emails and /emails/batch: what may be asked, in Resend's words, and the Draft that it becomes."""

from __future__ import annotations

import binascii
import mimetypes
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails

from deliveries.accept import Draft
from deliveries.errors import Fault
from deliveries.mime.address import Address, parse_address
from deliveries.mime.compose import Attachment, refused_header, refused_subject
from mailapi.schemas.faults import Shape, fault

#: of to, cc and bcc together
MAX_RECIPIENTS = 50
MAX_BATCH = 100
MAX_ATTACHMENTS = 100
MAX_HEADERS = 100
MAX_TAGS = 75
MAX_SCHEDULE = timedelta(days=30)

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+/[A-Za-z0-9!#$%&'*+.^_`{|}~-]+(?:\s*;[ -~]*)?")
_CONTENT_ID = re.compile(r"[!-;=?-~]{1,128}")
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")


# --- addresses ----------------------------------------------------------------------------------------------


def _address(value: Any) -> Address:
    if not isinstance(value, str):
        raise fault("wrong_type", "Must be a string such as name@example.com or Name <name@example.com>.")
    try:
        return parse_address(value)
    except ValueError as error:
        raise fault("invalid_address", str(error)) from None


def _several(value: Any) -> Any:
    """One address or a list of them → a list; counted before any of them is read."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise fault("wrong_type", "Must be an address or a list of addresses.")
    if len(value) > MAX_RECIPIENTS:
        raise fault("too_many_recipients", f"Has {len(value)} addresses; {MAX_RECIPIENTS} are allowed.")
    return value


def _at_least_one(value: tuple[Address, ...]) -> tuple[Address, ...]:
    if not value:
        raise fault("missing_required_field", "Missing `to` field; name at least one recipient.")
    return value


_ONE = {"type": "string", "description": "`name@example.com` or `Name <name@example.com>`", "maxLength": 700}
_SEVERAL = {"oneOf": [_ONE, {"type": "array", "items": _ONE, "maxItems": MAX_RECIPIENTS}]}
_SOME = {"oneOf": [_ONE, {"type": "array", "items": _ONE, "minItems": 1, "maxItems": MAX_RECIPIENTS}]}

OneAddress = Annotated[Address, PlainValidator(_address), WithJsonSchema(_ONE)]
_Listed = Annotated[Address, PlainValidator(_address)]
Addresses = Annotated[tuple[_Listed, ...], BeforeValidator(_several), WithJsonSchema(_SEVERAL)]
Recipients = Annotated[
    tuple[_Listed, ...], BeforeValidator(_several), AfterValidator(_at_least_one), WithJsonSchema(_SOME)
]


# --- texts --------------------------------------------------------------------------------------------------


def _subject(value: str) -> str:
    if why := refused_subject(value):
        raise fault("invalid_subject", why)
    return value


def _text(value: str) -> str:
    if "\0" in value:
        raise fault("control_character", "The text contains NUL (U+0000); remove it.")
    return value


Text = Annotated[str, AfterValidator(_text)]


def _headers(value: Any) -> Any:
    """Every header that may not go out is named; one that may is kept as it is."""
    if not isinstance(value, dict):
        return value
    if len(value) > MAX_HEADERS:
        raise fault("too_many", f"Has {len(value)} headers; {MAX_HEADERS} are allowed.")
    wrong = [
        InitErrorDetails(type=fault("invalid_header", why), loc=(name,), input=None)
        for name, text in value.items()
        if isinstance(text, str) and (why := refused_header(name, text))
    ]
    if wrong:
        raise ValidationError.from_exception_data("headers", wrong)
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


def _when(value: Any) -> datetime | None:
    """ISO 8601 with a zone; a time that has passed means now."""
    if not isinstance(value, str):
        raise fault("wrong_type", "Must be a string such as 2030-01-31T09:00:00Z.")
    try:
        if not _ISO.match(value):
            raise ValueError
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise fault(
            "invalid_time", "Write the time in ISO 8601, such as 2030-01-31T09:00:00Z; phrases are not understood yet."
        ) from None
    if moment.tzinfo is None:
        raise fault("invalid_time", "The time has no zone; end it with Z or an offset such as +02:00.")
    now = datetime.now(UTC)
    if moment <= now:
        return None
    if moment - now > MAX_SCHEDULE:
        raise fault("invalid_time", f"A mail can be scheduled up to {MAX_SCHEDULE.days} days ahead.")
    return moment.astimezone(UTC)


# --- attachments --------------------------------------------------------------------------------------------


def _content(value: Any) -> bytes:
    """Base64 (line breaks allowed, anything else strict) or a list of octets, as Resend's Python SDK sends it."""
    if isinstance(value, str):
        if not value.isascii():
            raise fault("invalid_base64", "The content is not base64.")
        if value.startswith("data:"):
            raise fault("invalid_base64", "Send only what follows `base64,`, without the data: prefix.")
        octets = value.encode("ascii").translate(None, b"\r\n\t ")
        try:
            return binascii.a2b_base64(octets, strict_mode=True)
        except binascii.Error as error:
            raise fault("invalid_base64", f"The content is not base64 (RFC 4648 §4): {error}.") from None
    if isinstance(value, list):
        try:
            return bytes(value)
        except (TypeError, ValueError):
            raise fault("invalid_octets", "A list as content holds whole numbers from 0 to 255 only.") from None
    raise fault("wrong_type", "Must be a base64 string or a list of octets.")


def _filename(value: str) -> str:
    if not value.strip():
        raise fault("too_short", "The file name is empty.")
    if len(value) > 255:
        raise fault("too_long", "The file name is longer than 255 characters.")
    if _CONTROL.search(value):
        raise fault("control_character", "The file name contains a line break or another control character.")
    return value


def _media_type(value: str) -> str:
    if len(value) > 255 or not _MEDIA_TYPE.fullmatch(value):
        raise fault("invalid_content_type", "Write a media type such as application/pdf, or leave it out.")
    return value


def _content_id(value: str) -> str:
    bare = value[1:-1] if value.startswith("<") and value.endswith(">") else value
    if not _CONTENT_ID.fullmatch(bare):
        raise fault("invalid_content_id", "A content id has 1 to 128 printable ASCII characters without spaces and <>.")
    return bare


_OCTETS = {
    "oneOf": [
        {"type": "string", "contentEncoding": "base64"},
        {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
    ]
}


class AttachmentIn(Shape):
    """A file. With a content id it is inline: the html part shows it as `cid:<content id>`."""

    not_here: ClassVar[Mapping[str, str]] = {
        "path": "Attachments by URL are not available on this server yet; send the file in `content`.",
    }

    filename: Annotated[str, AfterValidator(_filename), Field(json_schema_extra={"minLength": 1, "maxLength": 255})]
    content: Annotated[bytes, PlainValidator(_content), WithJsonSchema(_OCTETS)]
    content_type: Annotated[str, AfterValidator(_media_type)] | None = Field(
        None, description="Guessed from the file name when absent."
    )
    content_id: Annotated[str, AfterValidator(_content_id)] | None = None
    inline_content_id: Annotated[str, AfterValidator(_content_id)] | None = Field(
        None, description="The same as `content_id`."
    )

    def attachment(self) -> Attachment:
        guessed = mimetypes.guess_type(self.filename, strict=False)[0] or "application/octet-stream"
        return Attachment(
            filename=self.filename,
            content_type=self.content_type or guessed,
            content=self.content,
            content_id=self.content_id or self.inline_content_id,
        )


# --- the mail -----------------------------------------------------------------------------------------------

_LATER = "{} is not available on this server yet; leave it out."


class SendEmail(Shape):
    """A mail to send. At least one of `html` and `text` is required."""

    not_here: ClassVar[Mapping[str, str]] = {
        "template": _LATER.format("template"),
        "topic_id": _LATER.format("topic_id"),
        "react": "Render React components to `html` before sending (Resend's Node SDK does it).",
    }

    sender: OneAddress = Field(alias="from")
    to: Recipients
    subject: Annotated[str, AfterValidator(_subject)]
    cc: Addresses = ()
    bcc: Addresses = ()
    reply_to: Addresses = ()
    html: Text | None = None
    text: Text | None = None
    headers: Annotated[dict[str, str], BeforeValidator(_headers)] = Field(
        default={}, json_schema_extra={"maxProperties": MAX_HEADERS}
    )
    attachments: Annotated[tuple[AttachmentIn, ...], Field(max_length=MAX_ATTACHMENTS)] = ()
    tags: Annotated[tuple[Annotated[TagIn, AfterValidator(_tag)], ...], Field(max_length=MAX_TAGS)] = ()
    scheduled_at: Annotated[
        datetime | None,
        PlainValidator(_when),
        WithJsonSchema({"type": "string", "format": "date-time", "description": "With a zone; up to 30 days ahead."}),
    ] = None

    def draft(self) -> Draft:
        return Draft(
            sender=self.sender,
            to=self.to,
            cc=self.cc,
            bcc=self.bcc,
            reply_to=self.reply_to,
            subject=self.subject,
            html=self.html,
            text=self.text,
            headers=tuple(self.headers.items()),
            attachments=tuple(item.attachment() for item in self.attachments),
            tags=tuple((tag.name, tag.value) for tag in self.tags),
            scheduled_at=self.scheduled_at,
        )


def across_fields(data: dict[str, Any]) -> list[Fault]:
    """Rules that no single field can tell, on the raw object, so that they are named beside the fields' faults."""
    faults = []
    count = sum(
        1 if isinstance(value, str) else len(value) if isinstance(value, list) else 0
        for value in (data.get("to"), data.get("cc"), data.get("bcc"))
    )
    if count > MAX_RECIPIENTS and not any(
        isinstance(data.get(name), list) and len(data[name]) > MAX_RECIPIENTS for name in ("to", "cc", "bcc")
    ):
        message = f"to, cc and bcc have {count} addresses together; {MAX_RECIPIENTS} are allowed."
        faults.append(Fault("to", "too_many_recipients", message))
    if data.get("html") in (None, "") and data.get("text") in (None, ""):
        faults.append(Fault("html", "missing_required_field", "Missing `html` or `text` field; send at least one."))
    return faults
