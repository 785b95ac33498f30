"""Bodies of finished mails moved to the store, and objects deleted that no mail needs any more.

First the object, then the commit that empties the rows: whatever dies between leaves the mail as it was. A deletion is
written down with what it belongs to (dead_object) and done afterwards, as often as it takes; so is an object before it
is put, until its mail knows of it, since the mail may be erased before the next pass. With the store away all of it
waits; nothing is lost and accept never notices. One pass at a time (prune.archive): a second one would put emptied rows
over the object that the first has just put, and delete what the first is about to name.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID

from deliveries.models import Attachment, MessageContent
from deliveries.models.sql import execute
from deliveries.objects import Bucket
from deliveries.read.archive import key_of, packed
from deliveries.record.retention import Time, batch, pause, windows

log = logging.getLogger(__name__)

#: most mails are finished by then, so that each is looked at once
AGE = timedelta(minutes=10)
#: what was not finished when it was looked at is looked for again
_ANEW_S = 3600.0
#: where this process stands, and when it began
_FIRST = UUID(int=0)
_after, _began = _FIRST, 0.0


def archive(store: Bucket, left: Time) -> int:
    """Move what is finished and older than AGE; how many mails. Raises objects.Away where the store refuses one."""
    global _after, _began
    if time.monotonic() - _began > _ANEW_S:
        _after, _began = _FIRST, time.monotonic()
    moved = 0
    for ids in windows("message_content", datetime.now(UTC) - AGE, left, _after):
        rows = execute(_FINISHED, {"ids": ids}).fetchall()
        execute(_NOT_YET, {"keys": [key_of(row["tenant_id"], row["id"]) for row in rows]})
        for row in rows:
            moved += _move(store, row["tenant_id"], row["id"])
            if not left.left():
                return moved
        _after = ids[-1]
    return moved


def anew() -> None:
    """The next pass begins with the oldest."""
    global _began
    _began = -_ANEW_S


def _move(store: Bucket, tenant_id: UUID, message_id: UUID) -> int:
    content = MessageContent.objects.filter(id=message_id).first()
    if content is None:
        return 0
    store.put(
        key_of(tenant_id, message_id),
        packed(content, list(Attachment.objects.filter(message_id=message_id).order_by("position"))),
    )
    asked = {"id": message_id, "key": key_of(tenant_id, message_id)}
    with batch():
        # each looks at what was committed while the one before waited for its lock
        if not execute(_HOLD, asked).fetchone() or not execute(_EMPTY, asked).rowcount:
            return 0  # redacted or erased meanwhile: the object goes with the next pass
        execute("DELETE FROM attachment WHERE message_id = %(id)s", asked)
        execute("UPDATE message SET archived_at = now() WHERE id = %(id)s", asked)
        execute("DELETE FROM dead_object WHERE key = %(key)s::text", asked)
    return 1


def delete_dead(store: Bucket, left: Time) -> int:
    """Delete the objects that stand in `dead_object` (retention.bury writes them there); how many.

    Raises objects.Away where the store does not do it.
    """
    gone = 0
    while left.left() and (rows := execute("SELECT id, key FROM dead_object ORDER BY id LIMIT 100").fetchall()):
        with pause():
            for row in rows:
                store.delete(row["key"])
            execute("DELETE FROM dead_object WHERE id = ANY (%(ids)s::uuid[])", {"ids": [row["id"] for row in rows]})
            gone += len(rows)
    return gone


_FINISHED = """
SELECT m.id, m.tenant_id FROM message m
 WHERE m.id = ANY (%(ids)s::uuid[]) AND m.archived_at IS NULL AND m.redact = 0
   AND NOT EXISTS (SELECT FROM delivery d LEFT JOIN queued q ON q.delivery_id = d.id
                     LEFT JOIN report_request r ON r.delivery_id = d.id
                    WHERE d.message_id = m.id AND (q.delivery_id IS NOT NULL OR r.delivery_id IS NOT NULL))
 ORDER BY m.id
"""

_NOT_YET = "INSERT INTO dead_object (id, key) SELECT make_uuid7(), key FROM unnest(%(keys)s::text[]) AS key"

_HOLD = "SELECT 1 FROM message WHERE id = %(id)s AND archived_at IS NULL AND redacted_at IS NULL FOR UPDATE"

_EMPTY = "UPDATE message_content SET html = NULL, text = NULL, raw = NULL WHERE id = %(id)s"
