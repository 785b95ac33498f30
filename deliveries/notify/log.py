"""What one endpoint was told, newest first, and every try of it: as Resend's API shows them, with ours beside it."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from deliveries.models import WebhookDelivery, WebhookEndpoint, WebhookTry
from deliveries.notify.body import bodies_as
from deliveries.read.emails import iso, keyset

Page = tuple[list[dict[str, Any]], bool]

State = WebhookDelivery.State


def events(tenant_id: UUID, endpoint_id: UUID, limit: int, after: UUID | None, before: UUID | None) -> Page | None:
    """A page by ids of events; None when the tenant has no such endpoint. A cursor that is gone begins anew."""
    if not WebhookEndpoint.objects.filter(tenant_id=tenant_id, id=endpoint_id).exists():
        return None
    rows = WebhookDelivery.objects.filter(endpoint_id=endpoint_id, tenant_id=tenant_id)
    # the log is in the order in which rows were written, and a page goes on from an event's row
    places = [rows.filter(event_id=cursor).values_list("id", flat=True).first() for cursor in (after, before) if cursor]
    place = places[0] if places else None
    found, more = keyset(rows.defer("body"), limit, place if after else None, place if before else None)
    return [_line(row) for row in found], more


def event(tenant_id: UUID, endpoint_id: UUID, event_id: UUID) -> dict[str, Any] | None:
    """One event with its body; None when this endpoint of this tenant was never to hear it."""
    row = _row(tenant_id, endpoint_id, event_id)
    if row is None:
        return None
    body = row.body or _made(endpoint_id, event_id)  # not told yet, or its event is gone
    return {"object": "webhook_event", **_line(row), "payload": json.loads(body) if body else {}}


def attempts(
    tenant_id: UUID, endpoint_id: UUID, event_id: UUID, limit: int, after: UUID | None, before: UUID | None
) -> Page | None:
    """The POSTs of one event to this endpoint, newest first."""
    row = _row(tenant_id, endpoint_id, event_id)
    if row is None:
        return None
    found, more = keyset(WebhookTry.objects.filter(delivery_id=row.id), limit, after, before)
    return [
        {
            "id": str(t.id),
            "http_status_code": t.status_code,
            "response": t.response,
            "sent_at": iso(t.at),
            "elapsed_ms": t.elapsed_ms,
            "error": t.error,
            "endpoint": t.url,
            "address": t.address,
        }
        for t in found
    ], more


def _row(tenant_id: UUID, endpoint_id: UUID, event_id: UUID) -> WebhookDelivery | None:
    if not WebhookEndpoint.objects.filter(tenant_id=tenant_id, id=endpoint_id).exists():
        return None
    return WebhookDelivery.objects.filter(tenant_id=tenant_id, endpoint_id=endpoint_id, event_id=event_id).first()


def _line(row: WebhookDelivery) -> dict[str, Any]:
    waits = row.state == State.PENDING
    return {
        "id": str(row.event_id),
        "type": row.type,
        "created_at": iso(row.created_at),
        "status": row.status,
        "tries": row.tries,
        "next_attempt_at": iso(row.next_try_at) if waits else None,
    }


def _made(endpoint_id: UUID, event_id: UUID) -> str | None:
    form = WebhookEndpoint.objects.values_list("format", flat=True).get(id=endpoint_id)
    return bodies_as([(event_id, form)]).get((event_id, form))
