"""The figures of the first page. Every statement reads rows made for it (record.figures) or an index to its first rows.

What happened since the last tally is counted from the events themselves, so that the mail just sent is in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Q

from deliveries.models import BounceMailbox, SendingDomain, WebhookEndpoint
from deliveries.models.figures import EVERYBODY, TOOK_S, WHAT
from deliveries.models.queue import NEVER
from deliveries.models.sql import execute
from deliveries.states import Status

#: rows of a bounded count of what waits
WAITING_LIMIT = 10_001
#: events that are in no hour yet are looked at so far back; a tally that is later than that is said to be late
LIVE = timedelta(minutes=10)
#: sites in the weather
MAX_SITES = 15
#: what "now" is for a site, and its normal
RECENT = timedelta(minutes=30)
NORMAL = timedelta(days=7)
#: fewer answers say nothing about a site
_ENOUGH = 10


@dataclass(frozen=True, slots=True)
class Figures:
    """`bars` from the oldest to the present one, each an hour or a day; counts by word, `took:07` left out of them."""

    bars: list[tuple[datetime, Counter[str]]]
    day: Counter[str]
    week: Counter[str]
    counted_until: datetime | None  #: None where nothing was tallied yet


def figures(tenants: Collection[UUID] | None, now: datetime, unit: str) -> Figures:
    """`unit` is hour (the last 24) or day (the last 30). `tenants` None = everybody's."""
    now = now.astimezone(UTC)
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    if unit == "hour":
        starts = [this_hour - timedelta(hours=n) for n in range(23, -1, -1)]
    else:
        today = this_hour.replace(hour=0)
        starts = [today - timedelta(days=n) for n in range(29, -1, -1)]
    owners = [EVERYBODY] if tenants is None else list(tenants)
    bars = {start: Counter[str]() for start in starts}
    for row in execute(_BARS, {"owners": owners, "since": starts[0], "unit": unit}):
        if row["at"] in bars:
            bars[row["at"]][row["what"]] += row["n"]
    day, week = Counter[str](), Counter[str]()
    since = {"day": this_hour - timedelta(hours=23), "week": this_hour - timedelta(days=7)}
    for row in execute(_SUMS, {"owners": owners, **since}):
        day[row["what"]] += row["day"] or 0
        week[row["what"]] += row["week"]
    until = None
    for row in execute(_live(tenants), {**_whats(), "owners": owners, "unit": unit, "live": LIVE}):
        until = row["until"]
        if row["what"] is not None:
            for counts in (day, week, bars.get(row["at"], Counter())):
                counts[row["what"]] += row["n"]
    return Figures(list(bars.items()), day, week, until)


def _whats() -> dict[str, list[str]]:
    return {"types": [str(t) for t in WHAT], "whats": list(WHAT.values())}


_BARS = """
SELECT date_trunc(%(unit)s::text, hour, 'UTC') AS at, what, sum(count)::bigint AS n FROM hour_tally
 WHERE tenant_id = ANY (%(owners)s::uuid[]) AND hour >= %(since)s::timestamptz AND what NOT LIKE 'took:%%'
 GROUP BY 1, 2
"""

_SUMS = """
SELECT what, sum(count)::bigint AS week,
       sum(count) FILTER (WHERE hour >= %(day)s::timestamptz)::bigint AS day
  FROM hour_tally WHERE tenant_id = ANY (%(owners)s::uuid[]) AND hour >= %(week)s::timestamptz
 GROUP BY what
"""


def _live(tenants: Collection[UUID] | None) -> str:
    """What stands in no hour yet, by event_feed; one row without a word where there is nothing."""
    owner = "(SELECT id FROM tenant)" if tenants is None else "unnest(%(owners)s::uuid[])"
    return f"""
WITH mark AS (SELECT (SELECT until FROM tally_mark WHERE id = 1) AS until)
SELECT mark.until, l.at, l.what, l.n FROM mark LEFT JOIN (
    SELECT date_trunc(%(unit)s::text, e.created_at, 'UTC') AS at, w.what, count(*) AS n
      FROM {owner} AS t(id) CROSS JOIN LATERAL (
           SELECT type, created_at FROM event
            WHERE tenant_id = t.id AND created_at >= greatest((SELECT until FROM mark), now() - %(live)s::interval)
              AND cardinality(%(owners)s::uuid[]) > 0) e
      JOIN unnest(%(types)s::text[], %(whats)s::text[]) AS w(type, what) ON w.type = e.type
     GROUP BY 1, 2) l ON true
"""


def rate(counts: Mapping[str, int]) -> float | None:
    """Of what ended, the part that was delivered and did not come back; None where nothing ended."""
    good = counts.get("delivered", 0) - counts.get("late", 0)
    ended = good + counts.get("bounced", 0) + counts.get("failed", 0)
    return max(good, 0) / ended if ended > 0 else None


def took(counts: Mapping[str, int], part: float) -> float | None:
    """Seconds within which `part` (0.5, 0.95) of the deliveries were done, from when they were due."""
    buckets = [counts.get(f"took:{n:02}", 0) for n in range(len(TOOK_S) + 1)]
    wanted = part * sum(buckets)
    if not wanted:
        return None
    below = 0
    for n, count in enumerate(buckets):
        if below + count >= wanted:
            low, high = (TOOK_S[n - 1] if n else 0.0), TOOK_S[min(n, len(TOOK_S) - 1)]
            return low + (high - low) * (wanted - below) / count
        below += count
    return None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Deliveries of one open status: how many (WAITING_LIMIT is "more"), and when the oldest was accepted."""

    status: Status
    count: int
    oldest: datetime | None


#: what waits: for its turn, for its next try, for its time, for a person
WAITS = (Status.QUEUED, Status.DEFERRED, Status.SCHEDULED, Status.HELD)


def waiting(tenants: Collection[UUID] | None) -> list[Waiting]:
    """By delivery_status, tenant by tenant, up to the limit."""
    owner = "(SELECT id FROM tenant)" if tenants is None else "unnest(%(tenants)s::uuid[])"
    rows = execute(
        f"""
        SELECT s.status,
               (SELECT count(*) FROM (
                   SELECT 1 FROM {owner} AS t(id) CROSS JOIN LATERAL (
                       SELECT 1 FROM delivery WHERE tenant_id = t.id AND status = s.status LIMIT %(limit)s) d
                    LIMIT %(limit)s) counted) AS n,
               (SELECT min(o.created_at) FROM {owner} AS t(id) CROSS JOIN LATERAL (
                   SELECT created_at FROM delivery WHERE tenant_id = t.id AND status = s.status
                    ORDER BY id LIMIT 1) o) AS oldest
          FROM unnest(%(statuses)s::text[]) AS s(status)
        """,
        {"statuses": [str(s) for s in WAITS], "limit": WAITING_LIMIT}
        | ({} if tenants is None else {"tenants": list(tenants)}),
    )
    found = {row["status"]: Waiting(Status(row["status"]), row["n"], row["oldest"]) for row in rows}
    return [found[status] for status in WAITS]


@dataclass(frozen=True, slots=True)
class Answers:
    """How a site answered: transactions by outcome; `ms`: milliseconds that the delivered ones took in all."""

    delivered: int = 0
    deferred: int = 0
    bounced: int = 0
    ms: int = 0

    @property
    def all(self) -> int:
        return self.delivered + self.deferred + self.bounced

    @property
    def success(self) -> float | None:
        return self.delivered / self.all if self.all else None

    @property
    def deferral(self) -> float | None:
        return self.deferred / self.all if self.all else None

    @property
    def latency_s(self) -> float | None:
        """The mean of the delivered ones."""
        return self.ms / self.delivered / 1000 if self.delivered else None


@dataclass(frozen=True, slots=True)
class Weather:
    """`word`: paused, rests, slowed, worse (than in the week before), slow, quiet or well. `why` may be empty."""

    site: str
    word: str
    why: str
    until: datetime | None  #: None: open, or no end needed
    now: Answers
    normal: Answers


def weather(now: datetime) -> list[Weather]:
    """The sites that answered most in the last half hour, and all that rest; what troubles stands first."""
    rows = execute(_WEATHER, {"now": now, "recent": now - RECENT, "normal": now - NORMAL, "limit": MAX_SITES})
    found = [_weather(row, now) for row in rows]
    order = ("paused", "rests", "worse", "slowed", "slow", "well", "quiet")
    return sorted(found, key=lambda w: (order.index(w.word), -w.now.all))


# by site_weather_slot and site_resting to the names; then each by its key
_WEATHER = """
WITH recent AS (
    SELECT site, sum(delivered)::int AS delivered, sum(deferred)::int AS deferred, sum(bounced)::int AS bounced,
           sum(ms)::bigint AS ms
      FROM site_weather WHERE slot >= date_bin('10 min', %(recent)s::timestamptz, 'epoch')
     GROUP BY site ORDER BY sum(delivered + deferred + bounced) DESC LIMIT %(limit)s
), named AS (
    SELECT site FROM recent
    UNION
    (SELECT name FROM site WHERE suspended_until > %(now)s::timestamptz ORDER BY suspended_until DESC LIMIT %(limit)s)
)
SELECT named.site, r.delivered, r.deferred, r.bounced, r.ms, n.delivered AS n_delivered, n.deferred AS n_deferred,
       n.bounced AS n_bounced, n.ms AS n_ms, s.suspended_until, s.reason, s.paused_by, s.strikes, s.misses
  FROM named LEFT JOIN recent r ON r.site = named.site LEFT JOIN site s ON s.name = named.site
  LEFT JOIN LATERAL (
       SELECT sum(w.delivered)::int AS delivered, sum(w.deferred)::int AS deferred, sum(w.bounced)::int AS bounced,
              sum(w.ms)::bigint AS ms
         FROM site_weather w
        WHERE w.site = named.site AND w.slot >= %(normal)s::timestamptz
          AND w.slot < date_bin('10 min', %(recent)s::timestamptz, 'epoch')) n ON true
"""


def _weather(row: Mapping[str, Any], now: datetime) -> Weather:
    names = ("delivered", "deferred", "bounced", "ms")
    recent = Answers(*(row[name] or 0 for name in names))
    normal = Answers(*(row[f"n_{name}"] or 0 for name in names))
    word, why, until = _judge(recent, normal), "", None
    if row["suspended_until"] is not None and row["suspended_until"] > now:
        word, why = ("paused" if row["paused_by"] else "rests"), row["reason"]
        until = row["suspended_until"] if row["suspended_until"] < NEVER else None
    elif (row["strikes"] or row["misses"]) and word != "worse":
        word, why = "slowed", row["reason"]
    return Weather(row["site"], word, why, until, recent, normal)


def _judge(recent: Answers, normal: Answers) -> str:
    """Against its own last week: a tenth fewer successes is worse, three times the time is slow."""
    if not recent.all:
        return "quiet"
    if recent.all < _ENOUGH or normal.all < _ENOUGH:
        return "well"
    if (recent.success or 0.0) < (normal.success or 0.0) - 0.1:
        return "worse"
    if recent.latency_s and normal.latency_s and recent.latency_s > max(3 * normal.latency_s, 1.0):
        return "slow"
    return "well"


@dataclass(frozen=True, slots=True)
class Broken:
    """What a person should look at: (id, name) of each, a few. Of domains also whether a record went missing that was
    there once."""

    endpoints: list[tuple[UUID, str]]
    domains: list[tuple[UUID, str, bool]]
    mailboxes: list[tuple[UUID, str]]


def broken(tenants: Collection[UUID] | None, limit: int = 20) -> Broken:
    """Endpoints that fail or are off, domains that may not be sent from or soon may not be, mailboxes that cannot be
    read; the tables are small."""
    own = Q() if tenants is None else Q(tenant_id__in=list(tenants))
    endpoints = WebhookEndpoint.objects.filter(own & (Q(enabled=False) | Q(failing_since__isnull=False)))
    domains = SendingDomain.objects.filter(own & (Q(verified_at=None) | Q(missing_since__isnull=False)))
    rows = domains.order_by("name").values_list("id", "name", "verified_at", "missing_since")[:limit]
    boxes = BounceMailbox.objects.filter(own, enabled=True, failures__gt=0).order_by("username")
    return Broken(
        list(endpoints.order_by("url").values_list("id", "url")[:limit]),
        [(pk, name, bool(verified and missing)) for pk, name, verified, missing in rows],
        list(boxes.values_list("id", "username")[:limit]),
    )


def queue_estimate() -> int:
    """Rows of the queue as Postgres last counted them; what a count that stops at its limit cannot say."""
    row = execute("SELECT greatest(reltuples, 0)::bigint AS n FROM pg_class WHERE oid = 'queued'::regclass").fetchone()
    assert row is not None
    return int(row["n"])
