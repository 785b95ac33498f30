"""What may be accepted: a mail that passed every check that needs no database, and what an answer says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from deliveries.mime import links
from deliveries.mime.address import Address
from deliveries.mime.compose import Attachment
from deliveries.mime.raw import Raw
from deliveries.states import ORDINARY_STREAM, Lane, Redact, Tracking


@dataclass(frozen=True, slots=True)
class Reports:
    """Of which ends the client wants to hear, by mail to `return_to` (RFC 3461).

    `wanted`: addr-spec of a forward-path → (bits of models.asked.Notify, ORCPT); `envid` and ORCPT in xtext; `whole`:
    with the mail itself (RET=FULL).
    """

    return_to: str
    wanted: Mapping[str, tuple[int, str]]
    envid: str = ""
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """A mail that passed every check that needs no database. `to` + `cc` + `bcc` is never empty.

    `raw` is a whole mail (`Raw.octets`), which then takes the place of html, text, headers and attachments. With an
    `envelope` its mailboxes are the forward-paths, and to, cc and bcc are what is shown (RFC 5321 §2.3.1).
    """

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
    stream: str = ORDINARY_STREAM
    lane: Lane = Lane.NORMAL
    scheduled_at: datetime | None = None
    deliver_before: datetime | None = None
    raw: bytes | None = None
    envelope: tuple[Address, ...] = ()
    reports: Reports | None = None
    redact: Redact = Redact.NOTHING  #: what goes once it is finished; the stream's wish and the tenant's come to it
    untracked: Tracking = Tracking.NOTHING  #: what is not counted for this mail, though its domain counts it
    unsubscribe: bool | None = None  #: one click ends the stream for the recipient (RFC 8058); None: as the domain says

    @property
    def leave(self) -> bool | None:
        """`unsubscribe`, which a body that shows the link asks for by that."""
        return True if self.unsubscribe is None and links.leads_out(self.html, self.text) else self.unsubscribe


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


def of_raw(mail: Raw, envelope: Sequence[Address] = (), **fields: Any) -> Draft:
    """The draft of a whole mail. Without an `envelope` its To, Cc and Bcc are the forward-paths; `fields` are the rest
    of a Draft."""
    return Draft(
        sender=mail.sender,
        to=mail.to,
        cc=mail.cc,
        # whom the envelope adds is told to the sender, and to nobody else
        bcc=mail.bcc if not envelope else _unnamed(mail, envelope),
        reply_to=mail.reply_to,
        subject=mail.subject,
        headers=(("Message-ID", f"<{mail.message_id}>"),) if mail.message_id else (),
        raw=mail.octets,
        envelope=tuple(envelope),
        **fields,
    )


def _unnamed(mail: Raw, envelope: Sequence[Address]) -> tuple[Address, ...]:
    named = {a.addr_spec for a in (*mail.to, *mail.cc)}
    return tuple({a.addr_spec: a for a in envelope if a.addr_spec not in named}.values())
