"""What a tenant has: API keys, webhook endpoints, suppressed addresses, as Resend's API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now

from deliveries.mime.address import folded
from deliveries.models import ApiKey, Suppression, WebhookEndpoint
from deliveries.models.erasure import hashed
from deliveries.read.emails import iso, keyset

Page = tuple[list[dict[str, Any]], bool]

#: Resend knows three origins; the exact reason stands beside it
_ORIGIN = {"bounce": "bounce", "complaint": "complaint"}


def suppressions(tenant_id: UUID, limit: int, after: UUID | None, before: UUID | None, origin: str = "") -> Page:
    """One page of the list; of an `origin` in Resend's sense where one is given."""
    found = Suppression.objects.filter(tenant_id=tenant_id)
    if origin == "manual":
        found = found.exclude(reason__in=_ORIGIN)
    elif origin:
        found = found.filter(reason=origin)
    rows, more = keyset(found, limit, after, before)
    return [_suppression(row) for row in rows], more


def suppressed(tenant_id: UUID, ids_or_addresses: Sequence[str]) -> list[dict[str, Any]]:
    """What stands on the list under these ids or addresses (any case), the one for every stream first."""
    ids, addresses = [], []
    for text in ids_or_addresses:
        try:
            ids.append(UUID(text))
        except ValueError:
            if "\0" not in text:  # no text of Postgres holds it
                addresses.append(folded(text.strip()))
    addresses += [hashed(tenant_id, address) for address in addresses]
    rows = Suppression.objects.filter(Q(id__in=ids) | Q(address__in=addresses), tenant_id=tenant_id)
    current = rows.filter(Q(expires_at=None) | Q(expires_at__gt=Now()) | Q(id__in=ids))
    return [_suppression(row) for row in current.order_by("address", "stream")]


def _suppression(row: Suppression) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "email": row.address,
        "origin": _ORIGIN.get(row.reason, "manual"),
        "source_id": str(row.source_event) if row.source_event else None,
        "created_at": iso(row.created_at),
        "reason": row.reason,
        "stream": row.stream,
        "detail": row.detail,
        "expires_at": iso(row.expires_at),
    }


def api_keys(tenant_id: UUID, limit: int, after: UUID | None, before: UUID | None) -> Page:
    """Keys that are not revoked; their secrets nobody knows."""
    rows, more = keyset(ApiKey.objects.filter(tenant_id=tenant_id, revoked_at=None), limit, after, before)
    return [
        {
            "id": str(row.id),
            "name": row.name,
            "created_at": iso(row.created_at),
            "last_used_at": iso(row.last_used_at),
            "permission": row.scope,
            "domain_id": str(row.domain_id) if row.domain_id else None,
            "prefix": row.prefix,
            "ip_allow": row.networks,
            "rate_limit": row.rate_limit,
            "test": row.test,
            "expires_at": iso(row.expires_at),
            "suspended": row.suspended_at is not None,
        }
        for row in rows
    ], more


def webhooks(tenant_id: UUID, limit: int, after: UUID | None, before: UUID | None) -> Page:
    own = WebhookEndpoint.objects.filter(tenant_id=tenant_id).defer("secret", "previous_secret")
    rows, more = keyset(own, limit, after, before)
    return [_webhook(row) for row in rows], more


def webhook(tenant_id: UUID, endpoint_id: UUID) -> dict[str, Any] | None:
    row = WebhookEndpoint.objects.filter(tenant_id=tenant_id, id=endpoint_id).first()
    if row is None:
        return None
    return {"object": "webhook", **_webhook(row), "signing_secret": row.verifier}


def _webhook(row: WebhookEndpoint) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "created_at": iso(row.created_at),
        "status": "enabled" if row.enabled else "disabled",
        "endpoint": row.url,
        "events": row.events,
        "format": row.format,
        "basic_auth": row.credentials is not None,
        "disabled_reason": row.disabled_reason,
        "failing_since": iso(row.failing_since),
    }
