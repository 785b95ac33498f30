"""Kept-open sessions, and one round over the hops of a mail (RFC 5321 §5.1, §4.5.4.1).

    pool = Pool(helo_name="mail.example.com")
    attempts = await pool.deliver(hops, envelope, octets, gate)      # the last one decides
    await pool.close()

A pool belongs to one event loop. It knows no limits of providers and no queue: who may be asked how often is decided
before.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence

from deliveries.smtp import data, path
from deliveries.smtp.classify import classify
from deliveries.smtp.hop import Envelope, Hop
from deliveries.smtp.limits import MAX_ADDRESSES, MAX_ONE_BY_ONE, MAX_REFUSALS, ONE_BY_ONE_S, QUIT_S
from deliveries.smtp.opening import Manners, open_session
from deliveries.smtp.outcome import Attempted, Broken, Outcome, Replied, Stage
from deliveries.smtp.reply import BAD_SEQUENCE
from deliveries.smtp.session import Deadline, Gate, SmtpSession, Timers
from deliveries.smtp.tls import TlsContexts
from deliveries.smtp.transcript import Transcript

#: stages at which a 5xx is about the host, not about this mail: another host may say otherwise (RFC 5321 §3.1)
_ABOUT_THE_HOST = frozenset({Stage.GREETING, Stage.EHLO, Stage.STARTTLS})
#: stages up to which a fault of a reused connection harmed nothing: the mail starts again on a fresh one
_UNHARMED = frozenset({Stage.MAIL, Stage.RCPT, Stage.DATA})
#: stages whose reply a server owes that answered MAIL out of the same group (RFC 2920 §3.1)
_WITHIN_A_GROUP = frozenset({Stage.RCPT, Stage.DATA})
#: a limit per connection, which a new connection meets; not a wish for less mail
_ENOUGH_FOR_ONE_CONNECTION = re.compile(
    r"(?:messages|mails|recipients|transactions|commands)\b.{0,40}\b(?:this|per|one|single|same|in) "
    r"(?:smtp )?(?:connection|session)",
    re.IGNORECASE,
)


def asks_to_slow_down(outcome: Outcome) -> bool:
    """A 4xx that is about how much we send (Yahoo TSS04, Gmail 4.7.28), by the rules of `classify`."""
    return classify(outcome).slow_down


class Pool:
    """Sessions by hop, most recently used first. `messages_at` bounds a connection by the hop's site."""

    def __init__(
        self,
        *,
        helo_name: str,
        timers: Timers = Timers(),  # noqa: B008 (frozen)
        ca_file: str | None = None,
        contexts: TlsContexts | None = None,
        max_idle_s: float = 10.0,
        max_messages_per_connection: int = 500,
        messages_at: Callable[[str], int] | None = None,
        max_idle_connections: int = 256,
        slow_down: Callable[[Outcome], bool] = asks_to_slow_down,
        suspect_loopback: bool = False,
    ) -> None:
        self._manners = Manners(helo_name, timers, contexts or TlsContexts(ca_file), suspect_loopback)
        self._max_idle_s = max_idle_s
        self._messages_at = messages_at or (lambda site: max_messages_per_connection)
        self._max_idle_connections = max_idle_connections
        self._slow_down = slow_down
        self._idle: OrderedDict[SmtpSession, asyncio.TimerHandle] = OrderedDict()  # oldest first
        self._by_hop: dict[Hop, list[SmtpSession]] = {}
        self._one_by_one: OrderedDict[tuple[str, int], float] = OrderedDict()  # until when, oldest first
        self._goodbyes: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def idle_connections(self) -> int:
        return len(self._idle)

    def keeps(self, hop: Hop) -> bool:
        """Whether a mail to it would go over a connection that is open already."""
        return any(session.reusable for session in self._by_hop.get(hop, ()))

    async def deliver(
        self,
        hops: Sequence[Hop],
        envelope: Envelope,
        octets: bytes,
        gate: Gate,
        deadline_s: float | None = None,
    ) -> tuple[Attempted, ...]:
        """One round: an element per transaction or failed connection, in order; the last one decides.

        Empty only when `hops` is. Raises ComposeError before anything is sent when `octets` or the envelope cannot go
        on the wire, and whatever `gate` raises.
        """
        data.check(octets)
        path.check_envelope(envelope)
        deadline = Deadline(deadline_s)
        attempts: list[Attempted] = []
        slow_sites: set[str] = set()
        refusals = 0
        for hop in hops:
            if len(attempts) >= MAX_ADDRESSES or refusals >= MAX_REFUSALS or (attempts and deadline.passed):
                break
            if hop.site in slow_sites:
                continue  # the same provider behind another name: asking there is the opposite of slowing down
            attempt = await self._attempt(hop, envelope, octets, gate, deadline)
            attempts.append(attempt)
            outcome = attempt.outcome
            if isinstance(outcome, Broken):
                continue
            if not isinstance(outcome, Replied):
                break
            if outcome.reply.transient:
                if self._slow_down(outcome):
                    slow_sites.add(hop.site)
                if outcome.stage not in _ABOUT_THE_HOST:
                    refusals += 1
            elif outcome.stage not in _ABOUT_THE_HOST:
                break
        return tuple(attempts)

    async def close(self) -> None:
        """QUIT on every idle connection; those in use are closed when they come back. Bounded by QUIT_S."""
        self._closed = True
        for session in list(self._idle):
            self._forget(session)
            self._part(session)
        if self._goodbyes:
            _, late = await asyncio.wait(self._goodbyes, timeout=QUIT_S + 1)
            for task in late:
                task.cancel()

    # --- one hop ----------------------------------------------------------------------------------

    async def _attempt(self, hop: Hop, envelope: Envelope, octets: bytes, gate: Gate, deadline: Deadline) -> Attempted:
        log = Transcript()
        session = self._take(hop)
        if session is not None:
            attempt = await self._transact(session, envelope, octets, gate, deadline)
            stale = self._why_stale(attempt)
            if stale is None:
                return attempt
            # the server tired of the connection, not of this mail: the mail was never accepted there
            if session in self._idle:
                self._expire(session)
            log.note(f"reused connection had ended ({stale}); a new one")
        opened = await open_session(hop, self._manners, deadline, log)
        if isinstance(opened, Attempted):
            return opened
        now = asyncio.get_running_loop().time()
        opened.pipelining = opened.pipelining and self._one_by_one.get(_server(hop), now) <= now
        return await self._transact(opened, envelope, octets, gate, deadline)

    async def _transact(
        self, session: SmtpSession, envelope: Envelope, octets: bytes, gate: Gate, deadline: Deadline
    ) -> Attempted:
        try:
            attempt = await session.transact(envelope, octets, gate, deadline)
        finally:
            self._give_back(session)
        if session.pipelining and isinstance(attempt.outcome, Broken) and attempt.outcome.stage in _WITHIN_A_GROUP:
            # firewalls and proxies that offer PIPELINING and lose what came along with MAIL: the retry would end so too
            self._one_by_one[_server(session.hop)] = asyncio.get_running_loop().time() + ONE_BY_ONE_S
            self._one_by_one.move_to_end(_server(session.hop))
            if len(self._one_by_one) > MAX_ONE_BY_ONE:
                self._one_by_one.popitem(last=False)
        return attempt

    def _why_stale(self, attempt: Attempted) -> str | None:
        outcome = attempt.outcome
        if isinstance(outcome, Broken) and outcome.stage is Stage.MAIL:
            return outcome.text
        if not isinstance(outcome, Replied) or outcome.stage not in _UNHARMED or outcome.reply.positive:
            return None
        if outcome.reply.code == BAD_SEQUENCE or _ENOUGH_FOR_ONE_CONNECTION.search(outcome.reply.text):
            return outcome.reply.text
        # RFC 5321 §3.8: 421 is about the connection, unless it asks for less mail
        return outcome.reply.text if outcome.reply.code == 421 and not self._slow_down(outcome) else None

    # --- idle sessions ----------------------------------------------------------------------------

    def _take(self, hop: Hop) -> SmtpSession | None:
        kept = self._by_hop.get(hop)
        while kept:
            session = kept[-1]
            self._forget(session)
            if session.reusable:
                return session
            self._part(session)
        return None

    def _give_back(self, session: SmtpSession) -> None:
        if not session.reusable or session.transactions >= self._messages_at(session.hop.site) or self._closed:
            self._part(session)
            return
        loop = asyncio.get_running_loop()
        self._idle[session] = loop.call_later(self._max_idle_s, self._expire, session)
        self._by_hop.setdefault(session.hop, []).append(session)
        if len(self._idle) > self._max_idle_connections:
            self._expire(next(iter(self._idle)))

    def _expire(self, session: SmtpSession) -> None:
        self._forget(session)
        self._part(session)

    def _forget(self, session: SmtpSession) -> None:
        self._idle.pop(session).cancel()
        kept = self._by_hop[session.hop]
        kept.remove(session)
        if not kept:
            del self._by_hop[session.hop]

    def _part(self, session: SmtpSession) -> None:
        task = asyncio.get_running_loop().create_task(session.close())
        self._goodbyes.add(task)
        task.add_done_callback(self._goodbyes.discard)


def _server(hop: Hop) -> tuple[str, int]:
    return hop.address, hop.port
