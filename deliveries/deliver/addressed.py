"""Which address of this host each job leaves from, where the installation has IP pools."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from deliveries.deliver.ends import Ended, released
from deliveries.deliver.jobs import Job
from deliveries.record.settle import Result
from deliveries.smtp.outcome import Verdict
from deliveries.smtp.sources import Elsewhere, Waits
from deliveries.sources import Sources
from deliveries.states import Lane, Status

#: not all of what waits is due in the same moment
_JITTER = 0.1


def addressed(jobs: Sequence[Job], sources: Sources) -> tuple[list[Job], list[Ended]]:
    """Jobs with their source addresses; and what is not begun: given back to other hosts, or put off with a reason."""
    if not sources.pooled:
        return list(jobs), []
    put_off: list[Ended] = []
    # the lab's mail costs no address its name
    ready, ours = [job for job in jobs if job.lab], [job for job in jobs if not job.lab]
    found = sources.choose([(job.tenant_id, job.lane == Lane.BULK, job.destination) for job in ours])
    for job, chosen in zip(ours, found, strict=True):
        if isinstance(chosen, Elsewhere):
            put_off.append(released(job))
        elif isinstance(chosen, Waits):
            wait_s = (chosen.until - sources.now).total_seconds()
            due = sources.now + timedelta(seconds=wait_s * (1 + random.uniform(0, _JITTER)))
            verdict = Verdict(Status.DEFERRED, chosen.rule, text=chosen.told)
            put_off.append(Result(job.delivery_id, job.lease_id, verdict, reason=chosen.told, due=due))
        else:
            ready.append(replace(job, sources=chosen or None))
    return ready, put_off
