"""A claim by name: a bell says which deliveries came, and where nothing stands before them one statement takes them.

For a mail that comes alone. All that a claim by destination asks (deliveries.claim) is asked here row by row: the
site is known to answer, does not rest and has a free place, the lane may use it, the octets fit. What is not taken so
is left to the next claim, which finds it as if no bell had named it. A provider's messages per minute are asked by
the caller, who knows only then which provider it is.
"""

from __future__ import annotations

from deliveries.states import Lane

#: deliveries that a bell names; more are a crowd, which a claim takes together
MOST = 4

#: CTEs that take the deliveries %(names)s, as far as they may go now: taken(delivery_id, lane, destination, size,
#: tenant_id, destination_id). Neither the commit nor the lock of a neighbour is waited for
TAKEN = f"""
free AS MATERIALIZED (
    SELECT q.delivery_id, q.lane, q.destination, q.size, q.tenant_id, d.id AS destination_id
      FROM queued q
      JOIN destination d ON d.lane = q.lane AND d.name = q.destination
      JOIN site s ON s.name = q.destination
      LEFT JOIN unnest(%(busy)s::text[], %(used)s::int[]) AS u(name, n) ON u.name = q.destination
     WHERE q.delivery_id = ANY (%(names)s::uuid[])
       -- so that no index serves these: a plan made while the queue was short would read all that is due of a long one
       AND (q.lease_id IS NULL) IS TRUE AND (q.due_at <= now()) IS TRUE
       AND q.lane <> {Lane.BULK.value} AND q.size <= %(octets)s / cardinality(%(names)s::uuid[])
       AND d.proven AND s.proven AND (s.suspended_until IS NULL OR s.suspended_until <= now())
       AND coalesce(u.n, 0) + cardinality(%(names)s::uuid[]) <= s.places / %(processes)s
       -- what a crash takes back was not started (queue.start)
       AND (SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL
       FOR UPDATE OF q SKIP LOCKED
), taken AS (
    UPDATE queued q
       SET lease_id = %(lease_id)s, leased_until = now() + make_interval(secs => %(lease_s)s), started_at = NULL
      FROM free WHERE q.delivery_id = free.delivery_id
    RETURNING free.*
)
"""
