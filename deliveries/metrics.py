"""Signs of life, in Valkey: expiring keys that readiness, the panel and the alerts read.

The figures of GET /metrics are elsewhere: counters.py, read/gauges.py and, put together, mailapi/views/metrics.py.
"""

from __future__ import annotations

import contextlib
import time

import redis

from deliveries import valkey

#: a role is alive that said so within
TTL_S = 15
#: between two signs of a process
SIGN_S = 3.0
_said: dict[str, float] = {}


def alive(role: str) -> None:
    """This process is a `role` (web, deliver, jobs, beat) and goes on; at most a message in SIGN_S, never raises."""
    now = time.monotonic()
    if now - _said.get(role, -TTL_S) < SIGN_S or (client := valkey.client()) is None:
        return
    _said[role] = now
    with contextlib.suppress(redis.RedisError):  # nothing depends on it but the sign itself
        client.set(_key("alive", role), "1", ex=TTL_S)


def living(roles: tuple[str, ...]) -> set[str]:
    """Those of `roles` that gave a sign within TTL_S; all of them where there is no Valkey to ask."""
    return signs(roles) or set()


def signs(roles: tuple[str, ...]) -> set[str] | None:
    """Those of `roles` that gave a sign within TTL_S, all where there is no Valkey; None where Valkey does not tell."""
    client = valkey.client()
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
        return bool(client.set(_key("mark", name), "1", ex=ttl_s, nx=True)) if (client := valkey.client()) else None
    except redis.RedisError:
        return None


def unmark(name: str) -> bool | None:
    """Whether this process is the first to take `mark` back; None where Valkey does not tell."""
    try:
        return bool(client.delete(_key("mark", name))) if (client := valkey.client()) else None
    except redis.RedisError:
        return None


def _key(kind: str, name: str) -> str:
    """The installation's own: two that share a Valkey must not take each other's life for theirs."""
    return f"{valkey.prefix()}{kind}:{name}"
