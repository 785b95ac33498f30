"""What a person may do with mail: each button calls one verb of deliveries.record.operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest

from deliveries.errors import MailapiError

#: the word in the form → the button
LABELS: dict[str, str] = {"retry": "Retry now", "hold": "Hold", "release": "Release", "cancel": "Cancel"}

_VERBS = {"retry": "retry_now", "hold": "hold", "release": "release", "cancel": "cancel"}
_DONE = {"retry": "retried now", "hold": "held", "release": "released", "cancel": "canceled"}


def actor(request: HttpRequest) -> str:
    """As it stands in the audit log."""
    return request.user.get_username()


def verb(module: str, name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def run(request: HttpRequest, name: str, delivery_ids: Sequence[UUID]) -> None:
    """Call the verb and say what came of it; the caller has checked that the person may."""
    if name not in _VERBS:
        messages.error(request, "No such action.")
        return
    if not delivery_ids:
        messages.warning(request, "No recipient was chosen.")
        return
    try:
        done = verb("deliveries.record.operator", _VERBS[name])(list(delivery_ids), actor(request))
    except MailapiError as e:
        messages.error(request, str(e))
        return
    count = done if isinstance(done, int) else len(done) if done is not None else len(delivery_ids)
    if count:
        messages.success(request, f"{count} of {len(delivery_ids)} recipients: {_DONE[name]}.")
    else:
        messages.warning(request, "Nothing was changed: none of the chosen recipients is in a state that allows it.")
