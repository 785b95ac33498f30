"""Retention: what has served its time goes, month by month where a table has months, else in small batches.

    forget_contents   bodies, attachments and raw mails: the first to go
    forget_mail       messages with their deliveries, attempts and events
    forget_posts      webhooks and their tries
    forget_inbound    mail that came in, and what was handed on of it
    forget_requests   the log of API requests
    forget_answers    idempotency keys

Nothing unfinished is ever touched: a delivery that is scheduled, waits, is held or unknown has a row in `queued`, and
keeps its message, its content and the months that hold them. Ids are UUIDv7, so that "older than" is a range of the
primary key.

Accept never waits for any of it longer than LOCK_MS: what needs a table for itself (a month made or dropped) asks for
its lock so long, one table at a time, and asks again later; rows go BATCH at a time, and after each batch the disk
belongs to the mail for several times as long as the batch took.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import accumulate
from typing import TypeVar
from uuid import UUID

from django.db import DatabaseError, OperationalError, transaction

from deliveries.models.sql import execute

log = logging.getLogger(__name__)
T = TypeVar("T")

#: rows of one transaction
BATCH = 100
#: of a window where rows are large, whatever one alone has: a search through it stays far within a statement's time
MOST_OCTETS = 8 * 1024 * 1024
#: between two batches: at the least and at most, and in times of what the one before took
PAUSE_S, LONGEST_PAUSE_S, REST = 0.02, 5.0, 6
#: how long a table is waited for; everybody else who wants it waits behind that
LOCK_MS = 50
#: how often it is asked for in one pass, and the pause after a wait in vain
_ASKED, _ASK_AGAIN_S = 5, 0.5
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
    gone = _forget_archived(before, left)
    gone += sum(_drop("message_content", end) for end in _months("message_content", before) if not _unfinished(end))
    for ids in windows("message_content", before, left):
        finished = _finished(ids, before)
        with batch():
            execute("DELETE FROM attachment WHERE message_id = ANY (%(ids)s::uuid[])", {"ids": finished})
            gone += execute("DELETE FROM message_content WHERE id = ANY (%(ids)s::uuid[])", {"ids": finished}).rowcount
    return gone


def _forget_archived(before: datetime, left: Time) -> int:
    """Contents that were moved to the store; they are of finished mails."""
    gone = 0
    asked = {"end": first_id(before), "batch": BATCH}
    while left.left() and (rows := execute(_ARCHIVED, asked).fetchall()):
        ids = {"ids": [row["id"] for row in rows]}
        with pause(), batch():
            bury(ids["ids"])
            gone += execute("DELETE FROM message_content WHERE id = ANY (%(ids)s::uuid[])", ids).rowcount
    return gone


def forget_mail(before: datetime, left: Time) -> int:
    """Finished mails accepted before `before`, then the months of events and attempts that no mail needs any more."""
    gone = 0
    for ids in windows("message", before, left):
        finished = _finished(ids, before)
        with batch():
            _forget_what_is_of(finished)
            gone += execute("DELETE FROM message WHERE id = ANY (%(ids)s::uuid[])", {"ids": finished}).rowcount
    for table in ("event", "attempt"):
        for end in _months(table, before):
            if not _has_messages(end):
                gone += _drop(table, end)
        if not _has_messages(before):
            gone += _sweep_default(table, before, left)
    return gone


def forget_private(tenant_id: UUID, before: datetime, left: Time) -> int:
    """Finished mails of one tenant with all that was written about them: months would keep that for the others'."""
    gone = 0
    asked = {"tenant": tenant_id, "end": first_id(before), "after": UUID(int=0), "batch": BATCH}
    while left.left() and (rows := execute(_OF_TENANT, asked).fetchall()):
        asked["after"] = rows[-1]["id"]
        with pause(), batch():
            gone += remove_mail(_finished([row["id"] for row in rows], before))
    return gone


def remove_mail(ids: list[UUID]) -> int:
    """These finished mails, their events, attempts, webhooks and reports that were asked for; in one transaction."""
    for statement in _ABOUT_MESSAGE:
        execute(statement, {"ids": ids})
    _forget_what_is_of(ids)
    return execute("DELETE FROM message WHERE id = ANY (%(ids)s::uuid[])", {"ids": ids}).rowcount


def _forget_what_is_of(ids: list[UUID]) -> None:
    bury(ids)
    for statement in _OF_MESSAGE:
        execute(statement, {"ids": ids})


def bury(ids: list[UUID]) -> None:
    """Write down the objects of these mails, which are deleted once this is committed (record/archiving.py)."""
    # held first: else one that is moved to the store meanwhile would be seen as it was
    execute("SELECT id FROM message WHERE id = ANY (%(ids)s::uuid[]) ORDER BY id FOR UPDATE", {"ids": ids})
    execute(_BURY, {"ids": ids})


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
    for ids in windows("inbound_message", before, left):
        with batch():
            old = [row["id"] for row in execute(_READ, {"ids": ids}).fetchall()]
            execute("DELETE FROM handover WHERE inbound_id = ANY (%(ids)s::uuid[])", {"ids": old})
            gone += execute("DELETE FROM inbound_message WHERE id = ANY (%(ids)s::uuid[])", {"ids": old}).rowcount
    return gone


def forget_requests(before: datetime, left: Time) -> int:
    """The log of requests: whole months, then the rest."""
    gone = sum(_drop("request_log", end) for end in _months("request_log", before))
    for ids in windows("request_log", before, left):
        with batch():
            gone += execute("DELETE FROM request_log WHERE id = ANY (%(ids)s::uuid[])", {"ids": ids}).rowcount
    return gone


def forget_answers(older_than: timedelta, left: Time) -> int:
    """Idempotency keys that may be used anew."""
    gone = 0
    while left.left():
        with pause(), batch():
            done = execute(_FORGET, {"age": older_than, "batch": BATCH}).rowcount
        gone += done
        if done < BATCH:
            break
    return gone


def _has_messages(before: datetime) -> bool:
    found = execute("SELECT 1 FROM message WHERE id < %(end)s LIMIT 1", {"end": first_id(before)})
    return found.fetchone() is not None


def _sweep_default(table: str, before: datetime, left: Time) -> int:
    """Rows of the default partition: of months that were not made in time."""
    gone = 0
    for ids in windows(f"{table}_default", before, left):
        with batch():
            gone += execute(f"DELETE FROM {table}_default WHERE id = ANY (%(ids)s::uuid[])", {"ids": ids}).rowcount
    return gone


def windows(
    table: str,
    before: datetime,
    left: Time,
    after: UUID = UUID(int=0),  # noqa: B008
    octets: str = "0",
) -> Iterator[list[UUID]]:
    """The primary keys of rows older than `before`, oldest first; those past `after`. BATCH at a time, and MOST_OCTETS
    at most where `octets` says in SQL how large a row is."""
    statement = _WINDOW.format(table=table, octets=octets)
    while left.left():
        rows = execute(statement, {"after": after, "end": first_id(before), "batch": BATCH}).fetchall()
        if not rows:
            return
        sums = accumulate(row["octets"] for row in rows)
        fitting = [row["id"] for row, octets_so_far in zip(rows, sums, strict=True) if octets_so_far <= MOST_OCTETS]
        ids = fitting or [rows[0]["id"]]
        after = ids[-1]
        with pause():
            yield ids


@contextmanager
def pause() -> Iterator[None]:
    """The work of one batch, and then a rest several times as long: nobody waits for it, and accept hardly notices."""
    began = time.monotonic()
    yield
    time.sleep(min(max(PAUSE_S, REST * (time.monotonic() - began)), LONGEST_PAUSE_S))


@contextmanager
def batch() -> Iterator[None]:
    """A transaction whose commit does not wait for the disk: what a crash takes back, the next pass does again."""
    with transaction.atomic():
        execute("SET LOCAL synchronous_commit = off")
        yield


def _finished(ids: list[UUID], before: datetime) -> list[UUID]:
    """An id tells the time of the host that accepted the mail; how old it is, Postgres' clock alone."""
    return [row["id"] for row in execute(_FINISHED, {"ids": ids, "before": before}).fetchall()]


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
    return int(alone(name, lambda: execute(f'DROP TABLE IF EXISTS "{name}"')) is not None)


def make_months(ahead: int) -> int:
    """Partitions of this month and of `ahead` more, for every partitioned table; how many were missing."""
    made = 0
    for row in execute(_PARTITIONED).fetchall():
        asked = {"table": row["name"], "ahead": ahead}
        if execute(_MISSING, asked).fetchone():
            made += alone(row["name"], partial(_made, asked)) or 0
    return made


def _made(asked: dict[str, object]) -> int:
    row = execute(_MAKE, asked).fetchone()
    return int(row["made"]) if row else 0


def alone(name: str, work: Callable[[], T]) -> T | None:
    """`work` needs a table for itself: None where others had it each time that it was asked for."""
    for tries in range(_ASKED):
        if tries:
            time.sleep(_ASK_AGAIN_S)
        try:
            with transaction.atomic():
                execute(f"SET LOCAL lock_timeout = '{LOCK_MS}ms'")
                return work()
        except OperationalError as e:
            said = e
        except DatabaseError:
            log.exception("%s is left as it is", name)
            return None
    log.info("%s is in use, and is seen to by a later pass: %s", name, said)
    return None


_WINDOW = "SELECT id, {octets} AS octets FROM {table} WHERE id > %(after)s AND id < %(end)s ORDER BY id LIMIT %(batch)s"

_FINISHED = """
SELECT m.id FROM unnest(%(ids)s::uuid[]) AS m(id)
 WHERE NOT EXISTS (SELECT FROM delivery d JOIN queued q ON q.delivery_id = d.id WHERE d.message_id = m.id)
   AND NOT EXISTS (SELECT FROM message n WHERE n.id = m.id AND n.created_at >= %(before)s::timestamptz)
"""

_OF_TENANT = """
SELECT id FROM message WHERE tenant_id = %(tenant)s AND id > %(after)s AND id < %(end)s ORDER BY id LIMIT %(batch)s
"""

_ABOUT_MESSAGE = (
    """
WITH posts AS (
    DELETE FROM webhook_delivery w USING event e
     WHERE e.message_id = ANY (%(ids)s::uuid[]) AND w.event_id = e.id RETURNING w.id
)
DELETE FROM webhook_try t USING posts WHERE t.delivery_id = posts.id
""",
    "DELETE FROM event WHERE message_id = ANY (%(ids)s::uuid[])",
    """
DELETE FROM attempt a USING delivery d WHERE d.message_id = ANY (%(ids)s::uuid[]) AND a.delivery_id = d.id
""",
    "DELETE FROM report_request WHERE message_id = ANY (%(ids)s::uuid[])",
)

_ARCHIVED = "SELECT id FROM message WHERE archived_at IS NOT NULL AND id < %(end)s ORDER BY id LIMIT %(batch)s"

_BURY = """
WITH m AS (
    UPDATE message SET archived_at = NULL WHERE id = ANY (%(ids)s::uuid[]) AND archived_at IS NOT NULL
    RETURNING id, tenant_id
)
INSERT INTO dead_object (id, key) SELECT make_uuid7(), tenant_id || '/' || id FROM m
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

_FORGET = """
DELETE FROM idempotency_key WHERE id IN (
    SELECT id FROM idempotency_key WHERE created_at < now() - %(age)s::interval
     ORDER BY created_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
"""

_PARTITIONS = """
SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
 WHERE i.inhparent = to_regclass(%(table)s)
"""

_PARTITIONED = """
SELECT c.relname AS name FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid
 WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1
"""

# asked without any lock: in nearly every pass there is nothing to make
_MISSING = """
SELECT 1 FROM generate_series(0, %(ahead)s::int) AS i
 WHERE to_regclass(%(table)s::text || to_char(
           date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i), '_YYYY_MM')) IS NULL
 LIMIT 1
"""

_MAKE = "SELECT make_months(%(table)s::text, %(ahead)s::int) AS made"
