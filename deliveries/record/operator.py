"""Orders of a person about mail that is not finished: retry now, cancel, hold, release; sites in sites.py.

Each order is one transaction: lock what it may touch, change it, tell it, write who did it. A delivery that a worker
holds (a live lease) is left alone, because its outcome is on the way. Ids that are unknown, of another tenant, or in a
state that does not allow the order are passed over; the count says how many were changed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction

from deliveries import queue, quotas
from deliveries.models.queue import NEVER
from deliveries.models.sql import execute
from deliveries.record.again import again
from deliveries.states import EventType, Status

#: what waits for its time; HELD waits for a person
_WAITING = (Status.SCHEDULED, Status.QUEUED, Status.DEFERRED, Status.UNKNOWN)


def retry_now(delivery_ids: Sequence[UUID], actor: str, tenant_id: UUID | None = None) -> int:
    """Due at once, whatever the schedule said; a scheduled one becomes queued. How many."""
    return _order(_RETRY, _WAITING, delivery_ids, actor, tenant_id, action="delivery.retried", rings=True)


def cancel(delivery_ids: Sequence[UUID], actor: str, tenant_id: UUID | None = None) -> int:
    """Never sent (again); final. One in doubt (unknown) is not sent a second time, its first copy may have arrived."""
    return _order(
        CANCEL, (*_WAITING, Status.HELD), delivery_ids, actor, tenant_id,
        action="delivery.canceled", event=EventType.CANCELED,
    )  # fmt: skip


def hold(delivery_ids: Sequence[UUID], actor: str, reason: str = "", tenant_id: UUID | None = None) -> int:
    """Not sent until a person says so. `reason` in words, shown wherever the delivery is."""
    words = reason or f"Held by {actor}."
    return _order(
        _HOLD, _WAITING, delivery_ids, actor, tenant_id,
        action="delivery.held", event=EventType.DELIVERY_DELAYED, reason=words,
    )  # fmt: skip


def release(delivery_ids: Sequence[UUID], actor: str, tenant_id: UUID | None = None) -> int:
    """Held no more: due at once, or at its scheduled time where that is still to come."""
    return _order(
        _RELEASE, (Status.HELD,), delivery_ids, actor, tenant_id,
        action="delivery.released", event=EventType.QUEUED, rings=True,
    )  # fmt: skip


def _order(
    statement: str,
    lawful: Collection[Status],
    delivery_ids: Sequence[UUID],
    actor: str,
    tenant_id: UUID | None,
    *,
    action: str,
    event: EventType | None = None,
    reason: str = "",
    rings: bool = False,
) -> int:
    asked = {"ids": sorted(set(delivery_ids)), "tenant": tenant_id, "statuses": [s.value for s in lawful]}
    params: dict[str, Any] = {
        "actor": actor, "action": action, "event": event.value if event else None, "reason": reason, "never": NEVER,
        "by": actor, "rule": "operator", "at": None,
    }  # fmt: skip

    def work() -> int:
        with transaction.atomic():
            free = [row["id"] for row in execute(_LOCK, asked)]
            if not free:
                return 0
            execute(statement, {**params, "ids": free})
            if rings:
                transaction.on_commit(queue.wake)
            return len(free)

    return again(work)


# deliveries first, then queue rows, each in id order: as every recorder does
_LOCK = """
WITH locked AS (
    SELECT d.id FROM delivery d
     WHERE d.id = ANY (%(ids)s::uuid[]) AND (%(tenant)s::uuid IS NULL OR d.tenant_id = %(tenant)s)
       AND d.status = ANY (%(statuses)s::text[])
     ORDER BY d.id FOR UPDATE
)
SELECT q.delivery_id AS id FROM queued q
 WHERE q.delivery_id IN (SELECT id FROM locked) AND q.lease_id IS NULL
 ORDER BY q.delivery_id FOR UPDATE
"""

# an order's statement is made of these; the sender's orders (schedule.py) too
# the next event of this delivery, where one is told: its place in data.sequence
COUNT = "events = events + CASE WHEN %(event)s::text IS NULL THEN 0 ELSE 1 END"

TOLD = f"""
told AS (
    INSERT INTO event (id, tenant_id, type, message_id, delivery_id, place, recipient, data, created_at)
    SELECT make_uuid7(), c.tenant_id, %(event)s::text, c.message_id, c.id, c.events, c.recipient,
           jsonb_strip_nulls(jsonb_build_object('rule', %(rule)s::text, 'reply', %(reason)s::text,
               'scheduled_at', to_char(%(at)s::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))), now()
      FROM changed c WHERE %(event)s::text IS NOT NULL
    RETURNING id, tenant_id, type
), outbox AS ({queue.OUTBOX_FROM.format(events="told")}
), audited AS (
    INSERT INTO audit_entry (id, tenant_id, actor, action, subject, at)
    SELECT make_uuid7(), c.tenant_id, %(actor)s::text, %(action)s::text, left(c.id || ' ' || c.recipient, 300), now()
      FROM changed c
)
"""

DUE = f"""
due AS (
    SELECT lane, destination AS name, min(due_at) AS due_at FROM moved GROUP BY lane, destination
), {queue.ANNOUNCE}
"""

_RETRY = f"""
WITH moved AS (
    UPDATE queued SET due_at = now() WHERE delivery_id = ANY (%(ids)s::uuid[]) RETURNING lane, destination, due_at
), changed AS (
    UPDATE delivery SET next_attempt_at = now(), {COUNT},
           status = CASE status WHEN '{Status.SCHEDULED}' THEN '{Status.QUEUED}' ELSE status END
     WHERE id = ANY (%(ids)s::uuid[])
    RETURNING id, tenant_id, message_id, recipient, events
), {TOLD}, {DUE}
SELECT 1
"""

CANCEL = f"""
WITH ended AS (
    DELETE FROM queued WHERE delivery_id = ANY (%(ids)s::uuid[])
), changed AS (
    UPDATE delivery SET status = '{Status.CANCELED}', next_attempt_at = NULL, settled_at = now(), {COUNT},
           reason = 'Canceled by ' || %(by)s::text || CASE WHEN unknowns > 0
               THEN '; an earlier try ended without an answer, so it may have arrived.' ELSE '.' END
     WHERE id = ANY (%(ids)s::uuid[])
    RETURNING id, tenant_id, message_id, recipient, events, attempts
), {quotas.UNCOUNTED}, {TOLD}
SELECT 1
"""

_HOLD = f"""
WITH parked AS (
    UPDATE queued SET due_at = %(never)s::timestamptz WHERE delivery_id = ANY (%(ids)s::uuid[])
), changed AS (
    UPDATE delivery SET status = '{Status.HELD}', next_attempt_at = NULL, reason = %(reason)s::text, {COUNT}
     WHERE id = ANY (%(ids)s::uuid[])
    RETURNING id, tenant_id, message_id, recipient, events
), {TOLD}
SELECT 1
"""

_RELEASE = f"""
WITH wanted AS (
    SELECT d.id, m.scheduled_at > now() AS later, greatest(m.scheduled_at, now()) AS due_at
      FROM delivery d JOIN message m ON m.id = d.message_id WHERE d.id = ANY (%(ids)s::uuid[])
), moved AS (
    UPDATE queued q SET due_at = w.due_at FROM wanted w WHERE q.delivery_id = w.id
    RETURNING q.lane, q.destination, q.due_at
), changed AS (
    UPDATE delivery d SET next_attempt_at = w.due_at, reason = 'Released by ' || %(actor)s::text || '.', {COUNT},
           status = CASE WHEN w.later THEN '{Status.SCHEDULED}' ELSE '{Status.QUEUED}' END
      FROM wanted w WHERE d.id = w.id
    RETURNING d.id, d.tenant_id, d.message_id, d.recipient, d.events
), {TOLD}, {DUE}
SELECT 1
"""
