"""Where is my mail: one message with its deliveries, and pages of messages, as Resend's API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.db.models.functions import Now

from deliveries.bounces.letter import read_letter
from deliveries.models import Delivery, Message, MessageContent, Queued
from deliveries.read import listing
from deliveries.read.archive import fetched
from deliveries.states import LAST_EVENT, Lane, Status, worst


def email(tenant_id: UUID, message_id: UUID) -> dict[str, Any] | None:
    """The message with content and deliveries; None when the tenant has no such message."""
    message = Message.objects.filter(tenant_id=tenant_id, id=message_id).first()
    if message is None:
        return None
    deliveries = list(Delivery.objects.filter(tenant_id=tenant_id, message_id=message_id).order_by("position"))
    open_ones = [d.id for d in deliveries if not d.final]
    # in flight is a live lease that has started, not a status
    sending = set(
        Queued.objects.filter(delivery_id__in=open_ones, leased_until__gt=Now(), started_at__isnull=False).values_list(
            "delivery_id", flat=True
        )
    )
    # retention may have dropped the content before the message
    held = fetched(message)
    content = held.content
    html, text = (None, None) if content is None else _texts(content)
    return {
        "object": "email",
        **_line(message, last_event(deliveries)),
        "html": html,
        "text": text,
        "headers": dict(content.headers) if content else {},
        "tags": message.tags,
        "metadata": message.metadata,
        "stream": message.stream,
        "priority": Lane(message.lane).name.lower(),
        "deliver_before": iso(message.deliver_before),
        "redacted_at": iso(message.redacted_at),
        "content_note": held.why or None,
        "deliveries": [_delivery(d, d.id in sending) for d in deliveries],
    }


def page(
    tenant_id: UUID, filters: listing.Filters, limit: int, after: UUID | None, before: UUID | None
) -> tuple[list[dict[str, Any]], UUID | None]:
    """(messages, where the next page begins), newest first; listing.py tells by which index."""
    found = listing.page(tenant_id, filters, limit, after, before)
    messages = Message.objects.in_bulk(found.ids)
    deliveries: dict[UUID, list[Delivery]] = {i: [] for i in messages}
    rows = Delivery.objects.filter(message_id__in=deliveries).only(
        "message_id", "status", "attempts", "complained_at", "opened_at", "clicked_at"
    )
    for row in rows:
        deliveries[row.message_id].append(row)
    # retention may have taken one since
    return [_line(messages[i], last_event(deliveries[i])) for i in found.ids if i in messages], found.next


def keyset(rows: QuerySet[Any], limit: int, after: UUID | None, before: UUID | None) -> tuple[list[Any], bool]:
    """A page of rows with UUIDv7 ids, newest first; `after` an id come older ones, `before` it the next newer ones."""
    if before is not None:
        found = list(rows.filter(id__gt=before).order_by("id")[: limit + 1])
        return found[:limit][::-1], len(found) > limit
    if after is not None:
        rows = rows.filter(id__lt=after)
    found = list(rows.order_by("-id")[: limit + 1])
    return found[:limit], len(found) > limit


def last_event(deliveries: Sequence[Delivery]) -> str:
    """Resend's one word for a message with several recipients; `queued` is `sent` once it was attempted."""
    if not deliveries:  # retention took the deliveries first
        return "sent"
    status = worst(Status(d.status) for d in deliveries)
    if status == Status.DELIVERED:
        for word in ("complained", "clicked", "opened"):
            if any(getattr(d, f"{word}_at") for d in deliveries):
                return word
    if status in (Status.QUEUED, Status.HELD) and any(d.attempts for d in deliveries):
        return "sent"
    return LAST_EVENT[status]


def iso(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, with a Z."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _texts(content: MessageContent) -> tuple[str | None, str | None]:
    """html and text; of a mail that came whole as they stand in it."""
    if content.raw is None:
        return content.html, content.text
    letter = read_letter(bytes(content.raw))
    return letter.html, letter.text


def _line(message: Message, event: str) -> dict[str, Any]:
    return {
        "id": str(message.id),
        "message_id": f"<{message.message_id}>",
        "to": message.to,
        "from": message.from_header,
        "created_at": iso(message.created_at),
        "subject": message.subject,
        "bcc": message.bcc,
        "cc": message.cc,
        "reply_to": message.reply_to,
        "last_event": event,
        "scheduled_at": iso(message.scheduled_at),
    }


def _delivery(delivery: Delivery, sending: bool) -> dict[str, Any]:
    return {
        "id": str(delivery.id),
        "recipient": delivery.recipient,
        "field": delivery.field,
        "status": delivery.status,
        "reason": "It is being sent right now." if sending else delivery.reason,
        "category": delivery.category,
        "reply": delivery.reply,
        "host": delivery.host,
        "attempts": delivery.attempts,
        "next_attempt_at": None if sending else iso(delivery.next_attempt_at),
        "settled_at": iso(delivery.settled_at),
        "opened_at": iso(delivery.opened_at),
        "clicked_at": iso(delivery.clicked_at),
    }
