"""Once more: what two transactions that waited for each other in a circle need."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import psycopg.errors
from django.db import OperationalError, connection

#: the loser of a deadlock wins the next round nearly always
_TRIES = 4

T = TypeVar("T")


def again(work: Callable[[], T]) -> T:
    """`work`, a whole transaction, repeated where Postgres broke a deadlock at its cost; inside another one never."""
    for left in reversed(range(_TRIES)):
        try:
            return work()
        except OperationalError as e:
            deadlock = isinstance(e.__cause__, psycopg.errors.DeadlockDetected)
            if not left or not deadlock or connection.in_atomic_block:
                raise
    raise AssertionError("unreachable")
