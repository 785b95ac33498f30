"""A mail sent once more at a person's wish: a new message with the same content, accepted like any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now

from deliveries.accept import Draft, accept, of_raw
from deliveries.errors import BadInput, Fault
from deliveries.mime import raw
from deliveries.mime.address import Address, parse_address
from deliveries.models import ApiKey, AuditEntry, Message
from deliveries.read.archive import fetched
from deliveries.read.contents import attachments
from deliveries.states import Lane, Redact

#: addresses of one order: more is a campaign, not a repair
MAX_COPIES = 50


def send_again(message: Message, to: Sequence[Address], actor: str) -> list[UUID]:
    """One new message for each address, alone in its To; their ids. The audit log says who wished it.

    It goes by the key that the mail came by: what that may send, the copy may. Suppressions hold for it as for any
    mail. Raises BadInput (content no longer kept, sender domain not verified any more, no usable key, no address or too
    many) and KeyRefused (account suspended); then nothing was stored.
    """
    if not 0 < len(to) <= MAX_COPIES:
        raise BadInput([Fault("to", "out_of_range", f"Choose 1 to {MAX_COPIES} addresses.")])
    ids = accept(
        key_of(message.tenant_id, message.domain_id, message.api_key_id, message.test),
        [_draft(message, address) for address in to],
    ).ids
    AuditEntry.objects.bulk_create(
        AuditEntry(
            tenant_id=message.tenant_id,
            actor=actor[:200],
            action="message.sent_again",
            subject=f"{message.id} as {ident} to {address.addr_spec}"[:300],
        )
        for ident, address in zip(ids, to, strict=True)
    )
    return list(ids)


def key_of(tenant_id: UUID, domain_id: UUID | None, first: UUID | None = None, test: bool = False) -> bytes:
    """The hash of a key that may send for that domain: `first` where it still may, else the newest. BadInput: none.

    `test`: of those whose mail stays in the receiver lab, and of no other.
    """
    usable = ApiKey.objects.filter(
        Q(domain_id=None) | Q(domain_id=domain_id), Q(expires_at=None) | Q(expires_at__gt=Now()), tenant_id=tenant_id,
        revoked_at=None, suspended_at=None,
    ).exclude(scope=ApiKey.Scope.READING)  # fmt: skip
    found = usable.filter(id=first).first() if first else None
    found = found or usable.filter(test=test).order_by("-created_at").first()
    if found is None:
        raise BadInput(
            [
                Fault(
                    "key", "no_key", f"The tenant has no {'test' if test else 'API'} key that may send; make one first."
                )
            ]
        )
    return bytes(found.secret_hash)


def _draft(message: Message, to: Address) -> Draft:
    """Its own Message-ID, so that no receiver takes it for a copy of what it has; no time that has passed."""
    held = fetched(message)
    content = held.content
    if message.redacted_at:
        why = "The content of this mail was redacted once it was finished, as was asked for; send it anew."
        raise BadInput([Fault("content", "content_redacted", why)])
    if content is None:
        raise BadInput([Fault("content", "content_gone", held.why or "The content of this mail is no longer kept.")])
    tags = tuple((tag["name"], tag["value"]) for tag in message.tags)
    kept: dict[str, Any] = {
        "tags": tags,
        "metadata": tuple(message.metadata.items()),
        "stream": message.stream,
        "lane": Lane(message.lane),
        "unsubscribe": message.unsubscribe,
        "redact": Redact(message.redact),
    }
    if content.raw is not None:
        return of_raw(raw.read(bytes(content.raw)), envelope=(to,), **kept)
    return Draft(
        sender=parse_address(message.from_header),
        to=(to,),
        reply_to=tuple(parse_address(text) for text in message.reply_to),
        subject=message.subject,
        html=content.html,
        text=content.text,
        headers=tuple((n, v) for n, v in content.headers if n.lower() not in ("message-id", "date")),
        attachments=tuple(attachments(message)),
        **kept,
    )
