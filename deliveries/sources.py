"""IP pools as this host sees them: what it may claim, from which address each mail leaves, and that it lives.

    takes      for a claim: whose mail this host can send
    choose     for what was claimed: addresses, or why it waits
    pooled     whether there is anything to decide
    wake       for the sweeper: what waits for addresses that can send again is due

Pools, rules and addresses stand in Postgres, read every few seconds; smtp/sources.py decides. What warms up is counted
there too, a batch at a time: a day's allowance must outlive a flush of the broker.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from deliveries import queue
from deliveries.claim import ALL, ANY_KIND, Takes
from deliveries.models import AuditEntry, PoolRule, SourcePool
from deliveries.models.fields import uuid7_floor
from deliveries.models.sql import clock, execute
from deliveries.read import pools
from deliveries.smtp import sources
from deliveries.smtp.sources import Address, Elsewhere, Network, Rule, Source, Waits

#: how soon a change in the panel counts
READ_S = 5.0
_SIGN_S = 20.0
_SETTLED_S = 60.0
#: no web host's clock is further off
_CLOCKS = timedelta(hours=1)
#: of a backlog so many are made due in one pass of the sweeper, and it takes so long at most: more is sent no sooner
_AT_ONCE = 10_000
_PASS_S = 10.0
#: before any time.monotonic()
NEVER = float("-inf")


Chosen = tuple[Source, ...] | Waits | Elsewhere


class Sources:
    """One per pump."""

    def __init__(self) -> None:
        self.now = timezone.now()  #: of the last look, by the clock of Postgres
        self._clock = (self.now, time.monotonic())
        self._network = Network()
        self._rules: tuple[Rule, ...] = ()
        self._takes: Takes | None = None
        self._rests: dict[str, dict[str, tuple[datetime, str]]] = {}  #: by site and address
        self._read_at = self._signed_at = NEVER

    @property
    def pooled(self) -> bool:
        """Whether some address of this host, or some mail, is told apart from others."""
        return bool(self._rules or self._rests) or any(
            a.here and (a.pool is not None or a.helo or a.most is not None or a.rests_until is not None)
            for a in self._network.addresses
        )

    def takes(self) -> Takes | None:
        """None where this host can send all there is. Reads what is old; raises what the database raises."""
        now = time.monotonic()
        if now - self._signed_at >= _SIGN_S:
            self._sign()
            self._signed_at = now
        if now - self._read_at >= READ_S:
            self._read()
        return self._takes

    def choose(self, wants: Sequence[tuple[UUID | None, bool, str]]) -> list[Chosen]:
        """For each (tenant, bulk, site), in order. What warms up has been counted when it returns."""
        told, since = self._clock
        began = time.monotonic()
        self.now = told + timedelta(seconds=began - since)
        by_pool: dict[tuple[int | None, str], list[int]] = {}
        for place, (tenant, bulk, site) in enumerate(wants):
            # sites count where some address rests for them; all others are one
            key = (sources.chosen(self._rules, tenant, bulk), site if site in self._rests else "")
            by_pool.setdefault(key, []).append(place)
        found: dict[int, Chosen] = {}
        for (pool, site), places in by_pool.items():
            found |= zip(places, self._of_pool(pool, len(places), site, began), strict=True)
        put_off = {pool for (pool, _), places in by_pool.items() if _waits_for_pool(found[places[-1]])} - {None}
        if put_off:
            execute(_PUT_OFF, {"pools": [*put_off]})
        if any(isinstance(one, Elsewhere) for one in found.values()):
            self._read_at = NEVER  # the next claim shall not bring it back here
        return [found[place] for place in range(len(wants))]

    def give_back(self, unused: Mapping[str, int]) -> None:
        """Chosen and not begun, by address: a mail that only moved to its site shall cost no day's allowance."""
        addresses = [a.address for a in self._network.addresses if a.most is not None and unused.get(a.address)]
        if addresses:
            execute(_GIVE_BACK, {"addresses": addresses, "unused": [unused[a] for a in addresses]})

    # --- one pool ---------------------------------------------------------------------------------------------------

    def _of_pool(self, pool: int | None, count: int, site: str, began: float) -> list[Chosen]:
        chosen: list[Chosen] = []
        while len(chosen) < count:
            way = self._way(pool, site)
            if isinstance(way, Waits) and self._read_at < began:
                self._read()  # some may have been given back, or a rest have ended: nobody waits by what is old
            elif isinstance(way, Waits | Elsewhere):
                chosen += [way] * (count - len(chosen))
            elif not way:
                chosen += [()] * (count - len(chosen))
            elif took := self._take(way, count - len(chosen)):
                chosen += took
            else:
                self._read()  # others were faster: what is left is known now
        return chosen

    def _way(self, pool: int | None, site: str = "") -> list[Address] | Waits | Elsewhere:
        """The addresses of this host by which mail of `pool` to `site` goes now; empty: the system chooses."""
        usual = self._way_in(self._network, pool)
        if not (rests := self._rests.get(site)) or isinstance(usual, Waits | Elsewhere):
            return usual
        found = self._way_in(self._network.resting(rests), pool)
        if isinstance(found, Elsewhere):
            # claims know nothing of it: given back at once, it would come back to this host at once
            soon = self.now + timedelta(seconds=sources.ELSEWHERE_S)
            return Waits("Another host may have an address that does not rest.", soon, rule=sources.REST_RULE)
        return replace(found, rule=sources.REST_RULE) if isinstance(found, Waits) else found

    def _way_in(self, network: Network, pool: int | None) -> list[Address] | Waits | Elsewhere:
        if pool is None:
            return sources.shared_way(network, self.now)
        way = sources.way(pool, network, self.now)
        if isinstance(way, Waits):
            return way
        here = [a for a in network.of(way) if a.here and a.sends(self.now)]
        return here + sources.spare(way, network, self.now) if here else Elsewhere()

    def _take(self, here: Sequence[Address], count: int) -> list[Chosen]:
        """So many of `count` as these addresses may begin; each mail has one address of a family."""
        families = [of for version in (4, 6) if (of := [a for a in here if a.version == version])]
        # no further than the first family that is used up: what comes behind has an overflow's of it
        count = min([count, *(room for of in families if (room := _room(of, self.now)) is not None)])
        lines = []
        for of_family in families:
            shares = self._reserved(sources.spread(count, of_family, self.now))
            lines.append([Source(a.address, a.helo, a.spare) for a, n in shares for _ in range(n)])
        return [tuple(line[i] for line in lines if i < len(line)) for i in range(max(map(len, lines)))]

    def _reserved(self, shares: list[tuple[Address, int]]) -> list[tuple[Address, int]]:
        """What was granted of them: an address that warms up counts over all processes of its host."""
        warming = [(a, n) for a, n in shares if a.most is not None]
        if not warming:
            return shares
        rows = execute(_RESERVE, {
            "addresses": [a.address for a, _ in warming],
            "wanted": [n for _, n in warming],
            "most": [a.most for a, _ in warming],
            "today": self.now.astimezone(UTC).date(),
        })  # fmt: skip
        told = {row["address"]: row for row in rows}
        counted = [
            replace(a, used=told[a.address]["used"]) if a.address in told else a for a in self._network.addresses
        ]
        self._network = replace(self._network, addresses=tuple(counted))
        return [(a, told[a.address]["granted"] if a.address in told else n) for a, n in shares]

    # --- the database -----------------------------------------------------------------------------------------------

    def _sign(self) -> None:
        if settings.SOURCE_IPS:
            execute(_SIGN, {"addresses": sorted(settings.SOURCE_IPS), "host": socket.gethostname()[:253]})

    def _read(self) -> None:
        self.now = clock()  # whether others live is no affair of this host's clock
        self._clock = (self.now, time.monotonic())
        self._network = pools.network(self.now, settings.SOURCE_IPS)
        self._rules = _rules()
        self._rests = {}
        for row in execute(_RESTS).fetchall() if settings.SOURCE_IPS else ():
            self._rests.setdefault(row["site"], {})[row["address"]] = (row["until"], row["why"])
        ruled = [
            (r.tenant or ALL, ANY_KIND if r.bulk is None else int(r.bulk), self._goes(r.pool)) for r in self._rules
        ]
        if all((tenant, kind) != (ALL, ANY_KIND) for tenant, kind, _ in ruled):
            ruled.append((ALL, ANY_KIND, self._goes(None)))
        self._takes = None if all(goes for *_, goes in ruled) else Takes(*zip(*ruled, strict=True))
        self._read_at = self._clock[1]

    def _goes(self, pool: int | None) -> bool:
        return not isinstance(self._way(pool), Elsewhere)


def _waits_for_pool(chosen: Chosen) -> bool:
    return isinstance(chosen, Waits) and chosen.rule == sources.RULE


def _rules() -> tuple[Rule, ...]:
    bulk = {PoolRule.Kind.ALL: None, PoolRule.Kind.BULK: True, PoolRule.Kind.TRANSACTIONAL: False}
    rows = PoolRule.objects.values("pool_id", "tenant_id", "kind")
    return tuple(Rule(r["pool_id"], r["tenant_id"], bulk[PoolRule.Kind(r["kind"])]) for r in rows)


# --- what waits -----------------------------------------------------------------------------------------------------


def wake() -> int:
    """Mail that was put off for a pool that can send again, for as much as it may: due now. How many.

    It would look again by itself within LOOK_S, or the next day: a backlog that cannot be sent costs a look now and
    then, and no claim between. After a change in the panel all of it is looked at: it may have another pool, or none.
    """
    now = clock()
    changes = _changes(now)
    asked = SourcePool.objects.all() if changes else SourcePool.objects.filter(waits_at__isnull=False)
    network, rules, woken = pools.network(now), _rules(), 0
    ways = {pool: sources.way(pool, network, now) for pool in asked.values_list("pk", flat=True)}
    able: dict[int | None, int | None] = {pool: by for pool, by in ways.items() if not isinstance(by, Waits)}
    groups = queue.waiting(sources.RULE) if able or changes else []
    room = {by: _room(network.of(by), now) for by in able.values()}
    # where no address lives that mail without a rule could have, the system chooses
    room[None] = _room(shared, now) if (shared := sources.shared(network, now)) else None
    able[None] = None
    random.shuffle(groups)  # whoever has no turn in this pass has one soon
    share, until = max(1, _AT_ONCE // max(1, len(groups))), time.monotonic() + _PASS_S
    more: set[int | None] = set()  # pools for which some of it may wait on
    whole = True
    for tenant, bulk, lane in groups:
        pool = sources.chosen(rules, tenant, bulk)
        if pool not in able:
            continue
        left = room[by := able[pool]]
        most = share if left is None else min(left, share)
        if time.monotonic() > until:
            most = 0
        done = queue.due_now(sources.RULE, tenant, lane, most) if most else 0
        if done == most:
            more.add(pool)
            whole &= left is not None and done == left
        room[by] = None if left is None else left - done
        woken += done
    if not whole:  # looked at again as if they were new
        for ident in changes:
            del _seen[ident]
    # whoever read the pools before they could send may put mail off for a moment yet
    settled = now - timedelta(seconds=_SETTLED_S)
    done_with = [pool for pool in ways if pool in able and pool not in more]
    SourcePool.objects.filter(pk__in=done_with, waits_at__lt=settled).update(waits_at=None)
    return woken


#: changes in the panel, and when this process saw them first
_seen: dict[UUID, float] = {}


def _changes(now: datetime) -> list[UUID]:
    """The changes of pools, rules and addresses in the panel, as the audit log has them, that are new to this process.

    They are so for _SETTLED_S after they were seen, whenever they were made: their ids are by a web host's clock, and
    nobody may have looked at that time.
    """
    since = uuid7_floor(int((now - _CLOCKS).timestamp() * 1000))
    made = AuditEntry.objects.filter(id__gt=since, tenant=None)  # a tenant's addresses are others
    found = made.filter(action__regex=r"^(pool|rule|address)\.").values_list("id", flat=True)
    seen = time.monotonic()
    before = {ident: _seen.get(ident, seen) for ident in found}
    _seen.clear()
    _seen.update(before)
    return [ident for ident, at in _seen.items() if seen - at <= _SETTLED_S]


# a host lives that said so; its new addresses appear in the panel by themselves
_SIGN = """
INSERT INTO source_address (address, helo, rests_why, used, seen_at, seen_on)
SELECT a, '', '', 0, now(), %(host)s FROM unnest(%(addresses)s::text[]) AS a
ON CONFLICT (address) DO UPDATE SET seen_at = now(), seen_on = EXCLUDED.seen_on
"""

_GIVE_BACK = """
UPDATE source_address s SET used = greatest(0, s.used - u.n)
  FROM unnest(%(addresses)s::text[], %(unused)s::int[]) AS u(address, n) WHERE s.address = u.address
"""


def _room(addresses: Sequence[Address], now: datetime) -> int | None:
    """How many mails these may still begin today; None where one of them is warm."""
    left = [a.left for a in addresses if a.sends(now)]
    return None if None in left else sum(n for n in left if n)


_RESTS = "SELECT site, address, until, why FROM source_rest WHERE until > now()"

_PUT_OFF = """
UPDATE source_pool SET waits_at = now()
 WHERE id = ANY (%(pools)s::int[]) AND (waits_at IS NULL OR waits_at < now() - interval '10 seconds')
"""

_RESERVE = """
WITH wanted AS (
    SELECT * FROM unnest(%(addresses)s::text[], %(wanted)s::int[], %(most)s::int[]) AS w(address, n, most)
), before AS (
    SELECT s.address, w.n, w.most, CASE WHEN s.used_on = %(today)s THEN s.used ELSE 0 END AS used
      FROM source_address s JOIN wanted w ON w.address = s.address ORDER BY s.address FOR UPDATE OF s
)
UPDATE source_address s SET used = greatest(b.used, least(b.used + b.n, b.most)), used_on = %(today)s
  FROM before b WHERE b.address = s.address
RETURNING s.address, s.used, s.used - b.used AS granted
"""
