"""One SMTP connection, seen from the client: octets in, whole replies out (RFC 5321 §4.2).

Built on aiosmtplib's `SMTPProtocol`, from which it has flow control, the guarded `write` and the refusal of control
characters in commands. Its reading is replaced, because there one reply belongs to one awaited command and anything
else is dropped or paired with the next one (docs/decisions/session.md). Here replies are matched by count
(RFC 2920 §3.1), so that several commands may be on their way, and a reply nobody asked for ends the connection.

In order of use: `connect`, `reply` (the greeting), then `send` and one `reply` per command, `upgrade` after a 220 to
STARTTLS, `write_data` and `drain` for mail data, `abort`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import cast

from aiosmtplib.errors import SMTPServerDisconnected
from aiosmtplib.protocol import COMMAND_INJECTION_REGEX, SMTPProtocol

from deliveries.errors import ComposeError
from deliveries.smtp.hop import Hop
from deliveries.smtp.limits import MAX_REPLY_LINE_OCTETS, MAX_REPLY_LINES, MAX_REPLY_OCTETS
from deliveries.smtp.reply import Reply, clean
from deliveries.states import Category

_FIRST_DIGITS = b"2345"
_AFTER_CODE = (b"", b" ", b"-")


class WireError(Exception):
    """The connection cannot go on; always caught by the session, which turns it into an outcome."""

    cause = Category.NETWORK


class Lost(WireError):
    """Closed or reset by the peer, or never made."""


class TimedOut(WireError):
    """The peer did not answer within the timer of the command (RFC 5321 §4.5.3.2)."""


class Garbled(WireError):
    """What came is not an SMTP reply, or is one too many."""

    cause = Category.PROTOCOL


class Wire(SMTPProtocol):
    """The connection. `asked` replies are outstanding; the greeting is the first of them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.failure: WireError | None = None
        self.unasked: Reply | None = None  #: what the server said with no command outstanding; the connection is over
        self.closing = False  #: a 421 was seen: the server will close, or has (RFC 5321 §3.8)
        self._inbox = bytearray()
        self._replies: deque[Reply] = deque()
        self._asked = 1
        self._waiter: asyncio.Future[None] | None = None
        self._code = b""
        self._lines: list[str] = []
        self._octets = 0

    # --- asyncio calls these ----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.failure is not None:
            return
        inbox = self._inbox
        inbox += data
        start = 0
        while (end := inbox.find(b"\n", start)) >= 0 and self.failure is None:
            self._line(bytes(inbox[start:end]))
            start = end + 1
        if start:
            del inbox[:start]
        if len(inbox) > MAX_REPLY_LINE_OCTETS:
            self._fail(Garbled("a reply line without end"))

    def eof_received(self) -> bool:
        self._fail(Lost("connection closed by the server"))
        return False  # False closes our side too

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(Lost(f"connection lost: {_words(exc)}" if exc else "connection lost"))
        super().connection_lost(exc)

    # --- reading ----------------------------------------------------------------------------------

    async def reply(self, timeout_s: float) -> Reply:
        """The next reply in order. A reply that was complete before the connection broke still counts."""
        if not self._replies:
            if self.failure is not None:
                raise self.failure
            waiter = self._waiter = self._loop.create_future()
            timer = self._loop.call_later(max(timeout_s, 0.0), _expire, waiter, timeout_s)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        return self._replies.popleft()

    def raise_if_garbled(self) -> None:
        """Where a reply is followed by one that nobody asked for, neither can be trusted (except the last one)."""
        if isinstance(self.failure, Garbled):
            raise self.failure

    @property
    def usable(self) -> bool:
        """Whether another transaction may be tried here."""
        return (
            self.failure is None
            and not self.closing
            and self._asked == 0
            and not self._replies
            and not self._inbox
            and self.is_connected
        )

    def _line(self, line: bytes) -> None:
        line = line.removesuffix(b"\r")
        self._octets += len(line)
        code, mark = line[:3], line[3:4]
        if len(line) > MAX_REPLY_LINE_OCTETS or self._octets > MAX_REPLY_OCTETS or len(self._lines) >= MAX_REPLY_LINES:
            return self._fail(Garbled("the reply is too long"))
        # RFC 5321 §4.2: exactly three digits, the first one 2 to 5, then space, hyphen or nothing
        if len(code) != 3 or not code.isdigit() or code[0] not in _FIRST_DIGITS or mark not in _AFTER_CODE:
            return self._fail(Garbled(f"not an SMTP reply: {_shown(line)}"))
        if self._lines and code != self._code:
            # RFC 5321 §4.2.1: every line of a reply carries the same code
            return self._fail(Garbled(f"reply with two codes: {self._code.decode()} and {code.decode()}"))
        self._code = code
        self._lines.append(clean(line[4:].decode("utf-8", "replace")))
        if mark == b"-":
            return None
        reply = Reply(int(code), tuple(self._lines))
        self._lines, self._octets = [], 0
        return self._whole(reply)

    def _whole(self, reply: Reply) -> None:
        if reply.code == 421:
            self.closing = True
        if self._asked:
            self._asked -= 1
            self._replies.append(reply)
            self._wake()
            return
        self.unasked = reply
        if reply.code == 421:
            # RFC 5321 §3.8: a server may say 421 at any time, before it closes
            self._fail(Lost(f"server closes: {reply.text}"))
        else:
            self._fail(Garbled(f"a reply to no command: {reply.text[:200]}"))

    def _fail(self, failure: WireError) -> None:
        if self.failure is None:
            self.failure = failure
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            if self._replies:
                waiter.set_result(None)
            elif self.failure is not None:
                waiter.set_exception(self.failure)

    # --- writing ----------------------------------------------------------------------------------

    def send(self, *commands: str) -> None:
        """Write commands in one piece; each will be answered by one reply."""
        lines = []
        for command in commands:
            octets = command.encode()
            if COMMAND_INJECTION_REGEX.search(octets):
                raise ComposeError("control character in an SMTP command")
            lines.append(octets)
        self._asked += len(lines)
        self._put(b"\r\n".join(lines) + b"\r\n")

    def write_data(self, octets: bytes | memoryview, *, asks: bool = False) -> None:
        """Write mail data; `asks` with the final dot, which is answered."""
        if asks:
            self._asked += 1
        self._put(cast(bytes, octets))

    def _put(self, octets: bytes) -> None:
        if self.failure is not None:
            raise self.failure
        try:
            self.write(octets)
        except SMTPServerDisconnected as error:
            raise Lost("connection lost") from error

    async def drain(self, timeout_s: float) -> None:
        """Wait until the peer has read enough of what was written."""
        if not self._paused:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._drain_helper()
        except TimeoutError as error:
            raise TimedOut(f"the server did not read for {timeout_s:g} s") from error
        except OSError as error:
            # what broke first says more than the reset that followed it
            raise self.failure or Lost(f"connection lost: {_words(error)}") from error

    async def upgrade(self, context: ssl.SSLContext, server_name: str, timeout_s: float) -> None:
        """TLS on this connection, after a 220 to STARTTLS. Raises OSError (ssl.SSLError is one) when it fails."""
        # RFC 3207 §4.2: whatever came in clear behind the 220 is thrown away, it may be an attacker's
        self._inbox.clear()
        self._replies.clear()
        self._lines, self._octets = [], 0
        if isinstance(self.failure, Garbled):
            self.failure = None
        if self.failure is not None or not self.is_connected:
            raise ConnectionResetError("connection lost before the handshake")
        plain = cast(asyncio.Transport, self.transport)
        self.transport = await self._loop.start_tls(
            plain, self, context, server_hostname=server_name, ssl_handshake_timeout=timeout_s
        )
        self._over_ssl = True
        if self.transport is None:
            raise ConnectionResetError("connection lost in the handshake")

    def abort(self) -> None:
        """Drop the connection without a word: on a timed-out socket neither RSET nor QUIT has a meaning."""
        self._fail(Lost("connection dropped"))
        if self.transport is not None:
            cast(asyncio.Transport, self.transport).abort()

    @property
    def tls_object(self) -> ssl.SSLObject | None:
        """The TLS state, None in clear text or on a lost connection."""
        return self.transport.get_extra_info("ssl_object") if self.transport is not None else None


async def connect(
    hop: Hop, timeout_s: float, *, context: ssl.SSLContext | None = None, server_name: str | None = None
) -> Wire:
    """A connection to the hop's address, with TLS from the first octet when `context` is given. Raises OSError."""
    loop = asyncio.get_running_loop()
    source = (hop.source, 0) if hop.source else None
    async with asyncio.timeout(max(timeout_s, 0.0)):
        _, wire = await loop.create_connection(
            lambda: Wire(loop),
            hop.address,
            hop.port,
            local_addr=source,
            ssl=context,
            server_hostname=server_name if context else None,
        )
    return wire


def _expire(waiter: asyncio.Future[None], timeout_s: float) -> None:
    if not waiter.done():
        waiter.set_exception(TimedOut(f"no reply within {timeout_s:g} s"))


def _words(error: BaseException) -> str:
    return clean(str(error) or type(error).__name__)


def _shown(line: bytes) -> str:
    return clean(line[:80].decode("utf-8", "replace"))
