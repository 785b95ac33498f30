"""The bell: tells the deliver workers that due mail was committed. Losing it loses nothing.

It rings twice: by Celery, which starts a pump where none runs, and through Valkey for a pump that runs already. A
worker hears Celery only between two tasks, and a message costs ten times as much. One pump hears each bell of Valkey's:
all of them would look for the same mail.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import celery
import redis
from django.conf import settings

from deliveries import gcra

log = logging.getLogger(__name__)

#: after a failure Valkey is left alone for so long
_AWAY_S = 5.0
#: bells that no pump has heard yet, and for how long they are kept
_MOST_UNHEARD = 16
_UNHEARD_S = 5
_LISTEN_S = 5


class Bell:
    """One daemon thread per process that tells the deliver workers to look; a lost bell loses no mail."""

    #: so many at once after a silence, then one in so many seconds: at a low rate each mail rings for itself
    BURST = 10
    GAP_S = 0.02
    #: Celery's are as rare as this while some pump hears Valkey's, and otherwise not nearer than that
    START_S = 1.0
    START_GAP_S = 0.02

    def __init__(self) -> None:
        self.rung = 0
        self.failed = 0
        self._event = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._client: redis.Redis | None = None
        self._channel = ""
        self._away_until = 0.0
        self._started = 0.0

    def ring(self) -> None:
        """Never blocks, never raises."""
        if self._thread is None or not self._thread.is_alive():  # also after a fork
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._client = None
                    self._thread = threading.Thread(target=self._run, name="bell", daemon=True)
                    self._thread.start()
        self._event.set()

    def _run(self) -> None:
        earned = time.monotonic()  # when all bells so far will have been earned
        owed = False  # a pump may have to be started; the others look meanwhile
        while True:
            until_start = self._started + self.START_S - time.monotonic()
            if self._event.wait(max(until_start, 0.0) if owed else None):
                self._event.clear()
                earned = max(earned, time.monotonic() - self.BURST * self.GAP_S) + self.GAP_S
                owed = True
                near = self.START_S if self._call() else self.START_GAP_S
            else:
                near = 0.0
            if time.monotonic() - self._started >= near:
                self._start()
                owed = False
            if (early_s := earned - time.monotonic()) > 0:
                time.sleep(early_s)

    def _call(self) -> bool:
        """To a pump that runs; whether it seems that one heard it."""
        if not settings.REDIS_URL or time.monotonic() < self._away_until:
            return False
        try:
            if self._client is None:
                self._client, self._channel = _client(), channel()
            pipe = self._client.pipeline(transaction=False)
            pipe.lpush(self._channel, b"")
            pipe.ltrim(self._channel, 0, _MOST_UNHEARD - 1)
            pipe.expire(self._channel, _UNHEARD_S)
            return bool(pipe.execute()[0] <= 1)
        except redis.RedisError as e:
            self._away_until = time.monotonic() + _AWAY_S
            self._count(e)
            return False

    def _start(self) -> None:
        self._started = time.monotonic()
        try:
            # by name: accept knows no task. Beat rings every second, so that no retry is needed here
            celery.current_app.send_task("deliveries.deliver", queue="deliver", expires=5, retry=False)
            self.rung += 1
        except Exception as e:  # the broker is away: whatever its client raises, the mail is in Postgres
            self._count(e)

    def _count(self, e: Exception) -> None:
        self.failed += 1
        if self.failed & (self.failed - 1) == 0:  # 1, 2, 4, 8 …: said, without filling the log
            log.warning("the bell did not reach the broker (%d times now): %r", self.failed, e)


bell = Bell()


def wake() -> None:
    """Due mail was committed: tell the deliver workers."""
    bell.ring()


def listen(told: Callable[[], bool], pumping: threading.Event) -> None:
    """Call `told` at bells while `pumping` is set, for ever. One pump hears each; where `told` says no, another may.

    While Valkey is away, Celery's bells are all there are.
    """
    client, name = _client(), channel()
    while True:
        pumping.wait()
        try:
            if client.brpop([name], timeout=_LISTEN_S) and not told():
                pipe = client.pipeline(transaction=False)
                pipe.rpush(name, b"")
                pipe.expire(name, _UNHEARD_S)
                pipe.execute()
        except redis.RedisError as e:
            log.info("bells are not heard through Valkey: %r", e)
            time.sleep(_AWAY_S)


def channel() -> str:
    return gcra.prefix() + "bell"


def _client() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=_LISTEN_S + 2, socket_connect_timeout=1)
