"""What a tenant may ask of an endpoint: a test, and that events are told again.

A replay keeps id and body: a receiver that heard the event before knows it by its id. Each answer is bounded and says
whether there is more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from deliveries.errors import BadInput, Fault
from deliveries.models import AuditEntry, WebhookDelivery, WebhookEndpoint
from deliveries.models.sql import execute
from deliveries.record.notices import Notice, tell_one
from deliveries.states import OPT_IN, EventType

#: events of one replay; more than one transaction writes (a batch of 100 mails to 50 recipients each), since a window
#: is gone on with at a transaction's time
MOST = 10_000

State = WebhookDelivery.State


@dataclass(frozen=True, slots=True)
class Replayed:
    """`count` events are due now. `more`: ask again, for a window with `next_from` as its beginning."""

    count: int
    more: bool = False
    next_from: datetime | None = None


def test(tenant_id: UUID, endpoint_id: UUID, actor: str) -> UUID | None:
    """Tell this endpoint alone a webhook.test; the event's id, or None when the tenant has no such endpoint."""
    with transaction.atomic():
        endpoint = _endpoint(tenant_id, endpoint_id)
        if endpoint is None:
            return None
        data = {"webhook_id": str(endpoint_id), "endpoint": endpoint.url}
        ident = tell_one(Notice(tenant_id, EventType.WEBHOOK_TEST, data), endpoint_id)
        _audit(endpoint, actor, "webhook.tested", endpoint.url)
    return ident


def replay_event(tenant_id: UUID, endpoint_id: UUID, event_id: UUID, actor: str) -> bool | None:
    """One event, also one that this endpoint was never told; None when the tenant has no such endpoint or event.

    False when it waits to be told already.
    """
    with transaction.atomic():
        endpoint = _endpoint(tenant_id, endpoint_id)
        if endpoint is None or execute(_KNOWN, {"id": event_id, "tenant": tenant_id}).fetchone() is None:
            return None
        count = _tell(_ONE, {"event": event_id, "tenant": tenant_id, "endpoint": endpoint_id})["count"]
        _audit(endpoint, actor, "webhook.replayed", f"{event_id} to {endpoint.url}")
    return bool(count)


def replay_window(tenant_id: UUID, endpoint_id: UUID, start: datetime, end: datetime, actor: str) -> Replayed | None:
    """All events of [start, end) that this endpoint asks for, oldest first, told before or not: so it also hears what
    happened while it was switched off. None when the tenant has no such endpoint."""
    with transaction.atomic():
        endpoint = _endpoint(tenant_id, endpoint_id)
        if endpoint is None:
            return None
        params = {"tenant": tenant_id, "endpoint": endpoint_id, "start": start, "end": end}
        row = _tell(_WINDOW, {**params, "events": endpoint.events, "opt_in": [e.value for e in OPT_IN], "most": MOST})
        _audit(endpoint, actor, "webhook.replayed", f"{row['count']} of {start} to {end} to {endpoint.url}")
    return Replayed(row["count"], row["next_from"] is not None, row["next_from"])


def replay_failed(tenant_id: UUID, endpoint_id: UUID, actor: str) -> Replayed | None:
    """All that was given up, oldest first; None when the tenant has no such endpoint."""
    with transaction.atomic():
        endpoint = _endpoint(tenant_id, endpoint_id)
        if endpoint is None:
            return None
        count = execute(_FAILED, {"endpoint": endpoint_id, "most": MOST}).rowcount
        more = count == MOST and execute(_MORE_FAILED, {"endpoint": endpoint_id}).fetchone() is not None
        _audit(endpoint, actor, "webhook.replayed", f"{count} that failed to {endpoint.url}")
    return Replayed(count, more)


def _endpoint(tenant_id: UUID, endpoint_id: UUID) -> WebhookEndpoint | None:
    """Locked, so that two replays never write the same row twice. BadInput when it is switched off."""
    rows = WebhookEndpoint.objects.select_for_update(no_key=True).defer("secret", "previous_secret")
    endpoint = rows.filter(tenant_id=tenant_id, id=endpoint_id).first()
    if endpoint is not None and not endpoint.enabled:
        raise BadInput([Fault("", "webhook_disabled", "This webhook is switched off; switch it on first.")])
    return endpoint


def _tell(picked: str, params: dict[str, Any]) -> dict[str, Any]:
    row = execute(picked + _AGAIN, params).fetchone()
    assert row is not None
    return row


def _audit(endpoint: WebhookEndpoint, actor: str, action: str, subject: str) -> None:
    AuditEntry.objects.create(tenant_id=endpoint.tenant_id, actor=actor, action=action, subject=subject[:300])


_KNOWN = "SELECT 1 FROM event WHERE id = %(id)s AND tenant_id = %(tenant)s"

_ONE = """
WITH picked AS MATERIALIZED (
    SELECT id, type, NULL::timestamptz AS next_from FROM event WHERE id = %(event)s AND tenant_id = %(tenant)s
)"""

_WINDOW = """
WITH asked AS MATERIALIZED (
    SELECT e.id, e.type, e.created_at, row_number() OVER (ORDER BY e.created_at, e.id) AS place FROM event e
     WHERE e.tenant_id = %(tenant)s AND e.created_at >= %(start)s::timestamptz AND e.created_at < %(end)s::timestamptz
       AND CASE WHEN cardinality(%(events)s::text[]) = 0 THEN e.type <> ALL (%(opt_in)s::text[])
                ELSE e.type = ANY (%(events)s::text[]) END
     ORDER BY e.created_at, e.id LIMIT %(most)s::int + 1
), picked AS MATERIALIZED (
    SELECT id, type, (SELECT created_at FROM asked WHERE place > %(most)s::int) AS next_from
      FROM asked WHERE place <= %(most)s::int
)"""

# events and their outbox rows are committed together: where an event has no row for this endpoint, none will come
_AGAIN = f""", known AS MATERIALIZED (
    SELECT d.id, d.event_id, d.state FROM webhook_delivery d
     WHERE d.endpoint_id = %(endpoint)s AND d.event_id IN (SELECT id FROM picked)
), again AS (
    UPDATE webhook_delivery SET state = '{State.PENDING}', tries = 0, next_try_at = now()
     WHERE id IN (SELECT id FROM known WHERE state <> '{State.PENDING}') AND state <> '{State.PENDING}'
    RETURNING 1
), made AS (
    INSERT INTO webhook_delivery (id, tenant_id, endpoint_id, event_id, type, body, state, tries, next_try_at,
                                  created_at)
    SELECT make_uuid7(), %(tenant)s::uuid, %(endpoint)s::uuid, p.id, p.type, '', '{State.PENDING}', 0, now(), now()
      FROM picked p WHERE p.id NOT IN (SELECT event_id FROM known)
    RETURNING 1
)
SELECT (SELECT count(*) FROM again) + (SELECT count(*) FROM made) AS count,
       (SELECT max(next_from) FROM picked) AS next_from
"""

_FAILED = f"""
UPDATE webhook_delivery SET state = '{State.PENDING}', tries = 0, next_try_at = now()
 WHERE id IN (SELECT id FROM webhook_delivery WHERE endpoint_id = %(endpoint)s AND state = '{State.FAILED}'
               ORDER BY id LIMIT %(most)s)
"""

_MORE_FAILED = f"""
SELECT 1 FROM webhook_delivery WHERE endpoint_id = %(endpoint)s AND state = '{State.FAILED}' LIMIT 1
"""
