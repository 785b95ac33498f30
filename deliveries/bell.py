"""The bell: tells the deliver workers that due mail was committed. Losing it loses nothing.

It rings twice: by Celery, which starts a pump where none runs, and through Valkey for a pump that runs already. A
worker hears Celery only between two tasks, and a message costs ten times as much. One pump hears each bell of Valkey's:
all of them would look for the same mail. Such a bell names the deliveries that came where they are few (named.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast
from uuid import UUID

import celery
import redis
from django.conf import settings

from deliveries import valkey
from deliveries.counters import BELLS_FAILED
from deliveries.named import MOST

log = logging.getLogger(__name__)

#: after a failure Valkey is left alone for so long
_AWAY_S = 5.0
#: bells that no pump has heard yet, and for how long they are kept
_MOST_UNHEARD = 16
_UNHEARD_S = 5
_LISTEN_S = 5
#: a bell that was heard and not answered is left to others for so long: one that stops would take it again and again
_LEFT_S = 0.05


class Bell:
    """One daemon thread per process that tells the deliver workers to look; a lost bell loses no mail."""

    #: so many at once after a silence, then one in so many seconds: at a low rate each mail rings for itself
    BURST = 10
    GAP_S = 0.02
    #: Celery's are as rare as this: while some pump hears Valkey's; while none does, which may only be busy; and where
    #: there is no Valkey, so that they are all there are
    START_S = 1.0
    UNHEARD_S = 0.25
    START_GAP_S = 0.02

    def __init__(self) -> None:
        self.rung = 0
        self.failed = 0
        self._event = threading.Event()
        self._named: deque[bytes] = deque()  # since the last bell; b"": due mail that nobody names
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._line: _Line | None = None
        self._away_until = 0.0
        self._started = 0.0

    def ring(self, ids: Sequence[UUID] = ()) -> None:
        """Never blocks, never raises. `ids`: deliveries that are all that came, as far as the caller knows."""
        self._named.append(b"".join(ident.bytes for ident in ids) if len(ids) <= MOST else b"")
        if self._thread is None or not self._thread.is_alive():  # also after a fork
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._line = None
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
                near = self._call(self._names())
            else:
                near = 0.0
            if time.monotonic() - self._started >= near:
                self._start()
                owed = False
            if (early_s := earned - time.monotonic()) > 0:
                time.sleep(early_s)

    def _call(self, names: bytes = b"") -> float:
        """To a pump that runs; how long ago Celery's last bell may have been, by whether one seems to hear this."""
        if not settings.REDIS_URL or time.monotonic() < self._away_until:
            return self.START_GAP_S
        try:
            if self._line is None:
                self._line = _Line()
            return self.START_S if self._line.ring(names) <= 1 else self.UNHEARD_S
        except redis.RedisError as e:
            self._line = None
            self._away_until = time.monotonic() + _AWAY_S
            self._count(e)
            return self.START_GAP_S

    def _names(self) -> bytes:
        """What came since the last bell, in 16 octets each; empty: look for all there is."""
        named = [self._named.popleft() for _ in range(len(self._named))]
        together = b"".join(named)
        return together if all(named) and len(together) <= MOST * 16 else b""

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
        BELLS_FAILED.inc()
        if self.failed & (self.failed - 1) == 0:  # 1, 2, 4, 8 …: said, without filling the log
            log.warning("the bell did not reach the broker (%d times now): %r", self.failed, e)


class _Line:
    """The bell on a connection of its own, in octets that are made once: a client's pipeline costs several times as
    much, and this is said fifty times a second. Raises redis.RedisError."""

    def __init__(self) -> None:
        name = channel()
        self._connection = _client().connection_pool.get_connection()
        pack = self._connection.pack_command
        self._push = b"".join(pack("LPUSH", name, b"")).removesuffix(b"$0\r\n\r\n")
        self._then = b"".join([*pack("LTRIM", name, 0, _MOST_UNHEARD - 1), *pack("EXPIRE", name, _UNHEARD_S)])

    def ring(self, names: bytes = b"") -> int:
        """How many bells no pump has heard, this one among them."""
        octets = b"%s$%d\r\n%s\r\n%s" % (self._push, len(names), names, self._then)
        try:
            return self._say(octets)
        except (redis.ConnectionError, redis.TimeoutError):
            return self._say(octets)  # one that was kept may have ended long ago; to ring twice harms nobody

    def _say(self, octets: bytes) -> int:
        try:
            self._connection.send_packed_command([octets])
            answers = [self._connection.read_response() for _ in range(3)]
        except BaseException:
            self._connection.disconnect()  # what is still to come would be taken for the next answers
            raise
        return int(answers[0])


bell = Bell()


def wake(ids: Sequence[UUID] = ()) -> None:
    """Due mail was committed: tell the deliver workers, where that is all of it by the ids of its deliveries."""
    bell.ring(ids)


def listen(told: Callable[[tuple[UUID, ...]], bool], pumping: threading.Event) -> None:
    """Call `told` at bells, with what they name, while `pumping` is set, for ever. One pump hears each; where `told`
    says no, another may.

    While Valkey is away, Celery's bells are all there are.
    """
    client, name = _client(), channel()
    while True:
        pumping.wait()
        try:
            heard = client.brpop([name], timeout=_LISTEN_S)
            names = cast(bytes, heard[1]) if heard else b""
            if heard and not told(_ids(names)):
                pipe = client.pipeline(transaction=False)
                pipe.rpush(name, names)
                pipe.expire(name, _UNHEARD_S)
                pipe.execute()
                time.sleep(_LEFT_S)
        except redis.RedisError as e:
            log.info("bells are not heard through Valkey: %r", e)
            time.sleep(_AWAY_S)


def _ids(names: bytes) -> tuple[UUID, ...]:
    """What a bell names; nothing where it speaks otherwise, as another version may: then all mail is looked for."""
    if len(names) % 16:
        return ()
    return tuple(UUID(bytes=names[n : n + 16]) for n in range(0, len(names), 16))


def channel() -> str:
    return valkey.prefix() + "bell"


def _client() -> redis.Redis:
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=_LISTEN_S + 2, socket_connect_timeout=1)
