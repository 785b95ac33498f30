"""When destinations sleep: `next_due` pushed back, to the next row of an emptied one or to the end of a site's rest.

It is done after a claim, in transactions of its own, under the rule about row locks that deliveries.queue tells. Nobody
waits for it: a destination that sleeps too late is only looked at once more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from django.db import transaction

from deliveries.models.queue import NEVER
from deliveries.models.sql import execute


def push_back(destination_ids: Collection[int]) -> None:
    """Push `next_due` of destinations that gave less than asked back to their next row's, or to NEVER.

    Two statements, so that the second one sees what was committed before the lock was had (queue.py tells why).
    """
    if destination_ids:
        with transaction.atomic():
            if locked := [r["id"] for r in execute(_LOCK_DUE, {"ids": sorted(destination_ids)})]:
                execute(_PUSH_BACK, {"ids": locked, "never": NEVER})


def catch_up(destination_ids: Sequence[int]) -> None:
    """Destinations that do not know yet that their site rests, or whether it is proven.

    The site's row is held meanwhile, so that nobody resumes it between the look and the push.
    """
    with transaction.atomic():
        execute(_HOLD_SITES, {"ids": list(destination_ids)})
        execute(_CATCH_UP, {"ids": list(destination_ids)})


_HOLD_SITES = """
SELECT s.name FROM site s WHERE s.name IN (SELECT name FROM destination WHERE id = ANY (%(ids)s::int[]))
 ORDER BY s.name FOR SHARE
"""

_CATCH_UP = """
WITH locked AS (
    SELECT d.id FROM destination d WHERE d.id = ANY (%(ids)s::int[]) ORDER BY d.id FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE destination d
   SET proven = s.proven,
       next_due = CASE WHEN s.suspended_until > now() THEN greatest(d.next_due, s.suspended_until) ELSE d.next_due END
  FROM site s
 WHERE d.id IN (SELECT id FROM locked) AND s.name = d.name
"""

# a push that a crash takes back is done again by the next claim
_LOCK_DUE = """
WITH quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true) AS set)
SELECT d.id FROM quick, destination d
 WHERE quick.set = 'off' AND d.id = ANY (%(ids)s::int[]) AND d.next_due <= now()
   FOR UPDATE OF d SKIP LOCKED
"""

FIRST_DUE = """
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

RESTS_UNTIL = "(SELECT s.suspended_until FROM site s WHERE s.name = d.name)"

_PUSH_BACK = f"""
UPDATE destination d SET next_due = greatest(coalesce(({FIRST_DUE}), %(never)s), {RESTS_UNTIL})
 WHERE d.id = ANY (%(ids)s::int[])
"""
