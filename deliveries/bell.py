"""The bell: tells the deliver workers that due mail was committed. Losing it loses nothing."""

from __future__ import annotations

import logging
import threading
import time

import celery

log = logging.getLogger(__name__)


class Bell:
    """One daemon thread per process that tells the deliver workers to look; a lost bell loses no mail."""

    #: so many messages at once after a silence, then one in so many seconds: at a low rate each mail rings for itself
    BURST = 10
    GAP_S = 0.02

    def __init__(self) -> None:
        self.rung = 0
        self.failed = 0
        self._event = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def ring(self) -> None:
        """Never blocks, never raises."""
        if self._thread is None or not self._thread.is_alive():  # also after a fork
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._run, name="bell", daemon=True)
                    self._thread.start()
        self._event.set()

    def _run(self) -> None:
        earned = time.monotonic()  # when all messages so far will have been earned
        while True:
            self._event.wait()
            self._event.clear()
            earned = max(earned, time.monotonic() - self.BURST * self.GAP_S) + self.GAP_S
            try:
                # by name: accept knows no task. Beat rings every second, so that no retry is needed here
                celery.current_app.send_task("deliveries.deliver", queue="deliver", expires=5, retry=False)
                self.rung += 1
            except Exception as e:  # the broker is away: whatever its client raises, the mail is in Postgres
                self.failed += 1
                if self.failed & (self.failed - 1) == 0:  # 1, 2, 4, 8 …: said, without filling the log
                    log.warning("the bell did not reach the broker (%d times now): %r", self.failed, e)
            if (early_s := earned - time.monotonic()) > 0:
                time.sleep(early_s)


bell = Bell()


def wake() -> None:
    """Due mail was committed: tell the deliver workers."""
    bell.ring()
