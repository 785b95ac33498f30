"""Received mail as Resend's API shows it: pages from what was noted at its reading, one mail from its octets."""

from __future__ import annotations

import base64
import re
from typing import Any
from uuid import UUID, uuid5

from deliveries.bounces.letter import File, Letter, read_letter
from deliveries.models import InboundMessage
from deliveries.read.emails import iso, keyset

#: inline images that are put into the HTML, in octets before base64; the others keep their cid:
MAX_INLINE_OCTETS = 10 * 1024 * 1024
_CID = re.compile(r"(?i)cid:([^\"'\s)>]{1,255})")
_IMAGE = re.compile(r"image/[a-z0-9.+-]{1,60}")

State = InboundMessage.State


def facts(letter: Letter, inbound_id: UUID) -> dict[str, Any]:
    """What a list and a webhook say of it; JSON."""
    return {
        "from": letter.from_,
        "to": list(letter.to),
        "cc": list(letter.cc),
        "bcc": list(letter.bcc),
        "reply_to": list(letter.reply_to),
        "subject": letter.subject,
        "message_id": letter.message_id,
        "attachments": [described(file, file_id(inbound_id, n)) for n, file in enumerate(letter.files)],
    }


def file_id(inbound_id: UUID, number: int) -> UUID:
    """The same each time it is read; nothing is stored for it."""
    return uuid5(inbound_id, str(number))


def described(file: File, identity: UUID) -> dict[str, Any]:
    return {
        "id": str(identity),
        "filename": file.filename or None,
        "content_type": file.content_type,
        "content_id": file.content_id or None,
        "content_disposition": file.disposition,
        "size": len(file.octets),
    }


def page(tenant_id: UUID, limit: int, after: UUID | None, before: UUID | None) -> tuple[list[dict[str, Any]], bool]:
    """(mails, whether there are more), newest first, by the index inbound_received."""
    rows = InboundMessage.objects.filter(tenant_id=tenant_id, state=State.RECEIVED).defer("octets")
    mails, more = keyset(rows, limit, after, before)
    return [_line(mail) for mail in mails], more


def email(tenant_id: UUID, inbound_id: UUID, inline: bool = True) -> dict[str, Any] | None:
    """The mail with its texts and header fields; `inline` puts images into the HTML as data URIs."""
    mail = _mail(tenant_id, inbound_id)
    if mail is None:
        return None
    letter = read_letter(bytes(mail.octets))
    html = letter.html
    if html is not None and inline:
        html = _with_images(html, letter.files)
    return {
        "object": "email",
        **_line(mail),
        "html": html,
        "text": letter.text,
        "headers": letter.headers,
        "received_for": mail.received_for,
    }


def files(tenant_id: UUID, inbound_id: UUID) -> list[tuple[UUID, File]] | None:
    """The attachments in order; None when the tenant has no such mail."""
    mail = _mail(tenant_id, inbound_id)
    if mail is None:
        return None
    return [(file_id(mail.id, n), file) for n, file in enumerate(read_letter(bytes(mail.octets)).files)]


def octets(inbound_id: UUID) -> bytes | None:
    """The whole mail, for whoever holds a signed address."""
    found = InboundMessage.objects.filter(id=inbound_id, state=State.RECEIVED).values_list("octets", flat=True).first()
    return None if found is None else bytes(found)


def _mail(tenant_id: UUID, inbound_id: UUID) -> InboundMessage | None:
    return InboundMessage.objects.filter(tenant_id=tenant_id, id=inbound_id, state=State.RECEIVED).first()


def _line(mail: InboundMessage) -> dict[str, Any]:
    return {"id": str(mail.id), "created_at": iso(mail.received_at), **(mail.letter or {})}


def _with_images(html: str, files: tuple[File, ...]) -> str:
    left = MAX_INLINE_OCTETS
    uris: dict[str, str] = {}
    for file in files:
        if file.content_id and _IMAGE.fullmatch(file.content_type) and len(file.octets) <= left:
            left -= len(file.octets)
            uris[file.content_id] = f"data:{file.content_type};base64,{base64.b64encode(file.octets).decode('ascii')}"
    used = 0

    def uri(found: re.Match[str]) -> str:
        nonlocal used
        made = uris.get(found[1], found[0])
        used += len(made)
        # one image that stands there a thousand times is not a thousand images
        return made if used <= 2 * MAX_INLINE_OCTETS else found[0]

    return _CID.sub(uri, html)
