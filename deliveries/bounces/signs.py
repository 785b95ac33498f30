"""Signs by which a bounce without fields is told from ordinary mail, and a delay notice from a failure."""

from __future__ import annotations

from deliveries.bounces.mail import Mail
from deliveries.bounces.prose import Prose
from deliveries.bounces.wordings import wordings


def from_daemon(mail: Mail) -> bool:
    """Whether a mail system signs as the sender."""
    sender = mail.headers.decoded("from").lower()
    return any(name in sender for name in wordings().daemon_names)


def looks_like_bounce(mail: Mail, prose: Prose) -> bool:
    """Whether a mail comes from a mail system and speaks of a failure: two signs of five, or one that is certain."""
    headers = mail.headers
    if "x-failed-recipients" in headers or mail.report_type == "delivery-status":
        return True
    words = wordings()
    subject = " ".join(headers.decoded("subject").lower().split())
    text = " ".join(prose.text[:8_000].lower().split())
    null_path = headers.get("return-path").replace(" ", "").lower() in ("<>", "<mailer-daemon>")
    told = any(phrase in subject for phrase in words.bounce_subjects)
    said = any(phrase in text for phrase in words.bounce_texts)
    returned = bool(len(prose.returned)) and (told or said)
    daemon = from_daemon(mail)
    # a parcel may be delayed too: words prove nothing without a mail system, a returned mail or an address blamed
    certain = null_path or daemon or returned or (told and said and _blames(prose))
    return certain and null_path + daemon + told + said + returned >= 2


def _blames(prose: Prose) -> bool:
    return any(weight >= 2 for blamed in prose.weighed[:60] for _, weight in blamed)


def looks_delayed(mail: Mail, prose: Prose) -> bool:
    """Whether the text says that delivery goes on."""
    text = " ".join(f"{mail.headers.decoded('subject')} {prose.text[:8_000]}".lower().split())
    return any(phrase in text for phrase in wordings().delay_texts)
