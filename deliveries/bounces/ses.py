"""Amazon SES event notifications as JSON mails (SNS over e-mail, or the bare object): bounce, complaint, delivery.

The shape is that of "Amazon SNS notification contents for Amazon SES". Only senders that route through SES see
these; they come to the same mailbox as DSNs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from deliveries.bounces.dsn import ACTIONS
from deliveries.bounces.finding import MAX_DIAGNOSTIC_CHARS, MAX_RECIPIENTS, Finding, enhanced_codes, tidy
from deliveries.bounces.mail import Mail

#: SNS cuts at 256 KB; what we read is the head of it
MAX_JSON_CHARS = 60_000


#: bounceSubType in the words of a reply, for a bounce without one
_SAID = {
    "NoEmail": "no such mailbox",
    "MailboxFull": "mailbox full",
    "MessageTooLarge": "message too large",
    "ContentRejected": "content rejected",
    "AttachmentRejected": "attachment rejected",
    "Suppressed": "on the suppression list",
    "OnAccountSuppressionList": "on the suppression list",
}


@dataclass(frozen=True, slots=True)
class Notification:
    """`kind` is bounce, complaint or delivery."""

    kind: str
    findings: tuple[Finding, ...]


def read_notification(mail: Mail) -> Notification | None:
    """The notification of the mail's first part; None where there is none."""
    for part in mail.parts[:1]:
        text = part.text.strip()
        if not text.startswith("{") or ("notificationType" not in text and "eventType" not in text):
            return None
        event = _object(text)
        if "Message" in event:
            event = _object(str(event["Message"]))
        kind = str(event.get("notificationType") or event.get("eventType") or "").lower()
        detail = event.get(kind)
        if kind not in ("bounce", "complaint", "delivery") or not isinstance(detail, dict):
            return None
        named = detail.get({"bounce": "bouncedRecipients", "complaint": "complainedRecipients"}.get(kind, "recipients"))
        rows = named if isinstance(named, list) else []
        found = (_finding(row, detail) for row in rows[:MAX_RECIPIENTS])
        return Notification(kind, tuple(f for f in found if f.address))
    return None


def _finding(row: Any, detail: dict[str, Any]) -> Finding:
    if not isinstance(row, dict):
        return Finding(tidy(str(row)[:400]))
    diagnostic = str(row.get("diagnosticCode") or "")[:MAX_DIAGNOSTIC_CHARS]
    diagnostic = diagnostic.removeprefix("smtp;").strip() or _SAID.get(str(detail.get("bounceSubType")), "")
    status = next(iter(enhanced_codes(str(row.get("status") or "")[:40])), "")
    action = str(row.get("action") or "").lower()
    if detail.get("bounceType") == "Transient":
        action = "failed"  # SES has stopped trying; the address may live
    return Finding(
        tidy(str(row.get("emailAddress") or "")[:400]), diagnostic, status, action if action in ACTIONS else ""
    )


def _object(text: str) -> dict[str, Any]:
    """The JSON object that a text is, whatever mail software has wrapped; {} where it is none."""
    text = text[:MAX_JSON_CHARS]
    for attempt in (text, text.replace("\n ", "").replace("\n", "")):
        try:
            value, _ = json.JSONDecoder(strict=False).raw_decode(attempt)
        except (ValueError, RecursionError):
            continue
        return value if isinstance(value, dict) else {}
    return {}
