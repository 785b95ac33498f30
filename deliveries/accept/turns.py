"""Turns at what waits for other hosts before a mail is accepted: slow ones must not hold every thread of the web."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from deliveries.errors import BadInput, Fault

#: how long a request waits for its turn
_WAIT_S = 1.0


class Turns:
    """`places` requests of one process at a time; a further one is told (429) to come again."""

    def __init__(self, places: int, field: str, what: str) -> None:
        self._places = threading.BoundedSemaphore(places)
        self._fault = Fault(field, "busy", f"Too many requests {what} at once; send it again in a moment.")

    @contextmanager
    def taken(self) -> Iterator[None]:
        if not self._places.acquire(timeout=_WAIT_S):
            raise BadInput([self._fault], "rate_limit_exceeded", 429)
        try:
            yield
        finally:
            self._places.release()
