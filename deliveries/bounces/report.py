"""Reads one returned mail: bounce, delay notice, delivery receipt, complaint, auto-reply, or ordinary mail.

`read_report(octets)` is the only door. It never raises for input, recurses nowhere, and its work is bounded by
the caps of `bounces.mail`. What it says is a reading, not an act: an event needs a valid token (docs/rfc.md, rule 27).

In order: complaint (arf), JSON event (ses), fields (dsn), human text (prose, else flufl.bounce), auto-reply, ordinary;
an ordinary mail is searched for a forwarded bounce.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from deliveries.bounces.arf import read_complaint
from deliveries.bounces.autoreply import is_auto_reply, is_challenge, titled_auto_reply
from deliveries.bounces.dsn import TYPES as STATUS_TYPES
from deliveries.bounces.dsn import read_status
from deliveries.bounces.finding import MAX_DIAGNOSTIC_CHARS, REPLY_CODE, Finding, enhanced_codes, reply_codes
from deliveries.bounces.last_resort import find_addresses
from deliveries.bounces.mail import Headers, Mail, read_mail
from deliveries.bounces.paragraphs import coded
from deliveries.bounces.prose import Prose, prose_of, read_prose, said_of
from deliveries.bounces.ses import Notification, read_notification
from deliveries.bounces.signs import (
    from_daemon,
    looks_delayed,
    looks_delivered,
    looks_like_bounce,
    marked,
    reports_first_hand,
    stands_without_address,
)
from deliveries.smtp.classify import Classified, classify_text, stage_of
from deliveries.smtp.outcome import Stage
from deliveries.smtp.reply import clean
from deliveries.smtp.rules import normalise
from deliveries.states import Category

#: the signed header in which each delivery carries its VERP token; the same literal stands in mime.verp
TOKEN_HEADER = "X-Mailapi-Delivery"
MAX_TOKEN_CHARS = 120
#: RFC 5321 §4.5.3.1: 64 + 1 + 255, and room for an X.400 name
MAX_ADDRESS_CHARS = 400
#: octets of each part in which the token field is looked for
MAX_TOKEN_SEARCH = 200_000
#: what a quoted reply may say without deciding: "554 Service unavailable" ends many a transcript
_VAGUE = frozenset({Category.UNKNOWN, Category.NETWORK})
#: a reply quoted in a letter: two or three lines of it (RFC 5321 §4.5.3.1.5)
MAX_REPLY_CHARS = 300
#: attached mails that are looked into for a forwarded bounce
MAX_FORWARDS = 3


class Kind(StrEnum):
    """What a returned mail says about one address."""

    HARD = "hard"  #: the address is dead: suppress it (bad_domain only on the second sight)
    SOFT = "soft"  #: not delivered, but the address may live: full, blocked, too late, our trouble
    UNKNOWN = "unknown"  #: not delivered, and no rule knows why


class ReportKind(StrEnum):
    """What a returned mail is."""

    BOUNCE = "bounce"  #: delivery failed for at least one recipient
    DELAYED = "delayed"  #: still being tried by a relay; not a bounce
    DELIVERED = "delivered"  #: success, relayed or expanded (RFC 3464 §2.3.3); not a bounce
    COMPLAINT = "complaint"  #: abuse feedback (RFC 5965) or an older complaint mail
    AUTO_REPLY = "auto_reply"  #: vacation note, challenge, receipt (RFC 3834)
    ORDINARY = "ordinary"  #: none of these
    UNREADABLE = "unreadable"  #: empty, or no header field at all


@dataclass(frozen=True, slots=True)
class Recipient:
    """One forward-path that the mail speaks of.

    `address` is "" where the mail names none, `status` an enhanced code or "", `action` of RFC 3464 §2.3.3 or "".
    """

    address: str
    kind: Kind
    status: str
    category: Category
    rule: str
    diagnostic: str
    action: str


@dataclass(frozen=True, slots=True)
class Report:
    """The reading. `token` is the value of our token header in the returned headers, unchecked; None where absent."""

    kind: ReportKind
    recipients: tuple[Recipient, ...] = ()
    token: str | None = None
    original_message_id: str | None = None
    feedback_type: str | None = None
    notes: tuple[str, ...] = ()
    #: a person may have written it: a bounce that was passed on, a complaint by its subject alone
    second_hand: bool = False


def read_report(octets: bytes, reverse_path: str | None = None) -> Report:
    """The reading of one RFC 5322 mail; never raises for input.

    `reverse_path`: the envelope's ("" is the null path, RFC 3464 §2), None where Return-Path is to tell it.
    """
    mail = replace(read_mail(octets), reverse_path=reverse_path)
    if not len(mail.headers):
        return Report(ReportKind.UNREADABLE, notes=(*mail.notes, "no header field"))
    prose = prose_of(mail)
    report, notes = _read(mail, prose, octets), mail.notes
    if report.kind in (ReportKind.ORDINARY, ReportKind.BOUNCE) and not (_tells(mail, prose) or read_status(mail)):
        for part in mail.of_type("message/rfc822")[:MAX_FORWARDS]:
            inner = read_mail(part.octets)
            # a person may forward anything, and under its subject; only a bounce with fields counts
            if read_status(inner):
                inner_prose = prose_of(inner)
                again = _read(inner, inner_prose, part.octets)
                if again.recipients:
                    report, mail, prose = replace(again, second_hand=True), inner, inner_prose
                    notes = (*notes, "inside a forwarded mail")
                    break
    return replace(report, token=_token(mail, prose), original_message_id=_message_id(prose.returned), notes=notes)


def _tells(mail: Mail, prose: Prose) -> bool:
    """Whether a mail system says why and whom: what it returns is then the mail, not a report that it passes on."""
    return from_daemon(mail) and (any(prose.weighed) or coded(prose.text))


def _read(mail: Mail, prose: Prose, octets: bytes) -> Report:
    complaint = read_complaint(mail, prose.returned)
    if complaint:
        said = tuple(
            Recipient(clean(a), Kind.UNKNOWN, "", Category.UNKNOWN, "complaint", "", "") for a in complaint.recipients
        )
        kind = complaint.feedback_type
        return Report(ReportKind.COMPLAINT, said, feedback_type=kind, second_hand=complaint.worded)

    event = read_notification(mail)
    if event:
        return _of_event(event, prose)
    findings = read_status(mail)
    if findings and (mail.of_type(*STATUS_TYPES) or reports_first_hand(mail)):
        if is_challenge(findings, prose.text):
            return Report(ReportKind.AUTO_REPLY)
        return _of_fields(prose, findings)
    bounce = looks_like_bounce(mail, prose)
    # Exim marks its own warnings auto-replied: who signs decides, or a mark of bounces, unless a postmaster is away
    sure = bounce and (marked(mail) or from_daemon(mail))
    if titled_auto_reply(mail) or (not sure and is_auto_reply(mail, prose.text)):
        return Report(ReportKind.AUTO_REPLY)
    if not bounce:
        return Report(ReportKind.ORDINARY)
    findings = read_prose(mail, prose)
    if not findings:
        findings = [Finding(address, prose.text) for address in find_addresses(octets, mail)]
    if not findings:
        if not stands_without_address(mail, prose):
            return Report(ReportKind.ORDINARY)  # words of failure, but of no mail system, about no mail and nobody
        findings = [Finding("", prose.text)]  # it says why; the token says whom
    if looks_delayed(mail, prose):
        return Report(ReportKind.DELAYED, _judged((replace(f, action="delayed") for f in findings), prose))
    if looks_delivered(mail, prose):
        return Report(ReportKind.DELIVERED, _judged((replace(f, action="delivered") for f in findings), prose))
    return Report(ReportKind.BOUNCE, _judged(findings, prose))


def _of_event(event: Notification, prose: Prose) -> Report:
    """A report by a provider's JSON event."""
    said = _judged(event.findings, prose)
    if event.kind == "complaint":
        return Report(ReportKind.COMPLAINT, said, feedback_type="abuse")
    return Report(ReportKind.BOUNCE if event.kind == "bounce" else ReportKind.DELIVERED, said)


def _of_fields(prose: Prose, findings: list[Finding]) -> Report:
    """A report by its fields: failed ones make it a bounce, else delayed, else delivered."""
    failed = [f for f in findings if f.action == "failed" or (not f.action and f.status[:1] != "2")]
    delayed = [f for f in findings if f.action == "delayed"]
    if failed:
        return Report(ReportKind.BOUNCE, _judged((f for f in findings if f in failed or f in delayed), prose))
    if delayed:
        return Report(ReportKind.DELAYED, _judged(delayed, prose))
    return Report(ReportKind.DELIVERED, _judged(findings, prose))


def _judged(findings: Iterable[Finding], prose: Prose) -> tuple[Recipient, ...]:
    findings = list(findings)
    return tuple(_judge(finding, prose, len(findings) == 1) for finding in findings)


def _judge(finding: Finding, prose: Prose, alone: bool) -> Recipient:
    """The finding classified: diagnostic first, then the human text, without what it says of others."""
    if not finding.diagnostic:
        finding = replace(finding, diagnostic=said_of(prose, finding.address))
    status = _status(finding)
    code = _code(finding.diagnostic, status)
    around = prose.stage if alone else stage_of(normalise(said_of(prose, finding.address)))
    stage = finding.stage or stage_of(normalise(finding.diagnostic)) or around
    said = _meaning(finding, prose, alone, code, status, stage)
    if not status:
        status = next(iter(enhanced_codes(prose.text if alone else prose.shared)), "")
    return Recipient(
        clean(finding.address[:MAX_ADDRESS_CHARS]),
        _kind(said, finding),
        status,
        said.category,
        said.rule,
        clean(finding.diagnostic[:MAX_DIAGNOSTIC_CHARS]),
        finding.action,
    )


def _meaning(
    finding: Finding, prose: Prose, alone: bool, code: int | None, status: str, stage: Stage | None
) -> Classified:
    """The peer's own words before what the reporter wraps around them, and the finding's before the whole letter's."""
    if quoted := _reply_in(finding.diagnostic):
        said = classify_text(quoted, code, status, stage)
        if said.category not in _VAGUE:
            return said
    # a letter's greeting speaks of "your message"; its paragraph about the address does not
    if finding.letter and (about := said_of(prose, finding.address)):
        said = classify_text(about, code, status, stage)
        if said.category not in _VAGUE:
            return said
    said = classify_text(finding.diagnostic, code, status, stage)
    if said.category is Category.UNKNOWN and prose.text:
        # not without the diagnostic: what it says may forbid what the codes alone would mean
        again = classify_text(f"{finding.diagnostic} {prose.text if alone else prose.shared}", code, status, stage)
        return said if again.category is Category.UNKNOWN else again
    return said


def _reply_in(text: str) -> str:
    """The reply that a letter quotes, from its code on; "" where the text is a reply itself, or quotes none."""
    if len(text) <= MAX_REPLY_CHARS:
        return ""
    found = next((f for f in REPLY_CODE.finditer(text[:MAX_DIAGNOSTIC_CHARS]) if f[1][0] in "45"), None)
    return text[found.start() : found.start() + MAX_REPLY_CHARS] if found else ""


def _code(text: str, status: str) -> int | None:
    """The reply code of a refusal: of those quoted the first of the status's class; earlier tries are told too."""
    codes = [code for code in reply_codes(text) if code >= 400]
    return next((code for code in codes if status[:1] == str(code)[0]), codes[0] if codes else None)


def _status(finding: Finding) -> str:
    """The code that says most: the one that the peer's own reply carries, else the Status field.

    X.5.x after another is what follows from it: RFC 2920 §3.1, DATA is refused because every RCPT was.
    """
    quoted = [code for code in enhanced_codes(finding.diagnostic) if not code.endswith(".0.0")]
    said = [code for code in quoted if code[2] != "5"] or quoted
    return said[-1] if said else finding.status


def _kind(said: Classified, finding: Finding) -> Kind:
    if said.suppress and finding.action != "delayed":
        return Kind.HARD
    return Kind.UNKNOWN if said.category is Category.UNKNOWN else Kind.SOFT


def _token(mail: Mail, prose: Prose) -> str | None:
    """Our token out of the returned header, wherever the reporter put it; never out of the report's own header."""
    value = prose.returned.get(_FIELD)
    if not value:
        sources: list[str | bytes] = [
            prose.inline[:MAX_TOKEN_SEARCH],
            *(part.octets[:MAX_TOKEN_SEARCH] for part in mail.parts),
        ]
        value = next(filter(None, (_field_in(source) for source in sources)), "")
    return clean(value)[:MAX_TOKEN_CHARS] or None


def _field_in(source: str | bytes) -> str:
    """The token field's value in a text that may be quoted or indented; "" where it is not there."""
    text = source if isinstance(source, str) else source.decode("latin-1")
    at = text.lower().find(_FIELD)
    if at < 0:
        return ""
    found = _VALUE.match(text[at + len(_FIELD) : at + len(_FIELD) + MAX_TOKEN_CHARS * 2])
    return found[1] if found else ""


_FIELD = TOKEN_HEADER.lower()
_VALUE = re.compile(rf"[ \t]{{0,4}}:[ \t\n>]{{0,8}}([\w.=+-]{{1,{MAX_TOKEN_CHARS}}})")


def _message_id(returned: Headers) -> str | None:
    value = clean(returned.get("message-id")).strip()
    return value[:998] or None
