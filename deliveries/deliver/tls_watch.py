"""Sessions and how well they were protected, counted for the domains that ask for TLS reports (RFC 8460 §4).

A connection counts once, for the domain of its first mail: what goes over a kept one was not negotiated anew. Whether
a domain asks is looked up beside the mail, never before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime

from django.conf import settings

from deliveries.record import tls_sessions
from deliveries.routing import tls_rpt
from deliveries.routing.resolver import Resolver
from deliveries.routing.route import Routed
from deliveries.routing.tls_rpt import Promise, Session
from deliveries.routing.unroutable import Unroutable
from deliveries.smtp.outcome import Attempted


class TlsWatch:
    """Belongs to the event loop. Does nothing where no reports are sent (TLS_REPORT_FROM)."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._on = bool(settings.TLS_REPORT_FROM)
        self._asking: set[asyncio.Task[None]] = set()

    def went(self, domain: str, routed: Routed, attempts: Iterable[Attempted]) -> None:
        """A round to `domain` ended (A-label or U-label, any case)."""
        if self._on and routed.promises:
            sessions = [
                _session(routed.promises[a.hop.host], a)
                for a in attempts
                if not a.reused and (a.tls or a.tls_failure) and a.hop.host in routed.promises
            ]
            self._count(domain, sessions)

    def found_no_way(self, domain: str, answer: Unroutable) -> None:
        """`domain` allows none of its own hosts: a session that was not held counts as failed."""
        if self._on and answer.promise is not None and answer.promise.broken is not None:
            self._count(domain, [Session(answer.promise, failure=answer.promise.broken)])

    def _count(self, domain: str, sessions: list[Session]) -> None:
        if sessions:
            task = asyncio.get_running_loop().create_task(self._note(domain, sessions, datetime.now(UTC)))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _note(self, domain: str, sessions: list[Session], at: datetime) -> None:
        if await tls_rpt.destinations(self._resolver, domain):
            tls_sessions.note(domain, sessions, at)


def _session(promise: Promise, done: Attempted) -> Session:
    return Session(promise, done.hop.host, done.hop.address, done.hop.source or "", promise.broken or done.tls_failure)
