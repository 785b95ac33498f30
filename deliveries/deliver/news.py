"""What a pump waits for: news from the threads of its own process, and bells from others.

One thread waits for both at once (poll). With a thread of its own that passed bells on, each bell waited for Python's
global interpreter lock twice.
"""

from __future__ import annotations

import contextlib
import os
import select
from uuid import UUID

from deliveries.bell import Ear


class News:
    """An event that is waited for together with bells, while `ear` is there. `clear` and `wait` are for one thread."""

    def __init__(self) -> None:
        self.ear: Ear | None = None
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._told = False

    def set(self) -> None:
        os.eventfd_write(self._fd, 1)
        self._told = True  # last, so that `clear` never leaves what it was told of

    def clear(self) -> None:
        if self._told:
            self._told = False
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._fd)

    def wait(self, seconds: float) -> tuple[UUID, ...] | None:
        """Wait until it is set or a bell rings, `seconds` at most. The deliveries that the bell names (empty: look for
        all there is); None where none rang."""
        bell = self.ear.fileno() if self.ear else None
        poll = select.poll()
        for fd in (self._fd, bell):
            if fd is not None:
                poll.register(fd, select.POLLIN)
        came = {fd for fd, _ in poll.poll(seconds * 1000)}
        return self.ear.heard() if self.ear and bell in came else None

    def __del__(self) -> None:
        os.close(self._fd)
