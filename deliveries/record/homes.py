"""A route says whose mail it is: rows that waited under their domain's name move to the site, before any connection.

So limits and suspensions of a provider hold for every domain that it serves, from the first mail on. New rows are born
at the site (accept reads `mx_site`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction

from deliveries import queue
from deliveries.models.sql import execute
from deliveries.record.again import again


@dataclass(frozen=True, slots=True)
class Moved:
    """Claimed, not begun: the route of its `domain` leads to `site`, and it waits there from now on."""

    delivery_id: UUID
    lease_id: UUID
    domain: str
    site: str


def move(moves: Sequence[Moved]) -> None:
    """Remember the sites, and give the rows back under them: due as before, for whoever has a place there."""
    if not moves:
        return
    sites = {m.domain: m.site for m in moves}  # one each: a statement cannot write a row twice
    ordered = sorted(moves, key=lambda m: m.delivery_id)
    params = {
        "domains": sorted(sites),
        "their_sites": [sites[domain] for domain in sorted(sites)],
        "ids": [m.delivery_id for m in ordered],
        "leases": [m.lease_id for m in ordered],
        "sites": [m.site for m in ordered],
    }

    def work() -> None:
        with transaction.atomic():
            execute(_REMEMBER, params)
            execute(_MOVE, params)

    again(work)


_REMEMBER = """
INSERT INTO mx_site (domain, site, learned_at)
SELECT l.domain, l.site, now() FROM unnest(%(domains)s::text[], %(their_sites)s::text[]) AS l(domain, site)
 ORDER BY l.domain
ON CONFLICT (domain) DO UPDATE SET site = EXCLUDED.site, learned_at = EXCLUDED.learned_at
"""

_MOVE = f"""
WITH held AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(leases)s::uuid[], %(sites)s::text[]) AS h(delivery_id, lease_id, site)
), moved AS (
    UPDATE queued q SET destination = held.site, lease_id = NULL, leased_until = NULL, started_at = NULL
      FROM held WHERE q.delivery_id = held.delivery_id AND q.lease_id = held.lease_id
    RETURNING q.lane, q.destination, q.due_at
), due AS (
    SELECT lane, destination AS name, min(due_at) AS due_at FROM moved GROUP BY lane, destination
), {queue.ANNOUNCE} SELECT 1
"""
