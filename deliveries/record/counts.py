"""Counts that a process keeps, and writes at most once in ten seconds: statistics, on which no mail depends.

A killed process takes with it what it has not written yet.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from django.db import DatabaseError

log = logging.getLogger(__name__)

EVERY_S = 10.0
#: keys that wait to be written; a storm of more is cut there
_MOST = 10_000

K = TypeVar("K", bound=tuple[Any, ...])


class Counts(Generic[K]):
    """Figures by name under each key. `write` gets the rows in the order of their keys, the same in all processes, so
    that two never wait in a circle."""

    def __init__(self, what: str, write: Callable[[list[tuple[K, Counter[str]]]], object]) -> None:
        self._what = what
        self._write = write
        self._lock = threading.Lock()
        self._waiting: dict[K, Counter[str]] = {}
        self._written = -EVERY_S

    def add(self, key: K, **figures: int) -> None:
        """From any thread."""
        with self._lock:
            if key in self._waiting or len(self._waiting) < _MOST:
                self._waiting.setdefault(key, Counter()).update(figures)

    def flush(self, now: bool = False) -> int:
        """Write what was counted, where the last write is ten seconds ago; how many rows."""
        with self._lock:
            if not self._waiting or (not now and time.monotonic() - self._written < EVERY_S):
                return 0
            self._written = time.monotonic()
            rows = sorted(self._waiting.items())
            self._waiting = {}
        try:
            self._write(rows)
        except DatabaseError as e:  # no reason to repeat a batch of outcomes that is written
            log.warning("%d figures of %s are lost: %r", len(rows), self._what, e)
            return 0
        return len(rows)
