"""Postgres has a clock that no test sets: what is counted by the hour or the day is begun well before its end."""

from __future__ import annotations

import time

HOUR, DAY = 3_600, 86_400
#: longer than a test of it takes on a busy machine
_ROOM_S = 45


def stay_within(length_s: int) -> None:
    """From now on no UTC hour or day ends for a while; one that is about to is waited for."""
    left_s = length_s - time.time() % length_s
    if left_s < _ROOM_S:
        time.sleep(left_s + 0.1)
