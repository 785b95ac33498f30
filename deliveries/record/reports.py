"""What returned mail changes: a late bounce, a complaint; or nothing, which is written down as well.

The verdict over the mail (its `InboundMessage` row) and what it does to the delivery are one transaction that begins
with a lock on that row. A mail that is read twice, by two workers or after a crash, therefore acts once; another
mail that says the same finds the delivery bounced already, and changes nothing (docs/rfc.md, rule 27).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from deliveries import queue
from deliveries.models import InboundMessage
from deliveries.models.fields import uuid7
from deliveries.models.sql import execute
from deliveries.record import tally
from deliveries.record.again import again
from deliveries.record.suppressions import SECOND_SIGHT, SUPPRESS_FROM, SUPPRESSED_TOLD
from deliveries.smtp.reply import clean
from deliveries.states import Category, EventType, Status, may_become

State = InboundMessage.State

#: room for a note in the list of inbound mails
_MAX_NOTE = 1_000


@dataclass(frozen=True, slots=True)
class Reading:
    """The mail that was read: its row, and what it is in one word (`bounce`, `complaint`, `auto_reply` …)."""

    inbound_id: UUID
    kind: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """What a report says of a delivery that failed. `suppress` only where the address is dead."""

    category: Category
    rule: str
    suppress: bool
    diagnostic: str
    enhanced: str = ""
    #: permanent for the domain: the address is dead where this is the second sight
    second_sight: bool = False


def bounced(reading: Reading, delivery_id: UUID, said: Refused) -> bool:
    """The delivery becomes bounced, late; whether it did. It does from every status but a final one of another kind.

    Its queue row goes, unless a worker may already have written the final dot: then the recorder of that round finds
    a late bounce, lets it stand and removes the row.
    """
    return again(lambda: _bounced(reading, delivery_id, said))


def _bounced(reading: Reading, delivery_id: UUID, said: Refused) -> bool:
    with transaction.atomic():
        at = _lock(reading, delivery_id)
        if at is None:
            return False
        status = Status(at["status"])
        if not may_become(status, Status.BOUNCED):
            why = "had bounced already" if status is Status.BOUNCED else f"is {status}"
            _read(reading, State.READ, f"The delivery {why}; nothing was changed.", at)
            return False
        diagnostic = clean(said.diagnostic)
        told = uuid7()
        data: dict[str, Any] = {"rule": said.rule, "host": "", "reply": diagnostic, "category": said.category.value}
        if said.enhanced:
            data["enhanced"] = said.enhanced
        data |= {"late": True, "report": str(reading.inbound_id)}
        row = execute(
            _BOUNCED,
            {
                "id": delivery_id,
                "reason": f"A report that came back says: {diagnostic or 'it could not be delivered.'}",
                "category": said.category.value,
                "rule": said.rule,
                "enhanced": said.enhanced,
                "reply": diagnostic,
                "event": told,
                "data": json.dumps(data),
                "suppress": said.suppress,
                "second_sight": said.second_sight,
            },
        ).fetchone()
        assert row is not None
        # a provider may accept all and return all: its refusals count like those of a session
        counts = Counter({(row["site"], said.category.value): 1, (row["site"], ""): 1})
        tally.add(counts, timezone.now().replace(second=0, microsecond=0))
        _read(reading, State.ACTED, reading.note, at)
    return True


def complained(reading: Reading, delivery_id: UUID, feedback_type: str) -> bool:
    """The recipient said it is unwanted: a flag, an event, a suppression for the mail's stream; whether it was news."""
    return again(lambda: _complained(reading, delivery_id, feedback_type))


def _complained(reading: Reading, delivery_id: UUID, feedback_type: str) -> bool:
    with transaction.atomic():
        at = _lock(reading, delivery_id)
        if at is None:
            return False
        if at["complained_at"] is not None:
            _read(reading, State.READ, "This recipient had complained about this mail already.", at)
            return False
        data = {"feedback_type": clean(feedback_type), "report": str(reading.inbound_id)}
        execute(_COMPLAINED, {"id": delivery_id, "event": uuid7(), "data": json.dumps(data)})
        _read(reading, State.ACTED, reading.note, at)
    return True


def put_aside(reading: Reading, state: InboundMessage.State, delivery_id: UUID | None = None) -> None:
    """Nothing to act on: the mail's row says what it was. `delivery_id` where a valid token named one."""
    with transaction.atomic():
        at = None
        if delivery_id is not None:
            at = execute("SELECT id, tenant_id FROM delivery WHERE id = %(id)s", {"id": delivery_id}).fetchone()
        _read(reading, state, reading.note, at)


def _lock(reading: Reading, delivery_id: UUID) -> dict[str, Any] | None:
    """The delivery as it stands; None where the mail was read by another meanwhile, or the delivery is gone."""
    if execute(_LOCK_MAIL, {"id": reading.inbound_id}).fetchone() is None:
        return None
    at: dict[str, Any] | None = execute(_LOCK, {"id": delivery_id}).fetchone()
    if at is None:
        _read(reading, State.UNMATCHED, "The delivery that it speaks of is no longer kept.", None)
    return at


def _read(reading: Reading, state: InboundMessage.State, note: str, at: dict[str, Any] | None) -> None:
    execute(
        _READ,
        {
            "id": reading.inbound_id,
            "state": state.value,
            "kind": reading.kind,
            "note": clean(note)[:_MAX_NOTE],
            "delivery": at["id"] if at else None,
            "tenant": at["tenant_id"] if at else None,
        },
    )


_LOCK_MAIL = f"SELECT id FROM inbound_message WHERE id = %(id)s AND state = '{State.WAITING}' FOR UPDATE"

# the delivery first, then its queue row: as every recorder does
_LOCK = """
WITH locked AS (SELECT * FROM delivery WHERE id = %(id)s FOR UPDATE),
     queue AS (SELECT q.delivery_id FROM queued q WHERE q.delivery_id IN (SELECT id FROM locked) FOR UPDATE)
SELECT l.id, l.tenant_id, l.status, l.complained_at, EXISTS (SELECT FROM queue) AS queued FROM locked l
"""

_READ = f"""
UPDATE inbound_message SET state = %(state)s, kind = %(kind)s, note = %(note)s, delivery_id = %(delivery)s,
       -- most reports bring the mail back, which was asked not to be kept
       octets = CASE WHEN EXISTS (SELECT FROM delivery d JOIN message m ON m.id = d.message_id
                                   WHERE d.id = %(delivery)s AND m.redact > 0) THEN '' ELSE octets END,
       -- what came to a tenant's own mailbox or address stays with it, whatever it turned out to be
       tenant_id = coalesce(%(tenant)s, tenant_id)
 WHERE id = %(id)s AND state = '{State.WAITING}'
"""

# who takes the mail of the recipient's domain: a report may come from any host
_SITE = """
    coalesce((SELECT mx.site FROM mx_site mx WHERE mx.domain = lower(split_part(c.recipient, '@', -1))),
             lower(split_part(c.recipient, '@', -1)))
"""

_BOUNCED = f"""
WITH changed AS (
    UPDATE delivery
       SET status = '{Status.BOUNCED}', late = true, reason = %(reason)s, category = %(category)s, rule = %(rule)s,
           enhanced = %(enhanced)s, reply = %(reply)s, next_attempt_at = NULL, settled_at = now(),
           events = events + 1
     WHERE id = %(id)s
    RETURNING id, tenant_id, message_id, recipient, events
), ended AS (
    DELETE FROM queued WHERE delivery_id = %(id)s AND NOT (lease_id IS NOT NULL AND started_at IS NOT NULL)
), wanted AS (
    SELECT c.tenant_id, '*'::text AS stream, folded_address(c.recipient) AS address, 'bounce'::text AS reason,
           %(reply)s::text AS detail, %(event)s::uuid AS source_event, NULL::timestamptz AS expires_at,
           %(rule)s::text AS rule, %(category)s::text AS category, {_SITE} AS site
      FROM changed c
     WHERE %(suppress)s OR (%(second_sight)s AND {SECOND_SIGHT.format(category="%(category)s::text", c="c")})
), suppressed AS ({SUPPRESS_FROM.format(wanted="wanted")}
), told AS (
    INSERT INTO event (id, tenant_id, type, message_id, delivery_id, place, recipient, data, created_at)
    SELECT %(event)s::uuid, c.tenant_id, '{EventType.BOUNCED}', c.message_id, c.id, c.events, c.recipient,
           %(data)s::jsonb, now()
      FROM changed c
    UNION ALL
    {SUPPRESSED_TOLD}
    RETURNING id, tenant_id, type
), outbox AS ({queue.OUTBOX_FROM.format(events="told")}
)
SELECT {_SITE} AS site FROM changed c
"""

_COMPLAINED = f"""
WITH changed AS (
    UPDATE delivery SET complained_at = now(), events = events + 1 WHERE id = %(id)s
    RETURNING id, tenant_id, message_id, recipient, events
), wanted AS (
    SELECT c.tenant_id, m.stream, folded_address(c.recipient) AS address, 'complaint'::text AS reason,
           'A complaint of the recipient came back.'::text AS detail, %(event)s::uuid AS source_event,
           NULL::timestamptz AS expires_at, ''::text AS rule, ''::text AS category, ''::text AS site
      FROM changed c JOIN message m ON m.id = c.message_id
), suppressed AS ({SUPPRESS_FROM.format(wanted="wanted")}
), told AS (
    INSERT INTO event (id, tenant_id, type, message_id, delivery_id, place, recipient, data, created_at)
    SELECT %(event)s::uuid, c.tenant_id, '{EventType.COMPLAINED}', c.message_id, c.id, c.events, c.recipient,
           %(data)s::jsonb, now()
      FROM changed c
    UNION ALL
    {SUPPRESSED_TOLD}
    RETURNING id, tenant_id, type
), outbox AS ({queue.OUTBOX_FROM.format(events="told")}
)
SELECT 1
"""
