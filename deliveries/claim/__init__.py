"""Claim: free places first, then rows. Which destinations are served now, how much of each, and whose mail it is.

    _candidates           what is due and not full, by index, lane by lane; what rests is pushed to the end of its rest
    places.share          places: lanes in order, destinations evenly, few for those that may be tar-pits
    places.within_rates   what a provider's messages per minute allow
    rows.take             rows: tenants in turn, leased with FOR UPDATE SKIP LOCKED
    asleep.push_back      destinations that gave less than asked sleep until their next row is due

The rows are taken in one statement and one commit; the rates are asked before it begins.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from deliveries.asleep import catch_up, push_back
from deliveries.claim.places import Alone as Alone
from deliveries.claim.places import Candidate, Shaper, give_back, share, within_rates
from deliveries.claim.rows import ALL as ALL
from deliveries.claim.rows import ANY_KIND as ANY_KIND
from deliveries.claim.rows import Claimed as Claimed
from deliveries.claim.rows import Takes as Takes
from deliveries.claim.rows import take
from deliveries.models.sql import execute
from deliveries.smtp.providers import profile_of

#: destinations looked at in one claim; the rest have their turn in the next one, milliseconds later
_CANDIDATES = 200
#: the limits last seen, so that full destinations are passed over by the query
_limits: dict[str, int] = {}
_REMEMBERED = 20_000
#: destinations whose due mail is for addresses of other hosts, by id, and until when they are passed over
_elsewhere: dict[int, float] = {}
_ELSEWHERE_S = 1.0


@dataclass(frozen=True, slots=True)
class Claim:
    """`more` says that due mail was left behind for want of places or octets: ring once more.

    `full`: some destination may have more than it gave, so that a place that becomes free is worth a look.
    """

    rows: tuple[Claimed, ...]
    more: bool
    full: bool = True


def claim(
    lease_id: UUID,
    free: int,
    octets: int,
    in_flight: Mapping[str, int],
    *,
    unproven: int | None = None,
    urgent: int = 0,
    shaper: Shaper = Alone(),  # noqa: B008 (has no state)
    takes: Takes | None = None,
    emptied: set[int] | None = None,
) -> Claim:
    """Lease up to `free` due rows of at most `octets` in all (at least one row where any is due).

    `in_flight` is this process' transactions per destination name; a destination is given no more than its
    places. Lanes go in order; within a lane destinations share evenly, and tenants within each. Sites that have not
    shown that they answer have `unproven` places beside the free ones (None: as many as `free`); those that were asked
    before and did not take half of them at most, so that nobody who was never asked waits for tar-pits. `urgent` are
    further places that only Lane.HIGH may take. `takes` None: this host sends all there is. Destinations that gave all
    they had are added to `emptied`, to be pushed back when there is time; without it that is done here.
    """
    unproven = free if unproven is None else unproven
    if max(free + urgent, unproven) <= 0 or octets <= 0:
        return Claim((), False)
    candidates, full = _candidates(in_flight, unproven, shaper)
    wants = share(candidates, max(free, -urgent), urgent, unproven, in_flight)
    granted = within_rates(wants, shaper)
    if not granted:
        return Claim((), False, full or bool(candidates))
    rows, passed = take(lease_id, octets, granted, takes)
    taken = Counter((int(row.lane), row.destination) for row in rows)
    short = [c.id for c, count in granted if taken[c.lane, c.name] < count]
    if takes:
        until, known = time.monotonic() + _ELSEWHERE_S, emptied or ()
        _elsewhere.update((c.id, until) for c, _ in granted if not taken[c.lane, c.name] and c.id not in known)
    if emptied is None:
        push_back(short)
    else:
        emptied.update(short)
    give_back(granted, taken, shaper)
    more = sum(row.proven for row in rows) >= free > 0 or sum(not row.proven for row in rows) >= unproven > 0
    more = more or len(candidates) >= _CANDIDATES
    # nothing is left where each that was due gave less than asked, and neither octets nor tenants set the bound
    full = full or more or passed or len(short) < len(candidates) or sum(row.size for row in rows) >= octets
    return Claim(tuple(rows), more, full)


def look_again() -> None:
    """A bell rang: what was passed over as mail of other hosts may have some of ours by now.

    Not where it is much: what is due and not ours must not stand before what is.
    """
    if len(_elsewhere) < _CANDIDATES // 2:
        _elsewhere.clear()


def _candidates(in_flight: Mapping[str, int], unproven: int, shaper: Shaper) -> tuple[list[Candidate], bool]:
    """What is due, and whether others were passed over because their places are taken."""
    full = [name for name, n in in_flight.items() if n >= _limits.get(name, n + 1)]
    if len(_limits) > _REMEMBERED:
        _limits.clear()
    now = time.monotonic()
    for ident in [ident for ident, until in _elsewhere.items() if until < now]:
        del _elsewhere[ident]
    found, behind = [], []
    # a claim looks at few unproven ones, so that they never crowd out the others
    looks = _CANDIDATES // 2 if unproven > 0 else 0
    for due in execute(
        _DUE_DESTINATIONS, {"full": full, "elsewhere": [*_elsewhere], "most": _CANDIDATES, "unproven": looks}
    ):
        if due["rests"] or due["site_proven"] not in (None, due["proven"]):
            behind.append(due["id"])
        if not due["rests"]:
            name, places = due["name"], due["places"]
            met = places is not None
            if places is None:
                # who was never met is asked by one mail first: a tar-pit holds one place, not all of them
                places = profile_of(name).start if due["proven"] else 1
            _limits[name] = limit = shaper.share(name, places)
            found.append(Candidate(due["id"], due["lane"], name, due["proven"], met, limit))
    if behind:
        catch_up(behind)
    return found, bool(full)


_DUE = """
    (SELECT d.id, d.name, d.next_due, d.proven FROM destination d
      WHERE d.lane = l.lane AND {which} AND d.next_due <= now() AND d.name <> ALL (%(full)s::text[])
        AND d.id <> ALL (%(elsewhere)s::int[])
      ORDER BY d.next_due LIMIT %({most})s)
"""

# by index, lane by lane: what rests or waits is not looked at, however much of it there is
_DUE_DESTINATIONS = f"""
SELECT d.id, l.lane, d.name, d.proven, s.places, s.proven AS site_proven,
       coalesce(s.suspended_until > now(), false) AS rests
  FROM (VALUES (0::smallint), (1::smallint), (2::smallint)) l(lane)
 CROSS JOIN LATERAL ({_DUE.format(which="d.proven", most="most")} UNION ALL
                     {_DUE.format(which="NOT d.proven", most="unproven")}) d
  LEFT JOIN site s ON s.name = d.name
 ORDER BY l.lane, d.next_due
"""
