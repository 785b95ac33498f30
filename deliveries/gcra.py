"""So much in so much time, shared through Valkey: the generic cell rate algorithm, many counters in one round trip.

A counter is the time at which all that was granted will have been earned; it expires by itself. Valkey's clock counts,
so that hosts need not agree on theirs. `Meter` is the same reckoning for one process, while Valkey is away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import redis

# A negative number gives back. Each key answers how many were granted, and how far ahead of now its counter stands.
_SCRIPT = """
local t = redis.call('TIME')
local now = t[1] * 1000 + t[2] / 1000
local answer = {}
for i, key in ipairs(KEYS) do
    local gap, wanted = 60000 / tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
    local burst = math.max(tonumber(ARGV[1]), gap)
    local earned = math.max(tonumber(redis.call('GET', key) or '0'), now)
    local n = wanted
    if wanted > 0 then n = math.max(math.min(wanted, math.floor((now + burst - earned) / gap + 1e-6)), 0) end
    if n ~= 0 then
        earned = earned + n * gap
        redis.call('SET', key, string.format('%.3f', earned), 'PX', math.ceil(burst + gap) + 1000)
    end
    answer[2 * i - 1] = n
    answer[2 * i] = math.floor(earned - now + 0.5)
end
return answer
"""


@dataclass(frozen=True, slots=True)
class Granted:
    """`n` may go now; all that was granted so far will have been earned in `ahead_ms`."""

    n: int
    ahead_ms: float


def grant(client: redis.Redis, burst_s: float, wants: Mapping[str, tuple[float, int]]) -> dict[str, Granted]:
    """Key → (how many per minute, wanted); how many may go. Raises redis.RedisError."""
    args: list[float] = [burst_s * 1000]
    for want in wants.values():
        args += want
    answer = client.eval(_SCRIPT, len(wants), *wants, *args)
    pairs = zip(answer[::2], answer[1::2], strict=True)
    return {key: Granted(int(n), float(ahead)) for key, (n, ahead) in zip(wants, pairs, strict=True)}


class Meter:
    """`rate` is per minute, `now_s` any clock that only goes forward."""

    def __init__(self, burst_s: float) -> None:
        self.burst_s = burst_s
        self._earned: dict[str, float] = {}

    def grant(self, key: str, rate: float, wanted: int, now_s: float) -> Granted:
        gap = 60.0 / rate
        burst = max(self.burst_s, gap)
        earned = max(self._earned.get(key, 0.0), now_s)
        n = wanted if wanted < 0 else max(min(wanted, math.floor((now_s + burst - earned) / gap + 1e-6)), 0)
        self._earned[key] = earned = earned + n * gap
        return Granted(n, (earned - now_s) * 1000)
