"""One client at our listener: aiosmtpd 1.4.6 with the verbs that its defaults leave open made safe.

aiosmtpd keeps the loop over commands and STARTTLS. Ours are paths, relaying, recipients, limits, the data (`reading`)
and the checks on them, enhanced status codes (RFC 2034), and that 250 waits for `store` (docs/rfc.md, rules 28 and 30).
What submission adds is in `smtp.submission`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections import defaultdict
from collections.abc import Awaitable
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

from aiosmtpd.smtp import SMTP, Session, TLSSetupException
from aiosmtpd.smtp import Envelope as _Envelope

from deliveries.smtp.limits import (
    MAX_COMMAND_OCTETS,
    MAX_INBOUND_LINE_OCTETS,
    MAX_RECEIVED_HEADERS,
    MAX_RECIPIENTS,
)
from deliveries.smtp.path import BadPath, PathArgument, parse_path_argument, relay_shape
from deliveries.smtp.reading import read_data
from deliveries.smtp.received import COMMAND_LIMITS, Asked, Received, Refusal

if TYPE_CHECKING:
    from deliveries.smtp.listener import Listener

log = logging.getLogger(__name__)

_RECEIVED = re.compile(rb"(?im)^received[ \t]*:")
_HELO = re.compile(r"[^A-Za-z0-9.:_\[\]-]")
#: verbs of aiosmtpd that we do not speak
_UNSPOKEN = ("AUTH", "EXPN", "HELP", "VRFY")
#: octets of a BDAT chunk follow at once, and would be read as commands
_CHUNKING = "BDAT"
#: a reply without an enhanced status code
_UNCODED = re.compile(r"([245])\d\d(?=[ -](?![245]\.\d{1,3}\.\d))")
#: RFC 3463 §3.6: what the codes of aiosmtpd's own replies mean
_CODES = {"2": "2.0.0", "4": "4.3.0", "5": "5.5.1"}
_CODES_OF = {"501": "5.5.4", "552": "5.3.4"}
#: octets that count as getting on; by drops nobody comes to them soon
_STRIDE_OCTETS = 4_096


class Transaction(_Envelope):
    """aiosmtpd's envelope, with the null reverse-path told apart from none."""

    def __init__(self) -> None:
        super().__init__()
        self.reverse_path: str | None = None
        # submission's: SMTPUTF8, RET and ENVID of MAIL, and what each RCPT asks for (RFC 3461)
        self.utf8 = False
        self.ret = self.envid = ""
        self.asked: dict[str, Asked] = {}


class Conversation(SMTP):
    """Counted in at the listener for as long as the connection stands."""

    envelope: Transaction
    session: Session
    transport: Any
    command_size_limit = MAX_COMMAND_OCTETS
    command_size_limits = defaultdict(lambda: MAX_COMMAND_OCTETS)
    line_length_limit = MAX_INBOUND_LINE_OCTETS
    #: parameters of MAIL and RCPT that are spoken
    mail_parameters: frozenset[str] = frozenset({"SIZE", "BODY", "SMTPUTF8", "AUTH"})
    rcpt_parameters: frozenset[str] = frozenset()
    #: the words with which a stored mail is answered
    stored_as = "stored as"

    def __init__(self, listener: Listener) -> None:
        bounds = listener.bounds
        super().__init__(
            self,
            data_size_limit=bounds.max_size_octets,
            enable_SMTPUTF8=True,
            hostname=listener.hostname,
            ident="ESMTP",
            tls_context=listener.tls,
            timeout=bounds.idle_s,
            command_call_limit=COMMAND_LIMITS,
            loop=asyncio.get_running_loop(),
        )
        for verb in _UNSPOKEN:
            self._smtp_methods[verb] = self._not_spoken
        self._smtp_methods[_CHUNKING] = self._no_chunks
        self._listener = listener
        self._bounds = bounds
        self._peer = ""
        self._refused = False
        self._parting = False
        self._storing = False
        self._mails = 0
        self._refused_recipients = 0
        #: RFC 2034 §4: neither the greeting nor the answer to EHLO and HELO has an enhanced code
        self._coded = False
        self._touched = 0.0
        self._stride_octets = 0
        self.moved_at = self.loop.time()  #: the last reply of ours or stride of data, seconds of the loop's clock
        self._lifetime: asyncio.TimerHandle | None = None

    # --- the connection ---------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        if self._lifetime is None and not self._refused:
            self._peer = (transport.get_extra_info("peername") or ("",))[0]
            if not self._listener.admit(self, self._peer):
                self._refused = True
                transport.write(b"421 4.7.0 Too many connections, try again later\r\n")
                transport.close()
                return
            self._lifetime = self.loop.call_later(self._bounds.lifetime_s, self.abort)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        self._stride_octets += len(data)
        if self._stride_octets >= _STRIDE_OCTETS:
            self._move()
        # aiosmtpd counts the time since the last command only: a large mail over a slow line would be cut
        now = self.loop.time()
        if now - self._touched > 1 and self._timeout_handle is not None:
            self._touched = now
            self._reset_timeout()

    def eof_received(self) -> bool | None:
        return False if self._refused else super().eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        if self._lifetime:
            self._lifetime.cancel()
        self._listener.dismiss(self, self._peer)
        if not self._refused:
            super().connection_lost(error)

    def part(self) -> None:
        """Say 421 and close, but not before a mail that is being stored has its answer (RFC 5321 §3.8)."""
        self._parting = True
        # a TLS transport that is closing already takes no more octets, and says so by an AttributeError
        if not self._storing and self.transport is not None and not self.transport.is_closing():
            self._writer.write(b"421 4.3.2 Service shutting down\r\n")
            self.transport.close()

    async def push(self, status: Any) -> None:
        self._move()
        if self._coded and (found := _UNCODED.match(status)):
            code = found[0]
            status = f"{code} {_CODES_OF.get(code, _CODES[found[1]])}{status[3:]}"
        self._coded = True
        await super().push(status)

    def _move(self) -> None:
        self.moved_at, self._stride_octets = self.loop.time(), 0

    @property
    def may_give_way(self) -> bool:
        return not self._storing and self.transport is not None

    def give_way(self) -> None:
        """Its place is needed: counted out at once, for the end of a connection takes its time."""
        self._listener.dismiss(self, self._peer)
        self.abort()

    def abort(self) -> None:
        if self.transport is not None:
            transport: Any = self._original_transport or self.transport
            transport.abort()

    async def handle_exception(self, error: Exception) -> str:
        """A bug of ours is answered as temporary: the client keeps the mail."""
        if isinstance(error, TLSSetupException):  # the connection is closed without a word
            log.info("no handshake with %s: %s", self._peer, error.__cause__)
            return ""
        log.error("conversation with %s failed", self._peer, exc_info=error)
        return "451 4.3.0 Internal error"

    # --- verbs ------------------------------------------------------------------------------------

    async def smtp_EHLO(self, hostname: str | None) -> None:
        if not hostname:
            return await self.push("501 5.5.4 EHLO needs a name")
        self._set_rset_state()
        self.session.extended_smtp = True
        self.session.host_name = hostname
        offers = [self.hostname, *self.offers()]
        self._coded = False
        await self.push("\r\n".join([*(f"250-{offer}" for offer in offers[:-1]), f"250 {offers[-1]}"]))

    async def smtp_HELO(self, hostname: str) -> None:
        self._coded = not hostname
        await super().smtp_HELO(hostname)

    async def smtp_STARTTLS(self, arg: str | None) -> None:
        if self._encrypted:
            return await self.push("503 5.5.1 TLS is on already")
        await super().smtp_STARTTLS(arg or "")
        return None

    def offers(self) -> list[str]:
        """The keywords of the answer to EHLO (RFC 5321 §4.1.1.1)."""
        size = f"SIZE {self._bounds.max_size_octets}"
        offers = ["PIPELINING", size, "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        return [*offers, "STARTTLS"] if self.tls_context and not self._encrypted else offers

    async def smtp_MAIL(self, arg: str | None) -> None:
        if await self.check_helo_needed():
            return None
        if self.envelope.reverse_path is not None:
            return await self.push("503 5.5.1 Sender already given")
        if self._mails >= self._bounds.max_mails:
            await self.push("421 4.7.0 Enough mails for one connection")
            self.transport.close()
            return None
        path = parse_path_argument(arg or "", "FROM")
        if isinstance(path, BadPath):
            return await self.push(f"501 5.1.7 {path.text}")
        if unknown := path.parameters.keys() - self.mail_parameters:
            return await self.push(f"555 5.5.4 {min(unknown)} is not offered")
        size = path.parameters.get("SIZE", "0")
        if not (size.isascii() and size.isdigit() and len(size) <= 20):
            return await self.push("501 5.5.4 SIZE is a number")
        if int(size) > self._bounds.max_size_octets:
            return await self.push("552 5.3.4 Message too big")
        if path.parameters.get("BODY", "7BIT").upper() not in ("7BIT", "8BITMIME"):
            return await self.push("501 5.5.4 BODY is 7BIT or 8BITMIME")
        if (refusal := self.asked_of_mail(path)) is not None:
            return await self.push(f"{refusal.code} {refusal.text}")
        self.envelope.reverse_path = path.mailbox
        await self.push("250 2.1.0 Ok")

    async def smtp_RCPT(self, arg: str | None) -> None:
        if await self.check_helo_needed():
            return None
        if self.envelope.reverse_path is None:
            return await self.push("503 5.5.1 MAIL first")
        path = parse_path_argument(arg or "", "TO")
        if isinstance(path, BadPath) or not path.mailbox:
            return await self._refuse(f"501 5.1.3 {path.text if isinstance(path, BadPath) else 'empty path'}")
        if unknown := path.parameters.keys() - self.rcpt_parameters:
            return await self.push(f"555 5.5.4 {min(unknown)} is not offered")
        if relay_shape(path):
            return await self._refuse("550 5.7.1 Relaying denied")
        if len(self.envelope.rcpt_tos) >= MAX_RECIPIENTS:
            # RFC 5321 §4.5.3.1.10: the client sends the rest in another transaction
            return await self.push("452 4.5.3 Too many recipients")
        refusal = self.asked_of_rcpt(path) or self._listener.accept_rcpt(path.mailbox)
        if isinstance(refusal, Awaitable):
            refusal = await refusal
        if refusal is not None:
            return await self._refuse(f"{refusal.code} {refusal.text}")
        if path.mailbox not in self.envelope.rcpt_tos:
            self.envelope.rcpt_tos.append(path.mailbox)
        await self.push("250 2.1.5 Ok")

    async def smtp_DATA(self, arg: str | None) -> None:
        if await self.check_helo_needed():
            return None
        if self.envelope.reverse_path is None:
            return await self.push("503 5.5.1 MAIL and RCPT first")
        if arg:
            return await self.push("501 5.5.4 DATA has no argument")
        if not self.envelope.rcpt_tos:
            return await self.push("554 5.5.1 No valid recipients")
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        envelope = self.envelope
        with self._listener.room.share() as share:
            read = await read_data(self._reader, share, self._bounds.max_size_octets)
            reply = read if isinstance(read, str) else await self._answer(read, envelope)
        self._set_post_data_state()
        await self.push(reply)
        if self._parting:
            self.part()

    async def _answer(self, octets: bytes, envelope: Transaction) -> str:
        """The reply to the final dot."""
        if wrong := _wrong_data(octets):
            return wrong
        mail = self._received(octets, envelope)
        self._storing = True
        try:
            stored = await self._listener.store(mail)
        except Exception:
            # whatever it was, the mail is not ours: the client must keep it and come again
            log.exception("mail %s from %s could not be stored", mail.id, self._peer)
            return "451 4.3.0 Mail could not be stored, try again later"
        finally:
            self._storing = False
        if isinstance(stored, Refusal):
            return f"{stored.code} {stored.text}"
        self._mails += 1
        return f"250 2.6.0 Ok: {self.stored_as} {stored or mail.id}"

    # --- what submission adds to ---------------------------------------------------------------------

    def asked_of_mail(self, path: PathArgument) -> Refusal | None:
        """Keep what further parameters of MAIL ask for, or say why not."""
        return None

    def asked_of_rcpt(self, path: PathArgument) -> Refusal | None:
        """The same for RCPT."""
        return None

    # --- below the verbs --------------------------------------------------------------------------

    def _create_envelope(self) -> Transaction:
        return Transaction()

    @property
    def _encrypted(self) -> bool:
        return self._tls_version != ""

    @property
    def _tls_version(self) -> str:
        tls = self.transport.get_extra_info("ssl_object") if self.transport is not None else None
        return (tls.version() or "TLS") if tls is not None else ""

    async def _refuse(self, reply: str) -> None:
        self._refused_recipients += 1
        if self._refused_recipients <= self._bounds.max_refused_recipients:
            return await self.push(reply)
        await self.push("421 4.7.0 Too many unknown recipients")
        self.transport.close()
        return None

    async def _not_spoken(self, arg: str | None) -> None:
        await self.push("502 5.5.1 Command not implemented")

    async def _no_chunks(self, arg: str | None) -> None:
        await self.push("502 5.5.1 Command not implemented")
        self.transport.close()

    def _received(self, octets: bytes, envelope: Transaction) -> Received:
        at = datetime.now(UTC)
        mark = uuid.uuid4().hex[:16]
        helo = _HELO.sub("?", self.session.host_name or "?")[:255]
        protocol = "ESMTP" if self.session.extended_smtp else "SMTP"
        if self._encrypted:
            protocol += "S"  # RFC 3848
        # RFC 5321 §4.4: from, by, with, id, date; no FOR, which would tell one recipient of another
        line = (
            f"Received: from {helo} ([{_literal(self._peer)}])\r\n"
            f"\tby {self.hostname} with {protocol} id {mark};\r\n\t{format_datetime(at)}\r\n"
        )
        return Received(
            id=mark,
            peer=self._peer,
            helo=helo,
            reverse_path=envelope.reverse_path or "",
            forward_paths=tuple(envelope.rcpt_tos),
            octets=line.encode("ascii", "replace") + octets,
            tls=self._tls_version,
            at=at,
        )


def _wrong_data(octets: bytes) -> str | None:
    """The reply that refuses the data, None when it may be stored."""
    ends = octets.count(b"\r\n")
    if octets.count(b"\n") != ends or octets.count(b"\r") != ends:
        # RFC 5321 §2.3.8; another server's idea of a bare line end is how a second mail is smuggled in
        return "550 5.6.0 Bare CR or LF in the mail data"
    if b"\0" in octets:
        return "550 5.6.0 NUL in the mail data"
    head = octets.partition(b"\r\n\r\n")[0]
    if len(_RECEIVED.findall(head)) > MAX_RECEIVED_HEADERS:
        return "554 5.4.6 Too many hops, the mail goes in circles"
    return None


def _literal(peer: str) -> str:
    return f"IPv6:{peer}" if ":" in peer else peer
