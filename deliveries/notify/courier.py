"""The courier: a sliding window of POSTs over all endpoints, so that a slow one holds only its own places.

The database has the task's thread, HTTP an event loop in a thread of its own; no transaction is ever open over the
network. One courier per host runs at a time (an advisory lock that ends with its connection): the other processes of
the jobs worker stay free for the reports that come in and for the sweeper.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import OperationalError, connection

from deliveries import metrics
from deliveries.models.sql import execute
from deliveries.notify import outbox
from deliveries.notify.post import Posted, Telling, post

log = logging.getLogger(__name__)

#: POSTs at a time, and how many of them may go to endpoints that fail
WINDOW = 32
WINDOW_FAILING = 8
#: nothing new is begun after it; a POST of 15 s and its record then end within the run's 50 s
CLAIM_S = 30.0
#: while POSTs are under way, new rows are looked for so often
_LOOK_S = 0.2
#: Postgres away at the record: tried again so often, a second apart, before the lease ends
_RECORD_TRIES = 10
_LOCK = 0x6E6F7469  # first of the two keys of pg_try_advisory_lock; the second is the host


def run() -> int:
    """Tell what is due, until nothing is or time is up; how many POSTs. Finding nothing costs one indexed query."""
    if not outbox.due():
        return 0
    with _only_one() as ours:
        return drain() if ours else 0


def drain(claim_s: float = CLAIM_S) -> int:
    """The window itself."""
    end = time.monotonic() + claim_s
    under_way: dict[Future[Posted], Telling] = {}
    told = 0
    with _event_loop() as loop:
        while True:
            fresh = _claim(under_way) if time.monotonic() < end else []
            for telling in fresh:
                under_way[asyncio.run_coroutine_threadsafe(post(telling, settings.WEBHOOK_ALLOW_PRIVATE), loop)] = (
                    telling
                )
            if not under_way:
                return told
            done, _ = wait(under_way, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
            for future in done:
                del under_way[future]
            _record([f.result() for f in done])
            told += len(done)
            metrics.alive("jobs")


def _claim(under_way: dict[Future[Posted], Telling]) -> list[Telling]:
    free = WINDOW - len(under_way)
    if free <= 0:
        return []
    busy = Counter(t.endpoint_id for t in under_way.values())
    failing = sum(t.failing for t in under_way.values())
    return outbox.claim(free, max(WINDOW_FAILING - failing, 0), busy)


def _record(posted: list[Posted]) -> None:
    """Kept in memory while Postgres is away; given up at last, for the lease ends and each is sent again."""
    for left in reversed(range(_RECORD_TRIES)):
        try:
            return outbox.record(posted)
        except OperationalError as e:
            if not left:
                raise
            log.warning("what came of %d webhooks cannot be recorded yet: %s", len(posted), e)
            connection.close()
            time.sleep(1)
    return None


@contextmanager
def _only_one() -> Iterator[bool]:
    key = {"key": _LOCK, "host": zlib.crc32(socket.gethostname().encode()) & 0x7FFFFFFF}
    row = execute("SELECT pg_try_advisory_lock(%(key)s::int, %(host)s::int) AS ours", key).fetchone()
    ours = bool(row and row["ours"])
    try:
        yield ours
    finally:
        if ours:
            execute("SELECT pg_advisory_unlock(%(key)s::int, %(host)s::int)", key)


@contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop in a thread of its own; what is under way when the block is left is cancelled."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="webhooks", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        asyncio.run_coroutine_threadsafe(_cancel_rest(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _cancel_rest() -> None:
    rest: list[Any] = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
