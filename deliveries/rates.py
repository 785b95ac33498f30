"""How many requests an API key may make: a rate per second, shared by all web processes through Valkey.

A process takes requests in lots, so that a busy key does not pay a round trip for each; what is left of a lot after
half a second is forfeited, which costs a busy key a twentieth of a second's worth at most. A key that has had its
share is refused without asking again until its time has come. While Valkey is away each process counts for itself,
so that nobody is refused for it.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from uuid import UUID

import redis
from django.conf import settings

from deliveries import gcra, valkey
from deliveries.counters import RATES_UNSHARED

#: what may go at once after a silence, in seconds' worth of the rate
BURST_S = 1.0
_LOT_S = 0.5
#: the largest lot, as a part of the rate
_LARGEST = 20
#: keys that one process remembers
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Grant:
    """What the headers say: `limit` requests a second, `remaining` now, all of them again in `reset_s`."""

    allowed: bool
    limit: int
    remaining: int
    reset_s: int
    retry_after_s: int = 0


@dataclass(slots=True)
class _Lot:
    left: int
    beyond: int
    reset_s: int
    size: int
    taken_at: float
    #: nothing is to be had before, and nobody is asked
    closed_until: float = 0.0


class Rates:
    """One per process; any thread."""

    def __init__(self, url: str | None = None) -> None:
        self.valkey = valkey.BestEffort(
            settings.REDIS_URL if url is None else url,
            timeout_s=0.3,
            count=RATES_UNSHARED.inc,
            meaning="rates of API keys are not shared, each process counts for itself",
        )
        self._prefix = f"{valkey.prefix()}key:"
        self._lots: dict[UUID, _Lot] = {}
        self._lock = threading.Lock()
        self._meter = gcra.Meter(BURST_S)

    def take(self, key_id: UUID, limit: int) -> Grant:
        """One request of `key_id`, which may make `limit` a second."""
        now = time.monotonic()
        with self._lock:
            lot = self._lots.get(key_id)
            if lot is not None:
                if now < lot.closed_until:
                    return Grant(False, limit, 0, lot.reset_s, math.ceil(lot.closed_until - now))
                if lot.left > 0 and now - lot.taken_at < _LOT_S:
                    lot.left -= 1
                    return Grant(True, limit, lot.left + lot.beyond, lot.reset_s)
            size = _next_size(lot, limit, now)
        granted = self._ask(str(key_id), limit, size, now)
        gap_s = 1.0 / limit
        ahead_s = granted.ahead_ms / 1000
        beyond = max(math.floor((max(BURST_S, gap_s) - ahead_s) / gap_s + 1e-6), 0)
        lot = _Lot(granted.n - 1, beyond, math.ceil(ahead_s), size, now)
        if granted.n == 0:
            lot.left, lot.closed_until = 0, now + max(ahead_s + gap_s - max(BURST_S, gap_s), 0.001)
        with self._lock:
            if len(self._lots) >= _MOST:
                self._lots.clear()
            self._lots[key_id] = lot
        if granted.n == 0:
            return Grant(False, limit, 0, lot.reset_s, max(math.ceil(lot.closed_until - now), 1))
        return Grant(True, limit, lot.left + beyond, lot.reset_s)

    def _ask(self, key: str, limit: int, wanted: int, now: float) -> gcra.Granted:
        per_minute = limit * 60
        if (client := self.valkey.client()) is not None:
            try:
                return gcra.grant(client, BURST_S, {self._prefix + key: (per_minute, wanted)})[self._prefix + key]
            except redis.RedisError as e:
                self.valkey.failed(e)
        with self._lock:
            return self._meter.grant(key, per_minute, wanted, now)


def _next_size(lot: _Lot | None, limit: int, now: float) -> int:
    """Twice as many where the lot before went within its time, one where it did not."""
    if lot is None or now - lot.taken_at >= _LOT_S:
        return 1
    return min(lot.size * 2, max(limit // _LARGEST, 1))
