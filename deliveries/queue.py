"""The queue: who may take what, and how no due mail is ever overlooked.

Postgres is the truth. A `queued` row is due, leased, or waits; a `destination` row (lane × site) knows
when its next mail is due, so that a claim looks only at destinations that have something to do, however
many millions of rows wait elsewhere.

`destination.next_due` is kept right by one rule about row locks:

- who adds or frees rows (accept, record, release) takes FOR KEY SHARE on the destination before looking
  at next_due, and pulls it forward where it is too late (ANNOUNCE). Key-share locks do not conflict with
  each other, nor with that update, so that a thousand accepts a second go on side by side;
- who found a destination empty takes FOR UPDATE SKIP LOCKED before it pushes next_due back (`_settle`),
  and then reads the rows again in a new statement. It therefore never overlooks a row of a transaction
  that had not committed yet: such a transaction holds the key-share lock, and the push is skipped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import celery
from django.conf import settings
from django.db import connection, transaction

from deliveries.models.queue import NEVER
from deliveries.models.sql import execute
from deliveries.states import OPT_IN, Lane

log = logging.getLogger(__name__)

#: destinations looked at in one claim; the rest have their turn in the next one, milliseconds later
_CANDIDATES = 200
#: tenants served from one destination in one claim, the longest waiting first
_TENANTS = 64
#: octets in flight per process (DESIGN: claim)
MAX_OCTETS = 64 * 1024 * 1024

_OPT_IN = ", ".join(f"'{t}'" for t in sorted(OPT_IN))

#: outbox rows for the events in the relation {events}(id, tenant_id, type): one per endpoint that asks for it
OUTBOX_FROM = f"""
    INSERT INTO webhook_delivery (id, tenant_id, endpoint_id, event_id, type, body, state, tries, next_try_at,
                                  created_at)
    SELECT make_uuid7(), e.tenant_id, w.id, e.id, e.type, '', 'pending', 0, now(), now()
      FROM {{events}} e
      JOIN webhook_endpoint w ON w.tenant_id = e.tenant_id AND w.enabled
       AND CASE WHEN w.events = '{{{{}}}}' THEN e.type NOT IN ({_OPT_IN}) ELSE e.type = ANY (w.events) END
"""

#: CTEs that make the destinations in the relation due(lane, name, due_at), one row each, known as due then
ANNOUNCE = """
new_destination AS (
    INSERT INTO destination (lane, name, next_due, places, suspended_reason, last_reply)
    SELECT due.lane, due.name, due.due_at, 20, '', '' FROM due
     WHERE NOT EXISTS (SELECT FROM destination d WHERE d.lane = due.lane AND d.name = due.name)
    ON CONFLICT (lane, name) DO UPDATE SET next_due = least(destination.next_due, EXCLUDED.next_due)
), locked AS (
    SELECT d.id, d.next_due, greatest(due.due_at, d.suspended_until) AS wanted
      FROM due JOIN destination d ON d.lane = due.lane AND d.name = due.name
     ORDER BY d.id
       FOR KEY SHARE OF d
), pulled AS (
    UPDATE destination d SET next_due = locked.wanted FROM locked
     WHERE d.id = locked.id AND locked.next_due > locked.wanted
)
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is ours until the lease ends."""

    delivery_id: UUID
    lane: Lane
    destination: str
    size: int


@dataclass(frozen=True, slots=True)
class Claim:
    """`more` says that due mail was left behind for want of places or octets: ring once more."""

    rows: tuple[Claimed, ...]
    more: bool


def claim(lease_id: UUID, free: int, octets: int, in_flight: Mapping[str, int]) -> Claim:
    """Lease up to `free` due rows of at most `octets` in all (at least one row where any is due).

    `in_flight` is this process' transactions per destination name; a destination is given no more than
    its places. Lanes go in order; within a lane destinations share evenly, and tenants within each.
    """
    if free <= 0 or octets <= 0:
        return Claim((), False)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_DUE_DESTINATIONS, [_CANDIDATES])
        wants = _share(cursor.fetchall(), free, in_flight)
        if not wants:
            return Claim((), False)
        rows = _take(cursor, lease_id, octets, wants)
        taken: dict[tuple[int, str], int] = {}
        for row in rows:
            taken[row.lane, row.destination] = taken.get((row.lane, row.destination), 0) + 1
        short = [d for d, lane, name, want in wants if taken.get((lane, name), 0) < want]
        if short:
            _settle(cursor, short)
    return Claim(tuple(rows), len(rows) >= free or len(wants) >= _CANDIDATES)


def _share(
    candidates: Sequence[tuple[int, int, str, int]], free: int, in_flight: Mapping[str, int]
) -> list[tuple[int, int, str, int]]:
    """(id, lane, name, how many) for each destination with a free place, by lane, evenly within a lane."""
    used = dict(in_flight)
    wants = []
    for lane in sorted({c[1] for c in candidates}):
        mates = [c for c in candidates if c[1] == lane]
        for left, (ident, _, name, places) in zip(range(len(mates), 0, -1), mates, strict=True):
            want = min(places - used.get(name, 0), -(-free // left))
            if want > 0:
                wants.append((ident, lane, name, want))
                used[name] = used.get(name, 0) + want
                free -= want
    return wants


def _take(cursor: Any, lease_id: UUID, octets: int, wants: Sequence[tuple[int, int, str, int]]) -> list[Claimed]:
    _, lanes, names, counts = zip(*wants, strict=True)
    cursor.execute(
        _CLAIM,
        {
            "lanes": list(lanes),
            "names": list(names),
            "counts": list(counts),
            "tenants": _TENANTS,
            "octets": octets,
            "lease_id": lease_id,
            "lease_s": settings.LEASE_S,
        },
    )
    return [Claimed(d, Lane(lane), name, size) for d, lane, name, size in cursor.fetchall()]


def _settle(cursor: Any, destination_ids: Sequence[int]) -> None:
    """Push next_due of destinations that gave less than asked to their next row's, or to NEVER."""
    cursor.execute(
        "SELECT id FROM destination WHERE id = ANY (%s) AND next_due <= now() FOR UPDATE SKIP LOCKED",
        [list(destination_ids)],
    )
    if locked := [r[0] for r in cursor.fetchall()]:
        cursor.execute(_PUSH_BACK, {"ids": locked, "never": NEVER})


_DUE_DESTINATIONS = """
SELECT id, lane, name, places FROM destination WHERE next_due <= now() ORDER BY lane, next_due LIMIT %s
"""

# tenants by a loose index scan (one probe each), then the due rows of each tenant, evenly
_CLAIM = """
WITH RECURSIVE want AS (
    SELECT * FROM unnest(%(lanes)s::smallint[], %(names)s::text[], %(counts)s::int[]) AS w(lane, name, places)
), due_tenant AS (
    SELECT w.lane, w.name, w.places, 1 AS n,
           (SELECT q.tenant_id FROM queued q WHERE q.lane = w.lane AND q.destination = w.name AND q.lease_id IS NULL
             ORDER BY q.tenant_id LIMIT 1) AS tenant_id
      FROM want w
    UNION ALL
    SELECT t.lane, t.name, t.places, t.n + 1,
           (SELECT q.tenant_id FROM queued q WHERE q.lane = t.lane AND q.destination = t.name AND q.lease_id IS NULL
               AND q.tenant_id > t.tenant_id ORDER BY q.tenant_id LIMIT 1)
      FROM due_tenant t WHERE t.tenant_id IS NOT NULL AND t.n <= %(tenants)s
), share AS (
    SELECT t.lane, t.name, t.tenant_id, ceil(t.places::numeric / count(*) OVER (PARTITION BY t.lane, t.name)) AS rows,
           t.places
      FROM due_tenant t WHERE t.tenant_id IS NOT NULL
), locked AS (
    SELECT q.*, s.places FROM share s CROSS JOIN LATERAL (
        SELECT q.delivery_id, q.lane, q.destination, q.size, q.due_at FROM queued q
         WHERE q.lane = s.lane AND q.destination = s.name AND q.tenant_id = s.tenant_id AND q.lease_id IS NULL
           AND q.due_at <= now()
         ORDER BY q.due_at LIMIT s.rows
           FOR UPDATE SKIP LOCKED) q
), numbered AS (
    SELECT l.*, row_number() OVER (PARTITION BY lane, destination ORDER BY due_at) AS place FROM locked l
), fitting AS (
    SELECT n.*, sum(size) OVER (ORDER BY lane, due_at ROWS UNBOUNDED PRECEDING) - size AS octets_before
      FROM numbered n WHERE place <= places
)
UPDATE queued q
   SET lease_id = %(lease_id)s, leased_until = now() + make_interval(secs => %(lease_s)s), started_at = NULL
  FROM fitting f
 WHERE q.delivery_id = f.delivery_id AND f.octets_before < %(octets)s
RETURNING q.delivery_id, q.lane, q.destination, q.size
"""

_FIRST_DUE = """
    WITH RECURSIVE first AS (
        (SELECT q.tenant_id, q.due_at FROM queued q
          WHERE q.lane = d.lane AND q.destination = d.name AND q.lease_id IS NULL
          ORDER BY q.tenant_id, q.due_at LIMIT 1)
        UNION ALL
        SELECT n.tenant_id, n.due_at FROM first f CROSS JOIN LATERAL (
            SELECT q.tenant_id, q.due_at FROM queued q
             WHERE q.lane = d.lane AND q.destination = d.name AND q.lease_id IS NULL AND q.tenant_id > f.tenant_id
             ORDER BY q.tenant_id, q.due_at LIMIT 1) n
    ) SELECT min(due_at) FROM first
"""

_PUSH_BACK = f"""
UPDATE destination d SET next_due = greatest(coalesce(({_FIRST_DUE}), %(never)s), d.suspended_until)
 WHERE d.id = ANY (%(ids)s)
"""


def heal() -> int:
    """Destinations whose next_due was too late for a row that waits, put right. The alarm behind ANNOUNCE."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE destination d SET next_due = f.due_at
              FROM (SELECT d.id, ({_FIRST_DUE}) AS due_at FROM destination d WHERE d.next_due > now()) f
             WHERE f.id = d.id AND greatest(f.due_at, d.suspended_until) < d.next_due AND f.due_at <= now()
            """
        )
        healed: int = cursor.rowcount
    if healed:
        log.warning("%d destinations had due mail but were not known as due; put right", healed)
    return healed


def start(lease_id: UUID, delivery_ids: Sequence[UUID]) -> set[UUID]:
    """The crash ledger: mark as started, and return those that are still ours; the others must not be sent.

    The commit does not wait for the disk: see `expired` for what a crash of Postgres takes back.
    """
    rows = execute(_START, {"ids": list(delivery_ids), "lease_id": lease_id})
    return {r["delivery_id"] for r in rows.fetchall()}


_START = """
WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true) AS set)
UPDATE queued SET started_at = now() FROM quick
 WHERE quick.set = 'off' AND delivery_id = ANY (%(ids)s::uuid[]) AND lease_id = %(lease_id)s
RETURNING delivery_id
"""


def renew(lease_ids: Iterable[UUID]) -> int:
    """Extend everything that is held under these leases; the number of rows."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE queued SET leased_until = now() + make_interval(secs => %s) WHERE lease_id = ANY (%s)",
            [settings.LEASE_S, list(lease_ids)],
        )
        return cursor.rowcount


def release(held: Iterable[tuple[UUID, UUID]]) -> None:
    """Give back (delivery, lease) pairs that were claimed and not started: due at once, for whoever comes first."""
    pairs = sorted(held)
    if pairs:
        execute(_RELEASE, {"ids": [d for d, _ in pairs], "leases": [lease for _, lease in pairs]})


_RELEASE = f"""
WITH held AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(leases)s::uuid[]) AS h(delivery_id, lease_id)
), freed AS (
    UPDATE queued q SET lease_id = NULL, leased_until = NULL, started_at = NULL
      FROM held WHERE q.delivery_id = held.delivery_id AND q.lease_id = held.lease_id
    RETURNING q.lane, q.destination, q.due_at
), due AS (
    SELECT lane, destination AS name, min(due_at) AS due_at FROM freed GROUP BY lane, destination
), {ANNOUNCE} SELECT 1
"""


@dataclass(frozen=True, slots=True)
class Expired:
    """A lease whose worker is gone. `started`: its final dot may have been written."""

    delivery_id: UUID
    lease_id: UUID
    started: bool


def expired(limit: int = 500) -> list[Expired]:
    """Leases that ran out. Empty until Postgres has been up for two lease lengths: its workers come back first.

    A lease last renewed before that start counts as started: the ledger's last commits may have been lost.
    """
    rows = execute(_EXPIRED, {"lease_s": settings.LEASE_S, "limit": limit}).fetchall()
    return [Expired(r["delivery_id"], r["lease_id"], r["started"]) for r in rows]


_EXPIRED = """
SELECT delivery_id, lease_id,
       started_at IS NOT NULL OR leased_until - make_interval(secs => %(lease_s)s) < pg_postmaster_start_time()
           AS started
  FROM queued
 WHERE lease_id IS NOT NULL AND leased_until < now()
   AND now() > pg_postmaster_start_time() + make_interval(secs => %(lease_s)s * 2)
 LIMIT %(limit)s
"""


# --- the bell -----------------------------------------------------------------------------------------------


class Bell:
    """One daemon thread per process that tells the deliver workers to look; a lost bell loses no mail."""

    #: after a message, the next one at the earliest
    GAP_S = 0.05

    def __init__(self) -> None:
        self.rung = 0
        self.failed = 0
        self._event = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def ring(self) -> None:
        """Never blocks, never raises."""
        if self._thread is None or not self._thread.is_alive():  # also after a fork
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._run, name="bell", daemon=True)
                    self._thread.start()
        self._event.set()

    def _run(self) -> None:
        while True:
            self._event.wait()
            self._event.clear()
            try:
                # by name: accept knows no task. Beat rings every second, so that no retry is needed here
                celery.current_app.send_task("deliveries.deliver", queue="deliver", expires=5, retry=False)
                self.rung += 1
            except Exception as e:  # the broker is away: whatever its client raises, the mail is in Postgres
                self.failed += 1
                if self.failed & (self.failed - 1) == 0:  # 1, 2, 4, 8 …: said, without filling the log
                    log.warning("the bell did not reach the broker (%d times now): %r", self.failed, e)
            time.sleep(self.GAP_S)


bell = Bell()


def wake() -> None:
    """Due mail was committed: tell the deliver workers."""
    bell.ring()
