"""After a restore: what may have been sent since the backup waits for a person, and leaves by his word alone.

    hold_all    the answer to deliveries.continuity's question: everything that waited in the backup is held, the
                webhooks that waited are given up (their endpoints' page tells them again), and the rest goes on
    waiting     what is held for it, by tenant and destination
    decide      release or cancel, by filter

In batches of their own transactions, so that a million rows are no single one; broken off, it is begun again and goes
on where it was. The gate stays shut until all of it is done. Scheduled mail whose time has not come stays scheduled:
nobody can have sent it. A release may make a second copy, so each counts as an answer that was lost (`unknowns`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from deliveries import continuity
from deliveries.models.outbox import WebhookDelivery
from deliveries.models.queue import NEVER
from deliveries.models.sql import execute
from deliveries.record import operator
from deliveries.record.again import again
from deliveries.record.operator import COUNT, TOLD
from deliveries.states import EventType, Status

RULE = "restored"
_BATCH = 1_000
_FIRST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Held:
    """What is held since a restore, of one tenant to one destination."""

    tenant_id: UUID
    tenant: str
    destination: str
    count: int
    oldest: datetime
    newest: datetime


@dataclass(frozen=True, slots=True)
class Which:
    """Those accepted before `before`, of `tenant`, to `destination`; None: any."""

    before: datetime | None = None
    tenant_id: UUID | None = None
    destination: str | None = None


def hold_all(actor: str) -> tuple[int, int]:
    """Answer the question: how many deliveries are held, and how many webhooks given up. (0, 0) where none is open."""
    asked = continuity.question()
    if asked is None:
        return 0, 0
    words = (
        f"The database was restored as it was on {asked.until:%Y-%m-%d at %H:%M:%S} UTC; this may have been sent since."
    )
    params = {
        "until": asked.asked_at, "reason": words, "rule": RULE, "at": None, "actor": actor, "action": "delivery.held",
        "event": EventType.DELIVERY_DELAYED.value, "never": NEVER, "most": _BATCH,
    }  # fmt: skip
    held = _through(lambda after: _hold({**params, "after": after}))
    told = _through(lambda after: _give_up({"after": after, "most": _BATCH, "until": asked.asked_at, "words": words}))
    _audit(actor, "installation.restored", f"{held} deliveries held, {told} webhooks given up: {asked.why}")
    continuity.go_on()
    return held, told


def nothing_lost(actor: str) -> bool:
    """The person says that this is the last state, moved by hand; whether a question was open."""
    asked = continuity.question()
    if asked is not None:
        _audit(actor, "installation.moved", f"nothing was lost: {asked.why}")
        continuity.go_on()
    return asked is not None


def waiting() -> list[Held]:
    return [Held(**row) for row in execute(_WAITING, {"never": NEVER}).fetchall()]


def any_waiting() -> bool:
    return bool(execute(_FIND, {
        "after": _FIRST, "before": None, "tenant": None, "destination": None, "never": NEVER, "most": 1,
    }).fetchone())  # fmt: skip


def decide(which: Which, actor: str, cancel: bool = False) -> int:
    """Release what is held for a restore (or cancel it); how many. One that was held before it, too."""
    verb = operator.cancel if cancel else operator.release
    params = {"before": which.before, "tenant": which.tenant_id, "destination": which.destination, "most": _BATCH}

    def batch(after: UUID) -> tuple[int, UUID | None]:
        ids = [row["id"] for row in execute(_FIND, {**params, "after": after, "never": NEVER}).fetchall()]
        return (verb(ids, actor) if ids else 0), (ids[-1] if ids else None)

    return _through(batch)


def _through(batch: Callable[[UUID], tuple[int, UUID | None]]) -> int:
    """Batch after batch in the order of ids, until one says that it was the last (None); the sum."""
    done, after = 0, _FIRST
    while True:
        count, last = batch(after)
        done += count
        if last is None:
            return done
        after = last


def _hold(params: dict[str, Any]) -> tuple[int, UUID | None]:
    def work() -> tuple[int, UUID | None]:
        with transaction.atomic():
            rows = execute(_LOOK_AT, params).fetchall()
            if not rows:
                return 0, None
            doubtful = [row["id"] for row in rows if row["doubtful"]]
            # without those that a worker had under way, and recorded meanwhile
            ids = [row["delivery_id"] for row in execute(_LOCK, {"ids": doubtful}).fetchall()]
            if ids:
                execute(_HOLD, {**params, "ids": ids})
            return len(ids), rows[-1]["id"]

    return again(work)


def _give_up(params: dict[str, Any]) -> tuple[int, UUID | None]:
    with transaction.atomic():
        ids: Sequence[UUID] = [row["id"] for row in execute(_GIVE_UP, params).fetchall()]
    return len(ids), (max(ids) if ids else None)


def _audit(actor: str, action: str, subject: str) -> None:
    execute(_AUDIT, {"actor": actor, "action": action, "subject": subject[:300]})


# what waits, in the order of ids; accepted since, or for a time that is still to come, is in no doubt
_LOOK_AT = f"""
SELECT d.id, d.created_at < %(until)s::timestamptz AND d.rule <> %(rule)s::text
           AND NOT (d.status = '{Status.SCHEDULED}' AND m.scheduled_at > %(until)s::timestamptz AND q.lease_id IS NULL)
           AS doubtful
  FROM (SELECT delivery_id, lease_id FROM queued WHERE delivery_id > %(after)s::uuid
         ORDER BY delivery_id LIMIT %(most)s::int) q
  JOIN delivery d ON d.id = q.delivery_id
  JOIN message m ON m.id = d.message_id
 ORDER BY d.id
"""

_LOCK = """
WITH locked AS (SELECT id FROM delivery WHERE id = ANY (%(ids)s::uuid[]) ORDER BY id FOR UPDATE)
SELECT q.delivery_id FROM queued q WHERE q.delivery_id IN (SELECT id FROM locked) ORDER BY q.delivery_id FOR UPDATE
"""

_HOLD = f"""
WITH parked AS (
    UPDATE queued SET due_at = %(never)s::timestamptz, lease_id = NULL, leased_until = NULL, started_at = NULL
     WHERE delivery_id = ANY (%(ids)s::uuid[])
), changed AS (
    UPDATE delivery SET next_attempt_at = NULL, rule = %(rule)s::text, unknowns = unknowns + 1, {COUNT},
           reason = CASE status WHEN '{Status.HELD}' THEN %(reason)s::text || ' It was held before: ' || reason
                                ELSE %(reason)s::text END,
           status = '{Status.HELD}'
     WHERE id = ANY (%(ids)s::uuid[])
    RETURNING id, tenant_id, message_id, recipient, events
), {TOLD}
SELECT 1
"""

_FIND = f"""
SELECT d.id FROM queued q JOIN delivery d ON d.id = q.delivery_id
 WHERE q.delivery_id > %(after)s::uuid AND q.due_at = %(never)s::timestamptz
   AND d.status = '{Status.HELD}' AND d.rule = '{RULE}'
   AND (%(before)s::timestamptz IS NULL OR d.created_at < %(before)s::timestamptz)
   AND (%(tenant)s::uuid IS NULL OR q.tenant_id = %(tenant)s::uuid)
   AND (%(destination)s::text IS NULL OR q.destination = %(destination)s::text)
 ORDER BY q.delivery_id LIMIT %(most)s::int
"""

_WAITING = f"""
SELECT t.id AS tenant_id, t.name AS tenant, q.destination, count(*) AS count, min(d.created_at) AS oldest,
       max(d.created_at) AS newest
  FROM queued q JOIN delivery d ON d.id = q.delivery_id JOIN tenant t ON t.id = q.tenant_id
 WHERE q.due_at = %(never)s::timestamptz AND d.status = '{Status.HELD}' AND d.rule = '{RULE}'
 GROUP BY t.id, t.name, q.destination ORDER BY count(*) DESC, t.name, q.destination LIMIT 200
"""

# with a try in the log, so that the page of the endpoint says why; replay tells them again, with the same ids
_GIVE_UP = f"""
WITH given AS (
    UPDATE webhook_delivery SET state = '{WebhookDelivery.State.FAILED}'
     WHERE id IN (SELECT id FROM webhook_delivery
                   WHERE state = '{WebhookDelivery.State.PENDING}' AND created_at < %(until)s::timestamptz
                     AND id > %(after)s::uuid ORDER BY id LIMIT %(most)s::int)
    RETURNING id
), logged AS (
    INSERT INTO webhook_try (id, delivery_id, at, url, address, elapsed_ms, response, error)
    SELECT make_uuid7(), id, now(), '', '', 0, '', %(words)s::text FROM given
)
SELECT id FROM given
"""

_AUDIT = """
INSERT INTO audit_entry (id, tenant_id, actor, action, subject, at)
VALUES (make_uuid7(), NULL, %(actor)s::text, %(action)s::text, %(subject)s::text, now())
"""
