"""The content of messages: as the mail that goes out, and as a person looks at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import F, Func, IntegerField

from deliveries.bounces.letter import read_letter
from deliveries.mime import raw
from deliveries.mime.compose import Attachment as Part
from deliveries.mime.compose import Composed, Mail, compose
from deliveries.models import Attachment, Message
from deliveries.models.sql import execute
from deliveries.read.archive import fetched, files

#: octets of inline images that a preview carries along
MAX_INLINE_OCTETS = 5 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stored:
    """What was accepted: `mail` where we compose it, else `octets`, which came whole. `tracking`: its bits."""

    message_id: str
    date: datetime
    mail: Mail | None
    octets: bytes
    tracking: int
    size: int

    def composed(self) -> Composed:
        """The mail without what each recipient gets of its own; ComposeError: it cannot be rendered."""
        return raw.composed(self.octets, self.message_id, self.date) if self.mail is None else compose(self.mail)


def of_rows(rows: Sequence[Mapping[str, Any]]) -> dict[UUID, Stored]:
    """From rows that hold COLUMNS, one for each message."""
    files = _files([row["message"] for row in rows if row["attachment_count"]])
    return {row["message"]: _stored(row, files.get(row["message"], ())) for row in rows}


def _stored(row: Mapping[str, Any], attachments: Sequence[Part]) -> Stored:
    created: datetime = row["accepted_at"]
    date = max(created, row["scheduled_at"] or created)
    facts = (row["tracking"], row["size"])
    if row["raw"] is not None:
        return Stored(row["message_id"], date, None, bytes(row["raw"]), *facts)
    mail = Mail(
        id=row["message"],
        message_id=row["message_id"],
        date=date,
        from_header=row["from_header"],
        to=tuple(row["to"]),
        cc=tuple(row["cc"] or ()),
        reply_to=tuple(row["reply_to"] or ()),
        subject=row["subject"],
        html=row["html"],
        text=row["text"],
        headers=tuple((name, value) for name, value in row["headers"] or ()),
        attachments=tuple(attachments),
    )
    return Stored(row["message_id"], date, mail, b"", *facts)


def of(message: Message) -> Stored | None:
    """One, wherever its content is; None where it is gone."""
    held = fetched(message)
    if held.content is None:
        return None
    row = {name: getattr(message, name) for name in _FACTS}
    row |= {"message": message.id, "accepted_at": message.created_at}
    row |= {name: getattr(held.content, name) for name in ("html", "text", "headers", "raw")}
    return _stored(row, attachments(message) if message.attachment_count else ())


_FACTS = "message_id scheduled_at from_header to cc reply_to subject tracking size".split()


def _files(message_ids: Sequence[UUID]) -> dict[UUID, list[Part]]:
    files: dict[UUID, list[Part]] = {}
    if message_ids:
        for row in execute(_FILES, {"ids": list(message_ids)}).fetchall():
            item = Part(row["filename"], row["content_type"], bytes(row["content"]), row["content_id"])
            files.setdefault(row["message_id"], []).append(item)
    return files


#: of message m and message_content c; empty lists as NULL, which nobody has to read
COLUMNS = """
m.id AS message, m.message_id, m.created_at AS accepted_at, m.scheduled_at, m.from_header, m."to",
nullif(m.cc, '[]') AS cc, nullif(m.reply_to, '[]') AS reply_to, m.subject, m.attachment_count, m.tracking, m.size,
c.html, c.text, nullif(c.headers, '[]') AS headers, c.raw
"""

_FILES = """
SELECT message_id, filename, content_type, content_id, content FROM attachment
 WHERE message_id = ANY (%(ids)s::uuid[]) ORDER BY message_id, position
"""


def attachments(message: Message) -> list[Part]:
    """The files of one message, in their order."""
    return [Part(f.filename, f.content_type, bytes(f.content), f.content_id) for f in files(message)]


@dataclass(frozen=True, slots=True)
class Body:
    """The HTML part as it was asked for, and the images that it refers to by Content-ID."""

    html: str
    images: dict[str, tuple[str, bytes]] = field(default_factory=dict)  #: Content-ID → (media type, octets)


def body(message: Message) -> Body | None:
    """For the preview; None when there is no HTML part (or no longer)."""
    held = fetched(message)
    html, whole = (held.content.html, held.content.raw) if held.content else (None, None)
    if whole is not None:
        letter = read_letter(bytes(whole))
        kept = _within((f.content_id, f.content_type, f.octets) for f in letter.files)
        return Body(letter.html, kept) if letter.html else None
    if not html:
        return None
    if not message.attachment_count:
        return Body(html)
    if message.archived_at is not None:
        return Body(html, _within((f.content_id, f.content_type, bytes(f.content)) for f in held.files))
    size = Func(F("content"), function="octet_length", output_field=IntegerField())
    small = (
        Attachment.objects.filter(message_id=message.id, content_type__startswith="image/")
        .exclude(content_id=None)
        .annotate(size=size)
        .filter(size__lte=MAX_INLINE_OCTETS)
        .order_by("position")
    )
    return Body(html, _within((f.content_id, f.content_type, bytes(f.content)) for f in small))


def _within(files: Any) -> dict[str, tuple[str, bytes]]:
    """Content-ID → image, as many as the bound holds."""
    images: dict[str, tuple[str, bytes]] = {}
    left = MAX_INLINE_OCTETS
    for content_id, media_type, octets in files:
        if content_id and media_type.startswith("image/") and len(octets) <= left:
            left -= len(octets)
            images[content_id.strip("<>")] = (media_type, octets)
    return images
