"""How often a site refused, by category and minute: what the brake on mass rejection reads.

Only a batch that holds a refusal writes. What a site took meanwhile is counted in the process for the present minute
and goes along, so that pure success at full speed writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from deliveries.models.sql import execute
from deliveries.record.settle import Result
from deliveries.states import Status

#: site → the minute, and the answers in it that no row tells yet
_calm: dict[str, tuple[datetime, int]] = {}
_REMEMBERED = 20_000


def count(results: Sequence[Result], now: datetime) -> None:
    """Add the refusals of this batch, in the caller's transaction."""
    refused: Counter[tuple[str, str]] = Counter()
    answered: Counter[str] = Counter()
    for result in results:
        for tried in result.tries:
            site, verdict = tried.attempted.hop.site, tried.verdict
            if not site or verdict.status not in (Status.DELIVERED, Status.BOUNCED):
                continue
            answered[site] += 1
            if verdict.status is Status.BOUNCED and verdict.category:
                refused[site, verdict.category.value] += 1
    minute = now.replace(second=0, microsecond=0)
    if len(_calm) > _REMEMBERED:
        _calm.clear()
    telling = {site for site, _ in refused}
    for site, n in answered.items():
        known = _calm.get(site)
        n += known[1] if known and known[0] == minute else 0
        if site in telling:
            refused[site, ""] = n
            _calm.pop(site, None)
        else:
            _calm[site] = (minute, n)
    add(refused, minute)


def add(counts: Counter[tuple[str, str]], minute: datetime) -> None:
    """Add to the rows of `minute`, in one order everywhere."""
    if counts:
        execute(
            _ADD,
            {
                "site": [site for site, _ in sorted(counts)],
                "category": [category for _, category in sorted(counts)],
                "count": [counts[key] for key in sorted(counts)],
                "minute": minute,
            },
        )


def forget(site: str, category: str, since: datetime) -> None:
    """Refusals that were none: they are no measure of the next days."""
    execute(_FORGET, {"site": site, "category": category, "since": since})


_ADD = """
INSERT INTO refusals (site, category, minute, count)
SELECT r.site, r.category, %(minute)s::timestamptz, r.count
  FROM unnest(%(site)s::text[], %(category)s::text[], %(count)s::int[]) AS r(site, category, count)
ON CONFLICT (site, category, minute) DO UPDATE SET count = refusals.count + EXCLUDED.count
"""

_FORGET = """
DELETE FROM refusals
 WHERE site = %(site)s AND category = %(category)s AND minute >= date_trunc('minute', %(since)s::timestamptz)
"""
