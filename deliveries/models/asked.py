"""Reports that senders asked for (RFC 3461): looked at until the delivery has ended and all was told."""

from __future__ import annotations

from enum import IntFlag

from django.db import models


class Notify(IntFlag):
    """Bits of `notify` and `told` (RFC 3461 §4.1)."""

    SUCCESS = 1
    FAILURE = 2
    DELAY = 4


class ReportRequest(models.Model):
    """What one forward-path's sender wants to hear; written by accept, deleted when nothing more can come."""

    delivery_id = models.UUIDField(primary_key=True)
    tenant_id = models.UUIDField()
    message_id = models.UUIDField()
    return_to = models.TextField(help_text="MAIL FROM: where the report goes; never the null path.")
    envid = models.TextField(blank=True, help_text="xtext")
    whole = models.BooleanField(help_text="RET=FULL")
    notify = models.SmallIntegerField(help_text="1 success, 2 failure, 4 delay")
    orcpt = models.TextField(blank=True, help_text="type;xtext")
    told = models.SmallIntegerField(default=0)
    due_at = models.DateTimeField(help_text="When it is looked at again.")
    created_at = models.DateTimeField()

    class Meta:
        db_table = "report_request"
        # deliveries.dsn: what is due
        indexes = [models.Index(fields=("due_at",), name="report_request_due")]

    def __str__(self) -> str:
        return f"{self.delivery_id} to {self.return_to}"
