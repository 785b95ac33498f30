"""The crash ledger: no final dot is written before `started_at` is.

A thread with a database connection of its own gathers what sessions ask for while other mails are signed and their
envelopes sent, and writes it in one statement. Its commit waits for the disk; that of the claim before it does not.
The write-ahead log is written in order, so that the claim of a start which is on disk is there as well
(docs/decisions/ledger.md).
"""

from __future__ import annotations

import asyncio
import logging
import queue as stdlib_queue
import threading
import time
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connection

from deliveries import queue
from deliveries.deliver.watchdog import Watchdog

log = logging.getLogger(__name__)

#: how long a session may wait at 354 for a database that is away (the peer waits minutes: RFC 5321 §4.5.3.2)
PATIENCE_S = 20.0
_BATCH = 500

#: delivery, lease, who waits, until when (monotonic)
_Asked = tuple[UUID, UUID, "asyncio.Future[bool]", float]


class TooLate(Exception):
    """Its end passed while the conversation went on; the final dot is not written."""


class LeaseLost(Exception):
    """The row is somebody else's, or the ledger cannot be written: this mail must not be sent by us now."""


class Ledger:
    """One per process. `ask` is for the event loop; a thread of the ledger's own writes, and answers in the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, watchdog: Watchdog) -> None:
        self._loop = loop
        self._watchdog = watchdog
        self._inbox: stdlib_queue.SimpleQueue[_Asked | None] = stdlib_queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    def ask(self, delivery_id: UUID, lease_id: UUID) -> asyncio.Future[bool]:
        """True once the start is written; False where it must not begin: LeaseLost."""
        future: asyncio.Future[bool] = self._loop.create_future()
        self._inbox.put((delivery_id, lease_id, future, time.monotonic() + PATIENCE_S))
        return future

    def close(self) -> None:
        self._inbox.put(None)
        self._thread.join(10)

    def _run(self) -> None:
        while (asked := self._inbox.get()) is not None:
            batch = [asked]
            while len(batch) < _BATCH and not self._inbox.empty() and (asked := self._inbox.get()) is not None:
                batch.append(asked)
            with self._watchdog.working("ledger"):
                self._write(batch)
        connection.close()

    def _write(self, batch: list[_Asked]) -> None:
        while batch:
            leases: dict[UUID, list[UUID]] = {}
            for delivery_id, lease_id, _, _ in batch:
                leases.setdefault(lease_id, []).append(delivery_id)
            try:
                started = {i for lease_id, ids in leases.items() for i in queue.start(lease_id, ids)}
            except (DatabaseError, InterfaceError) as e:
                log.warning("the ledger waits for the database: %r", e)
                connection.close()
                now = time.monotonic()
                self._answer([(future, False) for _, _, future, until in batch if until <= now])
                batch = [asked for asked in batch if asked[3] > now]
                time.sleep(0.2)
                self._watchdog.beat("ledger")
            else:
                self._answer([(future, delivery_id in started) for delivery_id, _, future, _ in batch])
                return

    def _answer(self, answers: list[tuple[asyncio.Future[bool], bool]]) -> None:
        def settle() -> None:
            for future, ok in answers:
                if not future.done():
                    future.set_result(ok)

        if answers:
            self._loop.call_soon_threadsafe(settle)
