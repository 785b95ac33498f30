"""Orders to take one person's data away."""

from __future__ import annotations

import hashlib
from uuid import UUID

from django.db import models
from django.db.models.functions import Now

from deliveries.models.accounts import Tenant
from deliveries.models.fields import EncryptedField, uuid7

#: the address of a row that outlived the person's data, in SQL; a tenant's own, so that no table of hashes fits two
HASHED = "'sha256:' || encode(sha256(convert_to({tenant}::text || ':' || {address}, 'UTF8')), 'hex')"


def hashed(tenant_id: UUID, address: str) -> str:
    """What HASHED says in SQL, for a folded address."""
    return "sha256:" + hashlib.sha256(f"{tenant_id}:{address}".encode()).hexdigest()


class Erasure(models.Model):
    """An order to erase what names an address; without a tenant: of all of them. It outlives the address."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    address = EncryptedField(null=True, help_text="Until it is done.")
    keep_suppressions = models.BooleanField(
        default=True, help_text="Suppressions of the address stay as hashes, so that no mail goes there again."
    )
    rehearsal = models.BooleanField(
        default=False, db_default=False, help_text="Only what would go is told; nothing is changed."
    )
    asked_by = models.CharField(max_length=200)
    asked_at = models.DateTimeField(auto_now_add=True)
    due_at = models.DateTimeField(db_default=Now(), help_text="It is worked on from then on.")
    step = models.SmallIntegerField(default=0)
    after = models.UUIDField(null=True, help_text="The last row of the step's table that was looked at.")
    found = models.JSONField(default=dict, help_text="By kind: how many rows went or lost the address.")
    waiting = models.IntegerField(default=0, help_text="Mails that still wait for somebody else, or to be read.")
    done_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "erasure"
        ordering = ("-id",)
        indexes = [models.Index(fields=("due_at",), condition=models.Q(done_at=None), name="erasure_due")]

    def __str__(self) -> str:
        return f"erasure {self.id}"

    @property
    def status(self) -> str:
        if self.done_at:
            return "rehearsed" if self.rehearsal else "done"
        return "waiting" if self.waiting else "running" if self.step or self.found else "asked"
