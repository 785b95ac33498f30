"""Opens and clicks as they come in a web process: noted at once, written a moment later, many in one statement.

A redirect must not wait for the disk. What a process has noted and not written is lost when it is killed: half a second
of opens, which are hints and no promises.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

from django.conf import settings
from django.db import Error, connection

from deliveries.counters import VISITS_LATE
from deliveries.record.visits import Visit, record

log = logging.getLogger(__name__)


class Book:
    """One daemon thread per web process writes what `note` was given."""

    GAP_S = 0.25  # how long a visit waits for others
    BATCH = 500
    MOST = 20_000  # noted and unwritten, while Postgres is away; above it the oldest go

    def __init__(self) -> None:
        self._noted: deque[Visit] = deque(maxlen=self.MOST)
        self._came = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def note(self, visit: Visit) -> None:
        """Never blocks, never raises. Outside a web process whoever notes also writes."""
        self._noted.append(visit)
        if settings.ROLE == "web" and (self._thread is None or not self._thread.is_alive()):  # also after a fork
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._run, name="visits", daemon=True)
                    self._thread.start()
        self._came.set()

    def write(self) -> None:
        """All that was noted, written; raises Django's Error, and keeps what was not written."""
        with self._lock:
            while self._noted:
                batch = [self._noted[i] for i in range(min(self.BATCH, len(self._noted)))]
                record(batch)
                for _ in batch:
                    self._noted.popleft()

    def _run(self) -> None:
        while True:
            self._came.wait()
            time.sleep(self.GAP_S)
            self._came.clear()
            try:
                self.write()
            except Error as e:
                VISITS_LATE.inc()
                log.warning("%d opens and clicks wait for Postgres: %s", len(self._noted), e)
                time.sleep(1)
                self._came.set()
            finally:
                connection.close()  # back to the pool


book = Book()
