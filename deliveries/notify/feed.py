"""GET /events: the tenant's events in one order, for those who cannot take webhooks.

The order is (created_at, id). created_at is now() of the transaction that wrote the event, so all stand on the clock of
the database; ids are made in the processes, before their transactions begin, and say nothing about the order in which
events come to be seen. A transaction that began earlier may still commit later, and a reader that had gone past its
place would never see its events. So nothing is shown from the moment on at which the oldest transaction began that
is still running: whatever is shown has only finished transactions before it, and a cursor passes nothing over. Nor is
anything of the last SETTLE_S shown, which covers a transaction that has its time and is not listed yet.

The usual event is seen after SETTLE_S. A transaction that has written holds the feed back as long as it runs, one that
has only read (a dump) for READERS_S at most: ours write at once. The horizon is read in a statement of its own, before
the events: a snapshot that is older than the list of running transactions could miss one that ended in between.
pg_snapshot's xmin tells the same, but needs the transaction's number on each event, which a restored dump has not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from deliveries.models.horizon import horizon
from deliveries.models.sql import execute
from deliveries.notify.body import bodies
from deliveries.states import OPT_IN

#: an event is shown this many seconds after its transaction began, at the earliest
SETTLE_S = 2.0
#: so long a transaction that has written nothing yet may still write an event
READERS_S = 60.0
#: events looked at for one page, however few of them are of the types asked for
LOOK_AT = 5_000
#: a cursor whose event retention has taken is placed by the time in its id, so much earlier: told twice, not never
_LOST_CURSOR_S = 60.0


@dataclass(frozen=True, slots=True)
class Events:
    """`data` are the bodies of webhooks with the event's id. `next` is the cursor for the next page; None on an empty
    page without one."""

    data: list[dict[str, Any]]
    has_more: bool
    next: UUID | None


def page(tenant_id: UUID, limit: int, after: UUID | None = None, types: Sequence[str] = ()) -> Events:
    """Up to `limit` events after the event `after`, oldest first; without types all but the opt-in ones."""
    # without types nearly all that is looked at is shown
    look = LOOK_AT if types else min(4 * limit, LOOK_AT)
    still = horizon(SETTLE_S, READERS_S)
    rows = execute(
        _PAGE,
        {
            "tenant": tenant_id,
            "after": after or UUID(int=0),
            "after_ms": after.int >> 80 if after else None,
            "lost": _LOST_CURSOR_S,
            "horizon": still,
            "types": list(types),
            "opt_in": [e.value for e in OPT_IN],
            "look": look,
            "limit": limit,
        },
    ).fetchall()
    asked = [row["id"] for row in rows if row["asked"]]
    shown = asked[:limit]
    # gone on with after the last one shown, or, where all that was looked at is on this page, after that
    full = len(asked) > limit
    end = shown[-1] if full else rows[-1]["id"] if rows else after
    made = bodies(shown)
    data = [{"id": str(i), **json.loads(made[i])} for i in shown if i in made]
    return Events(data, full or (bool(rows) and rows[-1]["place"] == look), end)


def one(tenant_id: UUID, event_id: UUID) -> dict[str, Any] | None:
    """An event of the tenant's, in the same shape."""
    if execute(_OWN, {"id": event_id, "tenant": tenant_id}).fetchone() is None:
        return None
    body = bodies([event_id]).get(event_id)
    return {"id": str(event_id), **json.loads(body)} if body else None


_PAGE = """
WITH looked AS MATERIALIZED (
    SELECT e.id, e.created_at, e.type FROM event e
     WHERE e.tenant_id = %(tenant)s::uuid AND e.created_at < %(horizon)s::timestamptz
       AND (e.created_at, e.id) > (
           coalesce((SELECT c.created_at FROM event c WHERE c.id = %(after)s::uuid AND c.tenant_id = %(tenant)s::uuid),
                    to_timestamp(%(after_ms)s::bigint / 1000.0) - make_interval(secs => %(lost)s::float8),
                    '-infinity'),
           %(after)s::uuid)
     ORDER BY e.created_at, e.id LIMIT %(look)s::int
), numbered AS (
    SELECT id, row_number() OVER w AS place,
           CASE WHEN cardinality(%(types)s::text[]) = 0 THEN type <> ALL (%(opt_in)s::text[])
                ELSE type = ANY (%(types)s::text[]) END AS asked,
           lead(id) OVER w IS NULL AS last
      FROM looked WINDOW w AS (ORDER BY created_at, id)
), counted AS (
    SELECT *, count(*) FILTER (WHERE asked) OVER (ORDER BY place) AS nth FROM numbered
)
SELECT id, place, asked FROM counted
 WHERE (asked AND nth <= %(limit)s::int + 1) OR last
 ORDER BY place
"""

_OWN = "SELECT 1 FROM event WHERE id = %(id)s AND tenant_id = %(tenant)s"
