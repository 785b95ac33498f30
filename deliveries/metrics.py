"""Signs of life, in Valkey (expiring keys that readiness and the panel read), and counters of this process."""

from __future__ import annotations

import contextlib
import time
from functools import lru_cache

import redis
from django.conf import settings
from prometheus_client import Counter

#: what one process counts
RATES_UNSHARED = Counter("mailapi_rates_unshared", "Times that Valkey did not answer for the rate of an API key.")
LOGS_DROPPED = Counter(
    "mailapi_request_logs_dropped", "Requests that the log does not have: too many at once, or no database."
)
BODIES_LATE = Counter("mailapi_bodies_late", "Requests that were ended because their body did not come.")

#: a role is alive that said so within
TTL_S = 15
_said: dict[str, float] = {}


@lru_cache(maxsize=1)
def _client() -> redis.Redis | None:
    if not settings.REDIS_URL:
        return None
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=0.5, socket_connect_timeout=0.5)


def alive(role: str) -> None:
    """This process does `role`'s work (deliver, jobs, beat); at most one message in 3 s, never raises."""
    now = time.monotonic()
    if now - _said.get(role, -TTL_S) < 3 or (client := _client()) is None:
        return
    _said[role] = now
    with contextlib.suppress(redis.RedisError):  # nothing depends on it but the sign itself
        client.set(f"mailapi:alive:{role}", "1", ex=TTL_S)


def living(roles: tuple[str, ...]) -> set[str]:
    """Those of `roles` that gave a sign within TTL_S; all of them where there is no Valkey to ask."""
    client = _client()
    if client is None:
        return set(roles)
    try:
        answers = client.mget([f"mailapi:alive:{role}" for role in roles])
    except redis.RedisError:
        return set()
    return {role for role, answer in zip(roles, answers, strict=True) if answer}
