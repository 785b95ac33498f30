"""The bell: tells the deliver workers that due mail was committed. Losing it loses nothing.

It rings in two ways: by Celery, whose task starts a pump where none runs, and through Valkey for a pump that runs
already, since a worker takes a Celery message only between two tasks, and one costs ten times as much. Only one pump
hears each bell of Valkey's, or all of them would look for the same mail. Such a bell names the deliveries that came,
where they are few (named.py).

    Bell    rings: at once from the thread that accepted, and for a crowd from one of its own
    Ear     hears: on a socket, which a pump waits for together with all else
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any
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
#: how long a pump's question for a bell stands before it is asked again; and the patience for every other answer
_LISTEN_S = 5
_PATIENCE_S = 0.5


class Bell:
    """One daemon thread per process that tells the deliver workers to look; a lost bell loses no mail."""

    #: after a silence so many bells may ring at once, then one every GAP_S: at a low rate each mail rings for itself
    BURST = 10
    GAP_S = 0.02
    #: seconds between two Celery messages while a pump hears Valkey's bells
    START_S = 1.0
    #: … while none seems to hear them: perhaps none runs, perhaps all are busy
    UNHEARD_S = 0.25
    #: … where Valkey is away or not configured, so that there are no other bells
    START_GAP_S = 0.02

    def __init__(self) -> None:
        self.rung = 0
        self.failed = 0
        self._event = threading.Event()
        self._named: deque[bytes] = deque()  # since the last bell; b"": due mail that nobody names
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._line: _Line | None = None
        self._speaks = threading.Lock()  # whoever uses the line
        self._earned = 0.0  # until when the bells so far use up the rate of GAP_S (as in gcra.py)
        self._away_until = 0.0
        self._started = 0.0

    def ring(self, ids: Sequence[UUID] = ()) -> None:
        """Never blocks, never raises. `ids`: the deliveries that came, where the caller knows all of them."""
        self._named.append(b"".join(ident.bytes for ident in ids) if len(ids) <= MOST else b"")
        if self._thread is None or not self._thread.is_alive():  # also after a fork
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._line, self._speaks = None, threading.Lock()
                    self._thread = threading.Thread(target=self._run, name="bell", daemon=True)
                    self._thread.start()
        self._at_once()
        self._event.set()

    def _at_once(self) -> None:
        """Ring from the caller's thread where the line is free, so that the mail does not wait until the bell's own
        thread is awake; that one reads the answer."""
        if not self._speaks.acquire(blocking=False):
            return
        try:
            if self._line is not None and self._line.ready and self._earned <= time.monotonic():
                self._line.say(self._names())
        finally:
            self._speaks.release()

    def _run(self) -> None:
        owed = False  # a Celery message, in case no pump runs
        while True:
            until_start = self._started + self.START_S - time.monotonic()
            if self._event.wait(max(until_start, 0.0) if owed else None):
                self._event.clear()
                owed = True
                with self._speaks:
                    self._earned = max(self._earned, time.monotonic() - self.BURST * self.GAP_S) + self.GAP_S
                    near = self._call()
            else:
                near = 0.0
            if time.monotonic() - self._started >= near:
                self._start()
                owed = False
            if (early_s := self._earned - time.monotonic()) > 0:
                time.sleep(early_s)

    def _call(self) -> float:
        """Ring through Valkey. Answers for how many seconds after the last Celery message none is needed: for longer
        where a pump seems to hear this."""
        if not settings.REDIS_URL or time.monotonic() < self._away_until:
            self._named.clear()
            return self.START_GAP_S
        try:
            if self._line is None:
                self._line = _Line()
            unheard = self._line.unheard() if self._line.said else 0
            if self._named or not unheard:
                self._line.say(self._names())
                unheard = self._line.unheard()
            return self.START_S if unheard <= 1 else self.UNHEARD_S
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
    """A connection for bells alone. The octets of the commands are made once, because a pipeline of the client costs
    several times as much and this is sent up to fifty times a second. Raises redis.RedisError."""

    def __init__(self) -> None:
        name = channel()
        self._connection = _connection()
        pack = self._connection.pack_command
        self._push = b"".join(pack("LPUSH", name, b"")).removesuffix(b"$0\r\n\r\n")
        self._then = b"".join([*pack("LTRIM", name, 0, _MOST_UNHEARD - 1), *pack("EXPIRE", name, _UNHEARD_S)])
        self.said = b""  # what was sent and is not answered yet

    @property
    def ready(self) -> bool:
        """Whether something can be said without waiting for anybody."""
        return self._connection.is_connected and not self.said

    def say(self, names: bytes = b"") -> None:
        self.said = b"%s$%d\r\n%s\r\n%s" % (self._push, len(names), names, self._then)
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            self._connection.send_packed_command([self.said])

    def unheard(self) -> int:
        """How many bells no pump has heard yet, the one just sent among them."""
        with contextlib.suppress(redis.ConnectionError, redis.TimeoutError):
            if self._connection.is_connected:
                return self._answer()
        # one that was kept may have ended long ago; to ring twice harms nobody
        self._connection.send_packed_command([self.said])
        return self._answer()

    def _answer(self) -> int:
        try:
            answers = [self._connection.read_response() for _ in range(3)]
        except BaseException:
            self._connection.disconnect()  # what is still to come would be taken for the next answers
            raise
        self.said = b""
        return int(answers[0])


bell = Bell()


def wake(ids: Sequence[UUID] = ()) -> None:
    """Tell the deliver workers that due mail was committed. `ids`: its deliveries, where these are all that came."""
    bell.ring(ids)


class Ear:
    """The bells of Valkey's for one pump, in its thread. One pump hears each.

    While Valkey is away, Celery's bells are all there are.
    """

    def __init__(self) -> None:
        self._connection: Any = None
        self._question = b""
        self._asked_at: float | None = None  # since when the next bell is waited for
        self._away_until = 0.0

    def fileno(self) -> int | None:
        """What becomes readable with the next bell, which is asked for; None while none can be heard."""
        now = time.monotonic()
        if not settings.REDIS_URL or now < self._away_until:
            return None
        try:
            if self._connection is None:
                self._connection = _connection()
                self._question = b"".join(self._connection.pack_command("BRPOP", channel(), _LISTEN_S))
            if self._asked_at is None:
                self._connection.send_packed_command([self._question])
                self._asked_at = now
            elif now - self._asked_at > _LISTEN_S + _PATIENCE_S:
                raise redis.TimeoutError("a bell was asked for, and nothing came")
            return int(self._connection._sock.fileno())
        except (redis.RedisError, OSError) as e:
            self._lost(e)
            return None

    def heard(self) -> tuple[UUID, ...] | None:
        """What the bell that came names; None where it was none after all."""
        try:
            self._asked_at, answer = None, self._connection.read_response()
            return _ids(answer[1]) if answer else None
        except (redis.RedisError, OSError) as e:
            self._lost(e)
            return None

    def close(self) -> tuple[UUID, ...] | None:
        """Hear no more; what came meanwhile, which somebody else must be told."""
        try:
            came = self._asked_at is not None and self._connection.can_read(0)
        except (redis.RedisError, OSError):
            came = False
        left = self.heard() if came else None
        if self._connection is not None:
            self._connection.disconnect()
        self._connection = self._asked_at = None
        return left

    def _lost(self, e: Exception) -> None:
        log.info("bells are not heard through Valkey: %r", e)
        if self._connection is not None:
            self._connection.disconnect()
        self._connection = self._asked_at = None
        self._away_until = time.monotonic() + _AWAY_S


def _ids(names: bytes) -> tuple[UUID, ...]:
    """What a bell names; nothing where it speaks otherwise, as another version may: then all mail is looked for."""
    if len(names) % 16:
        return ()
    return tuple(UUID(bytes=names[n : n + 16]) for n in range(0, len(names), 16))


def channel() -> str:
    return valkey.prefix() + "bell"


def _connection() -> Any:
    """One that is made when it is used first."""
    patience = {"socket_timeout": _PATIENCE_S, "socket_connect_timeout": _PATIENCE_S}
    return redis.ConnectionPool.from_url(settings.REDIS_URL, **patience).make_connection()
