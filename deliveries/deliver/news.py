"""What a pump waits for: its own news, told by any thread, and beside it a socket. One thread waits; two that handed
it on to each other would wait for the interpreter's lock as well.
"""

from __future__ import annotations

import contextlib
import os
import select


class News:
    """An event that can be waited for together with a socket. `clear` and `wait` are for one thread."""

    def __init__(self) -> None:
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

    def wait(self, seconds: float, socket: int | None = None) -> bool:
        """Until it is set, or there is something to read at `socket`; whether there is."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if socket is not None:
            poll.register(socket, select.POLLIN)
        return any(fd == socket for fd, _ in poll.poll(seconds * 1000))

    def __del__(self) -> None:
        os.close(self._fd)
