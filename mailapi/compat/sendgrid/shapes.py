"""A request in SendGrid's words → Drafts: one for each personalization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from deliveries.accept import Draft
from deliveries.mime.address import Address
from deliveries.mime.compose import Attachment, refused_header, refused_subject
from mailapi.compat.filling import TooMuch, fill, together
from mailapi.compat.reading import Fields, Reading
from mailapi.compat.sendgrid.leaving import draft_with_group, draft_with_links, untracked
from mailapi.compat.templates import Templates
from mailapi.schemas.emails import MAX_MERGED

#: of all personalizations together, and how many of them
MAX_RECIPIENTS = 1_000
MAX_PERSONALIZATIONS = 1_000

_NO_SENDER = "The from object must be provided."
_POOL = "Which address sends is the operator's to choose."
REQUEST = Fields(
    honoured=frozenset({
        "personalizations", "from", "reply_to", "reply_to_list", "subject", "content", "attachments", "headers",
        "categories", "custom_args", "send_at", "mail_settings", "template_id", "asm", "tracking_settings",
    }),
    without_effect={
        "ip_pool_name": _POOL,
        "batch_id": "Scheduled mail is canceled one by one.",
    },
    refused={"sections": "Put the texts into the content, or into a template."},
)  # fmt: skip
PERSONALIZATION = Fields(
    honoured=frozenset(
        {
            "to",
            "cc",
            "bcc",
            "from",
            "subject",
            "headers",
            "substitutions",
            "custom_args",
            "send_at",
            "dynamic_template_data",
        }
    ),
    without_effect={},
    refused={},
)
_FILE = Fields(
    honoured=frozenset({"content", "filename", "type", "disposition", "content_id"}), without_effect={}, refused={}
)
_FILE_NAMES = {"filename": "filename", "content": "content", "content_type": "type", "content_id": "content_id"}
_SETTINGS = Fields(
    honoured=frozenset({"sandbox_mode"}),
    without_effect={"spam_check": "No mail of yours is judged by its content."},
    refused={},
)


def sandbox(value: Mapping[str, Any]) -> bool:
    """Whether the request is to be checked only (mail_settings.sandbox_mode)."""
    settings = value.get("mail_settings")
    mode = settings.get("sandbox_mode") if isinstance(settings, dict) else None
    return isinstance(mode, dict) and mode.get("enable") is True


def drafts(value: Mapping[str, Any], templates: Templates, reading: Reading) -> list[Draft]:
    """The mails in the order of the personalizations; empty where `reading.faults` says why there are none."""
    reading.sort(value, REQUEST)
    _settings(value.get("mail_settings"), reading)
    people = value.get("personalizations")
    if not isinstance(people, list) or not 1 <= len(people) <= MAX_PERSONALIZATIONS:
        why = f"Must be a list of 1 to {MAX_PERSONALIZATIONS} objects."
        reading.wrong("personalizations", "wrong_type", why)
        people = []
    common = _common(value, reading)
    if not people and value.get("from") is None:
        reading.wrong("from", "missing_required_field", _NO_SENDER)
    try:
        made = together(
            _personal(f"personalizations[{i}]", one, common, value, templates, reading) for i, one in enumerate(people)
        )
    except TooMuch:
        why = f"The mails have more than {MAX_MERGED >> 20} MB together; send them in parts."
        reading.wrong("personalizations", "too_large", why)
        made = []
    reading.faults = list(dict.fromkeys(reading.faults))  # what all of them lack is one fault
    count = sum(len(draft.to) + len(draft.cc) + len(draft.bcc) for draft in made)
    if count > MAX_RECIPIENTS:
        why = f"The personalizations have {count} recipients together; {MAX_RECIPIENTS} are allowed."
        reading.wrong("personalizations", "too_many_recipients", why)
    return [] if reading.faults else made


def _common(value: Mapping[str, Any], reading: Reading) -> Draft:
    """What all personalizations share. Its `to` is empty: they name the recipients."""
    html, text = (None, None) if value.get("template_id") else _content(value.get("content"), reading)
    if value.get("template_id") and value.get("content"):
        reading.ignored.append("content")
    draft = Draft(
        sender=_email("from", value["from"], reading) if value.get("from") is not None else None,  # type: ignore[arg-type]
        to=(),
        reply_to=_replies(value, reading),
        subject=reading.subject("subject", value.get("subject")),
        html=html,
        text=text,
        attachments=_files(value.get("attachments"), reading),
        tags=reading.labels("categories", value.get("categories")),
        scheduled_at=_moment("send_at", value.get("send_at"), reading),
        untracked=untracked(value, reading),
    )
    return draft_with_group(draft, value, reading)


def _personal(
    place: str, one: Any, common: Draft, whole: Mapping[str, Any], templates: Templates, reading: Reading
) -> Draft | None:
    if not isinstance(one, dict):
        reading.wrong(place, "wrong_type", "Must be an object.")
        return None
    before = len(reading.faults)
    reading.sort(one, PERSONALIZATION, f"{place}.")
    headers = {**_object("headers", whole, reading), **_object("headers", one, reading, f"{place}.")}
    extra = {**_object("custom_args", whole, reading), **_object("custom_args", one, reading, f"{place}.")}
    draft = replace(
        common,
        to=_emails(f"{place}.to", one.get("to"), reading),
        cc=_emails(f"{place}.cc", one.get("cc"), reading),
        bcc=_emails(f"{place}.bcc", one.get("bcc"), reading),
        headers=reading.headers("headers", headers.items()),
        metadata=reading.metadata("custom_args", extra),
    )
    if one.get("from") is not None and (sender := _email(f"{place}.from", one["from"], reading)):
        draft = replace(draft, sender=sender)
    if one.get("subject") is not None:
        draft = replace(draft, subject=reading.subject(f"{place}.subject", one["subject"]))
    if one.get("send_at") is not None:
        draft = replace(draft, scheduled_at=_moment(f"{place}.send_at", one["send_at"], reading))
    if not draft.to and not one.get("to"):
        reading.wrong(f"{place}.to", "missing_required_field", "The to array is required for all personalizations.")
    if draft.sender is None and whole.get("from") is None:
        reading.wrong("from", "missing_required_field", _NO_SENDER)
    data = one.get("dynamic_template_data")
    if ref := whole.get("template_id"):
        made = templates.render(reading, "template_id", ref, data, f"{place}.dynamic_template_data")
        if made is not None:
            draft = replace(
                draft, subject=made.subject or draft.subject, html=made.html, text=made.text, redact=made.redact
            )
    elif data is not None:
        reading.wrong(f"{place}.dynamic_template_data", "invalid_parameter", "Goes with a template_id.")
    if not draft.subject and not any(fault.field == "template_id" for fault in reading.faults):
        reading.wrong("subject", "missing_required_field", "The subject is required.")
    draft = draft_with_links(draft, whole, reading)
    words = reading.metadata(f"{place}.substitutions", one.get("substitutions"))
    return None if len(reading.faults) > before else _with_words(place, draft, dict(words), reading)


def _with_words(place: str, draft: Draft, words: Mapping[str, str], reading: Reading) -> Draft | None:
    try:
        draft = fill(draft, words)
    except TooMuch:
        reading.wrong(f"{place}.substitutions", "too_large", "The mail grows beyond what a request may have.")
        return None
    for why in (refused_subject(draft.subject), *(refused_header(*pair) for pair in draft.headers)):
        if why:
            reading.wrong(f"{place}.substitutions", "invalid_header", f"With these substitutions: {why}")
            return None
    return draft


# --- fields -----------------------------------------------------------------------------------------------------


def _email(field: str, value: Any, reading: Reading) -> Address | None:
    return reading.named(field, value, "email", "name")


def _emails(field: str, value: Any, reading: Reading) -> tuple[Address, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        reading.wrong(field, "wrong_type", "Must be a list of objects with email and, if wanted, name.")
        return ()
    found = (_email(f"{field}[{i}]", one, reading) for i, one in enumerate(value))
    return tuple(address for address in found if address)


def _replies(value: Mapping[str, Any], reading: Reading) -> tuple[Address, ...]:
    if value.get("reply_to") is not None:
        if value.get("reply_to_list"):
            reading.wrong("reply_to_list", "invalid_parameter", "Use either reply_to or reply_to_list.")
        one = _email("reply_to", value["reply_to"], reading)
        return (one,) if one else ()
    return _emails("reply_to_list", value.get("reply_to_list"), reading)


def _content(value: Any, reading: Reading) -> tuple[str | None, str | None]:
    """(html, text)."""
    parts: dict[str, str] = {}
    if not isinstance(value, list) or not value:
        reading.wrong("content", "missing_required_field", "Must be a list with a text/plain or text/html part.")
        return None, None
    for i, one in enumerate(value):
        kind = one.get("type") if isinstance(one, dict) else None
        if kind not in ("text/plain", "text/html") or kind in parts:
            why = "Must be text/plain or text/html, each at most once; send other parts as attachments."
            reading.wrong(f"content[{i}].type", "invalid_content_type", why)
        elif not (text := reading.string(f"content[{i}].value", one.get("value"))):
            reading.wrong(f"content[{i}].value", "too_short", "Must be a text of a character or more.")
        else:
            parts[kind] = text
    return parts.get("text/html"), parts.get("text/plain")


def _files(value: Any, reading: Reading) -> tuple[Attachment, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        reading.wrong("attachments", "wrong_type", "Must be a list of objects with content and filename.")
        return ()
    if not reading.few_files("attachments", len(value)):
        return ()
    found = []
    for i, one in enumerate(value):
        field = f"attachments[{i}]"
        reading.sort(one, _FILE, f"{field}.")
        if one.get("disposition") not in (None, "attachment", "inline"):
            reading.wrong(f"{field}.disposition", "invalid_parameter", "Must be attachment or inline.")
        inline = one.get("disposition") == "inline"
        if one.get("content_id") and not inline:
            reading.ignored.append(f"{field}.content_id")
        native = {
            # django-anymail sends an empty name for an image that has none
            "filename": one.get("filename") or ("inline" if inline else None),
            "content": one.get("content"),
            "content_type": one.get("type"),
            "content_id": one.get("content_id") if inline else None,
        }
        if (file := reading.file(field, native, _FILE_NAMES)) is not None:
            found.append(file)
    return tuple(found)


def _object(name: str, holder: Mapping[str, Any], reading: Reading, place: str = "") -> dict[str, Any]:
    value = holder.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        reading.wrong(f"{place}{name}", "wrong_type", "Must be an object.")
        return {}
    return value


def _moment(field: str, value: Any, reading: Reading) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**33:
        reading.wrong(field, "invalid_time", "Must be a Unix time in whole seconds.")
        return None
    return reading.moment(field, datetime.fromtimestamp(value, UTC))


def _settings(value: Any, reading: Reading) -> None:
    """What changes who gets what, or what they get, is refused where it is switched on."""
    if value is None:
        return
    if not isinstance(value, dict):
        reading.wrong("mail_settings", "wrong_type", "Must be an object.")
        return
    for name, setting in value.items():
        if not (isinstance(setting, dict) and setting.get("enable")):
            continue
        if name in _SETTINGS.without_effect:
            reading.ignored.append(f"mail_settings.{name}")
        elif name not in _SETTINGS.honoured:
            why = "Not available here: who is suppressed gets nothing, and a mail leaves as it was sent."
            reading.wrong(f"mail_settings.{name[:100]}", "not_available", why)
