"""The queue: who may take what, and how no due mail is ever overlooked.

Postgres is the truth. A `queued` row is due, leased, or waits; a `destination` row (lane × site) knows
when its next mail is due, so that a claim looks only at destinations that have something to do, however
many millions of rows wait elsewhere. What a site bears, and until when it rests, stands once in `site`
(record.paces writes it); a claim that meets a due destination of a resting site pushes it to the end of the
rest (asleep.py), and from then on passes it over by index.

`destination.next_due` is kept right by one rule about row locks:

- who adds or frees rows (accept, record, release) takes FOR KEY SHARE on the destination before looking
  at next_due, and pulls it forward where it is too late (ANNOUNCE). Key-share locks do not conflict with
  each other, nor with that update, so that a thousand accepts a second go on side by side;
- who found a destination empty takes FOR UPDATE SKIP LOCKED before it pushes next_due back (asleep.py),
  and then reads the rows again in a new statement. It therefore never overlooks a row of a transaction
  that had not committed yet: such a transaction holds the key-share lock, and the push is skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.db import connection

from deliveries.asleep import FIRST_DUE, RESTS_UNTIL
from deliveries.asleep import push_back as push_back
from deliveries.bell import bell as bell
from deliveries.bell import wake as wake
from deliveries.claim import Claim as Claim
from deliveries.claim import Claimed as Claimed
from deliveries.claim import Takes as Takes
from deliveries.claim import claim as claim
from deliveries.claim import look_again as look_again
from deliveries.models.sql import execute
from deliveries.smtp.providers import trusted_sites
from deliveries.states import OPT_IN, Lane, Status

log = logging.getLogger(__name__)

#: octets of mail in flight per deliver process, which keeps them in memory
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

_TRUSTED = ", ".join(f"'{name}'" for name in trusted_sites())

#: CTEs that make the destinations in the relation due(lane, name, due_at), one row each, known as due then
ANNOUNCE = f"""
new_destination AS (
    INSERT INTO destination (lane, name, next_due, proven)
    SELECT due.lane, due.name, greatest(due.due_at, s.suspended_until), coalesce(s.proven, due.name IN ({_TRUSTED}))
      FROM due LEFT JOIN site s ON s.name = due.name
     WHERE NOT EXISTS (SELECT FROM destination d WHERE d.lane = due.lane AND d.name = due.name)
    ON CONFLICT (lane, name) DO UPDATE SET next_due = least(destination.next_due, EXCLUDED.next_due)
), locked AS (
    SELECT d.id, d.next_due, greatest(due.due_at, s.suspended_until) AS wanted
      FROM due JOIN destination d ON d.lane = due.lane AND d.name = due.name
      LEFT JOIN site s ON s.name = due.name
     ORDER BY d.id
       FOR KEY SHARE OF d
), pulled AS (
    UPDATE destination d SET next_due = locked.wanted FROM locked
     WHERE d.id = locked.id AND locked.next_due > locked.wanted
)
"""


def heal() -> int:
    """Destinations whose next_due was too late for a row that waits, put right. The alarm behind ANNOUNCE.

    Each process goes round them, HEALED_AT_ONCE in a call: a hundred thousand that sleep cost a fifth of a second each.
    """
    global _healed_to
    row = execute(_HEAL, {"after": _healed_to, "most": HEALED_AT_ONCE}).fetchone()
    assert row is not None
    _healed_to = row["last"] if row["looked_at"] == HEALED_AT_ONCE else 0
    healed: int = row["healed"]
    if healed:
        log.warning("%d destinations had due mail but were not known as due; put right", healed)
    return healed


#: destinations that one call looks at: 20 ms of the database, 60 where mail waits for each
HEALED_AT_ONCE = 5_000
_healed_to = 0

_HEAL = f"""
WITH d AS MATERIALIZED (
    SELECT id, lane, name, next_due FROM destination WHERE id > %(after)s ORDER BY id LIMIT %(most)s
), found AS MATERIALIZED (
    SELECT d.id, ({FIRST_DUE}) AS due_at FROM d WHERE d.next_due > now()
), healed AS (
    UPDATE destination d SET next_due = f.due_at FROM found f
     WHERE f.id = d.id AND f.due_at <= now() AND greatest(f.due_at, {RESTS_UNTIL}) < d.next_due
    RETURNING d.id
)
SELECT (SELECT count(*) FROM healed) AS healed, (SELECT max(id) FROM d) AS last, (SELECT count(*) FROM d) AS looked_at
"""


def start(lease_id: UUID, delivery_ids: Sequence[UUID]) -> set[UUID]:
    """The crash ledger: mark as started, and return those that are still ours; the others must not be sent.

    Its commit waits for the disk; a claim's does not. A crash of Postgres may take back claims, never a start.
    """
    rows = execute(_START, {"ids": list(delivery_ids), "lease_id": lease_id})
    return {r["delivery_id"] for r in rows.fetchall()}


_START = """
UPDATE queued SET started_at = now() WHERE delivery_id = ANY (%(ids)s::uuid[]) AND lease_id = %(lease_id)s
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


def waiting(rule: str) -> list[tuple[UUID, bool, int]]:
    """Whose mail waits for its time by that rule: (tenant, bulk, lane)."""
    rows = execute(_WAITING, {"rule": rule}).fetchall()
    return [(row["tenant_id"], row["lane"] == Lane.BULK, row["lane"]) for row in rows]


def due_now(rule: str, tenant_id: UUID, lane: int, most: int) -> int:
    """What of it waits, up to `most`, is due at once; how many."""
    row = execute(_DUE_NOW, {"rule": rule, "tenant": tenant_id, "lane": lane, "most": most}).fetchone()
    assert row is not None
    return int(row["n"])


_OF_RULE = f"""
  FROM queued q JOIN delivery d ON d.id = q.delivery_id
 WHERE q.lease_id IS NULL AND q.due_at > now() AND d.status = '{Status.DEFERRED}' AND d.rule = %(rule)s
"""

_WAITING = f"SELECT DISTINCT q.tenant_id, q.lane {_OF_RULE}"

_DUE_NOW = f"""
WITH held AS (
    SELECT q.delivery_id {_OF_RULE} AND q.tenant_id = %(tenant)s AND q.lane = %(lane)s
     ORDER BY q.due_at LIMIT %(most)s FOR UPDATE SKIP LOCKED
), told AS (
    UPDATE delivery d SET next_attempt_at = now() FROM held WHERE d.id = held.delivery_id
), woken AS (
    UPDATE queued q SET due_at = now() FROM held WHERE q.delivery_id = held.delivery_id
    RETURNING q.lane, q.destination, q.due_at
), due AS (
    SELECT lane, destination AS name, min(due_at) AS due_at FROM woken GROUP BY lane, destination
), {ANNOUNCE} SELECT count(*) AS n FROM woken
"""


@dataclass(frozen=True, slots=True)
class Expired:
    """A lease whose worker is gone. `started`: its final dot may have been written."""

    delivery_id: UUID
    lease_id: UUID
    started: bool


def expired(limit: int = 500) -> list[Expired]:
    """Leases that ran out. Empty until Postgres has been up for two lease lengths: its workers come back first."""
    rows = execute(_EXPIRED, {"lease_s": settings.LEASE_S, "limit": limit}).fetchall()
    return [Expired(r["delivery_id"], r["lease_id"], r["started"]) for r in rows]


_EXPIRED = """
SELECT delivery_id, lease_id, started_at IS NOT NULL AS started
  FROM queued
 WHERE lease_id IS NOT NULL AND leased_until < now()
   AND now() > pg_postmaster_start_time() + make_interval(secs => %(lease_s)s * 2)
 LIMIT %(limit)s
"""
