"""Retention: what has served its time goes, month by month where a table has months, else in small batches.

    forget_contents   bodies, attachments and raw mails: the first to go
    forget_mail       messages with their deliveries, attempts and events
    forget_posts      webhooks and their tries
    forget_inbound    mail that came in, and what was handed on of it

Nothing unfinished is ever touched: a delivery that is scheduled, waits, is held or unknown has a row in `queued`, and
keeps its message, its content and the months that hold them. Ids are UUIDv7, so that "older than" is a range of the
primary key. A partition is dropped whole, under a lock that is waited for a moment only, since accept would wait
behind it.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db import DatabaseError, OperationalError, transaction

from deliveries.models.sql import execute

log = logging.getLogger(__name__)

#: rows of one transaction
BATCH = 1_000
#: between two batches: the disk belongs to the mail
PAUSE_S = 0.02
#: how long a drop waits for those who use the table; everybody else waits behind it
_LOCK_MS = 200
#: the ids of a message and of its deliveries are made one after the other, by a clock that may be set
_MARGIN = timedelta(days=1)


@dataclass(slots=True)
class Time:
    """How long a pass may take: the next one goes on."""

    until: float  #: monotonic

    def left(self) -> bool:
        return time.monotonic() < self.until


def first_id(moment: datetime) -> UUID:
    """The lowest UUIDv7 of that millisecond (RFC 9562 §5.7)."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def forget_contents(before: datetime, left: Time) -> int:
    """Contents of mails accepted before `before` that are finished; how many rows and partitions went."""
    gone = sum(_drop("message_content", end) for end in _months("message_content", before) if not _unfinished(end))
    for ids in _windows("message_content", before, left):
        done = execute(_FINISHED, {"ids": ids}).fetchall()
        finished = [row["id"] for row in done]
        with transaction.atomic():
            execute("DELETE FROM attachment WHERE message_id = ANY (%(ids)s::uuid[])", {"ids": finished})
            gone += execute("DELETE FROM message_content WHERE id = ANY (%(ids)s::uuid[])", {"ids": finished}).rowcount
    return gone


def forget_mail(before: datetime, left: Time) -> int:
    """Finished mails accepted before `before`, then the months of events and attempts that no mail needs any more."""
    gone = 0
    for ids in _windows("message", before, left):
        finished = [row["id"] for row in execute(_FINISHED, {"ids": ids}).fetchall()]
        with transaction.atomic():
            for statement in _OF_MESSAGE:
                execute(statement, {"ids": finished})
            gone += execute("DELETE FROM message WHERE id = ANY (%(ids)s::uuid[])", {"ids": finished}).rowcount
    for table in ("event", "attempt"):
        for end in _months(table, before):
            if not _has_messages(end):
                gone += _drop(table, end)
        if not _has_messages(before):
            gone += _sweep_default(table, before, left)
    return gone


def forget_posts(before: datetime, left: Time) -> int:
    """Months of webhooks that ended before `before`, with their tries; none in which a post still waits."""
    gone = 0
    for end in _months("webhook_delivery", before):
        waits = execute(_WAITING_POST, {"end": first_id(end)}).fetchone()
        if waits is None:
            gone += _drop("webhook_delivery", end) + _drop("webhook_try", end)
    if execute(_WAITING_POST, {"end": first_id(before)}).fetchone() is None:
        gone += _sweep_default("webhook_try", before, left) + _sweep_default("webhook_delivery", before, left)
    return gone


def forget_inbound(before: datetime, left: Time) -> int:
    """Mail that came in before `before`, was read, and of which nothing is still to be handed on."""
    gone = 0
    for ids in _windows("inbound_message", before, left):
        with transaction.atomic():
            old = [row["id"] for row in execute(_READ, {"ids": ids}).fetchall()]
            execute("DELETE FROM handover WHERE inbound_id = ANY (%(ids)s::uuid[])", {"ids": old})
            gone += execute("DELETE FROM inbound_message WHERE id = ANY (%(ids)s::uuid[])", {"ids": old}).rowcount
    return gone


def _has_messages(before: datetime) -> bool:
    found = execute("SELECT 1 FROM message WHERE id < %(end)s LIMIT 1", {"end": first_id(before)})
    return found.fetchone() is not None


def _sweep_default(table: str, before: datetime, left: Time) -> int:
    """Rows of the default partition: of months that were not made in time."""
    gone = 0
    for ids in _windows(f"{table}_default", before, left):
        gone += execute(f"DELETE FROM {table}_default WHERE id = ANY (%(ids)s::uuid[])", {"ids": ids}).rowcount
    return gone


def _windows(table: str, before: datetime, left: Time) -> Iterator[list[UUID]]:
    """The primary keys of rows older than `before`, BATCH at a time, oldest first."""
    after = UUID(int=0)
    while left.left():
        rows = execute(
            _WINDOW.format(table=table), {"after": after, "end": first_id(before), "batch": BATCH}
        ).fetchall()
        if not rows:
            return
        ids = [row["id"] for row in rows]
        after = ids[-1]
        yield ids
        time.sleep(PAUSE_S)


def _unfinished(end: datetime) -> bool:
    """Whether a delivery of a mail accepted before `end` still waits for something."""
    found = execute("SELECT 1 FROM queued WHERE delivery_id < %(end)s LIMIT 1", {"end": first_id(end + _MARGIN)})
    return found.fetchone() is not None


_NAME = re.compile(r"_(\d{4})_(\d\d)$")


def _months(table: str, before: datetime) -> list[datetime]:
    """The ends of the monthly partitions of `table` that lie wholly before `before`, oldest first."""
    ends = []
    for row in execute(_PARTITIONS, {"table": table}).fetchall():
        if found := _NAME.search(row["name"]):
            year, month = int(found[1]), int(found[2])
            ends.append(datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC))
    return sorted(end for end in ends if end <= before)


def _drop(table: str, end: datetime) -> int:
    """Drop the partition that ends at `end`; 0 where it is not there, or was in use for too long."""
    name = f"{table}_{end - timedelta(days=1):%Y_%m}"
    try:
        with transaction.atomic():
            execute(f"SET LOCAL lock_timeout = '{_LOCK_MS}ms'")
            execute(f'DROP TABLE IF EXISTS "{name}"')
    except OperationalError as e:
        log.info("%s is in use, and goes with a later pass: %s", name, e)
        return 0
    except DatabaseError:
        log.exception("%s cannot be dropped", name)
        return 0
    return 1


_WINDOW = "SELECT id FROM {table} WHERE id > %(after)s AND id < %(end)s ORDER BY id LIMIT %(batch)s"

_FINISHED = """
SELECT m.id FROM unnest(%(ids)s::uuid[]) AS m(id)
 WHERE NOT EXISTS (SELECT FROM delivery d JOIN queued q ON q.delivery_id = d.id WHERE d.message_id = m.id)
"""

_OF_MESSAGE = (
    "DELETE FROM delivery WHERE message_id = ANY (%(ids)s::uuid[])",
    "DELETE FROM attachment WHERE message_id = ANY (%(ids)s::uuid[])",
    "DELETE FROM message_content WHERE id = ANY (%(ids)s::uuid[])",
)

_WAITING_POST = "SELECT 1 FROM webhook_delivery WHERE state = 'pending' AND id < %(end)s LIMIT 1"

_READ = """
SELECT i.id FROM inbound_message i
 WHERE i.id = ANY (%(ids)s::uuid[]) AND i.state <> 'waiting'
   AND NOT EXISTS (SELECT FROM handover h WHERE h.inbound_id = i.id AND h.state = 'pending')
"""

_PARTITIONS = """
SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = to_regclass(%(table)s)
"""
