"""A message in Postmark's words → Draft."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from deliveries.accept import Draft
from deliveries.mime.compose import Attachment
from deliveries.mime.foreign import POSTMARK_STREAM
from deliveries.mime.links import LEAVE_PLACE
from deliveries.states import ORDINARY_STREAM, REDACT_WORDS, Lane, Redact, Tracking
from mailapi.compat.leaving import with_way_out
from mailapi.compat.reading import Fields, Reading
from mailapi.compat.templates import Templates

MAX_RECIPIENTS = 50
MAX_BATCH = 500
MAX_OCTETS = 10 * 1024 * 1024

_LINKS = ("None", "HtmlAndText", "HtmlOnly", "TextOnly")
MESSAGE = Fields(
    honoured=frozenset({
        "From", "To", "Cc", "Bcc", "Subject", "Tag", "HtmlBody", "TextBody", "ReplyTo", "Headers", "Attachments",
        "Metadata", "MessageStream", "Redact", "TrackOpens", "TrackLinks",
    }),
    without_effect={"InlineCss": "CSS is inlined at publishing."},
    refused=dict.fromkeys(("TemplateId", "TemplateAlias", "TemplateModel"), "Send it to /email/withTemplate."),
)  # fmt: skip
_FILE = Fields(
    honoured=frozenset({"Name", "Content", "ContentType", "ContentID"}),
    without_effect={"ContentLength": "It is counted."},
    refused={},
)
_FILE_NAMES = {"filename": "Name", "content": "Content", "content_type": "ContentType", "content_id": "ContentID"}

_TEMPLATE = frozenset({"TemplateId", "TemplateAlias", "TemplateModel"})

#: Postmark's default stream is our default stream; all others have the same name here
_STREAMS = {POSTMARK_STREAM: ORDINARY_STREAM}
_STREAMS_BACK = {ours: theirs for theirs, ours in _STREAMS.items()}
#: the streams of newsletters, which must not overtake anything, and can be left
_BULK = frozenset({"broadcast", "broadcasts"})
_PLACE = re.compile(r"\{\{\{[ \t]*pm:unsubscribe(?:_url)?[ \t]*\}\}\}")
_AMONG_WORDS = re.compile(rf"(?<![\"'=]){re.escape(LEAVE_PLACE)}")


def ours(stream: str) -> str:
    return _STREAMS.get(stream, stream)


def theirs(stream: str) -> str:
    return _STREAMS_BACK.get(stream, stream)


def draft(value: Any, reading: Reading) -> Draft | None:
    """The mail, or None; then `reading.faults` says why."""
    if not isinstance(value, dict):
        reading.wrong("", "wrong_type", "A message must be a JSON object.")
        return None
    reading.sort(value, MESSAGE)
    stream = reading.string("MessageStream", value.get("MessageStream")) or POSTMARK_STREAM
    sender = reading.address("From", value.get("From"))
    to, cc, bcc = (reading.addresses(name, value.get(name)) for name in ("To", "Cc", "Bcc"))
    html, text = (reading.string(name, value.get(name)) or None for name in ("HtmlBody", "TextBody"))
    subject = reading.subject("Subject", value.get("Subject"))
    told = {fault.field for fault in reading.faults}
    if not sender and "From" not in told:
        reading.wrong("From", "missing_required_field", "Missing From field; it is required.")
    if not (to or cc or bcc) and not told & {"To", "Cc", "Bcc"}:
        reading.wrong("To", "missing_required_field", "Zero recipients specified; name at least one.")
    if len(to) + len(cc) + len(bcc) > MAX_RECIPIENTS:
        why = f"To, Cc and Bcc have {len(to) + len(cc) + len(bcc)} addresses together; {MAX_RECIPIENTS} are allowed."
        reading.wrong("To", "too_many_recipients", why)
    if not (html or text) and not told & {"HtmlBody", "TextBody"}:
        reading.wrong("HtmlBody", "missing_required_field", "Provide either TextBody or HtmlBody or both.")
    mail = Draft(
        sender=sender,  # type: ignore[arg-type]  # None only beside a fault
        to=to,
        cc=cc,
        bcc=bcc,
        reply_to=reading.addresses("ReplyTo", value.get("ReplyTo")),
        subject=subject,
        html=html,
        text=text,
        headers=reading.headers("Headers", _pairs(value.get("Headers"), reading)),
        attachments=_files(value.get("Attachments"), reading),
        tags=reading.labels("Tag", value.get("Tag")),
        metadata=reading.metadata("Metadata", value.get("Metadata")),
        stream=reading.stream("MessageStream", ours(stream)),
        redact=_redact(value.get("Redact"), reading),
        untracked=_untracked(value, reading),
        lane=Lane.BULK if stream in _BULK else Lane.NORMAL,
        unsubscribe=True if stream in _BULK else None,
    )
    if sum(len(a.content) for a in mail.attachments) > MAX_OCTETS:
        why = f"The attachments are larger than {MAX_OCTETS >> 20} MB together; send less or link to them."
        reading.wrong("Attachments", "too_large", why)
    return None if reading.faults else _with_link(with_way_out(mail, _PLACE))


def _with_link(mail: Draft) -> Draft:
    """In html, a place that stands among words is a whole link at Postmark."""
    html = mail.html and _AMONG_WORDS.sub(f'<a href="{LEAVE_PLACE}">Unsubscribe</a>', mail.html)
    return replace(mail, html=html)


def template_of(value: dict[str, Any]) -> Any:
    return value.get("TemplateAlias") or value.get("TemplateId")


def rendered(value: Any, templates: Templates, reading: Reading) -> Any:
    """The message with the parts that its template makes of TemplateModel."""
    if not isinstance(value, dict):
        return value
    own = [name for name in ("Subject", "HtmlBody", "TextBody") if value.get(name)]
    for name in own:
        reading.wrong(name, "not_with_template", "The template brings it; leave it out.")
    field = "TemplateAlias" if value.get("TemplateAlias") else "TemplateId"
    if template_of(value) is None:
        reading.wrong("TemplateId", "missing_required_field", "Name the template by TemplateId or TemplateAlias.")
        return value
    made = templates.render(reading, field, template_of(value), value.get("TemplateModel"), "TemplateModel")
    if made is None:
        return value
    whole = {name: part for name, part in value.items() if name not in _TEMPLATE}
    return (
        whole
        | {"Subject": made.subject, "HtmlBody": made.html, "TextBody": made.text}
        | _own_redact(made.redact, whole)
    )


def _untracked(value: dict[str, Any], reading: Reading) -> Tracking:
    """What is switched off; what is on follows the domain's own setting."""
    opens, links = value.get("TrackOpens"), reading.string("TrackLinks", value.get("TrackLinks"))
    if opens is not None and not isinstance(opens, bool):
        reading.wrong("TrackOpens", "wrong_type", "Must be true or false.")
    if links is not None and links not in _LINKS:
        reading.wrong("TrackLinks", "invalid_parameter", f"Must be one of {', '.join(_LINKS)}.")
    reading.ignored += [name for name, on in (("TrackOpens", opens), ("TrackLinks", links not in (None, "None"))) if on]
    found = Tracking.OPENS if opens is False else Tracking.NOTHING
    return found | Tracking.CLICKS if links == "None" else found


def _redact(value: Any, reading: Reading) -> Redact:
    """A field of ours, which a template may bring."""
    word = reading.string("Redact", value)
    if word is not None and word not in REDACT_WORDS:
        reading.wrong("Redact", "invalid_parameter", f"Must be one of {', '.join(REDACT_WORDS)}.")
    return REDACT_WORDS.get(word or "", Redact.NOTHING)


def _own_redact(found: Redact, whole: dict[str, Any]) -> dict[str, Any]:
    word = next((word for word, bits in REDACT_WORDS.items() if bits == found), None)
    return {"Redact": word} if word and whole.get("Redact") is None else {}


def _pairs(value: Any, reading: Reading) -> list[tuple[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        reading.wrong("Headers", "wrong_type", "Must be a list of objects with Name and Value.")
        return []
    found = []
    for place, one in enumerate(value):
        if isinstance(one.get("Name"), str) and one.keys() <= {"Name", "Value"}:
            found.append((one["Name"], one.get("Value")))
        else:
            reading.wrong(f"Headers[{place}]", "wrong_type", "Must be an object with Name and Value.")
    return found


def _files(value: Any, reading: Reading) -> tuple[Attachment, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        reading.wrong("Attachments", "wrong_type", "Must be a list of objects with Name, Content and ContentType.")
        return ()
    if not reading.few_files("Attachments", len(value)):
        return ()
    found = []
    for place, one in enumerate(value):
        field = f"Attachments[{place}]"
        reading.sort(one, _FILE, f"{field}.")
        cid = one.get("ContentID")
        native = {
            "filename": one.get("Name"),
            "content": one.get("Content"),
            "content_type": one.get("ContentType"),
            # the same image is shown by cid:logo, whether the field says so or only logo
            "content_id": cid.removeprefix("cid:") if isinstance(cid, str) else cid,
        }
        if (file := reading.file(field, native, _FILE_NAMES)) is not None:
            found.append(file)
    return tuple(found)
