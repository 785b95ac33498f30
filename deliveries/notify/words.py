"""What the foreign formats of webhooks share: the labels of a mail, and what a bounce category is called there.

A face's tags are one text each; a tag of ours with a value is shown as `name:value`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from deliveries.mime.foreign import POSTMARK_STREAM
from deliveries.smtp.rules import OF_ANOTHER, unproven
from deliveries.states import ORDINARY_STREAM, SUPPRESSING, Category

#: category → Postmark's bounce type; what is not here is a SoftBounce
POSTMARK_TYPES: dict[Category, str] = {
    Category.BAD_MAILBOX: "HardBounce",
    Category.BAD_DOMAIN: "HardBounce",
    Category.INACTIVE: "HardBounce",
    Category.CONTENT_SPAM: "SpamNotification",
    Category.POLICY_AUTH: "Blocked",
    Category.IP_REPUTATION: "Blocked",
    Category.RELAY_DENIED: "Blocked",
    Category.DNS_ERROR: "DnsError",
    Category.AUTO_REPLY: "AutoResponder",
}
#: type → (code, name), as Postmark's bounce API lists them
POSTMARK_CODES: dict[str, tuple[int, str]] = {
    "HardBounce": (1, "Hard bounce"),
    "Transient": (2, "Message delayed"),
    "AutoResponder": (64, "Auto responder"),
    "DnsError": (256, "DNS error"),
    "SpamNotification": (512, "Spam notification"),
    "SoftBounce": (4096, "Soft bounce"),
    "SpamComplaint": (100001, "Spam complaint"),
    "ManuallyDeactivated": (100002, "Manually deactivated"),
    "Blocked": (100006, "ISP block"),
    "SMTPApiError": (100007, "SMTP API error"),
}
_REPLY = re.compile(r"([245]\d\d)\b[ -]?(?:([245]\.\d{1,3}\.\d{1,3})\b)?")


def dead(category: str | None, rule: str | None, enhanced: str | None) -> bool:
    """Whether a bounce says that its address is dead, and proves it: an application strikes it from its own lists."""
    if Category(category or Category.UNKNOWN) not in SUPPRESSING or (enhanced or "").startswith("4"):
        return False
    return not (rule or "").endswith(OF_ANOTHER) and rule not in unproven()


def postmark_type(category: str | None, rule: str | None, enhanced: str | None) -> str:
    """Of an account that is disabled they say SoftBounce too."""
    kind = POSTMARK_TYPES.get(Category(category or Category.UNKNOWN), "SoftBounce")
    return kind if kind != "HardBounce" or dead(category, rule, enhanced) else "SoftBounce"


def postmark_stream(stream: str | None) -> str:
    """Their default stream is our default stream; all others have the same name in both."""
    return POSTMARK_STREAM if stream in (None, "", ORDINARY_STREAM) else stream


def labels(tags: str | list[dict[str, str]] | None) -> list[str]:
    rows = json.loads(tags) if isinstance(tags, str) else tags or []
    return [f"{tag['name']}:{tag['value']}" if tag["value"] else tag["name"] for tag in rows]


def metadata(row: Mapping[str, Any]) -> dict[str, str]:
    return json.loads(row["metadata"]) if row.get("metadata") else {}


def codes(reply: str) -> tuple[str, str]:
    """Reply code and enhanced status code at the beginning of a reply; empty where it has none, or is no reply."""
    found = _REPLY.match(reply)
    return (found[1], found[2] or "") if found else ("", "")


def number(delivery_id: Any) -> int:
    """A UUIDv7 as a whole number that JavaScript keeps: its milliseconds and the 12 bits that follow the version."""
    value = int(delivery_id)
    return (value >> 80) << 12 | (value >> 64) & 0xFFF


def span(ident: int) -> tuple[int, int]:
    """The UUIDs that have this number, from the first to the last, as 128 bits."""
    high = (ident >> 12) << 16 | 0x7000 | ident & 0xFFF
    return high << 64, (high << 64) | (2**64 - 1)
