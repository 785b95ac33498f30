"""Complaints: feedback reports (RFC 5965, RFC 6591 types) and the complaint mails that came before them."""

from __future__ import annotations

from dataclasses import dataclass

from deliveries.bounces.dsn import groups
from deliveries.bounces.finding import addresses
from deliveries.bounces.mail import Headers, Mail
from deliveries.bounces.wordings import wordings
from deliveries.encoded import decode_text
from deliveries.smtp.rules import fold

TYPE = "message/feedback-report"


@dataclass(frozen=True, slots=True)
class Complaint:
    """`recipients` may be empty: reporters redact (docs/rfc.md, rule 26), the token tells whom it was.

    `worded`: by its subject alone, which a person may write as well.
    """

    feedback_type: str
    recipients: tuple[str, ...]
    worded: bool = False


def read_complaint(mail: Mail, returned: Headers) -> Complaint | None:
    """The complaint that a mail is; None where it is none."""
    for part in mail.of_type(TYPE):
        fields: list[tuple[str, str]] = []
        for group in groups(decode_text(part.octets[:64_000], ""), every_field=True):
            fields += group.fields
        report = Headers(tuple(fields))
        named = addresses(" ".join(report.all("original-rcpt-to") + report.all("removal-recipient")), 20)
        return Complaint(report.get("feedback-type").lower()[:40] or "abuse", tuple(named or _sent_to(returned)))
    if mail.report_type == "feedback-report":
        return Complaint("abuse", tuple(_sent_to(returned)))
    subject = fold(mail.headers.decoded("subject"))
    sender = mail.headers.get("from").lower()
    # Before RFC 5965: AOL's "Client TOS Notification", Hotmail's staff mail, both with the mail returned
    tos = "client tos notification" in subject or ("staff@hotmail.com" in sender and "complaint" in subject)
    if tos or (len(returned) and any(words in subject for words in wordings().complaint_subjects)):
        hotmail = addresses(mail.headers.get("x-hmxmroriginalrecipient") or returned.get("x-hmxmroriginalrecipient"), 1)
        return Complaint("abuse", tuple(hotmail or _sent_to(returned)), worded=not tos)
    return None


def _sent_to(returned: Headers) -> list[str]:
    return addresses(" ".join(returned.all("to")), 20)
