"""What a batch of results says about the sites that it went to: at most one write per site, and only where it changes.

The decision is smtp/pace.py's; this is its memory. Successes are counted in the process until they fill a site's
places once, so that pure success at full speed writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from deliveries.models.sql import execute
from deliveries.record.settle import Result
from deliveries.smtp.pace import Pace, Seen, drags, first_pace, next_pace, observe
from deliveries.smtp.providers import profile_of
from deliveries.smtp.reply import clean

#: what this process knows of sites: places, whether all is well, and until when that is believed (monotonic)
_known: dict[str, tuple[int, bool, float]] = {}
#: successes since the last look
_credit: dict[str, int] = {}
_REMEMBERED = 20_000
#: another process may have slowed the site meanwhile
_BELIEVED_S = 30.0


def learn(results: Sequence[Result], now: datetime) -> dict[str, Pace]:
    """Write the new paces of this batch's sites, in the caller's transaction; those that changed."""
    seen = observe([[(t.attempted, t.verdict) for t in r.tries] for r in results])
    telling = {site: _with_credit(site, one) for site, one in seen.items()}
    telling = {site: one for site, one in telling.items() if not _unremarkable(site, one)}
    if not telling:
        return {}
    # in name order, as everybody who locks several does
    stored = {r["name"]: _pace(r) for r in execute(_LOOK, {"names": sorted(telling)}).fetchall()}
    changed: dict[str, Pace] = {}
    for site, one in telling.items():
        profile = profile_of(site)
        before = stored.get(site)
        now_known = before or first_pace(profile)
        after = next_pace(site, now_known, profile, one, now)
        if after != now_known:
            changed[site] = after
        _credit.pop(site, None)
        _known[site] = (after.places, _at_ease(after), time.monotonic() + _BELIEVED_S)
    if changed:
        _write(changed)
        execute(_TELL_LANES, {"names": sorted(changed)})
    return changed


def _with_credit(site: str, one: Seen) -> Seen:
    if not one.delivered:
        return one
    if len(_credit) > _REMEMBERED or len(_known) > _REMEMBERED:
        _credit.clear()
        _known.clear()
    _credit[site] = credit = _credit.get(site, 0) + one.delivered
    return replace(one, delivered=credit)


def _unremarkable(site: str, one: Seen) -> bool:
    """Success as usual: nothing to look up, nothing to write."""
    known = _known.get(site)
    if known is None or one.missed or one.slow_down or one.our_route or not one.delivered or drags(one):
        return False
    places, at_ease, until = known
    return at_ease and time.monotonic() < until and (one.delivered < places or places >= profile_of(site).most)


def _at_ease(pace: Pace) -> bool:
    return pace.proven and not pace.misses and pace.slowed_at is None and pace.suspended_until is None


def _pace(row: Mapping[str, Any]) -> Pace:
    return Pace(**{name: row[name] for name in _FIELDS})


def _write(changed: Mapping[str, Pace]) -> None:
    names = sorted(changed)
    columns: dict[str, list[Any]] = {f: [getattr(changed[n], f) for n in names] for f in _FIELDS}
    columns["reason"] = [clean(text) for text in columns["reason"]]
    columns["last_reply"] = [clean(text) for text in columns["last_reply"]]
    execute(_WRITE, {"name": names, **columns})


_FIELDS = (
    "places", "proven", "misses", "strikes", "slowed_at", "suspended_until", "reason", "last_reply", "most_places",
    "paused_by",
)  # fmt: skip

_LOOK = f"SELECT name, {', '.join(_FIELDS)} FROM site WHERE name = ANY (%(names)s) ORDER BY name FOR UPDATE"

_WRITE = """
WITH p AS (
    SELECT * FROM unnest(
        %(name)s::text[], %(places)s::int[], %(proven)s::bool[], %(misses)s::int[], %(strikes)s::int[],
        %(slowed_at)s::timestamptz[], %(suspended_until)s::timestamptz[], %(reason)s::text[], %(last_reply)s::text[],
        %(most_places)s::int[], %(paused_by)s::text[]
    ) AS p(name, places, proven, misses, strikes, slowed_at, suspended_until, reason, last_reply, most_places,
           paused_by)
)
INSERT INTO site (name, places, most_places, proven, misses, strikes, slowed_at, suspended_until, reason, last_reply,
                  paused_by, changed_at)
SELECT name, places, most_places, proven, misses, strikes, slowed_at, suspended_until, reason, last_reply, paused_by,
       now()
  FROM p ORDER BY name
ON CONFLICT (name) DO UPDATE
   SET places = EXCLUDED.places, proven = EXCLUDED.proven, misses = EXCLUDED.misses, strikes = EXCLUDED.strikes,
       slowed_at = EXCLUDED.slowed_at, suspended_until = EXCLUDED.suspended_until, reason = EXCLUDED.reason,
       last_reply = EXCLUDED.last_reply, paused_by = EXCLUDED.paused_by, changed_at = now()
"""

# what the claim's index is made of; a destination that is busy just now is put right by the next claim that meets it,
# and so is one whose site rests
_TELL_LANES = """
WITH stale AS (
    SELECT d.id, s.proven FROM destination d JOIN site s ON s.name = d.name
     WHERE d.name = ANY (%(names)s::text[]) AND d.lane IN (0, 1, 2) AND d.proven <> s.proven
     ORDER BY d.id FOR NO KEY UPDATE OF d SKIP LOCKED
)
UPDATE destination d SET proven = stale.proven FROM stale WHERE d.id = stale.id
"""
