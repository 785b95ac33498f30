"""Endpoints: who hears events, and with which secret they are signed."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from uuid import UUID

from django.conf import settings
from django.db.models.functions import Now

from deliveries import fetch
from deliveries.errors import AddressRefused, BadInput, Fault
from deliveries.models import Tenant, WebhookDelivery, WebhookEndpoint
from deliveries.states import EventType

#: octets; Standard Webhooks asks for 24 to 64
_SECRET_OCTETS = 32
#: as the column holds it
_MAX_URL_CHARS = 2_000


def new_secret() -> str:
    """`whsec_` and base64, as the verifiers of Standard Webhooks take it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_OCTETS)).decode("ascii")


def create_endpoint(tenant: Tenant, url: str, events: Sequence[str] = ()) -> tuple[WebhookEndpoint, str]:
    """A new endpoint and its signing secret. `events` empty = all but the opt-in ones.

    BadInput names `url` or `events[n]`.
    """
    faults = []
    try:
        fetch.check_url(url, allow_private=settings.WEBHOOK_ALLOW_PRIVATE)
    except AddressRefused as e:
        faults.append(Fault("url", "invalid_url", f"This URL is never called: {e}. Use a public https address."))
    if len(url) > _MAX_URL_CHARS:
        faults.append(Fault("url", "invalid_url", f"The URL is longer than {_MAX_URL_CHARS} characters; shorten it."))
    known = {e.value for e in EventType}
    for at, name in enumerate(events):
        if name not in known:
            words = f"There is no event {name!r}; the events are {', '.join(sorted(known))}."
            faults.append(Fault(f"events[{at}]", "invalid_event", words))
    if faults:
        raise BadInput(faults)
    secret = new_secret()
    endpoint = WebhookEndpoint.objects.create(
        tenant=tenant, url=url, events=list(dict.fromkeys(events)), secret=secret.encode("ascii")
    )
    return endpoint, secret


def replay(ids: Sequence[UUID], tenant_id: UUID | None = None) -> int:
    """Tell again what was told or given up, by the whole schedule and with the same id and body; how many.

    Endpoints that are switched off stay untold.
    """
    on = WebhookEndpoint.objects.filter(enabled=True).values("id")
    rows = WebhookDelivery.objects.filter(id__in=list(ids), endpoint_id__in=on)
    if tenant_id is not None:
        rows = rows.filter(tenant_id=tenant_id)
    ended = rows.exclude(state=WebhookDelivery.State.PENDING)
    return ended.update(state=WebhookDelivery.State.PENDING, tries=0, next_try_at=Now())
