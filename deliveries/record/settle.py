"""What the result of a round means for its delivery. Pure: rows and a clock in, a change out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from uuid import UUID

from deliveries.retry import Schedule
from deliveries.smtp.outcome import Attempted, Verdict
from deliveries.states import FINAL, OUTCOME_EVENT, Category, EventType, Status, may_become


@dataclass(frozen=True, slots=True)
class Tried:
    """One transaction of a round. `id` becomes the Attempt's, so that a result is never written twice."""

    id: UUID
    attempted: Attempted
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Result:
    """How a round ended. `verdict` decides; `tries` are its transactions, each with its own verdict.

    `tries` is empty where no connection was made: the route said no, or a check at claim did.
    """

    delivery_id: UUID
    lease_id: UUID
    verdict: Verdict
    tries: tuple[Tried, ...] = ()
    #: who said so: the MX host, or what else answered
    host: str = ""
    #: in words for a person; empty = made from the verdict
    reason: str = ""
    #: of a deferral before anything was begun: when it is worth another look, whatever the schedule says
    due: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """The delivery as it stands when the result is recorded; `leased_by` None where nobody holds it.

    `late` says that a report had already bounced it.
    """

    id: UUID
    tenant_id: UUID
    message_id: UUID
    recipient: str
    status: Status
    attempts: int
    unknowns: int
    expires_at: datetime
    queued: bool
    leased_by: UUID | None
    started: bool
    late: bool = False


class Row(Enum):
    """What becomes of the queue row."""

    LEAVE = auto()  #: it is somebody else's now
    DELETE = auto()  #: the delivery ends
    MOVE = auto()  #: due again at next_attempt_at, or never for a held one


@dataclass(frozen=True, slots=True)
class Change:
    """None of it applies when `status` is None: the lease was lost and the answer was not a 2xx."""

    status: Status | None
    row: Row
    reason: str = ""
    attempts: int = 0
    unknowns: int = 0
    next_attempt_at: datetime | None = None
    settled: bool = False
    event: EventType | None = None
    suppress: bool = False
    duplicate_possible: bool = False
    #: what a report said stands: status, words and times stay, only the attempt is counted
    kept: bool = False


def settle(at: Standing, result: Result, now: datetime, schedule: Schedule, unknown_policy: str) -> Change:
    """The change that `result` makes. A 2xx makes the delivery delivered, whoever holds the lease.

    Except one that a report bounced while the round was under way: then the receiver's later word was heard first.
    """
    said = result.verdict.status
    ours = at.queued and at.leased_by == result.lease_id
    if at.late and at.status is Status.BOUNCED and (ours or said is Status.DELIVERED):
        # a DSN that is read before the 250 was recorded still ends in bounced, and the row must not be sent again
        return Change(Status.BOUNCED, Row.DELETE, "", at.attempts + bool(result.tries), at.unknowns, kept=True)
    if said is Status.DELIVERED:
        elsewhere = not ours and (at.leased_by is not None and at.started)
        again = at.unknowns > 0 or elsewhere or at.status is Status.DELIVERED
        return _ended(at, result, Status.DELIVERED, duplicate_possible=again)
    if not ours or not may_become(at.status, said):
        return Change(None, Row.LEAVE)
    if said is Status.DEFERRED:
        return _deferred(at, result, now, schedule)
    if said is Status.UNKNOWN:
        return _unknown(at, result, now, schedule, unknown_policy)
    if said is Status.EXPIRED and at.unknowns:
        # the retry of an unknown came too late, or was put off until then: it may have arrived, so "expired" would be
        # a lie
        reason = f"{result.reason or words(result)} An earlier try ended without an answer, so it may have arrived."
        return _ended(at, replace(result, reason=reason), Status.UNKNOWN)
    if said in FINAL:
        return _ended(at, result, said)
    assert said is Status.HELD
    return Change(Status.HELD, Row.MOVE, result.reason, at.attempts, at.unknowns, event=_told(at, Status.HELD))


def _ended(at: Standing, result: Result, status: Status, duplicate_possible: bool = False) -> Change:
    return Change(
        status,
        Row.DELETE,
        result.reason or words(result),
        at.attempts + bool(result.tries),
        at.unknowns,
        settled=True,
        event=_told(at, status),
        suppress=result.verdict.suppress and status is Status.BOUNCED,
        duplicate_possible=duplicate_possible,
    )


def _deferred(at: Standing, result: Result, now: datetime, schedule: Schedule) -> Change:
    attempts = at.attempts + (result.due is None)
    due = result.due or now + timedelta(seconds=schedule.wait_after(attempts))
    # due at the end at the latest: the claim then finds it expired, so that the end is never late
    due = min(due, max(at.expires_at, now))
    reason = result.reason or words(result)
    return Change(Status.DEFERRED, Row.MOVE, reason, attempts, at.unknowns, due, event=_told(at, Status.DEFERRED))


def _unknown(at: Standing, result: Result, now: datetime, schedule: Schedule, policy: str) -> Change:
    unknowns = at.unknowns + 1
    attempts = at.attempts + 1
    reason = result.reason or words(result)
    if unknowns >= 2:  # never more than two copies (docs/rfc.md, rule 10)
        return Change(
            Status.UNKNOWN,
            Row.DELETE,
            f"{reason} It was the second time, so it is not tried again.",
            attempts,
            unknowns,
            settled=True,
            event=_told(at, Status.UNKNOWN),
            duplicate_possible=True,
        )
    if policy == "hold":
        return Change(Status.HELD, Row.MOVE, reason, attempts, unknowns, event=_told(at, Status.HELD))
    due = now + timedelta(seconds=schedule.unknown_wait_s)
    return Change(
        Status.UNKNOWN,
        Row.MOVE,
        f"{reason} It is tried once more, with the same Message-ID.",
        attempts,
        unknowns,
        due,
        event=_told(at, Status.UNKNOWN),
    )


def _told(at: Standing, status: Status) -> EventType | None:
    """An event where the status changed: the second deferral is an attempt in the story, not news."""
    return OUTCOME_EVENT[status] if status is not at.status else None


def words(result: Result) -> str:
    """One plain sentence for a person."""
    verdict = result.verdict
    who = result.host or "The receiving side"
    said = f": {verdict.text}" if verdict.text else "."
    match verdict.status, verdict.category:
        case Status.DELIVERED, _:
            return f"{who} accepted it{said}"
        case Status.BOUNCED, _:
            return f"{who} refused it{said}"
        case Status.UNKNOWN, _:
            return f"{who} gave no usable answer after the whole mail was sent; it may have arrived."
        case Status.DEFERRED, Category.GREYLISTED:
            return f"{who} asked to come back later (greylisting){said}"
        case Status.DEFERRED, Category.NETWORK | Category.TLS | Category.DNS_ERROR if verdict.code is None:
            return f"{who} could not be reached{said}"
        case Status.DEFERRED, _:
            return f"{who} did not take it yet{said}"
    return verdict.text
