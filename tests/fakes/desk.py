"""Submission as the command `smtpd` offers it, in a thread, with a certificate of a test's own authority."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import trustme

from deliveries.management.commands import smtpd
from deliveries.smtp.received import Bounds


@contextmanager
def desk(authority: trustme.CA, bounds: Bounds | None = None) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """(STARTTLS port, TLS port) of the command's submission, in a thread."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ready: list[tuple[str, int]] = []
    up, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with smtpd.submission(context, bounds or smtpd._BOUNDS) as listener:
            ready.append(await listener.start("127.0.0.1", 0))
            ready.append(await listener.start("127.0.0.1", 0, implicit_tls=True))
            up.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert up.wait(60)
    try:
        yield ready[0], ready[1]
    finally:
        stop.set()
        thread.join()
