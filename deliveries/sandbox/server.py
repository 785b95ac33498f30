"""The lab's SMTP (RFC 5321 §4.1), one `Conversation` per connection; it offers what it can do and nothing else.

Commands of a pipelined group are answered in one write (RFC 2920 §3.2). A behaviour may pause or drop a conversation
at RCPT, DATA or the final dot. Left out: AUTH, VRFY and relaying: only `simulator.test` exists here.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from deliveries.sandbox.behaviours import DOMAIN, Behaviour, behaviour_of
from deliveries.sandbox.spool import Accepted, Spool
from deliveries.smtp.limits import MAX_COMMAND_OCTETS, MAX_RECIPIENTS
from deliveries.smtp.path import BadPath, parse_path_argument

#: RFC 5321 §4.5.3.2.7: a server waits at least five minutes for the next command
_IDLE_S = 300.0
_MAX_GREYLISTED = 100_000


@dataclass(slots=True)
class Desk:
    """What all conversations of a lab share."""

    host: str
    spool: Spool
    context: ssl.SSLContext | None
    slow_s: float
    max_size_octets: int
    on_accepted: Callable[[Accepted, Behaviour], None]
    any_domain: bool = False  #: whatever DNS leads here is taken, with the behaviour of its local part
    greylisted: OrderedDict[tuple[str, str], None] = field(default_factory=OrderedDict)
    conversations: set[Conversation] = field(default_factory=set)

    def seen_before(self, reverse_path: str, forward_path: str) -> bool:
        """Greylisting: whether this pair was here before; remembers it."""
        key = (reverse_path, forward_path.lower())
        if key in self.greylisted:
            return True
        self.greylisted[key] = None
        if len(self.greylisted) > _MAX_GREYLISTED:
            self.greylisted.popitem(last=False)
        return False


class Conversation(asyncio.Protocol):
    """One client. `_paused` while a slow answer or a TLS handshake is on its way; input waits in `_inbox`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._inbox = bytearray()
        self._out = bytearray()
        self._paused = False
        self._in_data = False
        self._scanned = 0
        self._helo = ""
        self._tls = ""
        self._peer = ""
        self._idle: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._reverse_path: str | None = None
        self._forward_paths: list[str] = []
        self._behaviours: list[Behaviour] = []

    # --- asyncio calls these ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._tls == "pending":
            return
        self._peer = (transport.get_extra_info("peername") or ("",))[0]
        self._desk.conversations.add(self)
        self._touch()
        self._transport.write(f"220 {self._desk.host} ESMTP receiver lab\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self._inbox += data
        if not self._paused:
            self._work()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._desk.conversations.discard(self)
        if self._idle:
            self._idle.cancel()

    def hang_up(self) -> None:
        if self._transport:
            self._transport.abort()

    # --- the loop over what came ------------------------------------------------------------------

    def _work(self) -> None:
        self._touch()
        while self._transport is not None and not self._paused:
            if self._in_data:
                if not self._collect():
                    break
                continue
            end = self._inbox.find(b"\n")
            if end < 0:
                if len(self._inbox) > MAX_COMMAND_OCTETS:
                    self._say("500 5.5.2 Line too long")
                    self._close()
                break
            line = bytes(self._inbox[:end]).removesuffix(b"\r")
            del self._inbox[: end + 1]
            self._command(line.decode("utf-8", "replace"))
        self._flush()

    def _command(self, line: str) -> None:
        verb, _, argument = line.partition(" ")
        match verb.upper():
            case "EHLO" | "LHLO":
                self._ehlo(argument)
            case "HELO":
                self._forget()
                self._helo = argument or "?"
                self._say(f"250 {self._desk.host}")
            case "MAIL":
                self._mail(argument)
            case "RCPT":
                self._rcpt(argument)
            case "DATA":
                self._data()
            case "RSET":
                self._forget()
                self._say("250 2.0.0 Ok")
            case "NOOP":
                self._say("250 2.0.0 Ok")
            case "STARTTLS":
                self._starttls()
            case "QUIT":
                self._say("221 2.0.0 Bye")
                self._close()
            case _:
                self._say("500 5.5.1 Command not known")

    # --- verbs ------------------------------------------------------------------------------------

    def _ehlo(self, name: str) -> None:
        if not name:
            return self._say("501 5.5.4 EHLO needs a name")
        self._forget()
        self._helo = name
        offers = ["PIPELINING", f"SIZE {self._desk.max_size_octets}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        if self._desk.context and not self._tls:
            offers.append("STARTTLS")
        words = [self._desk.host, *offers]
        for word in words[:-1]:
            self._say(f"250-{word}")
        self._say(f"250 {words[-1]}")

    def _mail(self, argument: str) -> None:
        if not self._helo:
            return self._say("503 5.5.1 EHLO first")
        if self._reverse_path is not None:
            return self._say("503 5.5.1 Sender already given")
        path = parse_path_argument(argument, "FROM")
        if isinstance(path, BadPath):
            return self._say(f"501 5.1.7 {path.text}")
        size = path.parameters.get("SIZE", "0")
        if size.isdigit() and len(size) < 18 and int(size) > self._desk.max_size_octets:
            return self._say("552 5.3.4 Message too big")
        self._reverse_path = path.mailbox
        self._say("250 2.1.0 Ok")

    def _rcpt(self, argument: str) -> None:
        if self._reverse_path is None:
            return self._say("503 5.5.1 MAIL first")
        path = parse_path_argument(argument, "TO")
        if isinstance(path, BadPath):
            return self._say(f"501 5.1.3 {path.text}")
        if len(self._forward_paths) >= MAX_RECIPIENTS:
            return self._say("452 4.5.3 Too many recipients")
        local_part, _, domain = path.mailbox.rpartition("@")
        if domain.lower().rstrip(".") != DOMAIN and not self._desk.any_domain:
            return self._say("550 5.7.1 Relaying denied")
        behaviour = behaviour_of(local_part)
        if behaviour is None:
            return self._say("550 5.1.1 No such user here")
        if behaviour.needs_tls and not self._tls:
            return self._say("530 5.7.0 Must issue a STARTTLS command first")
        reply = behaviour.rcpt
        if reply and not (behaviour.rcpt_once and self._desk.seen_before(self._reverse_path, path.mailbox)):
            self._say(reply)
            if behaviour.closes_at_rcpt:
                self._close()
            return None
        self._forward_paths.append(path.mailbox)
        self._behaviours.append(behaviour)
        return self._say("250 2.1.5 Ok", slow=behaviour.slow)

    def _data(self) -> None:
        if not self._forward_paths:
            return self._say("503 5.5.1 RCPT first" if self._reverse_path is None else "554 5.5.1 No valid recipients")
        if any(b.drops_at_data for b in self._behaviours):
            self._flush()
            return self.hang_up()
        self._in_data = True
        self._scanned = 0
        return self._say("354 End data with <CR><LF>.<CR><LF>", slow=self._slow)

    def _collect(self) -> bool:
        """Whether the final dot was there. RFC 5321 §4.1.1.4: it is CRLF.CRLF and nothing else."""
        inbox = self._inbox
        if inbox.startswith(b".\r\n"):
            end, octets = 3, b""
        else:
            at = inbox.find(b"\r\n.\r\n", self._scanned)
            if at < 0:
                self._scanned = max(len(inbox) - 4, 0)
                if len(inbox) > self._desk.max_size_octets * 2:
                    self.hang_up()
                return False
            end, octets = at + 5, bytes(inbox[: at + 2])
        del inbox[:end]
        self._in_data = False
        if octets.startswith(b"."):
            octets = octets[1:]
        self._accept(octets.replace(b"\r\n..", b"\r\n."))
        return True

    def _accept(self, octets: bytes) -> None:
        if len(octets) > self._desk.max_size_octets:
            self._forget()
            return self._say("552 5.3.4 Message too big")
        chief = next((b for b in self._behaviours if b.report or b.drops_at_dot), self._behaviours[0])
        mail = self._desk.spool.add(
            octets,
            peer=self._peer,
            helo=self._helo,
            tls=self._tls,
            reverse_path=self._reverse_path or "",
            forward_paths=tuple(self._forward_paths),
            behaviour=chief.name,
        )
        slow = self._slow
        self._forget()
        self._desk.on_accepted(mail, chief)
        if chief.drops_at_dot:
            self._flush()
            return self.hang_up()
        return self._say(f"250 2.0.0 Ok: kept as {mail.number}", slow=slow)

    def _starttls(self) -> None:
        context = self._desk.context
        if context is None or self._tls or self._transport is None:
            return self._say("503 5.5.1 TLS not available")
        self._say("220 2.0.0 Ready to start TLS")
        self._flush()
        self._paused = True
        # RFC 3207 §4.2: what was sent in clear before or beside the handshake is forgotten
        self._inbox.clear()
        self._forget()
        self._helo, self._tls = "", "pending"
        task = self._loop.create_task(self._handshake(self._transport, context))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return None

    async def _handshake(self, plain: asyncio.Transport, context: ssl.SSLContext) -> None:
        try:
            secured = await self._loop.start_tls(plain, self, context, server_side=True, ssl_handshake_timeout=30)
        except OSError:  # ssl.SSLError is one: a client that will not have our certificate
            plain.abort()
            return
        if secured is None:
            return
        self._transport = secured
        self._tls = secured.get_extra_info("ssl_object").version() or "TLS"
        self._paused = False
        self._work()

    # --- below the verbs --------------------------------------------------------------------------

    @property
    def _slow(self) -> bool:
        return any(b.slow for b in self._behaviours)

    def _forget(self) -> None:
        self._reverse_path = None
        self._forward_paths = []
        self._behaviours = []

    def _say(self, reply: str, *, slow: bool = False) -> None:
        if not slow:
            self._out += reply.encode() + b"\r\n"
            return
        self._flush()
        self._paused = True
        self._loop.call_later(self._desk.slow_s, self._say_late, reply)

    def _say_late(self, reply: str) -> None:
        self._paused = False
        self._out += reply.encode() + b"\r\n"
        self._work()

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            self._transport.write(bytes(self._out))
        self._out.clear()

    def _close(self) -> None:
        self._flush()
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _touch(self) -> None:
        now = self._loop.time()
        self._last = now
        if self._idle is None:
            self._idle = self._loop.call_later(_IDLE_S, self._check_idle)

    def _check_idle(self) -> None:
        left = self._last + _IDLE_S - self._loop.time()
        if left > 0:
            self._idle = self._loop.call_later(left, self._check_idle)
        else:
            self.hang_up()
