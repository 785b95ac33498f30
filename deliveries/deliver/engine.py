"""The event loop of a deliver process: route, compose the last octets, sign, converse, classify."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID, uuid4

import uvloop
from django.conf import settings

from deliveries.deliver import ends, host
from deliveries.deliver.ends import Ended
from deliveries.deliver.jobs import Job
from deliveries.deliver.ledger import LeaseLost, Ledger, TooLate
from deliveries.deliver.news import News
from deliveries.deliver.policies import Policies
from deliveries.deliver.tls_watch import TlsWatch
from deliveries.deliver.watchdog import Watchdog
from deliveries.errors import ComposeError
from deliveries.mime import verp
from deliveries.mime.deliverable import Prepared, finish, seven_bit
from deliveries.models.fields import uuid7
from deliveries.record.homes import Moved
from deliveries.record.settle import Result, Tried
from deliveries.routers import router
from deliveries.routing import static
from deliveries.routing.resolver import Resolver
from deliveries.routing.route import Routed, Unroutable, at_least, leaving_from
from deliveries.shaping import Shaping
from deliveries.smtp.classify import classify
from deliveries.smtp.hop import Envelope
from deliveries.smtp.outcome import Attempted, Unable
from deliveries.smtp.pool import Pool
from deliveries.smtp.providers import profile_of
from deliveries.smtp.session import NEEDS_8BITMIME
from deliveries.sources import Sources

log = logging.getLogger(__name__)

#: one outer bound per round (RFC 5321 §4.5.3.2 gives the inner ones): 30 min and the time a slow reader needs
_DEADLINE_S = 1800.0
_SLOWEST_OCTETS_PER_S = 10_000
#: a transaction that takes longer is taken to be waiting: it costs a socket, and its place is given to another
_DAWDLES_S = 3.0
#: idle connections, database, DNS, files: what else a process keeps open
_OTHER_FILES = 400
#: deliveries that were moved to their site; where DNS says otherwise again, they are sent all the same
_MOVES_REMEMBERED = 50_000
#: with no more than so many in flight, each reaches its final dot within milliseconds: its start is asked of the
#: ledger before it is signed
_FEW = 8
#: the ledger's answer is good for a conversation that goes on at once; after so many seconds it is asked again
_START_HOLDS_S = 5.0
#: a route that was found serves the domain's next mails for so long: in a backlog they come by the hundred
_WAY_S = 1.0
_WAYS_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Crowd:
    """What is in flight. `waiting`: for longer than _DAWDLES_S, or to sites not known to answer; `busy`: the others."""

    busy: int
    waiting: int
    waiting_octets: int


@dataclass(slots=True, eq=False)
class _Running:
    job: Job
    since: float
    task: asyncio.Task[Ended] | None = None
    started: bool = False  # the ledger has it: from then on its end may be unknown


class Engine:
    """Lives as long as the process. `submit`, `collect` and the counters are for the pump's thread."""

    def __init__(self) -> None:
        self.shaping = Shaping()
        self.sources = Sources()
        self.rung = False  #: a bell rang that no claim has answered yet
        self._called: deque[tuple[UUID, ...]] = deque()  # what such bells name
        self.most_sockets = host.raise_open_files() - _OTHER_FILES
        self.new_lease()
        self._running: dict[UUID, _Running] = {}
        self._destinations: Counter[str] = Counter()
        self.unused: Counter[str] = Counter()  #: source addresses of what ended without being begun
        self._octets = 0
        self._moved: OrderedDict[UUID, None] = OrderedDict()
        self._ways: dict[tuple[str, bool, bool], tuple[float, Routed]] = {}
        self._ended: deque[tuple[Job | None, Ended]] = deque()
        self._enough = 1  #: how many must have ended to be worth waking the pump
        self.news = News()
        self._woken = False
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="event-loop", daemon=True)
        self._thread.start()
        self.watchdog = Watchdog(settings.WATCHDOG_S)
        self.watchdog.follow("event-loop", self._thread.ident, self._loop.call_soon_threadsafe)
        self._ledger = Ledger(self._loop, self.watchdog)
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(30)
        self.watchdog.start()

    async def _open(self) -> None:
        self._pool = Pool(
            helo_name=settings.HELO_NAME,
            ca_file=settings.SMTP_CA_FILE or None,
            messages_at=lambda site: profile_of(site).messages_per_connection,
        )
        self._policies = Policies()
        resolver = Resolver(settings.DNS_NAMESERVERS or None, trust_ad=settings.DNS_TRUST_AD)
        ipv6_ok = await host.confirmed(resolver, [ip for ip in settings.SOURCE_IPS if ":" in ip])
        self._router = router(resolver, self._policies, ipv6_ok)
        self._tls_watch = TlsWatch(resolver)

    # --- for the pump ---------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def in_flight(self) -> int:
        """Submitted and not yet collected."""
        return len(self._running)

    @property
    def octets(self) -> int:
        return self._octets

    def crowd(self) -> Crowd:
        before = time.monotonic() - _DAWDLES_S
        waiting = [r.job.size for r in self._running.values() if r.since < before or not r.job.proven]
        return Crowd(len(self._running) - len(waiting), len(waiting), sum(waiting))

    def by_destination(self) -> Counter[str]:
        return self._destinations.copy()

    def new_lease(self) -> None:
        """Claim under a new lease id from now on: what is held under the old one may have been taken from us."""
        self.lease_id = uuid4()
        log.info("claiming under the lease %s", self.lease_id)

    def leases(self) -> set[UUID]:
        """Under which something is held."""
        return {self.lease_id} | {running.job.lease_id for running in self._running.values()}

    def submit(self, jobs: Iterable[Job]) -> None:
        begun = []
        for job in jobs:
            if job.delivery_id in self._running:  # claimed anew while its old lease still talks: one at a time
                self._end(None, ends.released(job))
                continue
            running = _Running(job, time.monotonic())
            self._running[job.delivery_id] = running
            self._destinations[job.destination] += 1
            self._octets += job.size
            begun.append(running)
        if begun:
            self._loop.call_soon_threadsafe(self._begin, begun)

    def collect(self, most: int, wait_s: float, company_s: float) -> list[Ended]:
        """What ended: waits up to `wait_s` for the first one, then up to `company_s` for more; `wake` ends both."""
        for enough, seconds in ((1, wait_s), (most, company_s)):
            self._enough = enough
            self.news.clear()  # before the look: what comes after it sets it again
            waits = seconds > 0 and not self._woken and len(self._ended) < enough
            if waits and (ids := self.news.wait(seconds)) is not None:
                self.ring(ids)
            if self._woken or not self._ended:
                break
        self._woken = False
        ended: list[Ended] = []
        while self._ended and len(ended) < most:
            job, one = self._ended.popleft()
            ended.append(one)
            if job is not None:
                self._forget(job)
                if not isinstance(one, Result):
                    self.unused.update(source.address for source in job.sources or ())
        return ended

    def ring(self, ids: tuple[UUID, ...] = ()) -> None:
        """Due mail was committed, `ids` where that is all: from any thread."""
        self._called.append(ids)
        self.rung = True
        self.wake()

    def called(self) -> tuple[UUID, ...]:
        """What the bells so far name; empty where one of them names nothing."""
        calls = [self._called.popleft() for _ in range(len(self._called))]
        return tuple(ident for ids in calls for ident in ids) if all(calls) else ()

    def wake(self) -> None:
        """End the wait in `collect`, from any thread."""
        self._woken = True
        self.news.set()

    def _forget(self, job: Job) -> None:
        del self._running[job.delivery_id]
        self._octets -= job.size
        self._destinations[job.destination] -= 1
        if not self._destinations[job.destination]:
            del self._destinations[job.destination]

    def cancel_unstarted(self) -> None:
        """Give back whatever has not reached its final dot."""
        self._loop.call_soon_threadsafe(self._cancel, False)

    def abandon(self) -> None:
        """The drain is over: what still waits for a final reply ends as unknown."""
        self._loop.call_soon_threadsafe(self._cancel, True)

    def close(self) -> None:
        """Say good-bye on idle connections and end the threads; nothing may be in flight."""
        asyncio.run_coroutine_threadsafe(self._pool.close(), self._loop).result(10)
        self.watchdog.stop()
        self._ledger.close()
        self._policies.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # --- in the loop ----------------------------------------------------------------------------------------

    def _begin(self, begun: list[_Running]) -> None:
        for running in begun:
            running.task = self._loop.create_task(self._run(running))
            running.task.add_done_callback(partial(self._done, running.job))

    def _done(self, job: Job, task: asyncio.Task[Ended]) -> None:
        # a task that is canceled before its first step never enters `_run`, so its end is taken from here
        self._end(job, ends.released(job) if task.cancelled() else task.result())

    def _end(self, job: Job | None, ended: Ended) -> None:
        """For the pump, which is woken where enough have ended: once for a crowd, not once for each."""
        self._ended.append((job, ended))
        if len(self._ended) >= self._enough:
            self.news.set()

    def _cancel(self, started_too: bool) -> None:
        for running in list(self._running.values()):
            if running.task is not None and (started_too or not running.started):
                running.task.cancel()

    async def _run(self, running: _Running) -> Ended:
        job = running.job
        try:
            return await self._deliver(running)
        except (LeaseLost, TooLate, asyncio.CancelledError):
            return ends.lost(job, "The worker was stopped") if running.started else ends.released(job)
        except ComposeError as e:
            return ends.not_composed(job, e)
        except Exception:
            ids = {"event": "engine.broke", "delivery_id": job.delivery_id}
            log.exception("delivery %s broke the engine", job.delivery_id, extra=ids)
            return ends.lost(job, "An internal error came up") if running.started else ends.broken(job)

    async def _deliver(self, running: _Running) -> Result | Moved:
        """The road of one delivery: route, finish, converse, classify."""
        job = running.job
        routed = await self._route(job.domain, job.lab, job.prepared.any_tls)
        if isinstance(routed, Unroutable):
            self._tls_watch.found_no_way(job.domain, routed)
            return ends.unroutable(job, routed)
        if routed.site != job.destination and self._moves(job.delivery_id):
            # the site's limits hold for it, and its rest; nothing was begun
            return Moved(job.delivery_id, job.lease_id, job.domain, routed.site)
        hops = at_least(job.sender.tls, routed)
        if job.sources is not None and not (hops := leaving_from(hops, job.sources)):
            return ends.no_family(job, routed.site)
        reverse_path = _reverse_path(job, routed)
        # not in a crowd: a kill would leave unknown what only waits for its turn to be signed
        soon = len(self._running) <= _FEW and self._pool.keeps(hops[0])
        start = self._ledger.ask(job.delivery_id, job.lease_id) if soon else None
        asked_at = self._loop.time()

        async def gate() -> None:
            nonlocal start
            if time.monotonic() >= job.ends:
                raise TooLate  # given back, and the next claim finds it expired
            if start is None or self._loop.time() - asked_at > _START_HOLDS_S:
                start = self._ledger.ask(job.delivery_id, job.lease_id)
            if not await start:
                raise LeaseLost
            running.started = True

        asked = routed.static.dsn if routed.static is not None else None
        dsn = replace(asked, envid=job.delivery_id.hex) if asked else None

        async def converse(prepared: Prepared) -> tuple[Attempted, ...]:
            octets = finish(prepared, job.token, job.sender.signer, int(time.time()), job.fields)
            envelope = Envelope(
                reverse_path=reverse_path,
                forward_path=job.recipient,
                dsn=dsn,
                smtputf8=prepared.smtputf8 or not job.recipient.isascii(),
            )
            deadline_s = _DEADLINE_S + len(octets) / _SLOWEST_OCTETS_PER_S
            return await self._pool.deliver(hops, envelope, octets, gate, deadline_s)

        attempts = await converse(job.prepared)
        last = attempts[-1].outcome
        if isinstance(last, Unable) and last.enhanced == NEEDS_8BITMIME:
            # RFC 6152 §3: recoded for this hop, and signed again; what cannot be stays 5.6.3
            recoded = await asyncio.to_thread(seven_bit, job.prepared)
            if recoded is not None:
                attempts = (*attempts[:-1], *await converse(recoded))
        self._tls_watch.went(job.domain, routed, attempts)
        own = routed.static is not None and bool(routed.static.hosts)
        tries = tuple(Tried(uuid7(), a, classify(a.outcome, own_smarthost=own)) for a in attempts)
        return Result(job.delivery_id, job.lease_id, tries[-1].verdict, tries, attempts[-1].hop.host)

    async def _route(self, domain: str, lab: bool, any_tls: bool) -> Routed | Unroutable:
        way = (domain, lab, any_tls)
        until, kept = self._ways.get(way, (0.0, None))
        if kept is not None and self._loop.time() < until:
            return kept
        routed = await self._router.route(domain, lab, any_tls)
        if isinstance(routed, Routed):
            if len(self._ways) >= _WAYS_REMEMBERED:
                self._ways.clear()
            self._ways[way] = (self._loop.time() + min(routed.ttl_s, _WAY_S), routed)
        return routed

    def _moves(self, delivery_id: UUID) -> bool:
        """Once per delivery: an answer of DNS that changes every time must not keep a mail from being sent."""
        if delivery_id in self._moved:
            return False
        self._moved[delivery_id] = None
        if len(self._moved) > _MOVES_REMEMBERED:
            self._moved.popitem(last=False)
        return True


def _reverse_path(job: Job, routed: Routed) -> str:
    """The delivery's own (VERP); null for a report (RFC 3464 §2), one for all at a relay that takes no other."""
    if job.prepared.null_return:
        return ""
    if routed.static is not None and routed.static.return_path == static.FIXED:
        return f"bounces@{settings.BOUNCE_DOMAIN}"
    return verp.reverse_path(job.token, job.sender.bounce_domain)
