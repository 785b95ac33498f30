"""The first page: the last 24 hours by status, from bounded counts."""

from __future__ import annotations

import time
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from deliveries.admin.access import access
from deliveries.admin.messages import TONE
from deliveries.models import Brake
from deliveries.read.panel import COUNT_LIMIT, last_day
from deliveries.states import Status

_MEANING = {
    Status.DELIVERED: "accepted by the receivers",
    Status.QUEUED: "waiting for their turn",
    Status.SCHEDULED: "to be sent later",
    Status.DEFERRED: "to be tried again",
    Status.BOUNCED: "refused or returned",
    Status.FAILED: "could not be sent",
    Status.EXPIRED: "given up for age",
    Status.SUPPRESSED: "kept from suppressed addresses",
    Status.CANCELED: "stopped by the sender",
    Status.HELD: "waiting for a person",
    Status.UNKNOWN: "may have arrived",
}
#: always shown, zero or not; the others only when there are any
_ALWAYS = (Status.DELIVERED, Status.QUEUED, Status.DEFERRED, Status.BOUNCED)


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """UNFOLD's DASHBOARD_CALLBACK."""
    counts = last_day(access(request).tenants, int(time.time() * 1000))
    link = reverse("admin:deliveries_message_changelist")
    order = (*_ALWAYS, *(s for s in Status if s not in _ALWAYS))
    context["cards"] = [
        {
            "word": status.value,
            "count": f"{COUNT_LIMIT - 1}+" if counts.get(status, 0) >= COUNT_LIMIT else str(counts.get(status, 0)),
            "meaning": _MEANING[status],
            "tone": TONE[status],
            "url": f"{link}?status={status.value}&period=day",
        }
        for status in order
        if status in _ALWAYS or counts.get(status)
    ]
    context["messages_url"] = link
    if access(request).operator:
        context["brakes"] = list(Brake.objects.filter(state=Brake.State.OPEN).select_related("tenant")[:20])
        context["brakes_url"] = reverse("admin:deliveries_brake_changelist")
    context["title"] = "The last 24 hours"
    return context
