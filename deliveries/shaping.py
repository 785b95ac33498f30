"""What the worker processes of an installation share of a site's limits, through Valkey.

    share      places: each pumping process takes its part; the parts add up to the whole
    grant      messages per minute: one expiring counter per site for all processes (GCRA)

The limits and suspensions themselves stand in Postgres (`site`). Valkey holds only who pumps now and how much went in
the last seconds: when it is flushed, both are back within a second or a burst, and no suspension is forgotten. When
it is away, mail goes on: the last known number of processes divides places and rates.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
import zlib
from collections.abc import Mapping
from uuid import uuid4

import redis
from django.conf import settings
from django.db import connection

log = logging.getLogger(__name__)

#: a process that gave no sign for so long pumps no more; its part goes to the others
ALIVE_S = 5.0
_SIGN_S = 1.0
#: what may go at once after a silence, in seconds' worth of the rate
BURST_S = 5.0
#: after a failure Valkey is not asked for so long: the pump must not wait for time-outs
_AWAY_S = 5.0

# GCRA: the counter is the time at which all that was granted will have been earned; it expires by itself. A negative
# number gives back. Valkey's clock counts, so that hosts need not agree on theirs.
_GRANT = """
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local granted = {}
for i, key in ipairs(KEYS) do
    local gap, wanted = 60000 / tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
    local burst = math.max(tonumber(ARGV[1]), gap)
    local earned = math.max(tonumber(redis.call('GET', key) or '0'), now)
    local n = wanted
    if wanted > 0 then n = math.max(math.min(wanted, math.floor((now + burst - earned) / gap + 1e-6)), 0) end
    if n ~= 0 then
        redis.call('SET', key, string.format('%.3f', earned + n * gap), 'PX', math.ceil(burst + gap) + 1000)
    end
    granted[i] = n
end
return granted
"""


class Meter:
    """The same reckoning for one process, while Valkey is away. `rate` is messages per minute."""

    def __init__(self) -> None:
        self._earned: dict[str, float] = {}

    def grant(self, site: str, rate: float, wanted: int, now_s: float) -> int:
        gap = 60.0 / rate
        burst = max(BURST_S, gap)
        earned = max(self._earned.get(site, 0.0), now_s)
        n = wanted if wanted < 0 else max(min(wanted, math.floor((now_s + burst - earned) / gap + 1e-6)), 0)
        self._earned[site] = earned + n * gap
        return n


def part(places: int, rank: int, processes: int, site: str) -> int:
    """The part of `places` that belongs to the process at `rank` of so many; the parts add up to `places`.

    What does not divide goes to other processes for other sites. 0 is possible: another one has that place.
    """
    whole, rest = divmod(places, processes)
    return whole + ((rank + zlib.crc32(site.encode())) % processes < rest)


class Shaping:
    """One per pump. A queue.Shaper."""

    def __init__(self, name: str = "", url: str | None = None) -> None:
        self.name = name or uuid4().hex
        url = settings.REDIS_URL if url is None else url
        self._client = (
            redis.Redis.from_url(url, socket_timeout=0.5, socket_connect_timeout=0.5) if url else None
        )  # fmt: skip
        # installations that share a Valkey must not share their limits
        house = f"{settings.SECRET_KEY}/{connection.settings_dict['NAME']}"
        self.prefix = f"mailapi:{hashlib.sha256(house.encode()).hexdigest()[:12]}:"
        self._all = self.prefix + "pumping"
        self._pumping = [self.name]
        self._signed = -ALIVE_S
        self._away_until = 0.0
        self._meter = Meter()
        self.failures = 0

    def share(self, site: str, places: int) -> int:
        self._sign()
        return part(places, self._pumping.index(self.name), len(self._pumping), site)

    def grant(self, wants: Mapping[str, tuple[int, int]]) -> dict[str, int]:
        """Site → (messages per minute, wanted); how many may go now. A negative wish gives back."""
        sites = list(wants)
        args: list[float] = [BURST_S * 1000]
        for site in sites:
            args += wants[site]
        if (client := self._there()) is not None:
            try:
                answer = client.eval(_GRANT, len(sites), *(f"{self.prefix}rate:{site}" for site in sites), *args)
                return dict(zip(sites, map(int, answer), strict=True))
            except redis.RedisError as e:
                self._failed(e)
        now, processes = time.monotonic(), len(self._pumping)
        return {site: self._meter.grant(site, rate / processes, n, now) for site, (rate, n) in wants.items()}

    def give_back(self, unused: Mapping[str, tuple[int, int]]) -> None:
        self.grant({site: (rate, -n) for site, (rate, n) in unused.items()})

    def leave(self) -> None:
        """The pump has nothing to do: its parts belong to the others at once."""
        self._signed = -ALIVE_S
        if (client := self._there()) is not None:
            try:
                client.zrem(self._all, self.name)
            except redis.RedisError as e:
                self._failed(e)

    def _sign(self) -> None:
        """Say that we pump, and learn who else does; once a second."""
        now = time.monotonic()
        if now - self._signed < _SIGN_S or (client := self._there()) is None:
            return
        self._signed = now
        try:
            at = time.time()
            pipe = client.pipeline(transaction=False)
            pipe.zadd(self._all, {self.name: at})
            pipe.zremrangebyscore(self._all, "-inf", at - ALIVE_S)
            pipe.expire(self._all, int(ALIVE_S) * 2)
            pipe.zrange(self._all, 0, -1)
            names = [name.decode() for name in pipe.execute()[-1]]
        except redis.RedisError as e:
            self._failed(e)
            return
        # every process must see them in the same order, and itself among them
        self._pumping = sorted({*names, self.name})

    def _there(self) -> redis.Redis | None:
        return self._client if time.monotonic() >= self._away_until else None

    def _failed(self, e: redis.RedisError) -> None:
        self._away_until = time.monotonic() + _AWAY_S
        self.failures += 1
        if self.failures & (self.failures - 1) == 0:  # 1, 2, 4, 8 …
            log.warning("limits are not shared, %d processes guess (%d times now): %r", len(self._pumping),
                        self.failures, e)  # fmt: skip
