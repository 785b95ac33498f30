"""What may be accepted: a mail that passed every check that needs no database, and what an answer says of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from deliveries.mime.address import Address
from deliveries.mime.compose import Attachment
from deliveries.states import Lane


@dataclass(frozen=True, slots=True)
class Draft:
    """A mail that passed every check that needs no database. `to` + `cc` + `bcc` is never empty."""

    sender: Address
    to: tuple[Address, ...]
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    subject: str = ""
    html: str | None = None
    text: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    attachments: tuple[Attachment, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()
    stream: str = "transactional"
    lane: Lane = Lane.NORMAL
    scheduled_at: datetime | None = None
    deliver_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Idempotency:
    """RFC-less, as Resend's: `key` of 1–256 characters, per tenant and `endpoint`, with the body's SHA-256."""

    endpoint: str
    key: str
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """The ids of the messages in the order of the drafts; `replayed` when an earlier request had made them."""

    ids: tuple[UUID, ...]
    replayed: bool = False
