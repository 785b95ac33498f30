"""Valkey, for what may be lost: what an installation's keys begin with, and clients that wait for nobody."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from functools import lru_cache

import redis
from django.conf import settings
from django.db import connection

log = logging.getLogger(__name__)

#: how long `client` waits for an answer
PATIENCE_S = 0.5
#: after a failure Valkey is left alone for so long: whoever can do without it must not wait for its time-outs
AWAY_S = 5.0


def prefix() -> str:
    """What this installation's keys begin with: those that share a Valkey must not share limits, bells or signs."""
    house = f"{settings.SECRET_KEY}/{connection.settings_dict['NAME']}"
    return f"mailapi:{hashlib.sha256(house.encode()).hexdigest()[:12]}:"


@lru_cache(maxsize=1)
def client() -> redis.Redis | None:
    """None where there is none (REDIS_URL)."""
    if not settings.REDIS_URL:
        return None
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S)


class BestEffort:
    """A client for work that goes on without Valkey, on guesses: after a failure it is left alone for AWAY_S.

    `url` is empty where there is none. `count` is called for each failure; `meaning` says in the log what it means.
    """

    def __init__(self, url: str, timeout_s: float, count: Callable[[], object], meaning: str) -> None:
        self._client = (
            redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s) if url else None
        )  # fmt: skip
        self._count = count
        self._meaning = meaning
        self._away_until = 0.0
        self.failures = 0

    @property
    def configured(self) -> bool:
        return self._client is not None

    def client(self) -> redis.Redis | None:
        """None where there is none, and while it is left alone."""
        return self._client if time.monotonic() >= self._away_until else None

    def failed(self, error: redis.RedisError) -> None:
        self._away_until = time.monotonic() + AWAY_S
        self.failures += 1
        self._count()
        if self.failures & (self.failures - 1) == 0:  # 1, 2, 4, 8 …: said, without filling the log
            log.warning("%s (%d times now): %r", self._meaning, self.failures, error)
