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
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import OperationalError, connection

from deliveries.fetch import Kept
from deliveries.models.sql import execute
from deliveries.notify import outbox
from deliveries.notify.post import Posted, Telling, post

log = logging.getLogger(__name__)

#: POSTs at a time, in all and to one endpoint
AT_ONCE = 32
AT_ONCE_EACH = 4
#: rows in hand: those under way and the next ones, so that a fast endpoint never waits for a claim; and how many of
#: them may be for endpoints that fail
IN_HAND = 256
IN_HAND_FAILING = 8
#: seconds after which a row in hand whose turn has not come (its endpoint is slow) is given back; its lease is longer
TURN_S = 10.0
#: seconds after which the run draws to its end: what is in hand is waited for (at most a turn, a POST of 15 s and its
#: record), and meanwhile only quick endpoints are told. One of these that turns out to be slow takes as long again,
#: and the task may run for 110 s
CLAIM_S = 25.0
#: an endpoint whose last answer took longer is not quick
QUICK_MS = 1_000
#: answers that come within so many seconds are recorded together
_GATHER_S = 0.02
#: the least pause between two looks for rows, unless the last one brought _MANY and half of them are told: a look
#: costs as much as twenty POSTs, and one at each answer had brought three rows
_REST_S = 0.1
_MANY = IN_HAND // 8
#: the longest pause between two looks while POSTs are under way
_LOOK_S = 0.2
#: how often a record is tried while Postgres is away, a second apart: the lease is longer
_RECORD_TRIES = 10
_LOCK = 0x6E6F7469  # first of the two keys of pg_try_advisory_lock; the second is the host


def run() -> int:
    """Tell what is due, until nothing is or time is up; how many POSTs. Finding nothing costs one indexed query."""
    if not outbox.due():
        return 0
    with _only_one() as ours:
        return drain() if ours else 0


def drain(claim_s: float = CLAIM_S) -> int:
    """The window itself, for `claim_s` and until what is in hand then is told; how many POSTs.

    No other run begins while this one waits for its last POSTs, and a receiver that hangs must not make everybody's
    events wait with them. So quick endpoints are told until the last POST to another has ended.
    """
    end = time.monotonic() + claim_s
    in_hand: dict[Future[Posted | None], Telling] = {}
    last: set[Future[Posted | None]] | None = None  # what was in hand when claim_s was over; None: it is not
    slow: set[UUID] = set()  # endpoints whose last answer took longer than QUICK_MS
    told = 0
    with _event_loop() as loop, _Turns().on(loop) as turns:
        look_at, few = 0.0, 0
        while True:
            if not in_hand and not few:
                time.sleep(max(look_at - time.monotonic(), 0.0))
            now = time.monotonic()
            if last != set() and (now >= look_at or len(in_hand) < few):
                claimed = _claim(in_hand, None if last is None else slow | {in_hand[f].endpoint_id for f in last})
                for telling in claimed:
                    in_hand[asyncio.run_coroutine_threadsafe(turns.post(telling), loop)] = telling
                look_at, few = now + _REST_S, len(in_hand) // 2 if len(claimed) >= _MANY else 0
            if last is None and now >= end:
                last = set(in_hand)
            if not in_hand:
                return told
            if wait(in_hand, timeout=_LOOK_S, return_when=FIRST_COMPLETED).done:
                time.sleep(_GATHER_S)
            done = {future: telling for future, telling in in_hand.items() if future.done()}
            for future in done:
                del in_hand[future]
            if last:
                last -= done.keys()
            posted = [p for f in done if (p := f.result()) is not None]
            for p in posted:
                (slow.add if p.elapsed_ms > QUICK_MS else slow.discard)(p.telling.endpoint_id)
            _record(posted)
            outbox.give_back([telling for f, telling in done.items() if f.result() is None])
            told += len(posted)


class _Turns:
    """Who may POST now, first come first served: AT_ONCE in all, AT_ONCE_EACH to one endpoint. Of the loop's thread."""

    def __init__(self) -> None:
        self._kept = Kept()
        self._all = asyncio.Semaphore(AT_ONCE)
        self._each: defaultdict[UUID, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(AT_ONCE_EACH))

    @contextmanager
    def on(self, loop: asyncio.AbstractEventLoop) -> Iterator[_Turns]:
        """Connections to the receivers are kept as long as the block is not left."""
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(self._kept.close)

    async def post(self, telling: Telling) -> Posted | None:
        """None when its turn did not come within TURN_S."""
        each = self._each[telling.endpoint_id]
        try:
            async with asyncio.timeout(TURN_S):
                await each.acquire()  # its own first: who waits for a slow endpoint takes no place of the others
                try:
                    await self._all.acquire()
                except BaseException:
                    each.release()
                    raise
        except TimeoutError:
            return None
        try:
            return await post(telling, settings.WEBHOOK_ALLOW_PRIVATE, keep=self._kept)
        except Exception:
            # a bug of ours with one receiver: it is that endpoint's failed try, and the others are told on
            log.exception("webhook %s to endpoint %s broke the courier", telling.id, telling.endpoint_id)
            return Posted(telling, datetime.now(UTC), 0, error="An internal error came up; see the worker's log.")
        finally:
            self._all.release()
            each.release()


def _claim(in_hand: dict[Future[Posted | None], Telling], slow: set[UUID] | None) -> list[Telling]:
    """With `slow`, for quick endpoints alone: neither these nor any that fails."""
    free = IN_HAND - len(in_hand)
    # few at a time would cost a transaction each; what is in hand keeps the line busy meanwhile
    if free < _MANY:
        return []
    busy = Counter(t.endpoint_id for t in in_hand.values())
    if slow is not None:
        return outbox.claim(free, 0, busy | Counter(dict.fromkeys(slow, outbox.IN_HAND)))
    failing = sum(t.failing for t in in_hand.values())
    return outbox.claim(free, max(IN_HAND_FAILING - failing, 0), busy)


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
