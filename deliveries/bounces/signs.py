"""Signs by which a bounce without fields is told from ordinary mail, and a delay notice from a failure."""

from __future__ import annotations

from deliveries.bounces.mail import Mail
from deliveries.bounces.prose import Prose
from deliveries.bounces.wordings import wordings


def looks_like_bounce(mail: Mail, prose: Prose) -> bool:
    """Whether a mail comes from a mail system and speaks of a failure: two signs of four, or one that is certain."""
    headers = mail.headers
    if "x-failed-recipients" in headers or mail.report_type == "delivery-status":
        return True
    words = wordings()
    sender = headers.decoded("from").lower()
    subject = " ".join(headers.decoded("subject").lower().split())
    text = " ".join(prose.text[:8_000].lower().split())
    null_path = headers.get("return-path").replace(" ", "") in ("<>", "<MAILER-DAEMON>")
    daemon = any(name in sender for name in words.daemon_names)
    told = any(phrase in subject for phrase in words.bounce_subjects)
    said = any(phrase in text for phrase in words.bounce_texts)
    return null_path + daemon + told + said >= 2


def looks_delayed(mail: Mail, prose: Prose) -> bool:
    """Whether the text says that delivery goes on."""
    text = " ".join(prose.text[:8_000].lower().split())
    return any(phrase in text for phrase in wordings().delay_texts)
