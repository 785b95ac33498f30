"""What a pump waits for: its own news, told by any thread, and bells. One thread waits for both; two that handed a bell
on to each other waited for the interpreter's lock as well.
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
        """Until it is set, or a bell rings; what that names."""
        bell = self.ear.fileno() if self.ear else None
        poll = select.poll()
        for fd in (self._fd, bell):
            if fd is not None:
                poll.register(fd, select.POLLIN)
        came = {fd for fd, _ in poll.poll(seconds * 1000)}
        return self.ear.heard() if self.ear and bell in came else None

    def __del__(self) -> None:
        os.close(self._fd)
