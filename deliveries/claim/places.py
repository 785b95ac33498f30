"""Places: how many transactions each due destination is given now. No database, no clock.

share          lanes in order, destinations evenly within a lane, few for those that may be tar-pits
within_rates   what a provider's messages per minute allow of it
give_back      what was granted of a rate and not used
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from deliveries.smtp.providers import profile_of
from deliveries.states import Lane


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
class Candidate:
    """A destination that is due. `limit` is this process' part of its site's places, in transactions.

    `proven`: its site was known to answer; `met`: it was asked before, whatever it did.
    """

    id: int
    lane: int
    name: str
    proven: bool
    met: bool
    limit: int


Want = tuple[Candidate, int]


def share(
    candidates: Sequence[Candidate], free: int, urgent: int, unproven: int, in_flight: Mapping[str, int]
) -> list[Want]:
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


def within_rates(wants: Sequence[Want], shaper: Shaper) -> list[Want]:
    """What providers' messages per minute allow of `wants`, lanes in their order; it counts as used from now on."""
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


def give_back(granted: Sequence[Want], taken: Mapping[tuple[int, str], int], shaper: Shaper) -> None:
    """Take off the rates again what was granted and not taken; `taken` is by (lane, destination)."""
    unused: dict[str, tuple[int, int]] = {}
    for c, count in granted:
        rate, n = profile_of(c.name).rate_per_minute, count - taken[c.lane, c.name]
        if rate and n > 0:
            unused[c.name] = (rate, unused.get(c.name, (rate, 0))[1] + n)
    if unused:
        shaper.give_back(unused)
