"""The watchdog of a deliver process: who stands still ends it, so that what it holds is taken up by others.

    working("pump") … beat("pump")    a thread that has work says so, and gives a sign in every round
    follow("event-loop", …)           a loop gives a sign whenever it is asked

A thread that gives no sign for WATCHDOG_S is told in the log with the stack of every thread, and the process ends with
EX_SOFTWARE. Its service manager starts it again, and the sweeper gives back or tells as unknown what it held. Time is
counted in the watchdog's own ticks, so that a process that was stopped or starved as a whole is no suspect. A call that
holds the interpreter's lock (a regular expression that never ends) stops the watchdog too; then faulthandler's timer,
which needs no lock, does the same.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

log = logging.getLogger(__name__)

_TICK_S = 1.0
#: the descriptor itself: sys.stderr may be an object without one, such as Celery's, which tells the log
_STDERR = 2


@dataclass(slots=True)
class _Watched:
    thread: int | None
    ticks: int = 0  #: since its last sign


class Watchdog:
    """One per process; `start()` once."""

    def __init__(self, still_s: float, end: Callable[[int], object] = os._exit) -> None:
        self._most = max(2, round(still_s / _TICK_S))
        self._end = end
        self._stopped = threading.Event()
        self._watched: dict[str, _Watched] = {}
        self._asked: dict[str, Callable[[Callable[[], None]], object]] = {}

    def start(self) -> None:
        self._arm()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Nobody is watched any more."""
        self._stopped.set()
        faulthandler.cancel_dump_traceback_later()

    @contextlib.contextmanager
    def working(self, name: str) -> Iterator[None]:
        """The calling thread has work, and will `beat(name)` until it is done."""
        self._watched[name] = _Watched(threading.get_ident())
        try:
            yield
        finally:
            self._watched.pop(name, None)

    def beat(self, name: str) -> None:
        if (watched := self._watched.get(name)) is not None:
            watched.ticks = 0

    def follow(self, name: str, thread: int | None, ask: Callable[[Callable[[], None]], object]) -> None:
        """`ask(answer)` makes the loop in `thread` call `answer` soon, as call_soon_threadsafe does."""
        self._watched[name] = _Watched(thread)
        self._asked[name] = ask

    def _run(self) -> None:
        while not self._stopped.wait(_TICK_S):
            self._arm()
            self.tick()
        faulthandler.cancel_dump_traceback_later()

    def _arm(self) -> None:
        """Anew in every tick; it must outlast what the ticks find by themselves."""
        faulthandler.dump_traceback_later(2 * self._most * _TICK_S, exit=True, file=_STDERR)

    def tick(self) -> None:
        for name, watched in list(self._watched.items()):
            watched.ticks += 1
            if watched.ticks > self._most:
                self._stands_still(name, watched)
                return
        for name, ask in list(self._asked.items()):
            ask(partial(self.beat, name))

    def _stands_still(self, name: str, watched: _Watched) -> None:
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        stacks = sys._current_frames()
        # whom it is about comes last, where a log is read first
        order = sorted(stacks, key=lambda ident: ident == watched.thread)
        told = "\n".join(
            f"{names.get(ident, ident)}:\n{''.join(traceback.format_stack(stacks[ident]))}" for ident in order
        )
        log.critical(
            "%s has stood still for %.0f s; the process ends, and what it held is taken up by others\n%s",
            name, watched.ticks * _TICK_S, told,
        )  # fmt: skip
        self._end(os.EX_SOFTWARE)
