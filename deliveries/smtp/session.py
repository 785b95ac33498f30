"""One session: a connection to one hop, and transactions over it, one forward-path each (RFC 5321 §3.3).

In order of use: `opening.open_session` makes a `SmtpSession`; `transact` any number of times; `close`. Implements
PIPELINING (RFC 2920) and the way without it in the same words, SIZE (RFC 1870), 8BITMIME (RFC 6152), SMTPUTF8
(RFC 6531), DSN where asked for (RFC 3461), LMTP for one recipient (RFC 2033). Left out: CHUNKING.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from deliveries.smtp import data, path
from deliveries.smtp.connection import Garbled, TimedOut, Wire, WireError
from deliveries.smtp.hop import Dsn, Envelope, Hop
from deliveries.smtp.limits import BLOCK_OCTETS, QUIT_S
from deliveries.smtp.outcome import (
    Attempted,
    Broken,
    Outcome,
    Replied,
    Stage,
    TlsFacts,
    TlsFailure,
    Unable,
    Unanswered,
)
from deliveries.smtp.reply import BAD_SEQUENCE, EnhancedCode, Reply
from deliveries.smtp.transcript import Transcript
from deliveries.states import Category

#: RFC 1870 §6.1, RFC 3463 §3.4: message too big for system
TOO_BIG = EnhancedCode(5, 3, 4)
#: RFC 3463 §3.7: conversion required but not supported (8-bit content, no 8BITMIME)
NEEDS_8BITMIME = EnhancedCode(5, 6, 3)
#: RFC 6531 §4.2 (RFC 5248 registry): non-ASCII addresses not permitted there
NEEDS_SMTPUTF8 = EnhancedCode(5, 6, 7)

#: RFC 3463 §3.4: system not accepting network messages
NOT_ACCEPTING = EnhancedCode(4, 3, 2)

Gate = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Timers:
    """How long each answer may take, in seconds: RFC 5321 §4.5.3.2, connect and TLS from practice."""

    connect_s: float = 30
    greeting_s: float = 300
    hello_s: float = 300
    tls_s: float = 60
    auth_s: float = 120
    mail_s: float = 300
    rcpt_s: float = 300
    data_s: float = 120
    block_s: float = 180
    dot_s: float = 600
    rset_s: float = 20


class Deadline:
    """The outer bound of an attempt; `left` shortens a timer to what remains of it."""

    __slots__ = ("_at",)

    def __init__(self, seconds: float | None) -> None:
        self._at = None if seconds is None else time.monotonic() + seconds

    def left(self, timer_s: float) -> float:
        return timer_s if self._at is None else max(min(timer_s, self._at - time.monotonic()), 0.0)

    @property
    def passed(self) -> bool:
        return self._at is not None and time.monotonic() >= self._at


@dataclass(frozen=True, slots=True)
class Offer:
    """What the server said in its last EHLO. Empty after HELO."""

    extensions: Mapping[str, str] = field(default_factory=dict)  #: lower-case keyword → parameters
    auth: tuple[str, ...] = ()  #: lower-case mechanism names

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.extensions

    @property
    def max_size_octets(self) -> int:
        """RFC 1870 §4: 0 where no limit is known."""
        size = self.extensions.get("size", "")
        return int(size) if size.isascii() and size.isdigit() and len(size) <= 18 else 0


class SmtpSession:
    """A greeted, and where asked for protected and authenticated, connection."""

    def __init__(
        self,
        hop: Hop,
        wire: Wire,
        timers: Timers,
        offer: Offer,
        *,
        opened: Transcript,
        opened_at: datetime,
        preface: str,
        tls: TlsFacts | None,
        tls_failure: TlsFailure | None = None,
    ) -> None:
        self.hop = hop
        self.transactions = 0
        self.pipelining = "pipelining" in offer  #: set to False where the server is known to answer groups short
        self.tls = tls
        self.tls_failure = tls_failure
        self._wire = wire
        self._timers = timers
        self._offer = offer
        self._log = opened
        self._opened_at = opened_at
        self._preface = preface
        self._unfinished = False  #: a transaction was begun and not ended by a final dot: RSET comes first
        self._spent = False
        self._unwelcome = False  #: nothing is taken on this connection: QUIT, and the next mail on another one
        self._stage = Stage.MAIL

    @property
    def reusable(self) -> bool:
        return self._polite and not self._unwelcome

    @property
    def _polite(self) -> bool:
        """Whether the connection is in a state to be spoken to."""
        return not self._spent and self._wire.usable

    async def transact(
        self, envelope: Envelope, octets: bytes, gate: Gate, deadline: Deadline | None = None
    ) -> Attempted:
        """One mail transaction. `gate` is awaited right before the octets that hold the final dot are written.

        Raises ComposeError for an envelope that cannot stand on a command line, and whatever `gate` raises; the
        connection is dropped then.
        """
        log, started_at, reused = self._begin()
        deadline = deadline or Deadline(None)
        self._stage = Stage.MAIL
        finished = False
        try:
            outcome: Outcome | None = self._cannot_take(envelope, octets)
            if outcome is None:
                outcome = await self._envelope(envelope, octets, log, deadline)
            if outcome is None:
                outcome = await self._content(octets, gate, log, deadline)
            finished = True
        except WireError as error:
            finished = True
            early = self._early_refusal(log)
            self._drop()
            log.note(str(error))
            outcome = early or self._broken(error)
        finally:
            if not finished:
                self._drop()  # cancelled, or the gate stayed shut: this conversation is in the middle of a mail
        self.transactions += 1
        if isinstance(outcome, Replied) and outcome.reply.code == 421:
            self._spent = True
        elif isinstance(outcome, Replied) and outcome.reply.enhanced == NOT_ACCEPTING:
            # Postfix's postscreen says it to every mail of a stranger's connection, and lets the next connection in
            self._unwelcome = True
        return Attempted(
            hop=self.hop,
            outcome=outcome,
            started_at=started_at,
            finished_at=datetime.now(UTC),
            transcript=log.render(),
            tls=self.tls,
            reused=reused,
            tls_failure=self.tls_failure,
        )

    async def close(self) -> None:
        """QUIT where the connection is in order, and wait for the answer, but not for long."""
        if self._polite:
            try:
                self._wire.send("QUIT")
                await self._wire.reply(QUIT_S)
            except WireError:
                pass
        self._drop()

    # --- the verbs of a transaction ---------------------------------------------------------------

    def _begin(self) -> tuple[Transcript, datetime, bool]:
        if self.transactions == 0:
            return self._log, self._opened_at, False
        log = Transcript()
        log.note(f"connection reused after {self.transactions} transactions: {self._preface}")
        return log, datetime.now(UTC), True

    def _cannot_take(self, envelope: Envelope, octets: bytes) -> Unable | None:
        """What EHLO already tells: nothing is sent then, and the connection stays good."""
        limit = self._offer.max_size_octets
        if limit and len(octets) > limit:
            text = f"message of {len(octets)} octets is above the limit of {limit} that {self.hop.host} announces"
            return Unable(Stage.MAIL, TOO_BIG, Category.MESSAGE_TOO_LARGE, text)
        if self._needs_utf8(envelope) and "smtputf8" not in self._offer:
            text = f"{self.hop.host} does not offer SMTPUTF8, which this address or header needs"
            return Unable(Stage.MAIL, NEEDS_SMTPUTF8, Category.PROTOCOL, text)
        if not octets.isascii() and "8bitmime" not in self._offer:
            text = f"{self.hop.host} does not offer 8BITMIME, and the content is 8-bit"
            return Unable(Stage.MAIL, NEEDS_8BITMIME, Category.PROTOCOL, text)
        return None

    async def _envelope(self, envelope: Envelope, octets: bytes, log: Transcript, deadline: Deadline) -> Outcome | None:
        """MAIL, RCPT, DATA; None once the server waits for the content."""
        pipelining = self.pipelining
        verbs = self._verbs(envelope, octets)
        if pipelining:
            # RFC 2920 §3.1: RSET, MAIL and RCPT may stand anywhere in a group, DATA only at its end
            self._say(log, *(line for _, line, _ in verbs))
        refused: Replied | None = None
        self._unfinished = True
        for stage, line, timer_s in verbs:
            if not pipelining:
                if refused:
                    return refused
                self._stage = stage
                self._say(log, line)
            try:
                reply = await self._hear(stage, timer_s, log, deadline)
            except Garbled:
                raise
            except WireError as error:
                if refused is None or (pipelining and refused.reply.code == BAD_SEQUENCE):
                    raise  # a reply is missing in the group: 503 may be that of the next command
                # a server may refuse MAIL or RCPT and hang up: its word counts more than the lost connection
                log.note(str(error))
                self._drop()
                return refused
            if stage is Stage.DATA:
                return await self._after_data(reply, refused, log, deadline)
            if reply.code // 100 == 3:
                raise Garbled(f"unexpected {reply.code} to {stage.upper()}")
            if line != "RSET" and not reply.positive and refused is None:
                refused = Replied(stage, reply)
                if reply.code == 421:
                    self._spent = True
        return refused

    def _verbs(self, envelope: Envelope, octets: bytes) -> list[tuple[Stage, str, float]]:
        timers = self._timers
        utf8 = self._needs_utf8(envelope)
        mail = f"MAIL FROM:<{path.mailbox_on_wire(envelope.reverse_path, smtputf8=utf8)}>"
        if "size" in self._offer:
            mail += f" SIZE={len(octets)}"
        if "8bitmime" in self._offer and not octets.isascii():
            mail += " BODY=8BITMIME"
        if utf8:
            mail += " SMTPUTF8"
        rcpt = f"RCPT TO:<{path.mailbox_on_wire(envelope.forward_path, smtputf8=utf8)}>"
        if envelope.dsn and "dsn" in self._offer:
            of_mail, of_rcpt = _dsn_parameters(envelope.dsn, envelope.forward_path)
            mail, rcpt = mail + of_mail, rcpt + of_rcpt
        verbs = [
            (Stage.MAIL, mail, timers.mail_s),
            (Stage.RCPT, rcpt, timers.rcpt_s),
            (Stage.DATA, "DATA", timers.data_s),
        ]
        return [(Stage.MAIL, "RSET", timers.rset_s), *verbs] if self._unfinished else verbs

    async def _after_data(
        self, reply: Reply, refused: Replied | None, log: Transcript, deadline: Deadline
    ) -> Outcome | None:
        if reply.positive:
            # a 2xx where only 3xx, 4xx and 5xx are lawful: the replies are out of step, none of them can be believed
            raise Garbled(f"unexpected {reply.code} to DATA")
        if reply.code // 100 != 3:
            return refused or Replied(Stage.DATA, reply)
        if refused is None:
            return None
        # RFC 2920 §3.1: 354 although nobody is to receive it: an empty message, whose answer changes nothing
        self._spent = True
        log.said(".")
        self._wire.write_data(data.FINAL_DOT, asks=True)
        try:
            log.heard(await self._wire.reply(deadline.left(self._timers.dot_s)))
        except WireError as error:
            log.note(str(error))
            self._drop()
        return refused

    async def _content(self, octets: bytes, gate: Gate, log: Transcript, deadline: Deadline) -> Outcome:
        self._stage = Stage.BODY
        wire, timers = self._wire, self._timers
        content = data.stuffed(octets)
        last = max((len(content) - 1) // BLOCK_OCTETS, 0) * BLOCK_OCTETS
        if last:
            view = memoryview(content)
            for start in range(0, last, BLOCK_OCTETS):
                wire.write_data(view[start : start + BLOCK_OCTETS])
                await wire.drain(deadline.left(timers.block_s))
        await gate()
        if deadline.passed:
            raise TimedOut("the attempt's own deadline passed before the final dot")
        tail = content[last:] + data.FINAL_DOT if last else content + data.FINAL_DOT
        if wire.failure is not None:
            raise wire.failure
        log.note(f"{len(octets)} octets of mail data and the final dot")
        self._stage = Stage.DOT
        wire.write_data(tail, asks=True)
        await wire.drain(deadline.left(timers.block_s))
        reply = await self._hear(Stage.DOT, timers.dot_s, log, deadline)
        if reply.code // 100 == 3:
            raise Garbled(f"unexpected {reply.code} to the final dot")
        self._unfinished = False
        return Replied(Stage.DOT, reply)

    # --- below the verbs --------------------------------------------------------------------------

    def _say(self, log: Transcript, *lines: str) -> None:
        self._wire.send(*lines)
        for line in lines:
            log.said(line)

    async def _hear(self, stage: Stage, timer_s: float, log: Transcript, deadline: Deadline) -> Reply:
        self._stage = stage
        reply = await self._wire.reply(deadline.left(timer_s))
        log.heard(reply)
        if stage is not Stage.DOT:
            self._wire.raise_if_garbled()
        return reply

    def _early_refusal(self, log: Transcript) -> Replied | None:
        """A 4xx or 5xx in the middle of the upload (`552 too much`), after which servers hang up. No dot was sent, so
        it is an answer; a 2xx there would be none."""
        reply = self._wire.unasked
        if self._stage is not Stage.BODY or reply is None or reply.code // 100 not in (4, 5):
            return None
        log.heard(reply)
        return Replied(Stage.BODY, reply)

    def _broken(self, error: WireError) -> Outcome:
        if self._stage is Stage.DOT:
            return Unanswered(str(error))
        return Broken(self._stage, error.cause, str(error))

    def _needs_utf8(self, envelope: Envelope) -> bool:
        return (
            envelope.smtputf8
            or path.needs_smtputf8(envelope.forward_path)
            or path.needs_smtputf8(envelope.reverse_path)
        )

    def _drop(self) -> None:
        self._spent = True
        self._wire.abort()


def _dsn_parameters(dsn: Dsn, forward_path: str) -> tuple[str, str]:
    """Of MAIL and of RCPT (RFC 3461 §4.1 to §4.4). An address above ASCII has no ORCPT of the type rfc822."""
    of_mail = f" RET={dsn.ret}" * bool(dsn.ret) + f" ENVID={path.xtext(dsn.envid)}" * bool(dsn.envid)
    of_rcpt = f" NOTIFY={dsn.notify}" * bool(dsn.notify)
    if forward_path.isascii():
        of_rcpt += f" ORCPT=rfc822;{path.xtext(forward_path)}"
    return of_mail, of_rcpt


async def open_gate() -> None:
    """A gate that is never shut, for callers without a crash ledger."""
    await asyncio.sleep(0)
