"""Contents wherever they are: in Postgres, or in the store that finished mails' bodies were moved to.

An object holds one mail: gzipped JSON of html, text, raw and the files, octets in base64. Its key follows from its ids.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.conf import settings

from deliveries.models import Attachment, Message, MessageContent
from deliveries.objects import Away, Bucket


@dataclass(frozen=True, slots=True)
class Kept:
    """The content of a mail; None where it is gone, and `why` says so where it should not be."""

    content: MessageContent | None
    files: tuple[Attachment, ...] = ()  #: of an archived mail; else they are in their table
    why: str = ""


@lru_cache(maxsize=1)
def bucket() -> Bucket | None:
    """The configured store; None without one."""
    if not settings.S3_ENDPOINT:
        return None
    return Bucket(
        settings.S3_ENDPOINT, settings.S3_BUCKET, settings.S3_REGION, settings.S3_ACCESS_KEY, settings.S3_SECRET_KEY
    )


def key_of(tenant_id: UUID, message_id: UUID) -> str:
    return f"{tenant_id}/{message_id}"


def fetched(message: Message) -> Kept:
    """The content, from Postgres or from the store. Never raises for the store: `why` says what is wrong with it."""
    row = MessageContent.objects.filter(id=message.id).first()
    if row is not None and row.html is None and row.text is None and row.raw is None:
        _look_again(message)
    if row is None or message.archived_at is None:
        return Kept(row)
    store = bucket()
    if store is None:
        return Kept(None, why="The content was moved to an S3 store, and none is configured (S3_ENDPOINT).")
    try:
        octets = store.get(key_of(message.tenant_id, message.id))
    except Away as e:
        return Kept(None, why=f"The content is in the S3 store, which cannot be read now: {e}")
    if octets is None:
        return Kept(None, why="The content was moved to the S3 store, and its object is missing there.")
    return unpacked(message, row, octets)


def files(message: Message) -> Sequence[Attachment]:
    """The attachments in their order, with octets."""
    found = list(Attachment.objects.filter(message_id=message.id).order_by("position"))
    if message.attachment_count and not found:
        _look_again(message)
    return found if message.archived_at is None else fetched(message).files


def _look_again(message: Message) -> None:
    """It may have been moved since the row was read, and what was emptied then is not its content."""
    if message.archived_at is None:
        message.archived_at = Message.objects.filter(id=message.id).values_list("archived_at", flat=True).first()


def packed(row: MessageContent, attached: Sequence[Attachment]) -> bytes:
    """The object of one mail; the same octets for the same content."""
    body = {
        "html": row.html,
        "text": row.text,
        "raw": None if row.raw is None else _text(row.raw),
        "files": [
            {
                "id": str(file.id), "filename": file.filename, "content_type": file.content_type,
                "content_id": file.content_id, "content": _text(file.content),
            }
            for file in attached
        ],
    }  # fmt: skip
    return gzip.compress(json.dumps(body).encode(), compresslevel=5, mtime=0)


def unpacked(message: Message, row: MessageContent, octets: bytes) -> Kept:
    """`row` filled from its object, which it alters, and the files."""
    try:
        body: dict[str, Any] = json.loads(gzip.decompress(octets))
        row.html, row.text = body["html"], body["text"]
        row.raw = None if body["raw"] is None else base64.b64decode(body["raw"])
        attached = tuple(
            Attachment(
                id=UUID(file["id"]), message_id=message.id, position=place, filename=file["filename"],
                content_type=file["content_type"], content_id=file["content_id"],
                content=base64.b64decode(file["content"]),
            )
            for place, file in enumerate(body["files"])
        )  # fmt: skip
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return Kept(None, why="The object of the content in the S3 store cannot be read; it is damaged.")
    return Kept(row, attached)


def _text(octets: bytes | memoryview) -> str:
    return base64.b64encode(bytes(octets)).decode("ascii")
