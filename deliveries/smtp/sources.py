"""From which address of ours a mail leaves. Pure: pools, addresses and a clock in; a way, or why it waits, out.

    chosen(rules, tenant, bulk)     the pool of a mail: the nearest rule
    way(pool, network, now)         the pool that sends for it now (its own, or an overflow), or Waits
    spread(count, addresses, now)   which addresses take how many of them

A new address has no reputation, and a receiver that sees much mail from one takes it for a hijacked machine: it sends a
little more every day, and warm ones carry the rest (Twilio SendGrid, "Warming Up an IP Address").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from uuid import UUID

#: mails of each day of a warm-up, the first one first; afterwards there is no bound. Source: SiteVibes' support,
#: "Understanding Our IP Warming Process" (its steps follow SendGrid's advice), up to its 16th day
WARM_UP = (
    50, 100, 250, 500, 1_000, 2_500, 5_000, 7_500, 10_000, 15_000, 20_000, 30_000, 40_000, 55_000, 70_000, 100_000,
)  # fmt: skip
#: a host that said nothing for so long is taken for dead; one that has nothing to do says it now and then
ALIVE_S = 120
#: of mail that waits for an address: the rule of its deferral
RULE = "pool-waits"
#: … because its receiver distrusts the addresses: nobody wakes it before
REST_RULE = "address-rests"
#: so soon it is looked at again where another host may have an address that does not rest
ELSEWHERE_S = 60
#: how soon it looks again by itself; who can send again wakes it (deliveries.sources)
LOOK_S = 3_600


@dataclass(frozen=True, slots=True)
class Source:
    """What a session is bound to. `helo` empty: the installation's name."""

    address: str
    helo: str = ""
    spare: bool = False  #: for a receiver that no other of the mail's addresses reaches


@dataclass(frozen=True, slots=True)
class Address:
    """One of ours, as it stands. `pool` None: it serves what has no pool. `most`: today's allowance, None: no bound."""

    address: str
    pool: int | None = None
    helo: str = ""
    most: int | None = None
    used: int = 0  #: of today's allowance
    rests_until: datetime | None = None
    rests_why: str = ""
    seen_at: datetime | None = None
    host: str = ""  #: that has it
    here: bool = False  #: this host has it
    spare: bool = False  #: of an overflow, for a kind (IPv4, IPv6) of which its pool can send nothing

    @property
    def version(self) -> int:
        return 6 if ":" in self.address else 4

    @property
    def left(self) -> int | None:
        return None if self.most is None else max(0, self.most - self.used)

    def rests(self, now: datetime) -> bool:
        return self.rests_until is not None and self.rests_until > now

    def lives(self, now: datetime) -> bool:
        return self.here or (self.seen_at is not None and now - self.seen_at < timedelta(seconds=ALIVE_S))

    def sends(self, now: datetime) -> bool:
        return self.lives(now) and not self.rests(now) and (self.left is None or self.left > 0)


@dataclass(frozen=True, slots=True)
class Pool:
    id: int
    name: str
    overflow: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """`tenant` None: every tenant; `bulk` None: every kind of mail."""

    pool: int
    tenant: UUID | None = None
    bulk: bool | None = None


@dataclass(frozen=True, slots=True)
class Waits:
    """No address can send it now: why, in words for the operator; what a tenant is told; and when it is worth another
    look. Pools, addresses and why they rest are nobody's affair but the operator's."""

    reason: str
    until: datetime
    told: str = "None of the addresses that send it is in service; it goes as soon as one is."
    rule: str = RULE


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another host has the addresses by which it goes now."""


@dataclass(frozen=True, slots=True)
class Network:
    """All pools and addresses of the installation."""

    pools: Mapping[int, Pool] = field(default_factory=dict)
    addresses: Sequence[Address] = ()

    def of(self, pool: int | None) -> list[Address]:
        return [a for a in self.addresses if a.pool == pool]

    def resting(self, rests: Mapping[str, tuple[datetime, str]]) -> Network:
        """The same where a receiver distrusts some addresses: until when, and in its words."""
        if not rests:
            return self
        return replace(self, addresses=[_resting(a, *rests.get(a.address, (None, ""))) for a in self.addresses])


def _resting(address: Address, until: datetime | None, why: str) -> Address:
    if until is None or (address.rests_until is not None and address.rests_until > until):
        return address
    return replace(address, rests_until=until, rests_why=why)


def allowance(day: int, steps: Sequence[int] = WARM_UP) -> int | None:
    """Mails of the `day`th day of a warm-up, counted from 0; None when it is over, 0 before it begins."""
    if day < 0:
        return 0
    return steps[day] if day < len(steps) else None


def chosen(rules: Iterable[Rule], tenant: UUID | None, bulk: bool) -> int | None:
    """The pool of a mail; None where no rule speaks of it."""
    fitting = [r for r in rules if r.tenant in (None, tenant) and r.bulk in (None, bulk)]
    return min(fitting, key=lambda r: (r.tenant is None, r.bulk is None)).pool if fitting else None


def way(pool: int, network: Network, now: datetime) -> int | Waits:
    """The pool that sends for `pool` now: itself, or the first of its overflows that can."""
    turns = _turns(pool, network)
    for at in turns:
        if any(a.sends(now) for a in network.of(at)):
            return at
    found = [_why(network.pools[p].name, network.of(p), now) for p in turns]
    if not found:
        return Waits("Its IP pool is gone.", now + timedelta(seconds=LOOK_S))
    first = min(found, key=lambda w: w.until)
    return Waits(" ".join(w.reason for w in found), first.until, first.told)


def spare(pool: int, network: Network, now: datetime) -> list[Address]:
    """Of the kinds (IPv4, IPv6) that `pool` has, and of which it can send nothing now: what its overflows have here.

    Only what is warm: of an allowance it would take a part for every mail, and few need it.
    """
    own, found = network.of(pool), []
    for version in {a.version for a in own} - {a.version for a in own if a.sends(now)}:
        for at in _turns(pool, network)[1:]:
            if able := [a for a in network.of(at) if a.version == version and a.sends(now)]:
                found += [replace(a, spare=True) for a in able if a.here and a.most is None]
                break
    return found


def _turns(pool: int, network: Network) -> list[int]:
    """A pool and its overflows in order, each once: they may run in a circle."""
    turns: list[int] = []
    at: int | None = pool
    while at is not None and at not in turns and at in network.pools:
        turns.append(at)
        at = network.pools[at].overflow
    return turns


def shared(network: Network, now: datetime) -> list[Address]:
    """By which mail goes that no rule names: of each host that lives those in no pool, else all it has."""
    living = [a for a in network.addresses if a.lives(now)]
    free = {(a.here, a.host) for a in living if a.pool is None}
    return [a for a in living if a.pool is None or (a.here, a.host) not in free]


def shared_way(network: Network, now: datetime) -> list[Address] | Waits | Elsewhere:
    """The addresses of this host for mail that no rule names.

    Empty where it has none: the system chooses. Such mail never waits for want of a pool, only for addresses; and not
    for those of this host while another has some.
    """
    every = shared(network, now)
    own = [a for a in every if a.here]
    if not own:
        return []
    if able := [a for a in own if a.sends(now)]:
        return able
    if any(a.sends(now) for a in every):
        return Elsewhere()
    waits = _why("", own, now)
    # no pool stands for it, of which the sweeper would see that it can send again: a host that is back, or a new one
    return replace(waits, until=min(waits.until, now + timedelta(seconds=LOOK_S)))


def spread(count: int, addresses: Sequence[Address], now: datetime) -> list[tuple[Address, int]]:
    """How many of `count` each takes: those that warm up as much as they may, the others the rest, evenly.

    In all less than `count` where nobody may take more. Of those here alone.
    """
    able = [a for a in addresses if a.here and a.sends(now)]
    shares: list[tuple[Address, int]] = []
    # the tightest first, so that what it cannot take falls to the others
    for left, a in zip(range(len(able), 0, -1), sorted(able, key=lambda a: (a.left is None, a.left or 0)), strict=True):
        share = -(-count // left)
        share = share if a.left is None else min(share, a.left)
        if share > 0:
            shares.append((a, share))
            count -= share
    return shares


def tomorrow(now: datetime) -> datetime:
    """The next midnight of UTC: a new day's allowance."""
    return datetime.combine(now.date() + timedelta(days=1), time(), tzinfo=now.tzinfo)


def _why(name: str, addresses: Sequence[Address], now: datetime) -> Waits:
    """Why none of these sends; `name` empty: they are this host's, for mail that has no pool."""
    soon = now + timedelta(seconds=LOOK_S)
    whose = f"the IP pool {name}" if name else "this host"
    if not addresses:
        return Waits(f"The IP pool {name} has no address.", soon)
    living = [a for a in addresses if a.lives(now)]
    if not living:
        named = ", ".join(a.address for a in addresses[:3])
        return Waits(f"No worker host that lives has an address of {whose} ({named}).", soon)
    awake = [a for a in living if not a.rests(now)]
    if not awake:
        first = min(living, key=lambda a: a.rests_until or now)
        why = f": {first.rests_why.rstrip('.')}" if first.rests_why else ""
        # looked at now and then, for a person may end the rest before
        until = min(first.rests_until or soon, soon)
        return Waits(f"The addresses of {whose} rest{why}.", until, "The addresses that send it rest for a while.")
    return Waits(
        f"The addresses of {whose} have sent what their warm-up allows today.", tomorrow(now),
        "The addresses that send it are new, and have sent what they may today.",
    )  # fmt: skip
