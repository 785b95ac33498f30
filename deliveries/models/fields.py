"""Field types of the house: time-ordered ids, encrypted octets."""

from __future__ import annotations

import os
import threading
import time
import uuid
from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import models

from deliveries.errors import Unreadable

_lock = threading.Lock()
_last_ms = 0
_counter = 0


def uuid7() -> uuid.UUID:
    """A UUIDv7 (RFC 9562 §5.7), strictly increasing within the process.

    rand_a carries a counter for ids of the same millisecond (§6.2 method 1), so that events written
    in one batch sort in the order they were made.
    """
    global _last_ms, _counter
    ms = time.time_ns() // 1_000_000
    with _lock:
        if ms > _last_ms:
            _last_ms, _counter = ms, 0
        else:
            _counter += 1
            if _counter > 0xFFF:  # 4,096 ids in one millisecond: borrow the next one
                _last_ms, _counter = _last_ms + 1, 0
        ms, count = _last_ms, _counter
    rand_b = int.from_bytes(os.urandom(8), "big") & (2**62 - 1)
    return uuid.UUID(int=ms << 80 | 7 << 76 | count << 64 | 2 << 62 | rand_b)


def uuid7_floor(ms: int) -> uuid.UUID:
    """The smallest UUID of that Unix millisecond: the bound of a partition, or of a time filter."""
    return uuid.UUID(int=ms << 80)


@lru_cache(maxsize=1)
def _fernet(keys: str) -> MultiFernet:
    return MultiFernet([Fernet(k.strip()) for k in keys.split(",")])


class Sealed:
    """A secret that cannot be opened: its row is read, shown and saved like any other, and only its use fails."""

    def __init__(self, octets: bytes) -> None:
        self.octets = octets

    def __bytes__(self) -> bytes:
        raise Unreadable("no key of FIELD_KEYS opens it")


class EncryptedField(models.BinaryField):
    """Octets encrypted with FIELD_KEYS (first key writes, every key reads); apart from SECRET_KEY."""

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if isinstance(value, Sealed):
            value = value.octets
        elif value is not None and not prepared:
            value = _fernet(settings.FIELD_KEYS).encrypt(bytes(value))
        return super().get_db_prep_value(value, connection, prepared)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> bytes | Sealed | None:
        if value is None:
            return None
        try:
            return decrypt(bytes(value))
        except Unreadable:
            return Sealed(bytes(value))


def decrypt(value: bytes) -> bytes:
    """What an EncryptedField holds, for raw SQL. Unreadable: no key opens it."""
    try:
        return _fernet(settings.FIELD_KEYS).decrypt(value)
    except InvalidToken:
        raise Unreadable("no key of FIELD_KEYS opens it") from None
