"""What the processes of an installation count: each adds to its own figure, and a thread adds that to Valkey's.

    BELLS_FAILED.inc()          anywhere, any number of times; costs a lock
    read()                      the installation's figures, for GET /metrics

What Valkey cannot take waits in the process, and is lost with it: no figure here is worth more. A new Valkey begins at
0, as Prometheus' counters may.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

import redis

from deliveries import valkey

log = logging.getLogger(__name__)

#: seconds between two sums
EVERY_S = 5.0


class Counter:
    """`name` as Prometheus shall know it, without `_total`."""

    def __init__(self, name: str, help_text: str) -> None:
        self.name, self.help = name, help_text
        self._waiting = 0
        self._lock = threading.Lock()
        ALL.append(self)

    def inc(self, by: int = 1) -> None:
        """Never blocks for long, never raises."""
        with self._lock:
            self._waiting += by
        _sum_up()

    def take(self) -> int:
        with self._lock:
            taken, self._waiting = self._waiting, 0
        return taken

    def give_back(self, taken: int) -> None:
        with self._lock:
            self._waiting += taken


ALL: list[Counter] = []

RATES_UNSHARED = Counter("mailapi_rates_unshared", "Times that Valkey did not answer for the rate of an API key.")
LOGS_DROPPED = Counter(
    "mailapi_request_logs_dropped", "Requests that the log does not have: too many at once, or no database."
)
BODIES_LATE = Counter("mailapi_bodies_late", "Requests that were ended because their body did not come.")
BELLS_FAILED = Counter("mailapi_bells_failed", "Bells that did not reach the broker or Valkey.")
VISITS_LATE = Counter("mailapi_visits_late", "Times that opens and clicks had to wait for Postgres.")
LIMITS_UNSHARED = Counter("mailapi_limits_unshared", "Times that Valkey did not answer for the limits of receivers.")
OUTCOMES_WAITED = Counter("mailapi_outcomes_waited", "Times that outcomes had to wait for Postgres.")
ALERTS_FAILED = Counter("mailapi_alerts_failed", "Alerts to the operator that one of the ways did not take.")

_started = threading.Lock()
_thread: tuple[int, threading.Thread] | None = None


def _sum_up() -> None:
    """The thread of this process, which a fork does not inherit."""
    global _thread
    if _thread is not None and _thread[0] == os.getpid():
        return
    with _started:
        if _thread is None or _thread[0] != os.getpid():
            _thread = (os.getpid(), threading.Thread(target=_run, name="counters", daemon=True))
            _thread[1].start()


def _run() -> None:
    while True:
        time.sleep(EVERY_S)
        flush()


def flush() -> bool:
    """Add what this process has counted; False where Valkey does not take it yet."""
    client = valkey.client()
    if client is None:
        return False
    taken = {counter: n for counter in ALL if (n := counter.take())}
    if not taken:
        return True
    try:
        pipe = client.pipeline(transaction=True)
        for counter, n in taken.items():
            pipe.hincrby(_key(), counter.name, n)
        pipe.execute()
    except redis.RedisError:
        for counter, n in taken.items():
            counter.give_back(n)
        return False
    return True


def read() -> dict[str, int] | None:
    """Name → the installation's figure; None where Valkey does not tell."""
    client = valkey.client()
    if client is None:
        return None
    try:
        found: Any = client.hgetall(_key())
    except redis.RedisError:
        return None
    return {counter.name: int(found.get(counter.name.encode(), 0)) for counter in ALL}


def _key() -> str:
    return valkey.prefix() + "counters"
