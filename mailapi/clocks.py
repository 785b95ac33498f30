"""Celery by clocks that are set, or differ from host to host: by itself it takes them for one that only goes on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from celery.beat import PersistentScheduler
from celery.worker.request import Request

#: so far a worker's clock may be ahead of that of beat, or of web, before their bells have ended when they come
APART = timedelta(seconds=60)


class Scheduler(PersistentScheduler):
    """Rings on where the clock was set back; Celery's is silent until the time that it knows has come again."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        now = self.app.now()
        ahead = [e for e in self.schedule.values() if e.schedule.maybe_make_aware(e.last_run_at) > now]
        for entry in ahead:
            entry.last_run_at = now
        if ahead:
            self._heap = None  # is made anew
        return float(super().tick(*args, **kwargs))


class Bell(Request):
    """Its end was reckoned by the clock of who rang."""

    def maybe_expire(self) -> bool:
        if not self.expires or datetime.now(UTC) - APART <= self.expires:
            return False
        return bool(super().maybe_expire())
