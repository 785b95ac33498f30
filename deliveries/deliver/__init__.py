"""Deliver: the pump. Claim, hand to the event loop, collect, have it recorded; until nothing is due or in flight.

    jobs.load      rows → what is to be sent, or why it is not
    engine         the event loop of this process: route, compose, sign, converse
    ledger         started_at, before any final dot
    ends           what became of a job
    recorder       outcomes, written while the next mail is claimed
    watchdog       ends the process where one of its threads stands still

The calling thread claims; event loop, ledger and recorder have a thread each, and the loop never touches the database.
A sliding window, not a batch with a barrier: a slow destination holds only its places.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection

from deliveries import continuity, named, queue
from deliveries.bell import Ear
from deliveries.deliver import jobs
from deliveries.deliver.addressed import addressed
from deliveries.deliver.ends import Released
from deliveries.deliver.engine import Engine
from deliveries.deliver.recorder import AWAY_S, BATCH, Recorder

log = logging.getLogger(__name__)

#: while more than so many are under way, the next claim waits until half of them have ended, GATHER_S at most
FEW = 8
GATHER_S = 0.05
#: how often due mail is looked for while nothing ends and no bell rings
LOOK_S = 0.25
#: destinations that gave all they had are put to sleep together (queue.push_back), after PUSH_BACK_S or once there are
#: more than PUSH_BACK_MOST: in a steady flow the next mail for one comes before that, and spares the work
PUSH_BACK_S = 0.25
PUSH_BACK_MOST = 32
#: seconds without claims by name after a provider's rate was found used up: a claim by destination asks the rate
#: before it leases anything
UNNAMED_S = 1.0
#: transactions that only wait, or may turn out to (tar-pits), as a multiple of IN_FLIGHT: each costs a socket, and
#: little else
WAITING = 10
#: mails claimed at a time for sites not known to answer: their look-ups and handshakes hold up the others
NEW_AT_ONCE = 25

_lock = threading.Lock()
_engine: Engine | None = None
_stopping = threading.Event()


def run(linger_s: float = 0.0) -> int:
    """The body of the Celery task: pump until nothing was due for `linger_s`; how many results were recorded."""
    if not _lock.acquire(blocking=False):
        return 0  # this process pumps already
    try:
        return Pump(engine(), linger_s).run()
    finally:
        connection.close()
        _lock.release()


def engine() -> Engine:
    """The event loop, connections and DNS cache of this process; they outlive the task."""
    global _engine
    if _engine is None or not _engine.alive:
        _engine = Engine()
    return _engine


def look(ids: tuple[UUID, ...] = ()) -> bool:
    """For a bell of Celery's: make the pump of this process look for due mail at once. False where none runs here.
    `ids`: the deliveries that came, where the bell named all of them."""
    if _engine is None or not _lock.locked() or _stopping.is_set():
        return False
    _engine.ring(ids)
    return True


def stop() -> None:
    """SIGTERM came: claim no more, give back what has not begun, let the rest end (DRAIN_S)."""
    _stopping.set()
    if _engine is not None:
        _engine.wake()


class Pump:
    """One run of the loop, in the thread of the Celery task: rounds of renew, claim, collect until it may end."""

    def __init__(self, engine: Engine, linger_s: float = 0.0) -> None:
        self.engine = engine
        self.recorder = Recorder(engine.watchdog, busy=lambda: engine.in_flight > FEW, told=engine.wake)
        self._linger_s = linger_s
        self._idle_since: float | None = None  # nothing was due, and nothing is in flight
        self._hungry = True  # due mail may be found, and a place for it
        self._full = True  # the last claim left mail behind for want of places: whatever ends is worth the next one
        self._look_at = 0.0
        self._called: tuple[UUID, ...] = ()  # deliveries that bells named, where nothing else is to be looked for
        self._unnamed_until = 0.0
        self._owed = False  # only claims by name since the last look at everything that is due
        self._emptied: set[int] = set()  # destinations that gave all they had and are not put to sleep yet
        self._push_back_at = 0.0
        self._renewed = time.monotonic()
        self._away = False  # the database was: leases are renewed as soon as it is back
        self._drain_until: float | None = None

    def run(self) -> int:
        self.engine.news.ear = Ear()
        try:
            with self.engine.watchdog.working("pump"):
                self._pump()
        finally:
            self._hear_no_more()
            self.recorder.close(now=_stopping.is_set())
            self.engine.shaping.leave()
        return self.recorder.recorded

    def _pump(self) -> None:
        while True:
            try:
                self.engine.watchdog.beat("pump")
                if not self.recorder.alive:
                    # what it held will not be written: its leases must end, so that it is told as unknown
                    self.engine.new_lease()
                    raise RuntimeError("the recorder ended, see above")
                self._renew()
                if unused := self.engine.unused:
                    self.engine.sources.give_back(unused)
                    unused.clear()
                if _stopping.is_set():
                    self._drain()
                elif self._wants() and not self._claim_by_name():
                    self._claim_by_destination()
                if self._emptied and (len(self._emptied) > PUSH_BACK_MOST or time.monotonic() >= self._push_back_at):
                    queue.push_back(self._emptied)
                    self._emptied.clear()
            except (DatabaseError, InterfaceError) as e:
                ours = not isinstance(e, (OperationalError, InterfaceError))  # our mistake: said in full
                log.warning("the database did not do it, asking again: %r", e, exc_info=ours)
                if connection.connection is not None:
                    # a claim whose answer was lost must not be renewed with what is in flight: nobody sends it
                    self.engine.new_lease()
                connection.close()
                continuity.forget()
                self._away = self._hungry = True
                self._idle_since = None
                time.sleep(AWAY_S)
            if self._finished():
                return
            self._collect()

    def _wants(self) -> bool:
        """Whether to claim now: not while what ended cannot be written."""
        if self.recorder.troubled or self.recorder.pending > settings.IN_FLIGHT:
            self._away |= self.recorder.troubled
            return False
        idle = self._idle
        if idle and self._idle_since is None:
            if self._linger_s and not self._full:
                self._idle_since = time.monotonic()  # the last claim took all there was, and what comes rings
            else:
                self._hungry = True
        late = (self._owed or not idle) and time.monotonic() >= self._look_at
        self._hear(late)
        if late or self.recorder.given_back:
            self.recorder.given_back = False
            self._hungry = True
        return self._hungry

    @property
    def _idle(self) -> bool:
        """Whether nothing is under way, and all that ended is written."""
        return not self.engine.in_flight and not self.recorder.pending

    def _hear(self, late: bool) -> None:
        """What bells ask for: a claim by name where nothing else is to be looked for, else one by destination."""
        self._called = ()
        if self.engine.rung:
            self.engine.rung = False
            called = self.engine.called()
            alone = called and not (self._hungry or self._full or late or self.recorder.given_back)
            self._called = called if alone and len(called) <= named.MOST else ()
            self._hungry = True
            queue.look_again()

    def _claim_by_name(self) -> bool:
        """Claim by name the deliveries that bells named (deliveries.named); whether all of them are under way now.

        Those that are not are found by the claim by destination that follows; one follows soon in any case, since a
        bell may be lost.
        """
        called, engine, now = self._called, self.engine, time.monotonic()
        room = min(FEW, settings.IN_FLIGHT - len(called)) - engine.in_flight
        if not called or room < 0 or now < self._unnamed_until or engine.sources.takes() or not continuity.fit():
            return False
        octets = queue.MAX_OCTETS - engine.octets
        taken = jobs.take(engine.lease_id, called, octets, engine.by_destination(), engine.shaping.processes)
        ours = engine.shaping.within_rates([one.claimed.destination for one in taken])
        if len(ours) < len(taken):
            self._unnamed_until = now + UNNAMED_S
            over = [one.claimed.delivery_id for n, one in enumerate(taken) if n not in ours]
            self.recorder.put([Released(ident, engine.lease_id) for ident in over])
        if not ours:
            return False
        if not self._emptied:
            self._push_back_at = now + PUSH_BACK_S
        if not self._owed:
            self._owed, self._look_at = True, max(self._look_at, now + LOOK_S)
        self._emptied.update(taken[n].destination_id for n in ours)
        self._begin([taken[n].claimed for n in ours], [taken[n].row for n in ours])
        self._idle_since = None
        self._hungry = len(ours) < len(called)
        return not self._hungry

    def _claim_by_destination(self) -> None:
        # before the question: what ends meanwhile may free a place, or a row
        idle = self._idle
        if not self._emptied:
            self._push_back_at = time.monotonic() + PUSH_BACK_S
        claim = self._lease()
        self._look_at, self._owed = time.monotonic() + LOOK_S, False
        # without places left it is no use to ask again before something has ended
        self._full, self._hungry = claim.full, bool(claim.rows) and claim.full
        if claim.more:
            queue.wake()  # a neighbour that idles can help
        if claim.rows:
            self._begin(claim.rows)
        # only an empty claim with every place free says that nothing is due
        self._idle_since = (self._idle_since or time.monotonic()) if idle and not claim.rows else None

    def _lease(self) -> queue.Claim:
        """The claim within this process' bounds: transactions that only wait, or may turn out to, take no places and no
        octets from the others. Nothing is leased while a restore of the database waits for a person's answer.
        """
        if not continuity.fit():
            return queue.Claim((), more=False, full=False)
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
            takes=self.engine.sources.takes(),
            emptied=self._emptied,
        )

    def _begin(self, rows: Sequence[queue.Claimed], found: jobs.Found | None = None) -> None:
        try:
            loaded, refused = jobs.load(rows, self.engine.lease_id, found)
            bound, put_off = addressed(loaded, self.engine.sources)
        except Exception:
            # else they would be ours for as long as we renew our lease, and nobody would send them
            self.recorder.put([Released(row.delivery_id, self.engine.lease_id) for row in rows])
            raise
        self.recorder.put([*refused, *put_off])
        self.engine.submit(bound)

    def _collect(self) -> None:
        """Wait for what ends: where many are under way until half of them have ended, else for the first."""
        crowd = self.engine.crowd()
        most, company_s = (max(crowd.busy // 2, 1), GATHER_S) if crowd.busy > FEW else (BATCH, 0.0)
        if not self._idle:
            wait_s = GATHER_S if self._hungry else LOOK_S
        elif self._hungry or self._idle_since is None:
            wait_s = 0.0
        else:
            wait_s = max(self._idle_since + self._linger_s - time.monotonic(), 0.0)
        if self._emptied:
            wait_s = min(wait_s, max(self._push_back_at - time.monotonic(), 0.0))
        if self._owed:
            wait_s = min(wait_s, max(self._look_at - time.monotonic(), 0.0))
        if ended := self.engine.collect(most, wait_s, company_s):
            self.recorder.put(ended)
            self._hungry |= self._full

    def _renew(self) -> None:
        """Extend our leases; under a new one from now on where they may have run out meanwhile."""
        silent_s = time.monotonic() - self._renewed
        if silent_s > settings.LEASE_S and not self._idle:
            self.engine.new_lease()  # what was taken from us meanwhile must not look like ours when we claim it again
        if self._away or silent_s > settings.LEASE_S / 4:
            queue.renew(self.engine.leases() | self.recorder.leases())
            self._away = False
            self._renewed = time.monotonic()

    def _drain(self) -> None:
        if self._drain_until is None:
            log.info("stopping: %d in flight, waiting up to %g s", self.engine.in_flight, settings.DRAIN_S)
            self._drain_until = time.monotonic() + settings.DRAIN_S
            self._hear_no_more()
            self.engine.cancel_unstarted()
        elif time.monotonic() > self._drain_until:
            self.engine.abandon()

    def _hear_no_more(self) -> None:
        """Listen for no more bells, and ring again for the others if one was on its way to us."""
        ear, self.engine.news.ear = self.engine.news.ear, None
        if ear is not None and (ids := ear.close()) is not None:
            queue.wake(ids)

    def _finished(self) -> bool:
        if not self._idle:
            return False
        if _stopping.is_set():
            return True
        if self._idle_since is None or self.engine.rung or self._owed:
            return False
        if time.monotonic() - self._idle_since < self._linger_s:
            return False
        if self._linger_s and not self.engine.shaping.answers():
            # the broker may be away with it, or be it: nobody would start a pump when mail comes
            self._idle_since, self._hungry = None, True
            return False
        self._push_back_at = 0.0  # last of all
        return not self._emptied
