"""Files of a mail: what may be asked, and the Attachment that each becomes."""

from __future__ import annotations

import binascii
import mimetypes
import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from django.conf import settings
from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails

from deliveries.accept.remote import File
from deliveries.errors import AddressRefused
from deliveries.fetch import check_url
from deliveries.mime.compose import Attachment, attached_mail
from mailapi.schemas.faults import Shape, fault

MAX_ATTACHMENTS = 100
NO_FILES: Mapping[str, File] = {}

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+/[A-Za-z0-9!#$%&'*+.^_`{|}~-]+(?:\s*;[ -~]*)?")
_URL = re.compile(r"https?://[!-~]+\Z", re.IGNORECASE)
_OCTETS_TYPE = "application/octet-stream"
#: what hosts say of a file that they know nothing of
_SAYS_NOTHING = ("", _OCTETS_TYPE, "binary/octet-stream", "text/plain")
_CONTENT_ID = re.compile(r"[!-;=?-~]{1,128}")


def read_octets(value: Any) -> bytes:
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


def _url(value: str) -> str:
    try:
        check_url(value, settings.WEBHOOK_ALLOW_PRIVATE)
    except AddressRefused as why:
        raise fault("invalid_url", f"The URL is not fetched: {why}.") from None
    return value


class AttachmentIn(Shape):
    """A file, as `content` or to be fetched from `path`. With a content id it is inline: the html part shows it as
    `cid:<content id>`."""

    filename: Annotated[str, AfterValidator(_filename), Field(json_schema_extra={"minLength": 1, "maxLength": 255})]
    content: Annotated[bytes, PlainValidator(read_octets), WithJsonSchema(_OCTETS)] | None = None
    path: Annotated[str, AfterValidator(_url)] | None = Field(
        None, description="A URL of the public Internet; fetched when the mail is accepted. Redirects are not followed."
    )
    content_type: Annotated[str, AfterValidator(_media_type)] | None = Field(
        None, description="When absent, as the URL's host says or as the file name lets guess."
    )
    content_id: Annotated[str, AfterValidator(_content_id)] | None = None
    inline_content_id: Annotated[str, AfterValidator(_content_id)] | None = Field(
        None, description="The same as `content_id`."
    )

    @field_validator("content_type")
    @classmethod
    def _composite(cls, value: str | None, info: ValidationInfo) -> str | None:
        """RFC 2046 §5: what a composite type holds goes out without an encoding, so it must be able to."""
        kind = (value or "").partition(";")[0].strip().lower()
        remedy = "send it as application/octet-stream"
        if kind.startswith("multipart/"):
            raise fault("invalid_content_type", f"A file cannot be {kind}, which has parts of its own; {remedy}.")
        if kind.startswith("message/") and kind != "message/rfc822":
            raise fault("invalid_content_type", f"A file cannot be {kind}; {remedy}, or a mail as message/rfc822.")
        content = info.data.get("content")
        if kind == "message/rfc822" and content is not None and attached_mail(content) is None:
            raise fault("invalid_content_type", f"This is no mail that can go out without an encoding; {remedy}.")
        return value

    @model_validator(mode="before")
    @classmethod
    def _named_by_its_url(cls, data: Any) -> Any:
        """Resend's clients may leave the name of a file by URL out: it is the last part of its path."""
        if isinstance(data, dict) and data.get("filename") is None and isinstance(data.get("path"), str):
            name = unquote(urlsplit(data["path"]).path.rpartition("/")[2]) if _URL.match(data["path"]) else ""
            return {**data, "filename": name[:255] or "attachment"}
        return data

    @model_validator(mode="after")
    def _one_of_both(self) -> AttachmentIn:
        if (self.content is None) == (self.path is None):
            what = "Missing `content` field" if self.content is None else "Both `content` and `path` are there"
            wrong = fault(
                "missing_required_field" if self.content is None else "invalid_attachment",
                f"{what}; send the file in `content`, or its URL in `path`.",
            )
            details = InitErrorDetails(type=wrong, loc=("content",), input=None)
            raise ValidationError.from_exception_data("attachment", [details])
        return self

    def attachment(self, files: Mapping[str, File] = NO_FILES) -> Attachment:
        """With what was fetched, by URL."""
        file = files[self.path] if self.path else File(self.content or b"", "")
        said = file.content_type if _MEDIA_TYPE.fullmatch(file.content_type[:255]) else ""
        guessed = mimetypes.guess_type(self.filename, strict=False)[0]
        if said.partition(";")[0].strip().lower() in _SAYS_NOTHING:
            said = guessed or said
        return Attachment(
            filename=self.filename,
            content_type=self.content_type or said or guessed or _OCTETS_TYPE,
            content=file.content,
            content_id=self.content_id or self.inline_content_id,
        )
