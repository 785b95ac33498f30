"""The sweeper: what a dead worker held is given back, or told as unknown. Nothing stays leased for ever."""

from __future__ import annotations

import logging

from deliveries import queue, sources
from deliveries.record.outcomes import record
from deliveries.record.settle import Result
from deliveries.smtp.outcome import Verdict
from deliveries.states import Status

log = logging.getLogger(__name__)

_WORDS = "The worker was lost after it may have sent the mail and before the answer was recorded; it may have arrived."


def sweep() -> tuple[int, int]:
    """One pass: how many leases were given back, and how many ended as unknown. Also the alarm of the queue."""
    queue.heal()
    expired = queue.expired()
    unstarted = [(e.delivery_id, e.lease_id) for e in expired if not e.started]
    queue.release(unstarted)
    verdict = Verdict(Status.UNKNOWN, "worker-lost", text=_WORDS)
    lost = [Result(e.delivery_id, e.lease_id, verdict, reason=_WORDS) for e in expired if e.started]
    record(lost)
    if expired:
        log.warning("lost workers: %d deliveries given back, %d unknown", len(unstarted), len(lost))
        queue.wake()
    sources.wake()  # last: what takes long in it keeps no lease
    return len(unstarted), len(lost)
