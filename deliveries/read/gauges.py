"""What an operator's alarms look at: counters that no restart sets back, and ages of what waits.

Every statement reads rows made for it or the first rows of an index, so that a look costs a few milliseconds however
much waits. Ages are by the database's clock, in seconds; 0 when nothing waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from deliveries.models.figures import EVERYBODY, TOOK_S
from deliveries.models.sql import execute
from deliveries.states import Lane

#: more waiting rows than that are not counted to the end
WAITING_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class Gauges:
    """`counts`: what happened to recipients' mail since the beginning, by word. `took`: delivered, by upper bound in
    seconds (the last one is infinite), each bucket for itself. `oldest_due_s`: by lane, of mail that nothing
    keeps back."""

    counts: dict[str, int] = field(default_factory=dict)
    took: list[int] = field(default_factory=list)
    counted_age_s: float = 0
    waiting: int = 0
    in_flight: int = 0
    started: int = 0
    oldest_due_s: dict[str, float] = field(default_factory=dict)
    sites_resting: int = 0
    sites_paused: int = 0
    brakes_open: int = 0
    webhooks_late_s: float = 0
    endpoints_failing: int = 0
    inbound_late_s: float = 0


def gauges() -> Gauges:
    counts: dict[str, int] = {}
    took = [0] * (len(TOOK_S) + 1)
    for row in execute(_COUNTS, {"everybody": EVERYBODY}):
        what, _, bucket = row["what"].partition(":")
        if bucket:
            took[int(bucket)] = row["count"]
        else:
            counts[what] = row["count"]
    oldest = {lane.name.lower(): 0.0 for lane in Lane}
    for row in execute(_OLDEST_DUE):
        oldest[Lane(row["lane"]).name.lower()] = row["age"]
    (rest,) = execute(_REST, {"limit": WAITING_LIMIT}).fetchall()
    return Gauges(counts=counts, took=took, oldest_due_s=oldest, **rest)


_COUNTS = """
SELECT what, sum(count)::bigint AS count FROM hour_tally WHERE tenant_id = %(everybody)s::uuid GROUP BY what
"""

# next_due is the due time of the earliest row, or the end of its site's rest (deliveries.queue)
_OLDEST_DUE = """
SELECT lane, extract(epoch FROM now() - min(next_due))::float8 AS age FROM destination
 WHERE next_due <= now() GROUP BY lane
"""

_REST = """
SELECT (SELECT count(*) FROM (SELECT FROM queued LIMIT %(limit)s::int) q) AS waiting,
       (SELECT count(*) FROM queued WHERE lease_id IS NOT NULL) AS in_flight,
       (SELECT count(*) FROM queued WHERE lease_id IS NOT NULL AND started_at IS NOT NULL) AS started,
       coalesce((SELECT extract(epoch FROM now() - until)::float8 FROM tally_mark), 0) AS counted_age_s,
       (SELECT count(*) FROM site WHERE suspended_until > now() AND paused_by = '') AS sites_resting,
       (SELECT count(*) FROM site WHERE suspended_until > now() AND paused_by <> '') AS sites_paused,
       (SELECT count(*) FROM brake WHERE state = 'open') AS brakes_open,
       coalesce((SELECT greatest(max(extract(epoch FROM now() - d.next_try_at)), 0)::float8
                   FROM webhook_endpoint e CROSS JOIN LATERAL (
                        SELECT next_try_at FROM webhook_delivery w
                         WHERE w.endpoint_id = e.id AND w.state = 'pending' ORDER BY w.next_try_at LIMIT 1) d
                  WHERE e.enabled), 0) AS webhooks_late_s,
       (SELECT count(*) FROM webhook_endpoint WHERE enabled AND failing_since IS NOT NULL) AS endpoints_failing,
       coalesce((SELECT extract(epoch FROM now() - received_at)::float8 FROM inbound_message
                  WHERE state = 'waiting' ORDER BY id LIMIT 1), 0) AS inbound_late_s
"""
