"""Claim: free places first, then rows. Which destinations are served now, how much of each, and whose mail it is.

    _candidates     what is due and not full, by index, lane by lane; what rests is pushed to the end of its rest
    _share          places: lanes in order, destinations evenly, few for those that may be tar-pits
    _within_rates   what a provider's messages per minute allow
    _take           rows: tenants in turn, leased with FOR UPDATE SKIP LOCKED
    asleep.settle   destinations that gave less than asked sleep until their next row is due

Postgres decides in one statement and one commit; the rates are asked before it begins.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from django.conf import settings

from deliveries.asleep import catch_up, settle
from deliveries.models.sql import execute
from deliveries.smtp.providers import profile_of
from deliveries.states import Lane

#: destinations looked at in one claim; the rest have their turn in the next one, milliseconds later
_CANDIDATES = 200
#: tenants served from one destination in one claim, the longest waiting first
_TENANTS = 64


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is ours until the lease ends. `proven`: its site was known to answer."""

    delivery_id: UUID
    lane: Lane
    destination: str
    size: int
    proven: bool = True
    tenant_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Takes:
    """Whose mail this host leaves to others: the rules of IP pools, and whether it sends by each (deliveries.sources).

    A tenant of ALL is every tenant; kinds are 0 (transactional), 1 (bulk) or ANY_KIND. What no rule names is taken.
    """

    tenants: tuple[UUID, ...] = ()
    kinds: tuple[int, ...] = ()
    goes: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """`more` says that due mail was left behind for want of places or octets: ring once more.

    `full`: some destination may have more than it gave, so that a place that becomes free is worth a look.
    """

    rows: tuple[Claimed, ...]
    more: bool
    full: bool = True


class Shaper(Protocol):
    """What the processes of an installation share of a site's limits (deliveries.shaping)."""

    def share(self, site: str, places: int) -> int:
        """This process' part of `places`."""

    def grant(self, wants: Mapping[str, tuple[int, int]]) -> dict[str, int]:
        """Site → (messages per minute, wanted now); how many may go now."""

    def give_back(self, unused: Mapping[str, tuple[int, int]]) -> None:
        """Granted and not used."""


class Alone:
    """The only process there is, and no clock: every place, every message."""

    def share(self, site: str, places: int) -> int:
        return places

    def grant(self, wants: Mapping[str, tuple[int, int]]) -> dict[str, int]:
        return {site: wanted for site, (_, wanted) in wants.items()}

    def give_back(self, unused: Mapping[str, tuple[int, int]]) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A destination that is due. `limit` is this process' part of its site's places, in transactions.

    `proven`: its site was known to answer; `met`: it was asked before, whatever it did.
    """

    id: int
    lane: int
    name: str
    proven: bool
    met: bool
    limit: int


_Want = tuple[_Candidate, int]

#: whose turn it was last, by destination: tenants go round, in each process for itself
_turns: dict[tuple[int, str], UUID] = {}
#: the limits last seen, so that full destinations are passed over by the query
_limits: dict[str, int] = {}
_REMEMBERED = 20_000
_FIRST = ALL = UUID(int=0)
ANY_KIND = -1
#: destinations whose due mail is for addresses of other hosts, by id, and until when they are passed over
_elsewhere: dict[int, float] = {}
_ELSEWHERE_S = 1.0


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
    they had are added to `emptied`, for a `settle` when there is time; without it they are settled here.
    """
    unproven = free if unproven is None else unproven
    if max(free + urgent, unproven) <= 0 or octets <= 0:
        return Claim((), False)
    candidates, full = _candidates(in_flight, unproven, shaper)
    wants = _share(candidates, max(free, -urgent), urgent, unproven, in_flight)
    granted = _within_rates(wants, shaper)
    if not granted:
        return Claim((), False, full or bool(candidates))
    rows, passed = _take(lease_id, octets, granted, takes)
    taken = Counter((int(row.lane), row.destination) for row in rows)
    short = [c.id for c, count in granted if taken[c.lane, c.name] < count]
    if takes:
        until, known = time.monotonic() + _ELSEWHERE_S, emptied or ()
        _elsewhere.update((c.id, until) for c, _ in granted if not taken[c.lane, c.name] and c.id not in known)
    if emptied is None:
        settle(short)
    else:
        emptied.update(short)
    _give_back(granted, taken, shaper)
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


def _candidates(in_flight: Mapping[str, int], unproven: int, shaper: Shaper) -> tuple[list[_Candidate], bool]:
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
            found.append(_Candidate(due["id"], due["lane"], name, due["proven"], met, limit))
    if behind:
        catch_up(behind)
    return found, bool(full)


def _share(
    candidates: Sequence[_Candidate], free: int, urgent: int, unproven: int, in_flight: Mapping[str, int]
) -> list[_Want]:
    """How many for each destination with a free place, by lane, evenly within a lane."""
    used = dict(in_flight)
    wants = []
    again = unproven // 2  # of the places of the unproven, for those that were met
    for lane in sorted({c.lane for c in candidates}):
        mates = [c for c in candidates if c.lane == lane and c.proven]
        left = free + urgent if lane == Lane.HIGH else free
        for mates_left, c in zip(range(len(mates), 0, -1), mates, strict=True):
            want = min(_roof(lane, c.limit) - used.get(c.name, 0), -(-left // mates_left))
            if want > 0:
                wants.append((c, want))
                used[c.name] = used.get(c.name, 0) + want
                left -= want
        free = min(free, left)
        for c in sorted((c for c in candidates if c.lane == lane and not c.proven), key=lambda c: c.met):
            want = min(_roof(lane, c.limit) - used.get(c.name, 0), unproven, again if c.met else 1)
            if want > 0:
                wants.append((c, want))
                used[c.name] = used.get(c.name, 0) + want
                unproven -= want
                again -= want if c.met else 0
    return wants


def _roof(lane: int, limit: int) -> int:
    """Newsletters leave a quarter of a site's places to what cannot wait."""
    return limit - max(1, limit // 4) if lane == Lane.BULK and limit > 1 else limit


def _within_rates(wants: Sequence[_Want], shaper: Shaper) -> list[_Want]:
    asked: dict[str, tuple[int, int]] = {}
    for c, count in wants:
        if rate := profile_of(c.name).rate_per_minute:
            asked[c.name] = (rate, asked.get(c.name, (rate, 0))[1] + count)
    if not asked:
        return list(wants)
    left = shaper.grant(asked)
    within = []
    for c, count in wants:
        if c.name in asked:
            count = min(count, left[c.name])
            left[c.name] -= count
        if count > 0:
            within.append((c, count))
    return within


def _give_back(granted: Sequence[_Want], taken: Mapping[tuple[int, str], int], shaper: Shaper) -> None:
    unused: dict[str, tuple[int, int]] = {}
    for c, count in granted:
        rate, n = profile_of(c.name).rate_per_minute, count - taken[c.lane, c.name]
        if rate and n > 0:
            unused[c.name] = (rate, unused.get(c.name, (rate, 0))[1] + n)
    if unused:
        shaper.give_back(unused)


def _take(lease_id: UUID, octets: int, wants: Sequence[_Want], takes: Takes | None) -> tuple[list[Claimed], bool]:
    """What is ours now, and whether there were more tenants than one claim looks at."""
    if len(_turns) > _REMEMBERED:
        _turns.clear()
    rules = {"tenants_ruled": [*takes.tenants], "kinds_ruled": [*takes.kinds], "goes": [*takes.goes]} if takes else {}
    found = execute(
        _CLAIM_SOME if takes else _CLAIM,
        rules
        | {
            "lanes": [c.lane for c, _ in wants],
            "names": [c.name for c, _ in wants],
            "counts": [count for _, count in wants],
            "after": [_turns.get((c.lane, c.name), _FIRST) for c, _ in wants],
            "tenants": _TENANTS,
            "octets": octets,
            "lease_id": lease_id,
            "lease_s": settings.LEASE_S,
        },
    )
    proven = {c.name: c.proven for c, _ in wants}
    rows, passed = [], False
    for row in found:
        lane, name = row["lane"], row["name"]
        _turns[lane, name] = row["tenant_id"]
        if row["delivery_id"] is None:
            passed = True
        else:
            rows.append(Claimed(row["delivery_id"], Lane(lane), name, row["size"], proven[name], row["tenant_id"]))
    return rows, passed


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

_OF_TENANT = """
SELECT q.tenant_id, q.due_at FROM queued q
 WHERE q.lane = {at}.lane AND q.destination = {at}.name AND q.lease_id IS NULL {after}
 ORDER BY q.tenant_id, q.due_at LIMIT 1
"""

# the next tenant, or the first one again
_NEXT_TENANT = f"""
CROSS JOIN LATERAL (
    ({_OF_TENANT.format(at="{at}", after="AND q.tenant_id > {at}.{column}")}) UNION ALL
    ({_OF_TENANT.format(at="{at}", after="")}) LIMIT 1) f
"""

# the nearest rule of an IP pool; what none names is taken
_GOES = f"""
coalesce((SELECT r.goes
            FROM unnest(%(tenants_ruled)s::uuid[], %(kinds_ruled)s::int[], %(goes)s::bool[]) AS r(tenant, kind, goes)
           WHERE r.tenant IN (f.tenant_id, '{ALL}') AND r.kind IN ({ANY_KIND}, ({{at}}.lane = {Lane.BULK.value})::int)
           ORDER BY r.tenant = '{ALL}', r.kind = {ANY_KIND} LIMIT 1), true)
"""


# tenants by a loose index scan (one probe each), going round from whose turn it was last; then due rows of each,
# evenly: the first of everybody, the second of everybody … until the places are filled
def _claim_statement(goes: str) -> str:
    return f"""
WITH RECURSIVE quick AS MATERIALIZED (
    -- what a crash takes back was not started: the ledger's commit, which waits for the disk, comes after this one
    SELECT set_config('synchronous_commit', 'off', true) AS set
), want AS (
    SELECT w.* FROM quick, unnest(%(lanes)s::smallint[], %(names)s::text[], %(counts)s::int[], %(after)s::uuid[])
               AS w(lane, name, places, after)
     WHERE quick.set = 'off'
), visited AS (
    SELECT w.lane, w.name, w.places, 1 AS n, f.tenant_id, f.due_at, f.tenant_id AS origin,
           (f.due_at <= now() AND {goes.format(at="w")})::int AS due, {goes.format(at="w")} AS goes
      FROM want w {_NEXT_TENANT.format(at="w", column="after")}
    UNION ALL
    SELECT v.lane, v.name, v.places, v.n + 1, f.tenant_id, f.due_at, v.origin,
           v.due + (f.due_at <= now() AND {goes.format(at="v")})::int, {goes.format(at="v")}
      FROM visited v {_NEXT_TENANT.format(at="v", column="tenant_id")}
     -- as many that are due as there are places: more would only be locked and left
     WHERE v.n < %(tenants)s AND v.due < v.places AND f.tenant_id <> v.origin
), share AS (
    SELECT v.lane, v.name, v.tenant_id, v.n, v.places,
           ceil(v.places::numeric / count(*) OVER (PARTITION BY v.lane, v.name)) AS rows
      FROM visited v WHERE v.due_at <= now() AND v.goes
), locked AS (
    SELECT q.*, s.places, s.n FROM share s CROSS JOIN LATERAL (
        SELECT q.delivery_id, q.lane, q.destination, q.tenant_id, q.size, q.due_at FROM queued q
         WHERE q.lane = s.lane AND q.destination = s.name AND q.tenant_id = s.tenant_id AND q.lease_id IS NULL
           AND q.due_at <= now()
         ORDER BY q.due_at LIMIT s.rows
           FOR UPDATE SKIP LOCKED) q
), ranked AS (
    SELECT l.*, row_number() OVER (PARTITION BY lane, destination, tenant_id ORDER BY due_at) AS rank FROM locked l
), numbered AS (
    SELECT r.*, row_number() OVER (PARTITION BY lane, destination ORDER BY rank, n) AS place FROM ranked r
), fitting AS (
    SELECT n.*, sum(size) OVER (ORDER BY lane, place, destination ROWS UNBOUNDED PRECEDING) - size AS octets_before
      FROM numbered n WHERE place <= places
), taken AS (
    -- as an array: the planner cannot know how few rows these are, and would read the whole table for a join
    UPDATE queued q
       SET lease_id = %(lease_id)s, leased_until = now() + make_interval(secs => %(lease_s)s), started_at = NULL
     WHERE q.delivery_id = ANY (ARRAY(SELECT f.delivery_id FROM fitting f WHERE f.octets_before < %(octets)s))
    RETURNING q.delivery_id
), passed AS (
    -- more tenants than one claim looks at: the next one goes on behind them
    SELECT NULL::uuid, v.lane, v.name, 0, v.tenant_id, 0 AS place FROM visited v WHERE v.n = %(tenants)s
)
SELECT t.delivery_id, t.lane, t.name, t.size, t.tenant_id
  FROM (SELECT * FROM passed
         UNION ALL
        SELECT f.delivery_id, f.lane, f.destination, f.size, f.tenant_id, f.place
          FROM fitting f WHERE f.delivery_id IN (SELECT delivery_id FROM taken)
       ) AS t(delivery_id, lane, name, size, tenant_id, place)
 ORDER BY t.place
"""


_CLAIM, _CLAIM_SOME = _claim_statement("true"), _claim_statement(_GOES)
