"""A form in Mailgun's words → Drafts: one for each recipient where there are recipient variables."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from deliveries.accept import Draft, of_raw
from deliveries.errors import BadInput
from deliveries.mime import foreign, raw
from deliveries.mime.compose import Attachment, refused_header, refused_subject
from deliveries.mime.control import read_control
from deliveries.states import Tracking
from mailapi.compat.filling import TooMuch, fill, together
from mailapi.compat.leaving import with_way_out
from mailapi.compat.mailgun.form import File, Form
from mailapi.compat.reading import Fields, Reading
from mailapi.compat.templates import Templates
from mailapi.schemas.attachments import AttachmentIn
from mailapi.schemas.body import Body, body_of
from mailapi.schemas.emails import MAX_MERGED
from mailapi.schemas.faults import check

MAX_RECIPIENTS = 1_000

#: what is not counted where they say no
_TRACK = {
    "o:tracking": Tracking.OPENS | Tracking.CLICKS,
    "o:tracking-opens": Tracking.OPENS,
    "o:tracking-clicks": Tracking.CLICKS,
}
_SENDER = "Which address sends is the operator's to choose."
MESSAGE = Fields(
    honoured=frozenset({
        "from", "to", "cc", "bcc", "subject", "text", "html", "o:tag", "o:deliverytime", "o:testmode",
        "recipient-variables", "h:*", "v:*", "attachment", "inline", "template", "t:variables", *_TRACK,
    }),
    without_effect={
        "t:text": "The template's own text part is sent.",
        "o:tracking-pixel-location-top": "The picture stands at the end.", "o:dkim": "Every mail is signed.",
        "o:secondary-dkim": "Every mail is signed by its own domain.",
        "o:secondary-dkim-public": "Every mail is signed by its own domain.",
        "o:sending-ip": _SENDER, "o:sending-ip-pool": _SENDER,
        "o:skip-verification": "Certificates are checked where the domain's TLS policy says so.",
    },
    refused={
        "t:version": "Mail is sent from the published version.",
        "amp-html": "AMP parts are not sent.",
        "o:require-tls": "Set the domain's TLS policy instead.",
        "o:deliverytime-optimize-period": "Set o:deliverytime instead.",
        "o:time-zone-localize": "Set o:deliverytime instead.",
        "o:archive-to": "Add a Bcc instead.",
    },
)  # fmt: skip
MIME = Fields(
    honoured=frozenset({"to", "message", "o:tag", "o:deliverytime", "o:testmode", "v:*", *_TRACK}),
    without_effect=MESSAGE.without_effect,
    refused={
        **MESSAGE.refused,
        **dict.fromkeys(("recipient-variables", "template", "t:variables"), "Only for a mail that comes in fields."),
    },
)
_NO = ("no", "false", "")
_VARIABLES = "h:x-mailgun-variables"
_PLACE = re.compile(r"%(?:tag_|mailing_list_)?unsubscribe_url%")
_FILE_NAMES = {"filename": "file name", "content_type": "Content-Type", "content_id": "file name", "content": "content"}


def yes(form: Form, name: str) -> bool:
    return (form.last(name) or "").lower() in ("yes", "true", "htmlonly")


def drafts(form: Form, templates: Templates, reading: Reading) -> list[Draft]:
    """The mails; empty where `reading.faults` says why there are none."""
    _sort(form, MESSAGE, reading)
    draft = _draft(form, reading)
    variables = _variables(form.last("recipient-variables"), reading)
    values = {**_header_variables(form, reading), **(_object("t:variables", form.last("t:variables"), reading) or {})}
    if reading.faults or draft is None:
        return []
    made: Iterable[Draft] = [draft] if variables is None else _each(draft, variables, reading)
    if form.last("template"):
        made = (_from_template(one, form, values, templates, reading) for one in made)
    try:
        found = together(with_way_out(one, _PLACE) for one in made)
    except TooMuch:
        found = []
        reading.wrong(
            "to", "too_large", f"The mails have more than {MAX_MERGED >> 20} MB together; send them in parts."
        )
    return [] if reading.faults else found


def _sort(form: Form, known: Fields, reading: Reading) -> None:
    given: dict[str, Any] = {}
    for name in (*form.fields, *form.files):
        # what is refused when it is on may be switched off
        if name in known.refused and name in form.fields and (form.last(name) or "").lower() in _NO:
            reading.ignored.append(name)
        elif f"{name[:2]}*" not in known.honoured:
            given[name] = True
    reading.sort(given, known)


def _draft(form: Form, reading: Reading) -> Draft | None:
    sender = reading.address("from", form.fields.get("from"))
    to, cc, bcc = (reading.addresses(name, form.fields.get(name)) for name in ("to", "cc", "bcc"))
    told = {fault.field for fault in reading.faults}
    if not sender and "from" not in told:
        reading.wrong("from", "missing_required_field", "from parameter is missing")
    if not to and "to" not in told:
        reading.wrong("to", "missing_required_field", "to parameter is missing")
    if len(to) + len(cc) + len(bcc) > MAX_RECIPIENTS:
        why = f"to, cc and bcc have {len(to) + len(cc) + len(bcc)} addresses together; {MAX_RECIPIENTS} are allowed."
        reading.wrong("to", "too_many_recipients", why)
    html, text = (reading.string(name, form.last(name)) or None for name in ("html", "text"))
    if form.last("template"):
        reading.ignored += [name for name, part in (("html", html), ("text", text)) if part]
    elif not html and not text and not {"html", "text"} & {f.field for f in reading.faults}:
        reading.wrong("text", "missing_required_field", "Need at least one of 'text' or 'html' parameters specified")
    own = {name[2:]: values[-1] for name, values in form.fields.items() if name.startswith("h:")}
    for name in [name for name in own if name.lower() in foreign.FIELDS]:
        if f"h:{name}".lower() != _VARIABLES:
            why = "It is an order for mail that comes by SMTP; use the field that begins with o:"
            reading.wrong(f"h:{name}", "not_available", why)
        del own[name]
    reply_to = next((own.pop(name) for name in list(own) if name.lower() == "reply-to"), None)
    mail = Draft(
        sender=sender,  # type: ignore[arg-type]  # None only beside a fault
        to=to,
        cc=cc,
        bcc=bcc,
        reply_to=reading.addresses("h:Reply-To", reply_to or None),
        subject=reading.subject("subject", form.last("subject")),
        html=html,
        text=text,
        headers=reading.headers("h:", own.items()),
        attachments=_files(form, reading),
        **_options(form, reading),
    )
    return None if reading.faults else mail


def _options(form: Form, reading: Reading) -> dict[str, Any]:
    """What a mail of fields and a whole one share."""
    variables = _header_variables(form, Reading())
    given = {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in variables.items()}
    return {
        "tags": reading.labels("o:tag", form.fields.get("o:tag")),
        "metadata": reading.metadata(
            "v:", given | {n[2:]: v[-1] for n, v in form.fields.items() if n.startswith("v:")}
        ),
        "scheduled_at": _moment(form.last("o:deliverytime"), reading),
        "untracked": _untracked(form, reading),
    }


def _untracked(form: Form, reading: Reading) -> Tracking:
    """What is switched off; what is on follows the domain's own setting."""
    found = Tracking.NOTHING
    for name, bits in _TRACK.items():
        if (word := (form.last(name) or "").lower()) in ("no", "false"):
            found |= bits
        elif word in ("yes", "true", "htmlonly"):
            reading.ignored.append(name)
        elif word:
            reading.wrong(name, "invalid_parameter", "Must be yes or no.")
    return found


def whole(form: Form, reading: Reading) -> list[Draft]:
    """The mail of the file (or field) `message`, with `to` as its forward-paths."""
    _sort(form, MIME, reading)
    files, texts = form.files.get("message"), form.fields.get("message")
    octets = files[-1].content if files else texts[-1].encode() if texts else None
    envelope = reading.addresses("to", form.fields.get("to"))
    if octets is None:
        reading.wrong("message", "missing_required_field", "Need the mail in the file `message`.")
    if not envelope and not any(fault.field == "to" for fault in reading.faults):
        reading.wrong("to", "missing_required_field", "to parameter is missing")
    if len(envelope) > MAX_RECIPIENTS:
        why = f"to has {len(envelope)} addresses; {MAX_RECIPIENTS} are allowed."
        reading.wrong("to", "too_many_recipients", why)
    options = _options(form, reading)
    if octets is None or reading.faults:
        return []
    if b"\r" not in octets:  # clients that read it from a text file
        octets = octets.replace(b"\n", b"\r\n")
    mail = raw.read(octets)
    return [of_raw(mail, envelope, **_with_control(mail.control, options, reading))]


def _with_control(fields: Sequence[tuple[str, str]], options: dict[str, Any], reading: Reading) -> dict[str, Any]:
    """What the mail's own control fields ask for, below what the form says."""
    control = read_control(fields, datetime.now(UTC))
    if control.idempotency_key is not None:
        reading.ignored.append("X-Idempotency-Key")
    own = {"stream": control.stream, "deliver_before": control.deliver_before, "unsubscribe": control.unsubscribe,
           "redact": control.redact or None}  # fmt: skip
    return {
        **{name: value for name, value in own.items() if value is not None},
        "tags": tuple(dict.fromkeys((*control.tags, *options["tags"]))),
        "metadata": tuple({**dict(control.metadata), **dict(options["metadata"])}.items()),
        "scheduled_at": options["scheduled_at"] or control.scheduled_at,
        "untracked": options["untracked"] | control.untracked,
    }


def _files(form: Form, reading: Reading) -> tuple[Attachment, ...]:
    found: list[Attachment] = []
    if not reading.few_files("attachment", sum(len(form.files.get(f, ())) for f in ("attachment", "inline"))):
        return ()
    for field, inline in (("attachment", False), ("inline", True)):
        for place, file in enumerate(form.files.get(field, ())):
            if (one := _file(f"{field}[{place}]", file, inline, reading)) is not None:
                found.append(one)
    for field in ("attachment", "inline"):
        if field in form.fields:
            reading.wrong(field, "wrong_type", "Must be a file: a part with a file name, of a multipart form.")
    return tuple(found)


def _file(field: str, file: File, inline: bool, reading: Reading) -> Attachment | None:
    """An inline file is shown by `cid:` and its name."""
    native: dict[str, Any] = {"filename": file.name, "content": [], "content_type": file.content_type or None}
    if inline:
        native["content_id"] = file.name
    shape, faults = check({k: v for k, v in native.items() if v is not None}, AttachmentIn)
    for fault in faults:
        reading.wrong(f"{field}.{_FILE_NAMES.get(fault.field, fault.field)}", fault.code, fault.message)
    return replace(shape.attachment(), content=file.content) if shape else None


def _moment(value: str | None, reading: Reading) -> datetime | None:
    """RFC 5322, as Mailgun's clients write it, or a Unix time."""
    if not value:
        return None
    try:
        number = value.isascii() and value.isdigit()
        at = datetime.fromtimestamp(int(value), UTC) if number else parsedate_to_datetime(value)
    except (ValueError, OverflowError, OSError):
        why = "Write the time as in RFC 5322: Fri, 31 Jan 2031 09:00:00 +0000."
        reading.wrong("o:deliverytime", "invalid_time", why)
        return None
    return reading.moment("o:deliverytime", at if at.tzinfo else at.replace(tzinfo=UTC))


# --- variables: of all, and of each recipient ---------------------------------------------------------------------


def _object(field: str, text: str | None, reading: Reading) -> dict[str, Any] | None:
    """A JSON object; None where there is none."""
    if not text:
        return None
    try:
        body = body_of(text.encode())
    except BadInput as bad:
        body = Body({}, b"", tuple(bad.faults))
    for fault in body.faults:
        reading.wrong(".".join(filter(None, (field, fault.field))), fault.code, fault.message)
    if isinstance(body.value, dict):
        return body.value
    reading.wrong(field, "invalid_json", "Must be a JSON object.")
    return {}


def _header_variables(form: Form, reading: Reading) -> dict[str, Any]:
    """Another way to write `v:` and `t:variables`."""
    found = [values[-1] for name, values in form.fields.items() if name.lower() == _VARIABLES]
    return (found and _object("h:X-Mailgun-Variables", found[-1], reading)) or {}


def _variables(text: str | None, reading: Reading) -> dict[str, dict[str, Any]] | None:
    """By addr-spec as given; None where the mail is one for all."""
    found = _object("recipient-variables", text, reading)
    if found is not None and not all(isinstance(one, dict) for one in found.values()):
        reading.wrong("recipient-variables", "invalid_json", "Must be a JSON object of addresses, each with an object.")
        return {}
    return found


def _from_template(
    draft: Draft, form: Form, values: Mapping[str, Any], templates: Templates, reading: Reading
) -> Draft:
    """With the parts that the template makes of `t:variables` and of the mail's own `v:`, as Mailgun's do."""
    data = {**dict(draft.metadata), **values}
    made = templates.render(reading, "template", form.last("template"), data, "t:variables")
    if made is None:
        return draft
    if why := refused_subject(draft.subject or made.subject or ""):
        reading.wrong("t:variables", "invalid_subject", why)
    return replace(
        draft, subject=draft.subject or made.subject or "", html=made.html, text=made.text, redact=made.redact
    )


def _each(draft: Draft, variables: Mapping[str, dict[str, Any]], reading: Reading) -> Iterator[Draft]:
    """A mail for each address in `to`, alone there, with its words in the places `%recipient.key%`."""
    known = {address.lower(): words for address, words in variables.items()}
    for address in {a.addr_spec: a for a in draft.to}.values():
        given = reading.metadata(f"recipient-variables.{address.addr_spec}", known.get(address.addr_spec.lower(), {}))
        words = {f"%recipient.{key}%": text for key, text in given}
        words |= {"%recipient_email%": address.addr_spec, "%recipient_name%": address.display_name}
        try:
            one = fill(replace(draft, to=(address,)), words | {"%recipient%": address.header()})
        except TooMuch:
            reading.wrong("recipient-variables", "too_large", "The mail grows beyond what a request may have.")
            return
        for why in (refused_subject(one.subject), *(refused_header(*pair) for pair in one.headers)):
            if why:
                reading.wrong(f"recipient-variables.{address.addr_spec}", "invalid_header", f"With these words: {why}")
        # of a header whose words are empty nothing is left to send
        yield replace(one, headers=tuple((n, v) for n, v in one.headers if v))
