"""What a person may do with mail: each button calls one verb of deliveries.record or deliveries.accept."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest

from deliveries.accept import repeat
from deliveries.errors import BadInput, Fault, MailapiError
from deliveries.mime.address import Address, parse_address
from deliveries.models import Message
from deliveries.record import operator, suppressions

#: the word in the form → the button
LABELS: dict[str, str] = {"retry": "Send now", "hold": "Hold", "release": "Release", "cancel": "Cancel"}

_DONE = {"retry": "due now", "hold": "held", "release": "released", "cancel": "canceled"}


def actor(request: HttpRequest) -> str:
    """As it stands in the audit log."""
    return request.user.get_username()


def said(request: HttpRequest) -> str:
    """The reason in the form as one line that Postgres takes; empty where the person gave none."""
    return " ".join(request.POST.get("reason", "").replace("\0", " ").split())[:300]


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


#: the word in the form → to whom a mail is sent again
AGAIN = ("again", "again_me", "again_to")


def send_again(request: HttpRequest, message: Message, verb: str, recipients: Sequence[str]) -> UUID | None:
    """To the chosen recipients, to the person, or to the address in the form; the new message where it is one alone."""
    try:
        with transaction.atomic():  # a quota is refused by Postgres, and the page's own transaction goes on
            ids = repeat.send_again(message, _addresses(request, verb, recipients), actor(request))
    except (MailapiError, ValueError) as refused:  # over its quota, say; ValueError: no address
        messages.error(request, f"Not sent: {refused}")
        return None
    messages.success(request, f"Sent again, as {len(ids)} new {'message' if len(ids) == 1 else 'messages'}.")
    return ids[0] if len(ids) == 1 else None


def _addresses(request: HttpRequest, verb: str, recipients: Sequence[str]) -> list[Address]:
    if verb == "again":
        return [parse_address(text) for text in recipients]
    if verb == "again_to":
        return [parse_address(request.POST.get("address", "").strip()[:400])]
    if not (own := getattr(request.user, "email", "")):
        raise BadInput([Fault("to", "missing", "Your login has no address; the operator sets one under Logins.")])
    return [parse_address(own)]


def unsuppress(request: HttpRequest, entries: Sequence[str], tenant_id: UUID) -> None:
    """Take these entries (ids, as the form has them) off the tenant's suppression list."""
    rows = []
    for text in entries:
        with suppress(ValueError):  # no id of ours
            rows.append(UUID(text))
    count = suppressions.remove(rows, actor(request), tenant_id)
    if count:
        messages.success(request, f"{count} taken off the suppression list: mail for there is sent from now on.")
    else:
        messages.warning(request, "Nothing was changed: it is not on the list any more.")


def _plural(n: int) -> str:
    return "recipient" if n == 1 else "recipients"
