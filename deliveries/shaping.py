"""What the worker processes of an installation share of a site's limits, through Valkey.

    share      places: each pumping process takes its part; the parts add up to the whole
    grant      messages per minute: one expiring counter per site for all processes (GCRA)

The limits and suspensions themselves stand in Postgres (`site`). Valkey holds only who pumps now and how much went in
the last seconds: when it is flushed, both are back within a second or a burst, and no suspension is forgotten. When
it is away, mail goes on: the last known number of processes divides places and rates.
"""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from uuid import uuid4

import redis
from django.conf import settings

from deliveries import gcra, valkey
from deliveries.counters import LIMITS_UNSHARED
from deliveries.smtp.providers import profile_of

#: a process that gave no sign for so long pumps no more; its part goes to the others
ALIVE_S = 5.0
_SIGN_S = 1.0
#: what may go at once after a silence, in seconds' worth of the rate
BURST_S = 5.0


def part(places: int, rank: int, processes: int, site: str) -> int:
    """The part of `places` that belongs to the process at `rank` of so many; the parts add up to `places`.

    What does not divide goes to other processes for other sites. 0 is possible: another one has that place.
    """
    whole, rest = divmod(places, processes)
    return whole + ((rank + zlib.crc32(site.encode())) % processes < rest)


class Shaping:
    """One per pump. A deliveries.claim.places.Shaper."""

    def __init__(self, name: str = "", url: str | None = None) -> None:
        self.name = name or uuid4().hex
        self.valkey = valkey.BestEffort(
            settings.REDIS_URL if url is None else url,
            timeout_s=0.5,
            count=LIMITS_UNSHARED.inc,
            meaning="limits of receivers are not shared, each process guesses its part",
        )
        self.prefix = valkey.prefix()
        self._all = self.prefix + "pumping"
        self._pumping = [self.name]
        self._signed = -ALIVE_S
        self._meter = gcra.Meter(BURST_S)

    def share(self, site: str, places: int) -> int:
        self._sign()
        return part(places, self._pumping.index(self.name), len(self._pumping), site)

    @property
    def processes(self) -> int:
        """How many pump now, this one among them."""
        self._sign()
        return len(self._pumping)

    def within_rates(self, sites: Sequence[str]) -> list[int]:
        """Which of these mails, each told by its site, may go now: their places in the list."""
        wanted = Counter(site for site in sites if profile_of(site).rate_per_minute)
        left = self.grant({s: (profile_of(s).rate_per_minute, n) for s, n in wanted.items()}) if wanted else {}
        ours = []
        for place, site in enumerate(sites):
            if site not in wanted or left[site] > 0:
                ours.append(place)
            if site in wanted:
                left[site] -= 1
        return ours

    def grant(self, wants: Mapping[str, tuple[int, int]]) -> dict[str, int]:
        """Site → (messages per minute, wanted); how many may go now. A negative wish gives back."""
        if (client := self.valkey.client()) is not None:
            try:
                asked = {f"{self.prefix}rate:{site}": want for site, want in wants.items()}
                granted = gcra.grant(client, BURST_S, asked)
                return {site: granted[f"{self.prefix}rate:{site}"].n for site in wants}
            except redis.RedisError as e:
                self.valkey.failed(e)
        now, processes = time.monotonic(), len(self._pumping)
        return {site: self._meter.grant(site, rate / processes, n, now).n for site, (rate, n) in wants.items()}

    def give_back(self, unused: Mapping[str, tuple[int, int]]) -> None:
        self.grant({site: (rate, -n) for site, (rate, n) in unused.items()})

    def answers(self) -> bool:
        """Whether Valkey is there; where there is none, nothing is missed."""
        if not self.valkey.configured:
            return True
        if (client := self.valkey.client()) is None:
            return False
        try:
            client.ping()
        except redis.RedisError as e:
            self.valkey.failed(e)
            return False
        return True

    def leave(self) -> None:
        """The pump has nothing to do: its parts belong to the others at once."""
        self._signed = -ALIVE_S
        if (client := self.valkey.client()) is not None:
            try:
                client.zrem(self._all, self.name)
            except redis.RedisError as e:
                self.valkey.failed(e)

    def _sign(self) -> None:
        """Say that we pump, and learn who else does; once a second."""
        now = time.monotonic()
        if now - self._signed < _SIGN_S or (client := self.valkey.client()) is None:
            return
        self._signed = now
        try:
            seconds, micros = client.time()  # hosts' clocks differ
            at = seconds + micros / 1e6
            pipe = client.pipeline(transaction=False)
            pipe.zadd(self._all, {self.name: at})
            pipe.zremrangebyscore(self._all, "-inf", at - ALIVE_S)
            pipe.expire(self._all, int(ALIVE_S) * 2)
            pipe.zrange(self._all, 0, -1)
            names = [name.decode() for name in pipe.execute()[-1]]
        except redis.RedisError as e:
            self.valkey.failed(e)
            return
        # every process must see them in the same order, and itself among them
        self._pumping = sorted({*names, self.name})
