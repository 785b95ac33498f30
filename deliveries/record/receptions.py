"""Received mail told: its row, its event and the orders to hand it on, in one transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction

from deliveries.models import Handover, InboundMessage
from deliveries.models.sql import execute
from deliveries.record.notices import Notice, tell
from deliveries.record.reports import Reading
from deliveries.states import EventType

State = InboundMessage.State


def received(
    reading: Reading,
    tenant_id: UUID,
    received_for: Sequence[str],
    letter: Mapping[str, Any],
    hand_on: Sequence[tuple[UUID, str]],
) -> bool:
    """`letter` as it is listed; `hand_on` are routes with the forward-paths that they take. False: read already."""
    with transaction.atomic():
        params = {"id": reading.inbound_id, "kind": reading.kind, "letter": json.dumps(dict(letter))}
        row = execute(_RECEIVED, params).fetchone()
        if row is None:
            return False
        told = {"email_id": str(reading.inbound_id), **letter, "received_for": list(received_for)}
        tell([Notice(tenant_id, EventType.RECEIVED, told, received_for[0])])
        Handover.objects.bulk_create(
            Handover(
                tenant_id=tenant_id,
                inbound_id=reading.inbound_id,
                route_id=route_id,
                forward_path=path,
                due_at=row["now"],
                created_at=row["now"],
            )
            for route_id, path in hand_on
        )
    return True


_RECEIVED = f"""
UPDATE inbound_message SET state = '{State.RECEIVED}', kind = %(kind)s, letter = %(letter)s::jsonb
 WHERE id = %(id)s AND state = '{State.WAITING}'
RETURNING now() AS now
"""
