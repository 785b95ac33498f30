"""Port 25 (and submission) of the house: SMTP in, whole mails out, 250 only once they are stored (RFC 5321 §6.1).

    listener = Listener(hostname="mx.example.com", accept_rcpt=known, store=commit, tls=context)
    await listener.start("0.0.0.0", 25)
    await listener.stop()

It knows no database: `accept_rcpt` says whether an address exists, `store` returns when the mail is committed (None,
or the id by which it is known), gives a Refusal where it never will be, and raises when it could not be.
`Conversation`, or `Submission` with `authenticate`, speaks with one client. Left out: VRFY, EXPN, ETRN, BDAT, relaying.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable

from deliveries.smtp.inbound import Conversation
from deliveries.smtp.reading import Room
from deliveries.smtp.received import NO_SUCH_USER, RELAY_DENIED, Asked, Bounds, Received, Refusal
from deliveries.smtp.submission import Submission

__all__ = ["NO_SUCH_USER", "RELAY_DENIED", "Asked", "Bounds", "Listener", "Received", "Refusal"]

log = logging.getLogger(__name__)

#: whose failed logins are remembered: of those that are still heard, and of those that are not
_MOST_PEERS = 10_000
_HANDSHAKE_S = 15.0

AcceptRcpt = Callable[[str], Refusal | Awaitable[Refusal | None] | None]
Store = Callable[[Received], Awaitable[Refusal | str | None]]
Authenticate = Callable[[str, str, str], Awaitable[object | None]]


class Listener:
    """The listening sockets and what all conversations share.

    With `authenticate` (submission, RFC 6409) MAIL needs AUTH first, and AUTH needs TLS (`clear_auth`: or loopback); it
    gets username, password and the client's address, and gives any object that is not None for one that may send.
    """

    def __init__(
        self,
        *,
        hostname: str,
        accept_rcpt: AcceptRcpt,
        store: Store,
        tls: ssl.SSLContext | None = None,
        authenticate: Authenticate | None = None,
        clear_auth: bool = False,
        bounds: Bounds | None = None,
    ) -> None:
        self.hostname = hostname
        self.accept_rcpt = accept_rcpt
        self.store = store
        self.tls = tls
        self.authenticate = authenticate
        self.clear_auth = clear_auth
        self.bounds = bounds or Bounds()
        self.room = Room(self.bounds.max_held_octets)
        self.conversations: set[Conversation] = set()
        self._by_peer: Counter[str] = Counter()
        self._guesses = Guesses(self.bounds.max_auth_failures, self.bounds.auth_window_s)
        self._servers: list[asyncio.Server] = []
        self._empty: asyncio.Event | None = None  #: set when the last conversation has ended, while stopping
        # aiosmtpd logs every line of every client at INFO, and at WARNING whatever is no command, as it came
        logging.getLogger("mail.log").setLevel(logging.CRITICAL)

    async def start(self, host: str, port: int, *, implicit_tls: bool = False) -> tuple[str, int]:
        """Listen; gives the address (port 0: chosen by the kernel). `implicit_tls` is RFC 8314's 465.

        Another process of the same user may listen there too: the kernel spreads connections over those that do, so
        that a new one is there before the old one goes.
        """
        if implicit_tls and self.tls is None:
            raise ValueError("implicit TLS needs a context")
        server = await asyncio.get_running_loop().create_server(
            lambda: Submission(self) if self.authenticate else Conversation(self),
            host,
            port,
            ssl=self.tls if implicit_tls else None,
            # who does not get on with the handshake is not counted as a connection yet
            ssl_handshake_timeout=_HANDSHAKE_S if implicit_tls else None,
            backlog=512,
            reuse_port=True,
        )
        self._servers.append(server)
        address = server.sockets[0].getsockname()
        return address[0], address[1]

    async def stop(self, grace_s: float = 5.0) -> None:
        """No new connections; mails whose data has come are still stored and answered, for `grace_s` at most."""
        for server in self._servers:
            server.close()
        for conversation in list(self.conversations):
            conversation.part()
        if self.conversations:
            self._empty = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), grace_s)
        for conversation in list(self.conversations):
            conversation.abort()

    def admit(self, conversation: Conversation, peer: str) -> bool:
        """Count a new connection in, unless there are too many of this peer or in all.

        With all places taken, the one that has come no further for the longest time gives way: a crowd of slow
        clients would hold every place for minutes, and who means it gets on at each round trip.
        """
        key = _network(peer)
        if self._by_peer[key] >= self.bounds.max_connections_per_peer:
            return False
        if len(self.conversations) >= self.bounds.max_connections and not self._make_room():
            log.warning("connection of %s refused: %s are open", peer, len(self.conversations))
            return False
        self._by_peer[key] += 1
        self.conversations.add(conversation)
        return True

    def may_guess(self, peer: str) -> bool:
        """Whether a login from there is looked at; the right ones are refused too while too many were wrong."""
        return not self._guesses.too_many(_network(peer), asyncio.get_running_loop().time())

    def guessed_wrong(self, peer: str) -> None:
        self._guesses.wrong(_network(peer), asyncio.get_running_loop().time())

    def _make_room(self) -> bool:
        """Part with the slowest, unless even that one got on a moment ago."""
        slowest = min((c for c in self.conversations if c.may_give_way), key=lambda c: c.moved_at, default=None)
        if slowest is None or asyncio.get_running_loop().time() - slowest.moved_at < self.bounds.slow_s:
            return False
        slowest.give_way()
        return True

    def dismiss(self, conversation: Conversation, peer: str) -> None:
        if conversation in self.conversations:
            self.conversations.discard(conversation)
            key = _network(peer)
            self._by_peer[key] -= 1
            if not self._by_peer[key]:
                del self._by_peer[key]
        if self._empty and not self.conversations:
            self._empty.set()


class Guesses:
    """Failed logins by peer, forgotten `window_s` after the last one; seconds of any clock.

    Bounded however many peers there are: the oldest go first. Those with too many stand apart, so that others push them
    out only by being wrong `most` times each, not once.
    """

    def __init__(self, most: int, window_s: float) -> None:
        self._most, self._window_s = most, window_s
        # in the order of when they are forgotten
        self._some: dict[str, tuple[int, float]] = {}
        self._too_many: dict[str, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._some) + len(self._too_many)

    def too_many(self, peer: str, now: float) -> bool:
        return self._too_many.get(peer, (0, now))[1] > now

    def wrong(self, peer: str, now: float) -> None:
        count, until = self._too_many.pop(peer, (0, now))
        count, until = self._some.pop(peer, (count, until))
        count = count + 1 if until > now else 1
        kept = self._too_many if count >= self._most else self._some
        kept[peer] = (count, now + self._window_s)
        while len(kept) > _MOST_PEERS or next(iter(kept.values()))[1] <= now:
            del kept[next(iter(kept))]


def _network(peer: str) -> str:
    """IPv6 clients own whole /64s: one of them is one peer."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
