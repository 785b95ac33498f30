"""The sender thinks again: a mail that is still scheduled leaves at another time, or never.

All recipients or none: the order stands only while every one that was not refused at once is `scheduled` and no worker
has it. Rows are locked as every recorder locks them (deliveries, then queue rows, in id order), and a claim passes over
locked queue rows, so that the order and a claim never both have their way.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, transaction

from deliveries import queue, quotas
from deliveries.models.sql import execute
from deliveries.record.again import again
from deliveries.record.operator import CANCEL, COUNT, DUE, TOLD
from deliveries.states import EventType, Status


class Change(StrEnum):
    """What became of the order."""

    DONE = "done"
    #: the tenant has no such mail
    NO_MAIL = "no_mail"
    #: it was never scheduled, its time has come, or it has ended
    NOT_SCHEDULED = "not_scheduled"
    #: it would leave after its own end (deliver_before)
    AFTER_END = "after_end"


def cancel(tenant_id: UUID, message_id: UUID, actor: str) -> Change:
    """Never sent; final."""

    def order(ids: Sequence[UUID]) -> Change:
        execute(CANCEL, {**_told(actor, "delivery.canceled", EventType.CANCELED), "ids": ids})
        return Change.DONE

    return _order(tenant_id, message_id, order)


def reschedule(tenant_id: UUID, message_id: UUID, at: datetime | None, actor: str) -> Change:
    """Due at `at`, or now where it is None. An end that was not asked for moves along.

    Raises OverQuota where the day or month that it moves to has no room; then nothing has changed.
    """
    event = EventType.SCHEDULED if at else EventType.QUEUED

    def order(ids: Sequence[UUID]) -> Change:
        params = {
            **_told(actor, "delivery.rescheduled", event), "ids": ids, "message": message_id, "at": at,
            "tenant": tenant_id, "max_age_s": settings.RETRY.max_age_s,
        }  # fmt: skip
        execute(_UNCOUNT, params)
        if not execute(_MOVE_MESSAGE, params).fetchone():
            transaction.set_rollback(True)
            return Change.AFTER_END
        execute(_MOVE, params)
        execute(_RECOUNT, params)
        transaction.on_commit(queue.wake)
        return Change.DONE

    try:
        return _order(tenant_id, message_id, order)
    except DatabaseError as e:
        if refused := quotas.refusal(e):
            raise refused from None
        raise


def _told(actor: str, action: str, event: EventType) -> dict[str, Any]:
    return {
        "actor": actor, "by": "the sender", "action": action, "event": event.value, "rule": "sender", "reason": "",
        "at": None,
    }  # fmt: skip


def _order(tenant_id: UUID, message_id: UUID, order: Any) -> Change:
    def work() -> Change:
        with transaction.atomic():
            rows = execute(_LOCK, {"message": message_id, "tenant": tenant_id}).fetchall()
            if not rows:
                return Change.NO_MAIL
            waiting = [row["id"] for row in rows if row["status"] == Status.SCHEDULED]
            others = {row["status"] for row in rows} - {Status.SCHEDULED, Status.SUPPRESSED}
            if not waiting or others or _free(waiting) != len(waiting):
                return Change.NOT_SCHEDULED
            done: Change = order(waiting)
            return done

    return again(work)


def _free(ids: Sequence[UUID]) -> int:
    return len(execute(_LOCK_QUEUED, {"ids": ids}).fetchall())


_LOCK = """
SELECT id, status FROM delivery
 WHERE message_id = %(message)s AND tenant_id = %(tenant)s ORDER BY id FOR UPDATE
"""

_LOCK_QUEUED = """
SELECT delivery_id FROM queued WHERE delivery_id = ANY (%(ids)s::uuid[]) AND lease_id IS NULL
 ORDER BY delivery_id FOR UPDATE
"""

_MOVE_MESSAGE = """
UPDATE message SET scheduled_at = coalesce(%(at)s::timestamptz, now())
 WHERE id = %(message)s AND (deliver_before IS NULL OR deliver_before > coalesce(%(at)s::timestamptz, now()))
RETURNING id
"""

_MOVE = f"""
WITH wanted AS (
    SELECT scheduled_at, coalesce(deliver_before, scheduled_at + make_interval(secs => %(max_age_s)s)) AS expires_at
      FROM message WHERE id = %(message)s
), moved AS (
    UPDATE queued q SET due_at = w.scheduled_at FROM wanted w WHERE q.delivery_id = ANY (%(ids)s::uuid[])
    RETURNING q.lane, q.destination, q.due_at
), changed AS (
    UPDATE delivery d SET next_attempt_at = w.scheduled_at, expires_at = w.expires_at, {COUNT},
           status = CASE WHEN %(at)s::timestamptz IS NULL THEN '{Status.QUEUED}' ELSE '{Status.SCHEDULED}' END
      FROM wanted w WHERE d.id = ANY (%(ids)s::uuid[])
    RETURNING d.id, d.tenant_id, d.message_id, d.recipient, d.events
), {TOLD}, {DUE}
SELECT 1
"""

_UNCOUNT = f"""
WITH changed AS (
    SELECT tenant_id, message_id, attempts FROM delivery WHERE id = ANY (%(ids)s::uuid[])
), {quotas.UNCOUNTED}
SELECT 1
"""

_RECOUNT = f"""
WITH go AS (
    SELECT daily_quota, monthly_quota FROM tenant WHERE id = %(tenant)s::uuid
), path AS (
    SELECT tenant_id, due_at, NULL AS suppressed FROM queued WHERE delivery_id = ANY (%(ids)s::uuid[])
), {quotas.COUNTED}
SELECT {quotas.KEPT}
"""
