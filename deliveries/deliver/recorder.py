"""What ended is written down in a thread of its own: a commit of outcomes never holds up the next claim."""

from __future__ import annotations

import logging
import queue as stdlib_queue
import threading
import time
from collections import deque
from collections.abc import Callable
from uuid import UUID

from django.db import DatabaseError, InterfaceError, OperationalError, connection

from deliveries import queue
from deliveries.counters import OUTCOMES_WAITED
from deliveries.deliver.ends import Ended, Released
from deliveries.deliver.watchdog import Watchdog
from deliveries.record import figures, tls_sessions
from deliveries.record.homes import Moved, move
from deliveries.record.outcomes import record
from deliveries.record.settle import Result

log = logging.getLogger(__name__)

#: results of one commit, at most; and how long the first of them waits for company, where much is under way
BATCH = 200
BATCH_S = 0.05
#: Postgres is away: how often it is asked whether it is back
AWAY_S = 0.5


class Recorder:
    """`put` and `close` are for the pump. `busy` tells whether company will come, `told` that something was written."""

    def __init__(self, watchdog: Watchdog, busy: Callable[[], bool], told: Callable[[], None]) -> None:
        self.recorded = 0
        self._now = False
        self.troubled = False  #: the database did not do it; it is asked again
        self.given_back = False  #: rows are due again; the pump takes note
        self._watchdog = watchdog
        self._busy = busy
        self._told = told
        self._pending: deque[UUID] = deque()  # the lease of each that was put and is not written yet
        self._results: list[Result] = []
        self._moves: list[Moved] = []
        self._releases: list[tuple[UUID, UUID]] = []
        self._again = False  # the last commit's fate is not known
        self._inbox: stdlib_queue.SimpleQueue[Ended | None] = stdlib_queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def pending(self) -> int:
        """Put and not yet written; bounded by what may be in flight, for nothing is claimed while it grows."""
        return len(self._pending)

    def leases(self) -> set[UUID]:
        """Under which it is held."""
        return set(self._pending.copy())

    def put(self, ended: list[Ended]) -> None:
        self._pending.extend(one.lease_id for one in ended)
        for one in ended:
            self._inbox.put(one)

    def close(self, now: bool) -> None:
        """Writes what was put; `now` that no other pump of this process will go on."""
        self._now = now
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (batch := self._gather()) is not None:
            for one in batch:
                if isinstance(one, Released):
                    self._releases.append((one.delivery_id, one.lease_id))
                elif isinstance(one, Moved):
                    self._moves.append(one)
                else:
                    self._results.append(one)
            with self._watchdog.working("recorder"):
                while not self._write():
                    time.sleep(AWAY_S)
                    self._watchdog.beat("recorder")
            for _ in batch:
                self._pending.popleft()
            self._told()
        try:
            figures.flush(now=self._now)
            tls_sessions.flush(now=self._now)
        except (DatabaseError, InterfaceError) as e:
            log.warning("figures of the last seconds are lost: %r", e)
        connection.close()

    def _gather(self) -> list[Ended] | None:
        """None at the end."""
        first = self._inbox.get()
        if first is None:
            return None
        batch = [first]
        until = time.monotonic() + (BATCH_S if self._busy() else 0)
        while len(batch) < BATCH:
            left = until - time.monotonic()
            try:
                one = self._inbox.get(timeout=left) if left > 0 else self._inbox.get_nowait()
            except stdlib_queue.Empty:
                break
            if one is None:
                self._inbox.put(None)
                break
            batch.append(one)
        return batch

    def _write(self) -> bool:
        """False where the database is away, or made a mistake of ours: all that is not written is kept."""
        try:
            if self._results:
                again, self._again = self._again, True
                record(self._results, again)
                self._again = False
                self.recorded += len(self._results)
                self._results = []
            if self._moves:
                move(self._moves)
                self._moves, self.given_back = [], True
            if self._releases:
                queue.release(self._releases)
                self._releases, self.given_back = [], True
        except (DatabaseError, InterfaceError) as e:
            ours = not isinstance(e, (OperationalError, InterfaceError))  # our mistake: said in full
            OUTCOMES_WAITED.inc()
            log.warning("outcomes cannot be written yet, asking again: %r", e, exc_info=ours)
            connection.close()
            self.troubled = True
            return False
        self.troubled = False
        return True
