"""The narrow hot rows: what is due, and what is known of where it goes."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import models
from django.db.models import Q

#: "not until something happens"; Postgres' own infinity cannot be read into a datetime
NEVER = datetime(3000, 1, 1, tzinfo=UTC)


class Queued(models.Model):
    """A delivery that is not finished. Deleted in the transaction that ends it.

    Claimed is not started: `lease_id`/`leased_until` say who has it, `started_at` (the crash ledger) that
    its final dot may have been written. In flight = started and not recorded. A held delivery waits with
    `due_at` at NEVER.
    """

    delivery_id = models.UUIDField(primary_key=True)
    lane = models.SmallIntegerField()
    destination = models.TextField()
    tenant_id = models.UUIDField()
    due_at = models.DateTimeField()
    size = models.IntegerField()
    lease_id = models.UUIDField(null=True)
    leased_until = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "queued"
        indexes = [
            # claim: the due rows of a destination, tenant by tenant
            models.Index(
                fields=("lane", "destination", "tenant_id", "due_at"),
                condition=Q(lease_id__isnull=True),
                name="queued_claim",
            ),
            # renewal and the sweeper: what is leased, a few thousand rows at most
            models.Index(fields=("lease_id",), condition=Q(lease_id__isnull=False), name="queued_leased"),
        ]


class Destination(models.Model):
    """Lane × recipient domain's MX site or route: when its next mail is due, its limits, its suspension.

    `next_due` is never later than the due time of its earliest unleased row and never earlier than
    `suspended_until`; NEVER while nothing waits. It is lowered only under the protocol that
    deliveries.queue describes.
    """

    lane = models.SmallIntegerField()
    name = models.TextField()
    next_due = models.DateTimeField()
    places = models.IntegerField(default=20, help_text="Transactions at a time, per worker process.")
    suspended_until = models.DateTimeField(null=True, blank=True)
    suspended_reason = models.TextField(blank=True)
    last_reply = models.TextField(blank=True)

    class Meta:
        db_table = "destination"
        constraints = [models.UniqueConstraint(fields=("lane", "name"), name="destination_once")]
        indexes = [models.Index(fields=("lane", "next_due"), name="destination_due")]

    def __str__(self) -> str:
        return self.name
