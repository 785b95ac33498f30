"""Templates: what may be asked of them, and how a mail that names one gets its parts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import InitErrorDetails

from deliveries import templating
from deliveries.errors import BadInput, Fault
from deliveries.mime.template import MOST_SOURCE
from deliveries.mime.template.variables import KEY, MOST, Variable, key_fault
from deliveries.states import REDACT_WORDS
from deliveries.templating import Published
from mailapi.schemas.addresses import Addresses, OneAddress
from mailapi.schemas.body import Body
from mailapi.schemas.emails import MAX_BATCH, Text
from mailapi.schemas.faults import Shape, check, fault
from mailapi.schemas.options import REDACTED, Redact

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_SUBJECT = 2_000


def _named(value: str) -> str:
    if not value.strip() or len(value) > 200 or not value.isprintable():
        raise fault("invalid_name", "A name has 1 to 200 printable characters.")
    return value


def _alias(value: str) -> str:
    if not _ALIAS.fullmatch(value):
        raise fault("invalid_alias", "An alias has 1 to 100 ASCII letters, digits, -, _ and dots.")
    try:
        UUID(value)
    except ValueError:
        return value
    raise fault("invalid_alias", "An alias must not look like an id.")


def _subject(value: str) -> str:
    if "\n" in value or "\r" in value:
        raise fault("invalid_subject", "The subject contains a line break; remove it.")
    return value


class VariableIn(Shape):
    """A value that the template needs. Without a fallback each mail must bring it."""

    key: Annotated[str, Field(max_length=50, json_schema_extra={"pattern": f"^{KEY.pattern}$"})]
    type: Literal["string", "number", "boolean", "list", "object"] = Field(
        description="string and number are Resend's; the others are for conditions and loops."
    )
    fallback_value: Any = None


def _variables(value: tuple[VariableIn, ...]) -> tuple[VariableIn, ...]:
    if wrong := list(_wrong(value)):
        raise ValidationError.from_exception_data("variables", wrong)
    return value


def _wrong(value: tuple[VariableIn, ...]) -> Iterator[InitErrorDetails]:
    seen: set[str] = set()
    for place, one in enumerate(value):
        why = key_fault(one.key) or ("This key is declared twice." if one.key in seen else "")
        seen.add(one.key)
        if why:
            yield InitErrorDetails(type=fault("invalid_key", why), loc=(place, "key"), input=None)
        if one.fallback_value is not None and not Variable(one.key, one.type).fits(one.fallback_value):
            why = f"Must be of the variable's type, {one.type}."
            yield InitErrorDetails(type=fault("wrong_type", why), loc=(place, "fallback_value"), input=None)


Name = Annotated[str, AfterValidator(_named), Field(json_schema_extra={"minLength": 1, "maxLength": 200})]
Alias = Annotated[str, AfterValidator(_alias), Field(json_schema_extra={"pattern": f"^{_ALIAS.pattern}$"})]
Subject = Annotated[Text, AfterValidator(_subject), Field(max_length=_SUBJECT)]
Source = Annotated[Text, Field(max_length=MOST_SOURCE)]
Variables = Annotated[tuple[VariableIn, ...], Field(max_length=MOST), AfterValidator(_variables)]
Language = Literal["native", "handlebars", "mustachio"]
_TEXT = "Absent or null: made of the html at publish. Empty: no text part."
_LANGUAGE = "native is Resend's `{{{KEY}}}` with loops and conditions; handlebars SendGrid's and Mailgun's; mustachio \
Postmark's."


class UpdateTemplate(Shape):
    """What is not there stays as it is; null takes back alias, from, subject, reply_to, text and redact."""

    resets: ClassVar[frozenset[str]] = frozenset({"alias", "from", "subject", "reply_to", "text", "redact"})
    not_here: ClassVar[Mapping[str, str]] = {
        "react": "Render React components to `html` first (Resend's Node SDK does it)."
    }

    name: Name | None = None
    alias: Alias | None = None
    sender: OneAddress | None = Field(default=None, alias="from", description="A mail may bring its own.")
    subject: Subject | None = Field(default=None, description="A mail may bring its own.")
    reply_to: Addresses | None = None
    html: Source | None = None
    text: Source | None = Field(default=None, description=_TEXT)
    variables: Variables | None = None
    language: Language | None = Field(default=None, description=_LANGUAGE)
    redact: Redact | None = Field(default=None, description="Of mails made of it. " + REDACTED)

    def parts(self) -> dict[str, Any]:
        """The template's columns that were sent."""
        given = self.model_fields_set
        found: dict[str, Any] = {n: getattr(self, n) for n in ("subject", "html", "text", "language") if n in given}
        if "sender" in given:
            found["sender"] = self.sender.header() if self.sender else None
        if "reply_to" in given:
            found["reply_to"] = [address.header() for address in self.reply_to or ()]
        if "redact" in given:
            found["redact"] = self.redact or ""
        if self.variables is not None:
            found["variables"] = [one.model_dump() for one in self.variables]
        return found

    def changes(self) -> dict[str, Any]:
        return self.parts() | {n: getattr(self, n) for n in ("name", "alias") if n in self.model_fields_set}


class CreateTemplate(UpdateTemplate):
    """A template; it is a draft until it is published."""

    name: Name
    html: Source


class PreviewTemplate(Shape):
    """Values to show the draft with; what is missing shows its key."""

    variables: dict[str, Any] = {}


class UseTemplate(Shape):
    """The published template of this id or alias, with its variables' values."""

    id: Annotated[str, Field(min_length=1, max_length=100)]
    variables: dict[str, Any] = {}


# --- a mail that names a template -------------------------------------------------------------------------------


def with_templates(tenant_id: UUID, body: Body) -> Body:
    """The body of /emails or /emails/batch in which each `template` is replaced by the parts that it renders.

    One query where any mail names a template, none otherwise. Faults name `template…`.
    """
    batch = isinstance(body.value, list)
    mails = body.value[:MAX_BATCH] if batch else [body.value]
    asked = {i: mail for i, mail in enumerate(mails) if isinstance(mail, dict) and mail.get("template") is not None}
    if not asked:
        return body
    # text that no database holds: those are refused, and looked up nowhere
    broken = {int(f.field[1:].partition("]")[0]) if batch else 0 for f in body.faults}
    uses, faults = {}, list(body.faults)
    for i, mail in asked.items():
        if i in broken:
            continue
        use, wrong = check(mail["template"], UseTemplate)
        if use is None:
            faults += [_at(i, batch, f"template.{f.field}".rstrip("."), f) for f in wrong]
        else:
            uses[i] = use
    known = templating.published(tenant_id, {use.id for use in uses.values()})
    filled = {}
    for i, mail in asked.items():
        try:
            filled[i] = _filled(mail, uses[i], known) if i in uses else _stood_in(mail)
        except BadInput as bad:
            faults += [_at(i, batch, f.field, f) for f in bad.faults]
            filled[i] = _stood_in(mail)
    value = [filled.get(i, mail) for i, mail in enumerate(body.value)] if batch else filled[0]
    return replace(body, value=value, faults=tuple(faults))


def _at(index: int, batch: bool, field: str, fault: Fault) -> Fault:
    return Fault(f"[{index}].{field}" if batch else field, fault.code, fault.message)


def _filled(mail: dict[str, Any], use: UseTemplate, known: dict[str, Published | None]) -> dict[str, Any]:
    wrong = [
        Fault(name, "not_with_template", "The template brings it; leave it out, or leave `template` out.")
        for name in ("html", "text", "merge")
        if mail.get(name)
    ]
    if use.id not in known:
        wrong.append(Fault("template.id", "unknown_template", "There is no template with this id or alias."))
    elif (found := known[use.id]) is None:
        wrong.append(Fault("template.id", "not_published", "The template was never published; publish it first."))
    if wrong:
        raise BadInput(wrong)
    assert found is not None
    rendered = found.render(use.variables)
    brought = {
        "from": found.sender,
        "reply_to": list(found.reply_to) or None,
        "subject": rendered.subject,
        "html": rendered.html,
        "text": rendered.text,
        "redact": next((word for word, bits in REDACT_WORDS.items() if bits == rendered.redact), None),
    }
    return brought | {name: part for name, part in mail.items() if name != "template" and part is not None}


def _stood_in(mail: dict[str, Any]) -> dict[str, Any]:
    """A mail that is refused for its template; its other fields are checked as if that had brought its parts."""
    parts = {"from": "stand-in@example.com", "subject": "-", "html": "-"}
    return parts | {name: part for name, part in mail.items() if name not in ("template", "merge") and part is not None}
