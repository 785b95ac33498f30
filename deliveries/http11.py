"""HTTP/1.1 on one connection (RFC 9112): ask, read the answer, and ask again where both sides allow it.

h11 writes and reads the octets. Who is connected to, and whether that is allowed, is fetch's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import h11

_PIECE = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` keep order and doubles, names in lower case; `body` has `max_octets` at most, `truncated` says more."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    truncated: bool


class Line:
    """A connection, asked one thing at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        self.address = address  #: the IP literal that was connected to
        self.made_at = self.used_at = time.monotonic()
        #: whether anything of the answer has come
        self.heard = False
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.CLIENT)
        self._ready = True

    @property
    def open(self) -> bool:
        """Whether it may be asked again: the last answer was complete, and neither side has closed."""
        return self._ready and not self._reader.at_eof() and not self._writer.is_closing()

    async def ask(
        self, method: str, target: bytes, headers: Sequence[tuple[str, str]], content: bytes | None, max_octets: int
    ) -> Answer:
        """Raises h11.ProtocolError and OSError. A header with a line break is refused before anything is sent."""
        self.heard = self._ready = False
        length = [] if content is None else [("content-length", str(len(content)))]
        parts = [h11.Request(method=method, target=target, headers=[*headers, *length])]
        events = [*parts, h11.Data(content or b""), h11.EndOfMessage()]
        self._writer.write(b"".join(self._http.send(event) or b"" for event in events))
        with contextlib.suppress(ConnectionError):  # whoever does not want the body may have answered already
            await self._writer.drain()
        answer = await self._answer(max_octets)
        self.used_at = time.monotonic()
        # RFC 9112 §9.3; octets behind an answer belong to none
        if self._http.our_state is self._http.their_state is h11.DONE and not self._http.trailing_data[0]:
            self._http.start_next_cycle()
            self._ready = True
        return answer

    async def _answer(self, max_octets: int) -> Answer:
        head: h11.Response | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                octets = await self._reader.read(_PIECE)
                self.heard = self.heard or bool(octets)
                self._http.receive_data(octets)
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif not isinstance(event, h11.InformationalResponse | h11.EndOfMessage):
                raise h11.RemoteProtocolError("the connection ended, or changed its protocol, before an answer")
            if head and (isinstance(event, h11.EndOfMessage) or len(body) > max_octets):
                headers = tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in head.headers)
                return Answer(head.status_code, headers, bytes(body[:max_octets]), len(body) > max_octets)

    def close(self) -> None:
        # the answer is here, or nobody wants it: there is nothing to wait for
        self._writer.transport.abort()


class Kept:
    """Connections that wait to be asked again, for whoever asks the same hosts many times; of one event loop.

    They were checked when they were made, so none is kept for long; and not for so long that the other side closes it
    at the very moment it is used (Node.js does after five seconds).
    """

    IDLE_S = 3.0
    AGE_S = 30.0
    MOST = 64

    def __init__(self) -> None:
        self._idle: dict[Hashable, list[Line]] = {}
        self._count = 0
        self._closed = False

    def take(self, key: Hashable) -> Line | None:
        lines = self._idle.get(key, [])
        while lines:
            line = lines.pop()
            self._count -= 1
            now = time.monotonic()
            if line.open and now - line.used_at < self.IDLE_S and now - line.made_at < self.AGE_S:
                return line
            line.close()
        return None

    def give(self, key: Hashable, line: Line) -> None:
        if self._closed or not line.open or self._count >= self.MOST:
            line.close()
            return
        self._idle.setdefault(key, []).append(line)
        self._count += 1

    def close(self) -> None:
        self._closed = True
        for lines in self._idle.values():
            for line in lines:
                line.close()
        self._idle.clear()
