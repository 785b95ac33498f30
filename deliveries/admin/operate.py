"""What a person may do with mail: each button calls one verb of deliveries.record.operator."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest

from deliveries.record import operator

#: the word in the form → the button
LABELS: dict[str, str] = {"retry": "Send now", "hold": "Hold", "release": "Release", "cancel": "Cancel"}

_DONE = {"retry": "due now", "hold": "held", "release": "released", "cancel": "canceled"}


def actor(request: HttpRequest) -> str:
    """As it stands in the audit log."""
    return request.user.get_username()


def run(request: HttpRequest, name: str, delivery_ids: Sequence[UUID], tenant_id: UUID | None = None) -> None:
    """Call the verb and say what came of it; the caller has checked that the person may."""
    if name not in LABELS:
        messages.error(request, "No such action.")
        return
    if not delivery_ids:
        messages.warning(request, "No recipient was chosen.")
        return
    who = actor(request)
    match name:
        case "retry":
            count = operator.retry_now(delivery_ids, who, tenant_id)
        case "hold":
            count = operator.hold(delivery_ids, who, tenant_id=tenant_id)
        case "release":
            count = operator.release(delivery_ids, who, tenant_id)
        case _:
            count = operator.cancel(delivery_ids, who, tenant_id)
    if count:
        messages.success(request, f"{count} of {len(delivery_ids)} {_plural(len(delivery_ids))}: {_DONE[name]}.")
    else:
        messages.warning(
            request, "Nothing was changed: what was chosen is finished, is being sent right now, or is not held."
        )


def _plural(n: int) -> str:
    return "recipient" if n == 1 else "recipients"
