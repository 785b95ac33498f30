"""Whose mail a recipient is about to leave."""

from __future__ import annotations

from uuid import UUID

from deliveries.models import Delivery


def sender_of(delivery_id: UUID) -> str | None:
    """From, as the mail shows it; None where the delivery is no longer kept."""
    return Delivery.objects.filter(id=delivery_id).values_list("message__from_header", flat=True).first()
