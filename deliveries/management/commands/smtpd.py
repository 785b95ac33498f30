"""manage.py smtpd: the door for mail that comes back (SMTPD_INBOUND), and for mail that is to be sent.

Taken are bounce addresses with a token of ours, postmaster@ and abuse@, and the addresses at which tenants receive; all
else is refused in the session, so that no mail of ours ever has to say so afterwards (RFC 5321 §6.2). A mail is
answered 250 once its row is committed, and 451 while Postgres is away: the client keeps it. Health is the port itself.

SMTPD_SUBMISSION (STARTTLS) and SMTPD_SUBMISSIONS (implicit TLS) are the doors of `deliveries.submission`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

import celery
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, OperationalError, connection, transaction
from django.db.models import Q

from deliveries import addresses, certificate
from deliveries import submission as desk
from deliveries.addresses import domain_of
from deliveries.certificate import Certificate
from deliveries.errors import TokenError
from deliveries.feedback import COMPLAINT_GRACE, is_role
from deliveries.keys import Caller
from deliveries.mime import verp
from deliveries.models import InboundMessage, SendingDomain
from deliveries.smtp.listener import NO_SUCH_USER, RELAY_DENIED, Bounds, Listener, Received, Refusal
from deliveries.smtp.reply import clean

log = logging.getLogger(__name__)

#: threads that talk to Postgres; the pool of role smtpd holds both. A few more for submission: an accept may wait for
#: another with the same idempotency key
_INBOUND_THREADS, _SUBMISSION_THREADS = 2, 4
#: SIGTERM to the end, at most: mails whose data has come are still stored
_GRACE_S = 5.0
#: of submission: an application with many workers stands behind one address, and keeps its connections
_BOUNDS = Bounds(max_connections_per_peer=200, max_mails=1_000, max_refused_recipients=100)
#: of one mail, which is stored for each delivery and each tenant that it speaks to: a bounce has one recipient
_MOST_COPIES_OCTETS = 50 * 1024 * 1024
_TOO_MANY_COPIES = Refusal(452, "4.5.3 Too many recipients for a mail of this size")
_NOT_NOW = Refusal(451, "4.3.0 Cannot look that address up now, try again later")

State = InboundMessage.State
T = TypeVar("T")


class Command(BaseCommand):
    help = "Listens on SMTPD_INBOUND for what comes back, on SMTPD_SUBMISSION and SMTPD_SUBMISSIONS for mail to be sent"

    def handle(self, *args: Any, **options: Any) -> None:
        if not (settings.SMTPD_INBOUND or settings.SMTPD_SUBMISSION or settings.SMTPD_SUBMISSIONS):
            raise CommandError("SMTPD_INBOUND is not set; write the address to listen on, as 0.0.0.0:25.")
        try:
            tls = certificate.load()
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        asyncio.run(_serve(tls))


async def _serve(tls: Certificate | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    context = tls.context if tls else None
    async with contextlib.AsyncExitStack() as doors:
        if settings.SMTPD_INBOUND:
            where = await doors.enter_async_context(inbound(*settings.SMTPD_INBOUND, context))
            log.info("inbound SMTP listens on %s port %d", *where)
        if settings.SMTPD_SUBMISSION or settings.SMTPD_SUBMISSIONS:
            listener = await doors.enter_async_context(submission(context))
            if settings.SMTPD_SUBMISSION:
                log.info("submission listens on %s port %d", *await listener.start(*settings.SMTPD_SUBMISSION))
            if settings.SMTPD_SUBMISSIONS:
                where = await listener.start(*settings.SMTPD_SUBMISSIONS, implicit_tls=True)
                log.info("submission over TLS listens on %s port %d", *where)
        if tls is not None:
            renewing = asyncio.create_task(tls.renew())
            doors.callback(renewing.cancel)
        await stop.wait()


@contextlib.asynccontextmanager
async def inbound(host: str, port: int, tls: ssl.SSLContext | None = None) -> Any:
    """The listener and its threads, for as long as the block lasts; gives the address, port 0 chosen by the kernel."""
    door = Door()
    listener = Listener(hostname=settings.HELO_NAME, accept_rcpt=door.accept_rcpt, store=door.store, tls=tls)
    try:
        yield await listener.start(host, port)
    finally:
        await listener.stop(_GRACE_S)
        await door.close()


@contextlib.asynccontextmanager
async def submission(tls: ssl.SSLContext | None, bounds: Bounds = _BOUNDS) -> Any:
    """The listener for mail to be sent, with threads of its own: a flood of bounces keeps no application out."""
    threads = Threads(_SUBMISSION_THREADS)

    async def authenticate(_username: str, password: str, peer: str) -> Caller | None:
        return await threads.run(lambda: desk.login(password, peer))

    async def store(mail: Received) -> Refusal | str:
        return await threads.run(lambda: desk.take(mail))

    listener = Listener(
        hostname=settings.HELO_NAME,
        accept_rcpt=desk.forward_path,
        store=store,
        tls=tls,
        authenticate=authenticate,
        clear_auth=settings.SMTPD_AUTH_WITHOUT_TLS,
        bounds=bounds,
    )
    try:
        yield listener
    finally:
        await listener.stop(_GRACE_S)
        await threads.close()


class Threads:
    """Threads that talk to Postgres; each gives its connection back to the pool after each piece of work."""

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="smtpd")

    async def run(self, work: Callable[[], T]) -> T:
        def alone() -> T:
            try:
                return work()
            finally:
                connection.close()

        return await asyncio.get_running_loop().run_in_executor(self._pool, alone)

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.shutdown, True, cancel_futures=True)


class Door:
    """What the listener asks: whether an address exists, and that a mail be kept. Postgres only in its threads."""

    def __init__(self) -> None:
        self._keys = verp.Keys.parse(settings.VERP_KEYS)
        self._bounce_domain = settings.BOUNCE_DOMAIN.lower()
        self._own = {self._bounce_domain, settings.HELO_NAME.lower()}
        self._threads = Threads(_INBOUND_THREADS)
        self._bell = _Bell()

    async def accept_rcpt(self, forward_path: str) -> Refusal | None:
        """None takes it. A domain of ours without that address is 5.1.1, any other domain would be relaying."""
        domain = domain_of(forward_path) or self._bounce_domain
        if is_role(forward_path):
            try:
                ours = domain in self._own or await self._threads.run(lambda: _sends(domain))
            except DatabaseError as e:
                log.warning("cannot tell whether %s is a domain of ours: %s", domain, e)
                return _NOT_NOW
            return None if ours else RELAY_DENIED
        if domain not in self._own:
            return await self._of_a_tenant(forward_path)
        # never which of the reasons it is: a forger would learn from it
        return None if domain == self._bounce_domain and self._proven(forward_path) else NO_SUCH_USER

    def _proven(self, forward_path: str) -> bool:
        """Whether it holds a good token of ours."""
        token = verp.token_of(forward_path)
        try:
            # a complaint may come this late; feedback asks again, by what the mail turns out to be
            return token is not None and bool(verp.read(self._keys, token, datetime.now(UTC), COMPLAINT_GRACE))
        except TokenError:
            return False

    async def _of_a_tenant(self, forward_path: str) -> Refusal | None:
        """A bounce at a return path of its own, or an address at which it receives."""

        def ask() -> tuple[list[bool], addresses.Found]:
            return _return_paths(domain_of(forward_path)), addresses.find(forward_path)

        try:
            below, found = await self._threads.run(ask)
        except DatabaseError as e:
            log.warning("cannot tell who receives at %s: %s", forward_path, e)
            return _NOT_NOW
        # a label that was given up gets bounces for months still
        if found.route_id is not None or (below and self._proven(forward_path)):
            return None
        return NO_SUCH_USER if found.receives or any(below) else RELAY_DENIED

    async def store(self, mail: Received) -> Refusal | None:
        """Returns after the commit; whatever it raises becomes 451."""
        ours = [p for p in mail.forward_paths if is_role(p) or domain_of(p) in self._own or self._proven(p)]
        # one name has a thousand spellings, each of which would hold the whole mail once more
        rows = [_row(mail, path) for path in {_named(path): path for path in reversed(ours)}.values()]
        if claimed := [path for path in mail.forward_paths if path not in ours]:
            rows += await self._threads.run(lambda: _received(mail, claimed))
        if len(rows) > 1 and len(rows) * len(mail.octets) > _MOST_COPIES_OCTETS:
            return _TOO_MANY_COPIES
        await self._threads.run(lambda: _commit(rows))
        if any(row.state == State.WAITING for row in rows):
            self._bell.ring()
        return None

    async def close(self) -> None:
        await self._threads.close()


def _sends(domain: str) -> bool:
    label, _, rest = domain.partition(".")
    own = Q(name=domain, verified_at__isnull=False)
    return_path = Q(name=rest, return_path=label, return_path_verified_at__isnull=False)
    return SendingDomain.objects.filter(own | return_path).exists()


def _return_paths(domain: str) -> list[bool]:
    """For each tenant that has the domain one label above: whether this one is its return path now."""
    label, _, rest = domain.partition(".")
    rows = SendingDomain.objects.filter(name=rest).values_list("return_path", "return_path_verified_at")
    return [kept == label and verified_at is not None for kept, verified_at in rows]


def _named(forward_path: str) -> str:
    """Whom it means: a role, a delivery of ours."""
    role = forward_path.partition("@")[0].lower() if is_role(forward_path) else ""
    return role or verp.token_of(forward_path) or forward_path.lower()


def _received(mail: Received, forward_paths: list[str]) -> list[InboundMessage]:
    """One row per tenant, whatever the number of its addresses: it is one mail to them."""
    by_tenant: dict[UUID | None, list[str]] = {}
    for path in forward_paths:
        by_tenant.setdefault(addresses.find(path).tenant_id, []).append(clean(path))
    rows = []
    for tenant_id, paths in by_tenant.items():
        row = _row(mail, paths[0])
        if tenant_id is not None:  # else the address was given up since RCPT: kept as unmatched
            row.tenant_id, row.received_for = tenant_id, paths
        rows.append(row)
    return rows


def _row(mail: Received, forward_path: str) -> InboundMessage:
    kept = is_role(forward_path) and forward_path.partition("@")[0].lower() != "abuse"
    return InboundMessage(
        received_at=mail.at,
        peer=mail.peer,
        helo=clean(mail.helo),
        reverse_path=clean(mail.reverse_path),
        forward_path=clean(forward_path),
        octets=mail.octets,
        # providers send feedback reports to abuse@: feedback reads it, and keeps what is none
        state=State.KEPT if kept else State.WAITING,
    )


def _commit(rows: list[InboundMessage]) -> None:
    """All rows or none. The ids are made: a second try after a commit whose answer was lost changes nothing."""
    try:
        _insert(rows)
    except OperationalError:
        # a restart of Postgres leaves dead connections behind: one try with those that live. Away it stays away
        connection.close()
        connection.pool.check()  # type: ignore[attr-defined]  # psycopg_pool's, through Django's wrapper
        _insert(rows)


def _insert(rows: list[InboundMessage]) -> None:
    with transaction.atomic():
        # one at a time: a statement holds its mails as text
        InboundMessage.objects.bulk_create(rows, batch_size=1, ignore_conflicts=True)


class _Bell:
    """Tells feedback that something came; beat rings each second, so that a lost ring costs no more than that."""

    _GAP_S = 0.05

    def __init__(self) -> None:
        self._event = threading.Event()
        threading.Thread(target=self._run, name="bell", daemon=True).start()

    def ring(self) -> None:
        self._event.set()

    def _run(self) -> None:
        while True:
            self._event.wait()
            self._event.clear()
            try:
                celery.current_app.send_task("deliveries.feedback", expires=5, retry=False)
            except Exception as e:  # the broker is away, whatever its client raises; the mail is stored
                log.debug("the bell did not reach the broker: %r", e)
            time.sleep(self._GAP_S)
