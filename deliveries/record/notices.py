"""Events that no outcome makes: an endpoint was switched off, a domain changed, a test was asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from deliveries import queue
from deliveries.models.fields import uuid7
from deliveries.models.sql import execute
from deliveries.states import EventType


@dataclass(frozen=True, slots=True)
class Notice:
    """A fact about a tenant. `data` is JSON and stands in the webhook's body as it is."""

    tenant_id: UUID
    type: EventType
    data: Mapping[str, Any] = field(default_factory=dict)
    recipient: str = ""


def tell(notices: Sequence[Notice]) -> list[UUID]:
    """Append the events and their outbox rows, in the caller's transaction; the events' ids in order."""
    if not notices:
        return []
    ids = [uuid7() for _ in notices]
    execute(
        _TELL,
        {
            "id": ids,
            "tenant": [n.tenant_id for n in notices],
            "type": [n.type.value for n in notices],
            "recipient": [n.recipient for n in notices],
            "data": [json.dumps(dict(n.data)) for n in notices],
        },
    )
    return ids


def tell_one(notice: Notice, endpoint_id: UUID) -> UUID:
    """Append one event, and its outbox row for this endpoint alone, whatever any asks for (a test); the event's id."""
    ident = uuid7()
    params = {"id": ident, "tenant": notice.tenant_id, "type": notice.type.value, "endpoint": endpoint_id}
    execute(_TELL_ONE, {**params, "recipient": notice.recipient, "data": json.dumps(dict(notice.data))})
    return ident


_TELL_ONE = """
WITH told AS (
    INSERT INTO event (id, tenant_id, type, message_id, delivery_id, recipient, data, created_at)
    VALUES (%(id)s::uuid, %(tenant)s::uuid, %(type)s::text, NULL, NULL, %(recipient)s::text, %(data)s::jsonb, now())
    RETURNING id, tenant_id, type
)
INSERT INTO webhook_delivery (id, tenant_id, endpoint_id, event_id, type, body, state, tries, next_try_at, created_at)
SELECT make_uuid7(), tenant_id, %(endpoint)s::uuid, id, type, '', 'pending', 0, now(), now() FROM told
"""

_TELL = f"""
WITH told AS (
    INSERT INTO event (id, tenant_id, type, message_id, delivery_id, recipient, data, created_at)
    SELECT n.id, n.tenant_id, n.type, NULL, NULL, n.recipient, n.data::jsonb, now()
      FROM unnest(%(id)s::uuid[], %(tenant)s::uuid[], %(type)s::text[], %(recipient)s::text[], %(data)s::text[])
           AS n(id, tenant_id, type, recipient, data)
    RETURNING id, tenant_id, type
), outbox AS ({queue.OUTBOX_FROM.format(events="told")}
)
SELECT 1
"""
