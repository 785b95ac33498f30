"""The figures of the first page: events into hours, exactly once; answers of sites into ten minutes.

    tally      what became of mail, from the events, up to a mark; a job every ten seconds
    note       what sites answered, from a batch of results; in the process
    flush      that, written at most once in ten seconds

Nothing here is on the way of a mail: pure success at full speed costs a few additions in memory.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from django.db import transaction

from deliveries.models.figures import EVERYBODY, TOOK_S, WHAT
from deliveries.models.horizon import horizon
from deliveries.models.sql import execute
from deliveries.record.counts import Counts
from deliveries.record.settle import Result
from deliveries.states import Status

#: as the feed of events has it: see deliveries.notify.feed
SETTLE_S = 2.0
READERS_S = 60.0
#: how far back a new installation's figures begin
DAYS = 30
#: the first step of catching up: of a thousand mails a second some 900,000 events; quick steps grow, slow ones shrink
STEP = timedelta(minutes=5)
_LONGEST = timedelta(hours=1)
_QUICK_S, _SLOW_S = 1.0, 5.0
#: how long a run goes on with steps
_BUDGET_S = 25.0


def tally() -> int:
    """Add the events since the mark to their hours and move the mark; how many steps. One process at a time."""
    end = time.monotonic() + _BUDGET_S
    steps, step = 0, STEP
    while (began := time.monotonic()) < end:
        with transaction.atomic():
            mark = execute("SELECT until FROM tally_mark WHERE id = 1 FOR UPDATE SKIP LOCKED").fetchone()
            if mark is None:
                if not execute(_BEGIN, {"days": DAYS}).rowcount:
                    return steps  # another process is at it
                continue
            # in a statement of its own, before the events are read
            limit = horizon(SETTLE_S, READERS_S)
            first = next(execute(_FIRST, {"from": mark["until"]}))["at"]
            if first is None or first >= limit:  # quiet times are passed over
                execute("UPDATE tally_mark SET until = greatest(until, %(limit)s) WHERE id = 1", {"limit": limit})
                return steps
            until = min(first + step, limit)
            execute(
                _ADD,
                {"from": first, "until": until, "types": [str(t) for t in WHAT], "whats": list(WHAT.values()),
                 "bounds": [float(s) for s in TOOK_S], "everybody": EVERYBODY},
            )  # fmt: skip
            execute("UPDATE tally_mark SET until = %(until)s WHERE id = 1", {"until": until})
            steps += 1
            if until == limit:
                return steps
        took = time.monotonic() - began
        step = min(2 * step, _LONGEST) if took < _QUICK_S else step / 2 if took > _SLOW_S else step
    return steps


# the first event of the last weeks; where there is none, now
_BEGIN = """
INSERT INTO tally_mark (id, until)
SELECT 1, coalesce(min(e.created_at), now())
  FROM tenant t CROSS JOIN LATERAL (
       SELECT created_at FROM event WHERE tenant_id = t.id AND created_at >= now() - make_interval(days => %(days)s)
        ORDER BY created_at LIMIT 1) e
ON CONFLICT (id) DO NOTHING
"""

_FIRST = """
SELECT min(e.created_at) AS at FROM tenant t CROSS JOIN LATERAL (
       SELECT created_at FROM event WHERE tenant_id = t.id AND created_at >= %(from)s::timestamptz
        ORDER BY created_at LIMIT 1) e
"""

# by the index event_feed, tenant by tenant
_ADD = """
WITH seen AS MATERIALIZED (
    SELECT t.id AS tenant_id, date_trunc('hour', e.created_at, 'UTC') AS hour, w.what, e.delivery_id, e.created_at,
           e.late
      FROM tenant t CROSS JOIN LATERAL (
           SELECT type, created_at, delivery_id, data -> 'late' = 'true'::jsonb AS late FROM event
            WHERE tenant_id = t.id AND created_at >= %(from)s::timestamptz AND created_at < %(until)s::timestamptz) e
      JOIN unnest(%(types)s::text[], %(whats)s::text[]) AS w(type, what) ON w.type = e.type
), told AS (
    SELECT tenant_id, hour, what FROM seen
    UNION ALL
    SELECT tenant_id, hour, 'late' FROM seen WHERE what = 'bounced' AND late
    UNION ALL
    SELECT s.tenant_id, s.hour,
           'took:' || to_char(width_bucket(extract(epoch FROM s.created_at - greatest(d.created_at, m.scheduled_at)),
                                           %(bounds)s::float8[]), 'FM00')
      FROM seen s JOIN delivery d ON d.id = s.delivery_id LEFT JOIN message m ON m.id = d.message_id
     WHERE s.what = 'delivered'
), counted AS (
    SELECT tenant_id, hour, what, count(*) AS count FROM told GROUP BY tenant_id, hour, what
)
INSERT INTO hour_tally (tenant_id, hour, what, count)
SELECT tenant_id, hour, what, count FROM counted
UNION ALL
SELECT %(everybody)s::uuid, hour, what, sum(count) FROM counted GROUP BY hour, what
ON CONFLICT (tenant_id, hour, what) DO UPDATE SET count = hour_tally.count + EXCLUDED.count
"""

# --- the weather ------------------------------------------------------------------------------------------------

_COLUMN = {Status.DELIVERED: "delivered", Status.DEFERRED: "deferred", Status.BOUNCED: "bounced"}


def note(results: Sequence[Result]) -> None:
    """Count the answers of sites in this batch; those of our own route or of no connection are no site's."""
    for result in results:
        for tried in result.tries:
            done, column = tried.attempted, _COLUMN.get(tried.verdict.status)
            if not done.hop.site or column is None:
                continue
            ms = int((done.finished_at - done.started_at).total_seconds() * 1000) if column == "delivered" else 0
            _weather.add((done.hop.site, slot_of(done.finished_at)), **{column: 1}, ms=ms)


def slot_of(moment: datetime) -> datetime:
    """The ten minutes that `moment` falls into."""
    moment = moment.astimezone(UTC)
    return moment.replace(minute=moment.minute // 10 * 10, second=0, microsecond=0)


def flush(now: bool = False) -> int:
    """Write what was counted, where the last write is ten seconds ago; how many rows."""
    return _weather.flush(now)


def _write(rows: list[tuple[tuple[str, datetime], Counter[str]]]) -> None:
    figures = {name: [counts[name] for _, counts in rows] for name in ("delivered", "deferred", "bounced", "ms")}
    execute(_WEATHER, {"site": [k[0] for k, _ in rows], "slot": [k[1] for k, _ in rows], **figures})


_weather: Counts[tuple[str, datetime]] = Counts("sites", _write)

_WEATHER = """
INSERT INTO site_weather (site, slot, delivered, deferred, bounced, ms)
SELECT * FROM unnest(%(site)s::text[], %(slot)s::timestamptz[], %(delivered)s::int[], %(deferred)s::int[],
                     %(bounced)s::int[], %(ms)s::bigint[])
ON CONFLICT (site, slot) DO UPDATE
   SET delivered = site_weather.delivered + EXCLUDED.delivered, deferred = site_weather.deferred + EXCLUDED.deferred,
       bounced = site_weather.bounced + EXCLUDED.bounced, ms = site_weather.ms + EXCLUDED.ms
"""
