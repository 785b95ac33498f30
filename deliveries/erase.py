"""Orders to erase one person's data: taken, worked off in bounded passes, and told without the address.

The address stands, encrypted, in the order until nothing more waits; then it is forgotten. What is accepted for the
person after the order was given is not the order's affair.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from uuid import UUID

from django.db import transaction

from deliveries.errors import Unreadable
from deliveries.models import AuditEntry, Erasure
from deliveries.models.sql import clock
from deliveries.record.erasure import Progress, walk
from deliveries.record.person import Person
from deliveries.record.retention import Time

log = logging.getLogger(__name__)

#: of a pass by the task, well within its time limit
_PASS_S = 60.0
#: whoever works on an order has it for so long
_HELD = timedelta(minutes=5)
#: mails that wait for others are looked for again after
_AGAIN = timedelta(minutes=5)


def order(
    tenant_id: UUID | None, address: str, actor: str, keep_suppressions: bool = True, rehearsal: bool = False
) -> Erasure:
    """Write the order down; the task takes it up within a minute. `address` is an addr-spec in A-labels. `rehearsal`:
    what it would find is counted, and nothing is changed."""
    with transaction.atomic():
        row = Erasure.objects.create(
            tenant_id=tenant_id, address=address.encode(), asked_by=actor[:200], keep_suppressions=keep_suppressions,
            rehearsal=rehearsal,
        )  # fmt: skip
        _audit(row, actor, "person.erasure_rehearsed" if rehearsal else "person.erasure_asked")
    return row


def run() -> None:
    """One pass over each order that is due."""
    left = Time(time.monotonic() + _PASS_S)
    while left.left() and (row := _take()):
        try:
            work(row, left)
        except Unreadable:  # it is looked at again with its next turn; the orders behind it are not kept
            log.error("erasure %s: its address cannot be read, no key of FIELD_KEYS opens it", row.id)


def work(row: Erasure, left: Time) -> bool:
    """Go on with an order; whether it came to its end."""
    at = Progress(row.step, row.after or UUID(int=0), dict(row.found), row.waiting)
    person = Person(bytes(row.address or b"").decode(), row.tenant_id, row.keep_suppressions)
    through = walk(person, at, left, f"erasure:{row.id}", dry=row.rehearsal)
    row.found, row.waiting = at.found, at.waiting
    row.step, row.after = at.step, at.after
    row.due_at = now = clock()
    done = through and (row.rehearsal or not at.waiting)
    if through and not done:  # from the beginning, once more time has passed
        row.step, row.after, row.due_at = 0, None, now + _AGAIN
    with transaction.atomic():
        if done:
            row.address, row.done_at = None, now
            if not row.rehearsal:
                _audit(row, row.asked_by, "person.erased")
        row.save()
    if through:
        log.info("erasure %s: %s; %d mails wait", row.id, row.found, row.waiting)
    return row.done_at is not None


def rehearse(tenant_id: UUID | None, address: str, keep_suppressions: bool = True) -> Progress:
    """What an order would find; nothing is changed."""
    at = Progress()
    walk(Person(address, tenant_id, keep_suppressions), at, Time(float("inf")), "", dry=True)
    return at


def _take() -> Erasure | None:
    with transaction.atomic():
        now = clock()
        open_ones = Erasure.objects.filter(done_at=None, due_at__lte=now).order_by("due_at")
        row = open_ones.select_for_update(skip_locked=True).first()
        if row is not None:
            row.due_at = now + _HELD
            if row.step == 0 and row.after is None:
                row.waiting = 0  # counted anew
            row.save(update_fields=["due_at", "waiting"])
        return row


def _audit(row: Erasure, actor: str, action: str) -> None:
    subject = f"erasure {row.id}"
    AuditEntry.objects.create(tenant_id=row.tenant_id, actor=actor[:200], action=action, subject=subject)
