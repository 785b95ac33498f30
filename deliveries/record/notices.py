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
