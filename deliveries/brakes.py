"""Stops what goes wrong by the hundred: a provider that refuses everybody, a tenant whose mail nobody wants.

    run        every ten seconds: refusals of one category at one site jump → the site's mail is held
    watch      every minute: bounces or complaints of a tenant above the bounds → the tenant's mail is held

Both read counts that cost the same whatever the backlog: ten minutes of `refusals`, and index ranges with a LIMIT.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from deliveries.models import Brake
from deliveries.models.fields import uuid7_floor
from deliveries.models.sql import execute
from deliveries.record import brakes as record
from deliveries.states import Category, Status

#: a provider is held at LEAST_REFUSALS of one category within WINDOW, and JUMP times its rate of the last WEEK
WINDOW = timedelta(minutes=10)
LEAST_REFUSALS = 50
JUMP = 5
WEEK = timedelta(days=7)
#: of what the site answered in the window: a large mailing brings more of everything, and that is no outage
LEAST_SHARE = 0.1
#: after a person confirmed refusals, those of that category are believed for so long
BELIEVED = timedelta(hours=24)

#: a tenant is held above these parts of what was decided for it in 24 hours
MOST_BOUNCES = 0.10
MOST_COMPLAINTS = 0.003
LEAST_MAILS = 200
DAY = timedelta(hours=24)
#: about us or our address: the operator's trouble, not the tenant's
_OURS = [Category.IP_REPUTATION.value, Category.POLICY_AUTH.value, Category.RATE_LIMITED.value]


@dataclass(frozen=True, slots=True)
class Jump:
    """Refusals of a site in the window, what it answered in all, and what ten minutes of its last week held."""

    site: str
    category: Category
    refused: int
    answered: int
    usual: float

    @property
    def alarming(self) -> bool:
        return (
            self.refused >= LEAST_REFUSALS
            and self.refused >= JUMP * self.usual
            and self.refused >= LEAST_SHARE * self.answered
        )

    def words(self) -> str:
        usual = f"{self.usual:.1f}" if self.usual < 10 else f"{self.usual:.0f}"
        return (
            f"{self.site} refused {self.refused} of {max(self.answered, self.refused)} mails as {self.category} within "
            f"10 minutes; {usual} are usual."
        )


def run(now: datetime | None = None) -> list[Brake]:
    """End what is to end, doubt what came in meanwhile, and pull where refusals jump; the new brakes."""
    now = now or timezone.now()
    for brake in Brake.objects.filter(state=Brake.State.OPEN).exclude(site=""):
        if not record.end(brake, now):
            record.doubt(brake)
    if not settings.BRAKES:
        return []
    pulled = []
    for jump in jumps(now):
        if jump.alarming:
            one = record.pull(jump.site, jump.category, jump.refused, jump.words(), now - WINDOW, now)
            if one is not None:
                pulled.append(one)
    return pulled


def jumps(now: datetime) -> list[Jump]:
    """Every site and category with enough refusals in the window, the most first; sites that are held are left out."""
    rows = execute(
        _JUMPS,
        {
            "since": now - WINDOW, "week": now - WEEK, "least": LEAST_REFUSALS, "believed": BELIEVED,
        },
    ).fetchall()  # fmt: skip
    per_window = WINDOW / (WEEK - WINDOW)
    return [Jump(r["site"], Category(r["category"]), r["refused"], r["answered"], r["week"] * per_window) for r in rows]


def watch(now: datetime | None = None) -> list[UUID]:
    """Hold the tenants above the bounds; who was."""
    if not settings.BRAKES:
        return []
    now = now or timezone.now()
    floor = uuid7_floor(int((now - DAY).timestamp() * 1000))
    released = {
        b.tenant_id: uuid7_floor(int(b.decided_at.timestamp() * 1000))
        for b in Brake.objects.filter(tenant__isnull=False, decided_at__gte=now - DAY).order_by("decided_at")
        if b.decided_at
    }
    asked = {
        "floor": floor, "tenants": list(released), "floors": list(released.values()), "ours": _OURS, "since": now - DAY,
    }  # fmt: skip
    held = []
    for row in execute(_SUSPECTS, asked).fetchall():
        reason = _verdict(row)
        if reason and record.hold_tenant(row["tenant_id"], reason, record.ACTOR, now, row["bounced"]):
            held.append(row["tenant_id"])
    return held


def _verdict(row: dict[str, Any]) -> str:
    """Why the tenant is held; empty where it is not. `decided` is exact up to where both parts are below the bounds."""
    decided, bounced, complained = row["decided"], row["bounced"], row["complained"]
    if decided < LEAST_MAILS:
        return ""
    if bounced > MOST_BOUNCES * decided:
        return f"{bounced} of {decided} mails of 24 hours bounced ({bounced / decided:.1%}; 10% is the bound)."
    if complained > MOST_COMPLAINTS * decided:
        share = f"{complained / decided:.2%}; 0.3% is the bound"
        return f"{complained} complaints about {decided} mails of 24 hours ({share})."
    return ""


_JUMPS = """
WITH recent AS (
    SELECT r.site, r.category, sum(r.count)::bigint AS refused, max(d.done) AS done
      FROM refusals r
      LEFT JOIN LATERAL (
           SELECT max(CASE WHEN b.state = 'confirmed' AND b.category = r.category
                           THEN b.decided_at + %(believed)s::interval ELSE b.decided_at END) AS done
             FROM brake b WHERE b.site = r.site AND b.state <> 'open') d ON true
     WHERE r.minute >= %(since)s::timestamptz AND r.category <> ''
       -- whole minutes since: what was refused just before a person decided must not pull it at once again
       AND (d.done IS NULL OR r.minute >= d.done)
     GROUP BY r.site, r.category HAVING sum(r.count) >= %(least)s::int
)
SELECT n.site, n.category, n.refused,
       (SELECT coalesce(sum(a.count), 0)::bigint FROM refusals a
         WHERE a.site = n.site AND a.category = '' AND a.minute >= %(since)s::timestamptz) AS answered,
       (SELECT coalesce(sum(w.count), 0)::float8 FROM refusals w
         WHERE w.site = n.site AND w.category = n.category AND w.minute >= %(week)s::timestamptz
           AND w.minute < %(since)s::timestamptz) AS week
  FROM recent n
 WHERE NOT EXISTS (SELECT FROM brake b WHERE b.site = n.site AND b.state = 'open')
 ORDER BY n.refused DESC LIMIT 100
"""

# so many decided mails are the bound for each bounce, and for each complaint; counts stop where more change nothing
_PER_BOUNCE, _PER_COMPLAINT = math.ceil(1 / MOST_BOUNCES), math.ceil(1 / MOST_COMPLAINTS)
_SUSPECTS = f"""
SELECT t.id AS tenant_id, b.n AS bounced, c.n AS complained, s.n AS decided
  FROM tenant t
  LEFT JOIN unnest(%(tenants)s::uuid[], %(floors)s::uuid[]) AS r(tenant_id, floor) ON r.tenant_id = t.id
 CROSS JOIN LATERAL (SELECT coalesce(r.floor, %(floor)s::uuid) AS id) f
 CROSS JOIN LATERAL (
       SELECT count(*) AS n FROM (
              SELECT FROM delivery d
               WHERE d.tenant_id = t.id AND d.status = '{Status.BOUNCED}' AND d.id >= f.id
                 AND d.category <> ALL (%(ours)s::text[])
                 -- not what a brake on a provider doubts
                 AND NOT EXISTS (SELECT FROM brake b
                                  WHERE b.site <> '' AND b.state <> 'confirmed' AND b.category = d.category
                                    AND (d.host = b.site OR right(d.host, length(b.site) + 1) = '.' || b.site)
                                    AND d.settled_at BETWEEN b.since AND coalesce(b.decided_at, b.until))
               LIMIT 100000) x) b
 CROSS JOIN LATERAL (
       SELECT count(*) AS n FROM delivery d
        WHERE d.tenant_id = t.id AND d.complained_at >= %(since)s::timestamptz AND d.id >= f.id) c
 CROSS JOIN LATERAL (
       SELECT count(*) AS n FROM (
              SELECT FROM delivery d
               WHERE d.tenant_id = t.id AND d.status IN ('{Status.DELIVERED}', '{Status.BOUNCED}') AND d.id >= f.id
               LIMIT greatest(b.n * {_PER_BOUNCE}, c.n * {_PER_COMPLAINT}, {LEAST_MAILS - 1}) + 1) x
        WHERE b.n > {LEAST_MAILS // _PER_BOUNCE} OR c.n > 0) s
 WHERE t.suspended_at IS NULL AND s.n >= {LEAST_MAILS}
"""
