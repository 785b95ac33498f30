"""Signs of life, in Valkey: expiring keys that readiness, the panel and the alerts read."""

from __future__ import annotations

import contextlib
import time
from functools import lru_cache

import redis
from django.conf import settings

from deliveries import gcra

#: a role is alive that said so within
TTL_S = 15
#: between two signs of a process
SIGN_S = 3.0
_said: dict[str, float] = {}


@lru_cache(maxsize=1)
def _client() -> redis.Redis | None:
    if not settings.REDIS_URL:
        return None
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=0.5, socket_connect_timeout=0.5)


def alive(role: str) -> None:
    """This process is a `role` (web, deliver, jobs, beat) and goes on; at most a message in SIGN_S, never raises."""
    now = time.monotonic()
    if now - _said.get(role, -TTL_S) < SIGN_S or (client := _client()) is None:
        return
    _said[role] = now
    with contextlib.suppress(redis.RedisError):  # nothing depends on it but the sign itself
        client.set(_key("alive", role), "1", ex=TTL_S)


def living(roles: tuple[str, ...]) -> set[str]:
    """Those of `roles` that gave a sign within TTL_S; all of them where there is no Valkey to ask."""
    return signs(roles) or set()


def signs(roles: tuple[str, ...]) -> set[str] | None:
    """The same; None where Valkey does not tell."""
    client = _client()
    if client is None:
        return set(roles)
    try:
        answers = client.mget([_key("alive", role) for role in roles])
    except redis.RedisError:
        return None
    return {role for role, answer in zip(roles, answers, strict=True) if answer}


def mark(name: str, ttl_s: int) -> bool | None:
    """Whether this process is the first to say so, of all that share Valkey; None where that does not tell."""
    try:
        return bool(client.set(_key("mark", name), "1", ex=ttl_s, nx=True)) if (client := _client()) else None
    except redis.RedisError:
        return None


def unmark(name: str) -> bool | None:
    """Whether this process is the first to take it back; None as above."""
    try:
        return bool(client.delete(_key("mark", name))) if (client := _client()) else None
    except redis.RedisError:
        return None


def _key(kind: str, name: str) -> str:
    """The installation's own: two that share a Valkey must not take each other's life for theirs."""
    return f"{gcra.prefix()}{kind}:{name}"
