"""How a job of this process ends: with a result to be recorded, given back, or moved to its site.

The functions make the results that no reply of a receiver makes: the route said no, or we broke or were stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from deliveries.deliver.jobs import Job
from deliveries.record.homes import Moved
from deliveries.record.settle import Result
from deliveries.routing.route import Unroutable
from deliveries.smtp.outcome import Verdict
from deliveries.states import Category, Status


@dataclass(frozen=True, slots=True)
class Released:
    """Not begun, and given back: due at once for whoever comes first."""

    delivery_id: UUID
    lease_id: UUID


Ended = Result | Released | Moved


def released(job: Job) -> Released:
    return Released(job.delivery_id, job.lease_id)


def told(job: Job, verdict: Verdict, host: str = "") -> Result:
    """A result without a transaction: its reason is the verdict's text."""
    return Result(job.delivery_id, job.lease_id, verdict, host=host, reason=verdict.text)


def lost(job: Job, why: str) -> Result:
    """`why` it ended after its start was in the ledger: the final dot may have been written."""
    text = f"{why} after the mail was sent and before the answer came; it may have arrived."
    return told(job, Verdict(Status.UNKNOWN, "worker-lost", text=text))


def unroutable(job: Job, answer: Unroutable) -> Result:
    status = Status.BOUNCED if answer.permanent else Status.DEFERRED
    verdict = Verdict(status, answer.rule, answer.category, enhanced=answer.enhanced, text=answer.text)
    return told(job, verdict, host=job.domain)


def no_family(job: Job, site: str) -> Result:
    """None of the job's source addresses is of a kind that the receiver has."""
    text = "No address that sends it is of the kind (IPv4, IPv6) that this receiver has."
    return told(job, Verdict(Status.DEFERRED, "pool-family", Category.NETWORK, text=text), host=site)


def not_composed(job: Job, why: object) -> Result:
    text = f"It cannot be put on the wire: {why}"
    return told(job, Verdict(Status.FAILED, "compose", Category.PROTOCOL, text=text))


def broken(job: Job) -> Result:
    """Our bug is never a soft bounce: the mail is held for a person."""
    text = "An internal error came up; held for the operator, see the worker's log."
    return told(job, Verdict(Status.HELD, "internal-error", text=text))
