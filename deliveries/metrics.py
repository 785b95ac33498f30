"""Signs of life, in Valkey: expiring keys that readiness, the panel and the alerts read."""

from __future__ import annotations

import contextlib
import time
from functools import lru_cache

import redis
from django.conf import settings

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
    return signs(roles) or set()


def signs(roles: tuple[str, ...]) -> set[str] | None:
    """The same; None where Valkey does not tell."""
    client = _client()
    if client is None:
        return set(roles)
    try:
        answers = client.mget([f"mailapi:alive:{role}" for role in roles])
    except redis.RedisError:
        return None
    return {role for role, answer in zip(roles, answers, strict=True) if answer}


def mark(name: str, ttl_s: int) -> bool | None:
    """Whether this process is the first to say so, of all that share Valkey; None where that does not tell."""
    try:
        return bool(client.set(f"mailapi:mark:{name}", "1", ex=ttl_s, nx=True)) if (client := _client()) else None
    except redis.RedisError:
        return None


def unmark(name: str) -> bool | None:
    """Whether this process is the first to take it back; None as above."""
    try:
        return bool(client.delete(f"mailapi:mark:{name}")) if (client := _client()) else None
    except redis.RedisError:
        return None
