"""The queue by destination: what waits where, what is in flight, when it goes on, and why not now.

Nothing here counts the queue: a destination knows its next due time, what is leased is a few thousand rows, and what
waits is counted up to a limit by the index that claims use.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from deliveries.models.queue import NEVER
from deliveries.models.sql import execute
from deliveries.smtp.providers import profile_of
from deliveries.states import Status

#: destinations on the page, those that are due first
MAX_DESTINATIONS = 100
#: rows of a destination that are counted; one more is "more"
COUNT_LIMIT = 1_001


@dataclass(frozen=True, slots=True)
class Stop:
    """A destination. `waiting` is at most COUNT_LIMIT; `next_due` None where all of it is in flight or held back.

    `word`: paused, rests, slowed or open; `why` and `until` belong to it (`until` None: until a person resumes it).
    `places` at a time now, `most` what an operator or its profile allows, `per_minute` 0 = no such bound.
    """

    name: str
    waiting: int
    in_flight: int
    next_due: datetime | None
    word: str
    why: str
    until: datetime | None
    places: int
    most: int
    per_minute: int
    last_reply: str


def stops(now: datetime, name: str = "") -> list[Stop]:
    """What rests, then what has mail, each by its next due time; with `name` that destination alone, mail or not."""
    rows = execute(_STOPS, {"now": now, "never": NEVER, "limit": MAX_DESTINATIONS, "count": COUNT_LIMIT, "name": name})
    return [_stop(row, now) for row in rows]


def _stop(row: dict[str, Any], now: datetime) -> Stop:
    profile = profile_of(row["name"])
    resting = row["suspended_until"] is not None and row["suspended_until"] > now
    word = "open"
    if resting:
        word = "paused" if row["paused_by"] else "rests"
    elif row["strikes"] or row["misses"] or row["most_places"]:
        word = "slowed"
    return Stop(
        name=row["name"],
        waiting=row["waiting"],
        in_flight=row["in_flight"],
        next_due=row["next_due"],
        word=word,
        why=row["reason"] or "" if word != "open" else "",
        until=row["suspended_until"] if resting and row["suspended_until"] < NEVER else None,
        places=row["places"] if row["places"] is not None else profile.start,
        most=row["most_places"] or profile.most,
        per_minute=profile.rate_per_minute,
        last_reply=row["last_reply"] or "",
    )


# names by destination_ready (lane by lane), queued_leased and site_resting; the counts by queued_claim
_STOPS = """
WITH leased AS (
    SELECT destination AS name, count(*)::int AS n FROM queued WHERE lease_id IS NOT NULL GROUP BY destination
), due AS (
    SELECT d.name, min(d.next_due) AS next_due
      FROM unnest(ARRAY[0, 1, 2]::smallint[]) AS l(lane) CROSS JOIN unnest(ARRAY[true, false]) AS p(proven)
     CROSS JOIN LATERAL (
           SELECT name, next_due FROM destination
            WHERE lane = l.lane AND proven = p.proven AND next_due < %(never)s::timestamptz AND %(name)s::text = ''
            ORDER BY next_due LIMIT %(limit)s) d
     GROUP BY d.name
), named AS (
    SELECT name FROM due UNION SELECT name FROM leased WHERE %(name)s::text = ''
    UNION (SELECT name FROM site WHERE suspended_until > %(now)s::timestamptz AND %(name)s::text = ''
            ORDER BY suspended_until DESC LIMIT %(limit)s)
    UNION SELECT %(name)s::text WHERE %(name)s::text <> ''
), counted AS (
    SELECT named.name, coalesce(leased.n, 0) AS in_flight, (
           SELECT count(*)::int FROM (
                SELECT 1 FROM queued q
                 WHERE q.lane IN (0, 1, 2) AND q.destination = named.name AND q.lease_id IS NULL
                   AND q.due_at < %(never)s::timestamptz LIMIT %(count)s) c) AS waiting
      FROM named LEFT JOIN leased ON leased.name = named.name
)
SELECT c.name, c.in_flight, c.waiting, d.next_due, s.places, s.most_places, s.strikes, s.misses, s.suspended_until,
       s.reason, s.last_reply, s.paused_by
  FROM counted c LEFT JOIN due d ON d.name = c.name LEFT JOIN site s ON s.name = c.name
 WHERE c.waiting > 0 OR c.in_flight > 0 OR s.suspended_until > %(now)s::timestamptz OR %(name)s::text <> ''
 ORDER BY coalesce(s.suspended_until > %(now)s::timestamptz, false) DESC, d.next_due NULLS LAST, c.name
 LIMIT %(limit)s
"""


def deferred_at(name: str, limit: int) -> list[UUID]:
    """Deliveries there that wait for their next try, the soonest first; the times of other statuses are kept."""
    rows = execute(
        """
        SELECT q.delivery_id AS id FROM queued q JOIN delivery d ON d.id = q.delivery_id
         WHERE q.lane IN (0, 1, 2) AND q.destination = %(name)s AND q.lease_id IS NULL
           AND q.due_at > now() AND q.due_at < %(never)s::timestamptz AND d.status = %(deferred)s
         ORDER BY q.due_at LIMIT %(limit)s
        """,
        {"name": name, "never": NEVER, "deferred": Status.DEFERRED.value, "limit": limit},
    )
    return [row["id"] for row in rows]
