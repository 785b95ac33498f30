"""POST /emails and /emails/batch: what may be asked, in Resend's words, and the Draft that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import InitErrorDetails

from deliveries.accept import Draft, merge
from deliveries.accept.remote import File
from deliveries.errors import Fault
from deliveries.mime import links
from deliveries.mime.address import parse_address
from deliveries.mime.compose import refused_header, refused_subject
from mailapi.schemas.addresses import MAX_RECIPIENTS, Addresses, OneAddress, Recipients
from mailapi.schemas.attachments import MAX_ATTACHMENTS, NO_FILES, AttachmentIn
from mailapi.schemas.faults import Shape, fault
from mailapi.schemas.options import Options, each_wrong, plain_text
from mailapi.schemas.times import When

MAX_BATCH = 100
MAX_HEADERS = 100
#: of one recipient
MAX_MERGE = 100
#: octets that one mail may become with merge data, over all recipients: what one body may have
MAX_MERGED = 40 * 1024 * 1024


# --- texts --------------------------------------------------------------------------------------------------


def _subject(value: str) -> str:
    if why := refused_subject(value):
        raise fault("invalid_subject", why)
    return value


Text = Annotated[str, AfterValidator(plain_text)]


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


# --- merge data ---------------------------------------------------------------------------------------------------


def _value(value: Any) -> str:
    if isinstance(value, str):
        if len(value) > 10_000:
            raise fault("too_long", "The value is longer than 10000 characters.")
        return plain_text(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise fault("wrong_type", "Must be a string or a number.")


def _own(value: dict[str, str]) -> dict[str, str]:
    if len(value) > MAX_MERGE:
        raise fault("too_many", f"Has {len(value)} keys; {MAX_MERGE} are allowed.")
    why = "A key has 1 to 64 ASCII letters, digits and _, and begins with a letter."
    each_wrong("merge", (((key,), "invalid_key", why) for key in value if not merge.KEY.fullmatch(key)))
    return value


def _merge(value: Any) -> Any:
    if isinstance(value, dict) and len(value) > MAX_RECIPIENTS:
        raise fault("too_many", f"Has {len(value)} addresses; {MAX_RECIPIENTS} are allowed.")
    return value


_WORD = {"type": "string", "maxLength": 10_000}
Value = Annotated[str, PlainValidator(_value), WithJsonSchema({"oneOf": [_WORD, {"type": "number"}]})]
Merge = Annotated[dict[str, Annotated[dict[str, Value], AfterValidator(_own)]], BeforeValidator(_merge)]


# --- the mail -----------------------------------------------------------------------------------------------

_LATER = "{} is not available on this server yet; leave it out."


_TEMPLATE = {
    "type": "object",
    "required": ["id"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string", "description": "The id or the alias of a published template.", "maxLength": 100},
        "variables": {"type": "object", "additionalProperties": True},
    },
}


def _template_brings(schema: dict[str, Any]) -> None:
    schema["required"] = [name for name in schema["required"] if name not in ("from", "subject")]


class SendEmail(Options):
    """A mail to send. It has `html` or `text`, `from` and `subject`, or a template that brings them."""

    model_config = ConfigDict(json_schema_extra=_template_brings)

    not_here: ClassVar[Mapping[str, str]] = {
        "topic_id": _LATER.format("topic_id") + " `stream` names the kind of mail that one may unsubscribe from.",
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
    merge: Merge = Field(
        default={},
        description="`{address: {KEY: value}}`. Each address in `to` gets a mail of its own, in which `{{{KEY}}}` is "
        "its value: as it is in `subject` and `text`, HTML-escaped in `html`.",
        json_schema_extra={"maxProperties": MAX_RECIPIENTS},
    )

    # mailapi.schemas.templates puts the template's parts in its place before a mail is read
    template: Annotated[Any, WithJsonSchema(_TEMPLATE)] = Field(
        default=None, description="Brings html and text, and from, subject and reply_to where the mail has none."
    )

    @model_validator(mode="after")
    def _everybody_has_words(self) -> SendEmail:
        if self.merge:
            each_wrong("mail", self._wrong_merge())
        return self

    @model_validator(mode="after")
    def _links_lead_somewhere(self) -> SendEmail:
        if self.unsubscribe is False and links.leads_out(self.html, self.text):
            why = f"The body has {links.LEAVE_PLACE}, which leads nowhere then; send true, or take it out of the body."
            each_wrong("mail", iter([(("unsubscribe",), "invalid_parameter", why)]))
        return self

    def _wrong_merge(self) -> Iterator[tuple[tuple[str, ...], str, str]]:
        for name in ("cc", "bcc"):
            if getattr(self, name):
                yield (name,), "not_with_merge", "With `merge` everybody in `to` gets a mail alone; put them there."
        for name in self.headers:
            if name.lower() == "message-id":
                why = "With `merge` each recipient's mail has a Message-ID of its own; leave it out."
                yield ("headers", name), "not_with_merge", why
        values = self._values()
        for address in self.merge:
            if _spec(address) not in values:
                yield ("merge", address), "unknown_recipient", "The address is not in `to`."
        texts = (self.subject, self.html, self.text)
        if self.most_octets() > MAX_MERGED:
            why = f"The mails of all recipients may have more than {MAX_MERGED >> 20} MB together; send it in parts."
            yield ("merge",), "too_large", why
            return
        for recipient, own in values.items():
            missing = [key for key in merge.keys_of(*texts) if key not in own]
            for key in missing:
                why = f"{{{{{{{key}}}}}}} has no value for this recipient."
                yield ("merge", recipient, key), "missing_value", why
            if not missing and (refused := refused_subject(merge.fill(self.subject, own))):
                yield ("merge", recipient), "invalid_subject", f"With these values: {refused}"

    def most_octets(self) -> int:
        """No less than what the mails of all recipients have together."""
        texts = (self.subject, self.html, self.text)
        files = sum(len(item.content or b"") for item in self.attachments) * len(self.to)
        return files + sum(merge.most_octets(texts, values) for values in self._values().values())

    def _values(self) -> dict[str, dict[str, str]]:
        """By the addr-spec of each address in `to`."""
        given = {_spec(address): own for address, own in self.merge.items()}
        return {address.addr_spec: given.get(address.addr_spec, {}) for address in self.to}

    @property
    def copies(self) -> int:
        """How many mails it becomes."""
        return len({address.addr_spec for address in self.to}) if self.merge else 1

    def urls(self) -> list[str]:
        """Of the attachments that are still to be fetched."""
        return [item.path for item in self.attachments if item.path]

    def drafts(self, files: Mapping[str, File] = NO_FILES) -> list[Draft]:
        """The mail with what was fetched, by URL; with merge data, one for each address in `to`."""
        draft = self.draft(files)
        return merge.for_each(draft, self._values()) if self.merge else [draft]

    def draft(self, files: Mapping[str, File] = NO_FILES) -> Draft:
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
            attachments=tuple(item.attachment(files) for item in self.attachments),
            **self.options(),
        )


def _spec(address: str) -> str:
    """As the To field's addresses are compared; text that is no address is nobody's."""
    try:
        return parse_address(address).addr_spec
    except ValueError:
        return ""


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


class UpdateEmail(Shape):
    """What can still be changed of a mail that is scheduled. A time that has passed means now."""

    scheduled_at: When = None
    id: str | None = Field(default=None, description="As in the path; Resend's Python SDK says it here too.")


def change_of(message_id: UUID) -> Callable[[dict[str, Any]], list[Fault]]:
    """The rules of UpdateEmail for the mail that the path names."""

    def rules(data: dict[str, Any]) -> list[Fault]:
        faults = []
        if data.get("scheduled_at") is None:
            words = "Missing `scheduled_at` field; it is required."
            faults.append(Fault("scheduled_at", "missing_required_field", words))
        if isinstance(again := data.get("id"), str) and again.lower() != str(message_id):
            faults.append(Fault("id", "invalid_parameter", "Is not the id of the path; leave it out."))
        return faults

    return rules
