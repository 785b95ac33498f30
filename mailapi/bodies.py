"""The body of a request: here before the request takes one of the WEB_THREADS, or ended with 408 after BODY_S.

granian gives a request a thread once its head is there, and its body any time; sixteen connections that stood still
kept everybody out. So it has many more threads than work at a time, and the spare ones wait for bodies:

    Gate     WSGI application: gather the body, wait for one of WEB_THREADS, call the application
    Watch    a thread that finds the connections whose body does not come, and ends their reading

A body must come by 64 KB, or its rest, in BODY_S; where more than half of the spare threads wait, in SHORT_S. WSGI does
not say which connection a request came by, and granian's read ends with the body alone. Linux knows: of each connection
how much came and went (TCP_INFO), so that those in the middle of a request can be told, and reading from them is shut
down. granian then sees the body end too early, and the answer still goes out (RFC 9110 §15.5.9).

Nothing is answered before its body was read, unless it is longer than we take: then the connection is closed and says
so (RFC 9112 §9.6), since what follows on it would be taken for the next request's head.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from deliveries.counters import BODIES_LATE
from mailapi.up.serve import WEB_SPARE

log = logging.getLogger(__name__)

#: of environ: why the body cannot be used, (status, code, words); mailapi.errors.RequestId answers so
REFUSED = "mailapi.refused"

#: of environ: whether the body came in chunks. granian reads one that breaks off like one that has its last chunk
CHUNKED = "mailapi.chunked"

PIECE = 65_536
SHORT_S = 2.0
#: octets of gathered bodies in one process, but for those of one piece: each of the spare threads could hold 40 MB
MOST_HELD = 256 * 1024 * 1024
#: a request that is whole and not answered looks like one whose body does not come; where both may be, that many
#: times BODY_S
_DOUBT = 4
_EVERY_S = 1.0

Environ = dict[str, Any]
Start = Callable[..., Any]
Application = Callable[[Environ, Start], Iterable[bytes]]


class _Refused(Exception):
    """The body cannot be used; what it says is (status, code, words)."""


class Gate:
    """Around the WSGI application of one process. `most`: octets that a body may have."""

    def __init__(self, application: Application, threads: int, late_s: float, most: int) -> None:
        self._application, self._most = application, most
        self._turns: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(threads):
            self._turns.put(None)
        self._watch = Watch(late_s)
        self._held = 0
        self._lock = threading.Lock()

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        length = environ.get("CONTENT_LENGTH")
        held = 0
        if (length and length != "0") or "HTTP_TRANSFER_ENCODING" in environ:
            try:
                held = self._gather(environ, int(length) if length and length.isdigit() else None)
            except _Refused as e:
                environ[REFUSED] = e.args
            if held < 0 or REFUSED in environ:
                held, start = 0, _closing(start)
        turn = _Turn(self, held)
        self._watch.whole[turn] = time.monotonic()
        self._turns.get()
        try:
            turn.answer = self._application(environ, start)
        except BaseException:
            turn.close()
            raise
        finally:
            del self._watch.whole[turn]
        return turn

    def _gather(self, environ: Environ, length: int | None) -> int:
        """Puts the body into environ; how much of it counts as held. Negative where some of it is not read."""
        taken, environ["wsgi.input"] = environ["wsgi.input"], io.BytesIO()
        if length is not None and length > self._most:
            # the application refuses it by its length. Who asked whether to send it is told before it does; who sends
            # it already would not hear us before its end
            if "HTTP_EXPECT" not in environ and length <= 2 * self._most:
                for _ in self._pieces(taken, length):
                    pass
            return -1
        if length is not None and length <= PIECE:
            body = self._watch.read(taken, length)
            if len(body) < length:
                raise _incomplete(len(body), length)
            environ["wsgi.input"] = io.BytesIO(body)
            return 0
        whole, held = bytearray(), 0
        try:
            for piece in self._pieces(taken, length):
                self._hold(len(piece))
                held += len(piece)
                whole += piece
                if held > self._most:
                    break
            if length is not None and held < length:
                raise _incomplete(held, length)
        except BaseException:
            self._hold(-held)
            raise
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(whole), str(held)
        environ[CHUNKED] = environ.pop("HTTP_TRANSFER_ENCODING", None) is not None
        if held > self._most:
            self._hold(-held)
            return -1
        return held

    def _pieces(self, taken: Any, length: int | None) -> Iterator[bytes]:
        """Up to the end; `length` is None where the server knows it alone (RFC 9112 §7.1)."""
        left = self._most + 1 if length is None else length
        while left and (piece := self._watch.read(taken, min(PIECE, left))):
            left -= len(piece)
            yield piece

    def _hold(self, octets: int) -> None:
        with self._lock:
            if octets > 0 and self._held + octets > MOST_HELD:
                raise _Refused(503, "busy", "Too many large requests at once; send it again in a moment.")
            self._held += octets

    def done(self, held: int) -> None:
        self._turns.put(None)
        if held:
            self._hold(-held)


class _Turn:
    """The application's answer. Its turn ends with it, also where the server drops it half-way."""

    __slots__ = ("_gate", "_held", "answer")

    def __init__(self, gate: Gate, held: int) -> None:
        self._gate: Gate | None = gate
        self._held = held
        self.answer: Iterable[bytes] = ()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.answer)

    def close(self) -> None:
        gate, self._gate = self._gate, None
        if gate is None:
            return
        try:
            if (close := getattr(self.answer, "close", None)) is not None:
                close()
        finally:
            gate.done(self._held)

    __del__ = close


def _incomplete(got: int, length: int) -> _Refused:
    return _Refused(400, "incomplete_body", f"The body ended after {got} of {length} octets.")


def _closing(start: Start) -> Start:
    return lambda status, headers, *rest: start(status, [*headers, ("Connection", "close")], *rest)


# --- whose body does not come --------------------------------------------------------------------------------


@dataclass(slots=True)
class _Seen:
    """A connection in the middle of a request: since when, and what had come and gone by then."""

    since: float
    received: int
    sent: int


class Watch:
    """Reads for the gate. One thread per process looks once a second, and only where somebody waits for long."""

    def __init__(self, late_s: float) -> None:
        self._late_s = late_s
        self._waits: dict[object, float] = {}
        #: requests that are worked on or wait for their turn, since when
        self.whole: dict[object, float] = {}
        self._seen: dict[str, _Seen] = {}
        self._ended_at = 0.0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def read(self, taken: Any, size: int) -> bytes:
        """`size` octets, or fewer at the body's end. Raises _Refused where it did not come in time."""
        if self._thread is None:
            self._begin()
        mark, began = object(), time.monotonic()
        self._waits[mark] = began
        try:
            piece: bytes = taken.read(size)
        finally:
            del self._waits[mark]
        # whose end it was, granian does not say: of those that waited while we ended some, each is taken for ours
        if len(piece) < size and self._ended_at >= began:
            BODIES_LATE.inc()
            raise _Refused(408, "body_timeout", "The body did not come in time. Nothing was stored; send it again.")
        return piece

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="bodies", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(_EVERY_S)
            try:
                self.look(time.monotonic())
            except Exception:  # a thread that ended would leave the connections that stand still to themselves
                log.exception("bodies that do not come are not looked for")

    def look(self, now: float) -> None:
        """End the connections that are late."""
        waits = list(self._waits.values())
        if not any(now - since >= _EVERY_S for since in waits):
            self._seen.clear()
            return
        late_s = SHORT_S if len(waits) > WEB_SPARE // 2 else self._late_s
        overdue = sum(now - since >= late_s for since in waits)
        open_now, idle = self._sort(now, late_s)
        # as many as wait, the oldest first: others may wait for a thread. Some may be whole; then their end is near
        doubt = _DOUBT if any(now - since >= late_s for since in list(self.whole.values())) else 1
        late = [(seen.since, c) for c, seen in open_now if now - seen.since >= doubt * late_s]
        ended = [c for _, c in sorted(late, key=itemgetter(0))[:overdue]]
        if overdue and not open_now:
            # after a 100 (Continue) a connection looks like one between two requests; those may be closed at any time
            ended = idle
        for inode, connection in ended:
            self._ended_at = time.monotonic()
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
            self._seen.pop(inode, None)
        if ended:
            log.info("%d connections ended whose request did not come whole", len(ended))
        for _, connection in [c for c, _ in open_now] + idle:
            connection.close()

    def _sort(
        self, now: float, late_s: float
    ) -> tuple[list[tuple[tuple[str, socket.socket], _Seen]], list[tuple[str, socket.socket]]]:
        """Connections in the middle of a request, with since when; and those that have been quiet for late_s."""
        found, idle, seen_now = [], [], {}
        for inode, connection in _connections():
            info = _Info.of(connection)
            if info.between_requests:
                if now - max(info.sent_at, info.received_at) >= late_s:
                    idle.append((inode, connection))
                else:
                    connection.close()
                continue
            seen = self._seen.get(inode)
            if (
                seen is None
                or seen.sent != info.sent
                or (now - seen.since >= late_s and info.received - seen.received >= PIECE)
            ):
                seen = _Seen(info.received_at if seen is None else now, info.received, info.sent)
            seen_now[inode] = seen
            found.append(((inode, connection), seen))
        self._seen = seen_now
        return found, idle


@dataclass(frozen=True, slots=True)
class _Info:
    """Of tcp_info (linux/tcp.h): octets, and when the last ones went and came, by the clock time.monotonic()."""

    sent: int
    received: int
    sent_at: float
    received_at: float

    @classmethod
    def of(cls, connection: socket.socket) -> _Info:
        raw = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 208)
        now = time.monotonic()  # of each its own: a look may take longer than lies between two connections
        sent_ms, received_ms = struct.unpack_from("=I4xI", raw, 44)
        (received,) = struct.unpack_from("=Q", raw, 128)
        (sent,) = struct.unpack_from("=Q", raw, 200)
        return cls(sent, received, now - sent_ms / 1000, now - received_ms / 1000)

    @property
    def between_requests(self) -> bool:
        return self.received == 0 or (self.sent > 0 and self.sent_at >= self.received_at)


def _connections() -> Iterator[tuple[str, socket.socket]]:
    """The accepted ones of this process, each through a descriptor of ours, so that none is taken for another."""
    found: list[tuple[str, socket.socket]] = []
    listening: set[int] = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            inode = os.readlink(f"/proc/self/fd/{name}")
            if not inode.startswith("socket:"):
                continue
            connection = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # closed meanwhile
            continue
        try:
            if connection.family not in (socket.AF_INET, socket.AF_INET6) or connection.type != socket.SOCK_STREAM:
                connection.close()
            elif connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                listening.add(connection.getsockname()[1])
                connection.close()
            else:
                found.append((inode, connection))
        except OSError:
            connection.close()
    for inode, connection in found:
        try:
            ours = connection.getsockname()[1] in listening
        except OSError:
            ours = False
        if ours:
            yield inode, connection
        else:
            connection.close()
