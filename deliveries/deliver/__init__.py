"""Deliver: the pump. Claim, hand to the event loop, collect, record; until nothing is due and nothing is in flight.

    jobs.load      rows → what is to be sent, or why it is not
    engine         the event loop of this process: route, compose, sign, converse
    ledger         started_at, before any final dot
    watchdog       ends the process where one of its threads stands still

The calling thread is the one that speaks to the database; the event loop has a thread of its own and
never touches it. A sliding window, not a batch with a barrier: a slow destination holds only its places.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection

from deliveries import metrics, queue
from deliveries.deliver import jobs
from deliveries.deliver.engine import Engine, Released
from deliveries.record import figures
from deliveries.record.homes import Moved, move
from deliveries.record.outcomes import record
from deliveries.record.settle import Result

log = logging.getLogger(__name__)

#: results of one commit, at most; and how long the first of them waits for company, where more than so few can come
BATCH = 200
BATCH_S = 0.02
FEW = 8
#: how often due mail is looked for while something is in flight
POLL_S = 0.02
#: Postgres is away: how often it is asked whether it is back
AWAY_S = 0.5
#: transactions that only wait, or may turn out to (tar-pits), in multiples of IN_FLIGHT: a socket each, and little else
WAITING = 10
#: sites not known to answer that are asked in one round: their look-ups and handshakes hold up whoever is busy
NEW_AT_ONCE = 25

_lock = threading.Lock()
_engine: Engine | None = None
_stopping = threading.Event()


def run() -> int:
    """The body of the Celery task: pump until there is nothing left to do; how many rounds were recorded."""
    if not _lock.acquire(blocking=False):
        return 0  # this process pumps already
    try:
        return Pump(engine()).run()
    finally:
        connection.close()
        _lock.release()


def engine() -> Engine:
    """The event loop, connections and DNS cache of this process; they outlive the task."""
    global _engine
    if _engine is None or not _engine.alive:
        _engine = Engine()
    return _engine


def look() -> None:
    """The bell rang: where this process pumps, it looks for due mail at once."""
    if _engine is not None and _lock.locked():
        _engine.wake()


def stop() -> None:
    """SIGTERM came: claim no more, give back what has not begun, let the rest end (DRAIN_S)."""
    _stopping.set()


class Pump:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._results: list[Result] = []
        self._releases: list[tuple[UUID, UUID]] = []
        self._moves: list[Moved] = []
        self._recorded = 0
        self._again = False  # the last commit's fate is not known
        self._renewed = time.monotonic()
        self._claim_more = True
        self._away = False  # the database was: what it had not put on disk may be gone
        self._drain_until: float | None = None

    def run(self) -> int:
        try:
            with self.engine.watchdog.working("pump"):
                return self._pump()
        finally:
            self.engine.shaping.leave()

    def _pump(self) -> int:
        while True:
            try:
                metrics.alive("deliver")
                self.engine.watchdog.beat("pump")
                self._renew()
                self._claim()
                self._collect()
                self._record()
                self._release()
            except (DatabaseError, InterfaceError) as e:
                # results wait in memory (no more than was in flight), nothing new is claimed
                ours = not isinstance(e, (OperationalError, InterfaceError))  # our mistake: said in full
                log.warning("the database did not do it, asking again: %r", e, exc_info=ours)
                connection.close()
                self._away = self._claim_more = True
                time.sleep(AWAY_S)
            if self._finished():
                figures.flush(now=_stopping.is_set())
                return self._recorded

    def _claim(self) -> None:
        if _stopping.is_set():
            self._drain()
            return
        if self._results or self._releases or self._moves:
            return  # what ended is written before anything new is begun
        idle = not self.engine.in_flight
        claim = self._ask()
        # only an empty claim with every place free says that nothing is due
        self._claim_more = bool(claim.rows) or not idle
        if claim.more:
            queue.wake()  # a neighbour that idles can help
        if claim.rows:
            self._begin(claim.rows)

    def _ask(self) -> queue.Claim:
        """Whoever only waits, or may turn out to, holds no place and no octet of others."""
        crowd, places = self.engine.crowd(), settings.IN_FLIGHT
        most = max(0, min(WAITING * places, self.engine.most_sockets - places))
        return queue.claim(
            self.engine.lease_id,
            places - crowd.busy - max(0, crowd.waiting - most),
            queue.MAX_OCTETS - (self.engine.octets - min(crowd.waiting_octets, queue.MAX_OCTETS)),
            self.engine.by_destination(),
            unproven=max(0, min(NEW_AT_ONCE, most - crowd.waiting)),
            urgent=-(-places // 10),
            shaper=self.engine.shaping,
        )

    def _begin(self, rows: Sequence[queue.Claimed]) -> None:
        loaded, refused = jobs.load(rows, self.engine.lease_id)
        self._results += refused
        self.engine.submit(loaded)

    def _collect(self) -> None:
        under_way = self.engine.in_flight
        company_s = BATCH_S if under_way > FEW else 0
        for ended in self.engine.collect(BATCH, POLL_S if under_way else 0, company_s):
            if isinstance(ended, Released):
                self._releases.append((ended.delivery_id, ended.lease_id))
            elif isinstance(ended, Moved):
                self._moves.append(ended)
            else:
                self._results.append(ended)

    def _record(self) -> None:
        if not self._results:
            return
        again, self._again = self._again, True
        record(self._results, again)
        self._again = False
        self._recorded += len(self._results)
        self._results = []

    def _release(self) -> None:
        if self._moves:
            move(self._moves)
            self._moves = []
        if self._releases:
            queue.release(self._releases)
            self._releases = []

    def _renew(self) -> None:
        """Keep what is ours; after a long silence it may not be ours any more."""
        silent_s = time.monotonic() - self._renewed
        if silent_s > settings.LEASE_S and self.engine.in_flight:
            self.engine.new_lease()  # what was taken from us meanwhile must not look like ours when we claim it again
        if self._away:
            for lease_id, delivery_ids in self.engine.started().items():
                queue.start(lease_id, delivery_ids)  # the ledger's commits do not wait for the disk
        if self._away or silent_s > settings.LEASE_S / 4:
            queue.renew(self.engine.leases())
            self._away = False
            self._renewed = time.monotonic()

    def _drain(self) -> None:
        if self._drain_until is None:
            log.info("stopping: %d in flight, waiting up to %g s", self.engine.in_flight, settings.DRAIN_S)
            self._drain_until = time.monotonic() + settings.DRAIN_S
            self.engine.cancel_unstarted()
        elif time.monotonic() > self._drain_until:
            self.engine.abandon()

    def _finished(self) -> bool:
        if self._results or self._releases or self._moves or self.engine.in_flight:
            return False
        return _stopping.is_set() or not self._claim_more
