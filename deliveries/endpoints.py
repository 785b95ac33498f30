"""Webhook endpoints: made, listed by read models, removed. What they hear is written by record and accept."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from uuid import UUID

from django.conf import settings
from django.db import transaction

from deliveries import fetch
from deliveries.errors import AddressRefused, BadInput, Fault
from deliveries.models import AuditEntry, WebhookEndpoint

#: each event of a tenant is written once for each of its endpoints
MOST = 20


def new_secret() -> str:
    """`whsec_` and 24 random octets in base64, the form that the verifiers of Standard Webhooks read."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode("ascii")


def create(tenant_id: UUID, url: str, events: Sequence[str], actor: str) -> tuple[WebhookEndpoint, str]:
    """A new endpoint and its signing secret. BadInput when the URL can never be posted to."""
    try:
        fetch.check_url(url, allow_private=settings.WEBHOOK_ALLOW_PRIVATE)
    except AddressRefused as refused:
        raise BadInput([Fault("endpoint", "invalid_url", f"This URL cannot be used: {refused}.")]) from None
    secret = new_secret()
    with transaction.atomic():
        if WebhookEndpoint.objects.filter(tenant_id=tenant_id).count() >= MOST:
            fault = Fault("endpoint", "too_many", f"There are {MOST} webhooks already; remove one first.")
            raise BadInput([fault])
        endpoint = WebhookEndpoint.objects.create(
            tenant_id=tenant_id, url=url, events=sorted(set(events)), secret=secret.encode("ascii")
        )
        AuditEntry.objects.create(tenant_id=tenant_id, actor=actor, action="webhook.created", subject=url[:300])
    return endpoint, secret


def remove(tenant_id: UUID, endpoint_id: UUID, actor: str) -> bool:
    """False when the tenant has no such endpoint. What still waits for it is not sent any more."""
    with transaction.atomic():
        endpoint = WebhookEndpoint.objects.filter(tenant_id=tenant_id, id=endpoint_id).first()
        if endpoint is None:
            return False
        WebhookEndpoint.objects.filter(id=endpoint_id).delete()
        AuditEntry.objects.create(
            tenant_id=tenant_id, actor=actor, action="webhook.removed", subject=endpoint.url[:300]
        )
    return True
