"""The receiver lab on a thread of its own, and the pump pointed at it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from deliveries import deliver
from deliveries.sandbox.lab import Lab


@contextlib.contextmanager
def running_lab(**options: Any) -> Iterator[Lab]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    lab = Lab(**options)
    try:
        asyncio.run_coroutine_threadsafe(lab.start(), loop).result(60)
        yield lab
    finally:
        asyncio.run_coroutine_threadsafe(lab.stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


@contextlib.contextmanager
def fresh_pump() -> Iterator[None]:
    """A process would have its own engine and stop flag; a test gets both anew."""
    deliver._engine = None
    deliver._stopping.clear()
    try:
        yield
    finally:
        if deliver._engine is not None:
            deliver._engine.close()
        deliver._engine = None
        deliver._stopping.clear()
