"""Valkey, for what may be lost: what an installation's keys begin with, and a client that waits for nobody."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import redis
from django.conf import settings
from django.db import connection


def prefix() -> str:
    """What this installation's keys begin with: those that share a Valkey must not share limits, bells or signs."""
    house = f"{settings.SECRET_KEY}/{connection.settings_dict['NAME']}"
    return f"mailapi:{hashlib.sha256(house.encode()).hexdigest()[:12]}:"


@lru_cache(maxsize=1)
def client() -> redis.Redis | None:
    """None where there is none (REDIS_URL)."""
    if not settings.REDIS_URL:
        return None
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=0.5, socket_connect_timeout=0.5)
