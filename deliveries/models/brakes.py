"""When a provider refuses all at once, or a tenant's mail goes wrong: what was counted, held, and decided."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from deliveries.models.accounts import Tenant
from deliveries.models.fields import uuid7


class Refusals(models.Model):
    """How often a site refused mail for a category in that minute; category "" = how often it answered at all.

    Written with the outcomes, only by batches that hold a refusal; answers of calm minutes are not counted.
    """

    site = models.TextField()
    category = models.CharField(max_length=20, blank=True)
    minute = models.DateTimeField()
    count = models.IntegerField()

    class Meta:
        db_table = "refusals"
        constraints = [models.UniqueConstraint(fields=("site", "category", "minute"), name="refusals_once")]
        # the last ten minutes; and what is old enough to go
        indexes = [models.Index(fields=("minute",), name="refusals_minute")]

    def __str__(self) -> str:
        return f"{self.site} {self.category or 'in all'}: {self.count}"


class Brake(models.Model):
    """Mail was held because too much of it was refused: that of a site, or that of a tenant."""

    class State(models.TextChoices):
        #: mail is held, its suppressions are provisional
        OPEN = "open", _("open")
        #: set by a person: the refusals were false, their suppressions are gone, mail goes on
        UNDONE = "undone", _("undone")
        #: set by a person: the refusals were true, their suppressions stand, mail goes on
        CONFIRMED = "confirmed", _("confirmed")
        #: set when its time ran out, or the site was resumed by hand: mail goes on, nothing is decided
        ENDED = "ended", _("ended")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    site = models.TextField(blank=True, help_text="Whose refusals; empty where a tenant is held.")
    tenant = models.ForeignKey(Tenant, null=True, on_delete=models.CASCADE, related_name="+")
    category = models.CharField(max_length=20, blank=True)
    reason = models.TextField(help_text="What was counted, in words.")
    refused = models.IntegerField()
    since = models.DateTimeField(help_text="Refusals from then on are in doubt.")
    at = models.DateTimeField()
    until = models.DateTimeField(null=True, help_text="Mail goes on then at the latest; empty: when a person says so.")
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    decided_at = models.DateTimeField(null=True)
    decided_by = models.CharField(max_length=200, blank=True)

    class Meta:
        db_table = "brake"
        constraints = [
            # two processes that see the same jump hold it once
            models.UniqueConstraint(fields=("site",), condition=Q(state="open") & ~Q(site=""), name="brake_site_once"),
            models.UniqueConstraint(fields=("tenant",), condition=Q(state="open"), name="brake_tenant_once"),
        ]
        indexes = [models.Index(fields=("site", "-at"), name="brake_site")]

    def __str__(self) -> str:
        return f"{self.site or self.tenant}: {self.reason}"
