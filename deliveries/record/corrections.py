"""A bounce was read wrongly: a person, or a better rule, says what it meant. Its status stays, for no was said."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction

from deliveries.mime.address import folded
from deliveries.models import AuditEntry, Delivery, Event, Suppression
from deliveries.record import suppressions
from deliveries.states import SUPPRESSING, Category, Status


def correct(
    delivery_id: UUID, category: Category, actor: str, rule: str = "operator", suppress: bool | None = None
) -> bool:
    """The bounced delivery has that category from now on; False where it has not bounced, or has it already.

    Its address goes on the list where the category says that it is dead (`suppress` decides where it is given); where
    it does not, the suppression that this bounce made is taken off. One that anything else made stays.
    """
    if suppress is None:
        suppress = category in SUPPRESSING - {Category.BAD_DOMAIN}
    with transaction.atomic():
        row = Delivery.objects.select_for_update().filter(id=delivery_id, status=Status.BOUNCED).first()
        if row is None or (row.category, row.rule) == (category.value, rule):
            return False
        before = f"{row.category}/{row.rule}"
        Delivery.objects.filter(id=row.id).update(category=category.value, rule=rule)
        AuditEntry.objects.create(
            tenant_id=row.tenant_id, actor=actor[:200], action="delivery.reclassified",
            subject=f"{row.id} {before} → {category}/{rule}"[:300],
        )  # fmt: skip
        if suppress:
            suppressions.add(row.tenant_id, row.recipient, "bounce", row.reply, actor)
        else:
            events = Event.objects.filter(message_id=row.message_id, delivery_id=row.id).values_list("id", flat=True)
            mine = Suppression.objects.filter(
                tenant_id=row.tenant_id, address=folded(row.recipient), reason="bounce", source_event__in=list(events)
            )
            suppressions.remove(list(mine.values_list("id", flat=True)), actor, row.tenant_id)
    return True
