"""Where mail leaves from: addresses of the worker hosts, pools of them, and whose mail goes by which pool."""

from __future__ import annotations

from django.core.validators import validate_ipv46_address
from django.db import models
from django.db.models import Q

from deliveries.models.accounts import Tenant


class SourcePool(models.Model):
    """Addresses that share a reputation. What it cannot send now goes by `overflow`, or waits where there is none."""

    name = models.CharField(max_length=60, unique=True)
    overflow = models.ForeignKey(
        "self",
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="Takes over while its addresses rest or have sent what they may on a day; empty: mail waits.",
    )
    waits_at = models.DateTimeField(null=True, editable=False, help_text="Mail was put off for want of an address.")

    class Meta:
        db_table = "source_pool"
        verbose_name, verbose_name_plural = "IP pool", "IP pools"

    def __str__(self) -> str:
        return self.name


class SourceAddress(models.Model):
    """An address of a worker host (SOURCE_IPS). The host writes it down and says every few seconds that it lives.

    `used` counts what was begun from it on `used_on` (UTC) while it warms up: here and not in Valkey, for a day's
    allowance that is granted twice after a flush cannot be taken back.
    """

    address = models.CharField(max_length=45, primary_key=True, validators=[validate_ipv46_address])
    pool = models.ForeignKey(
        SourcePool, models.SET_NULL, null=True, blank=True, related_name="addresses",
        help_text="Without one it serves whatever has no pool.",
    )  # fmt: skip
    helo = models.CharField(
        max_length=253, blank=True, help_text="Its name in EHLO, which must lead to it and back; empty: HELO_NAME."
    )
    warm_from = models.DateField(
        null=True, blank=True, help_text="First day of its warm-up (WARM_UP); empty: it sends as much as there is."
    )
    rests_until = models.DateTimeField(null=True, blank=True, help_text="Nothing is begun from it until then.")
    rests_why = models.CharField(max_length=300, blank=True, help_text="In words, for the operator.")
    used_on = models.DateField(null=True)
    used = models.IntegerField(default=0)
    seen_at = models.DateTimeField(null=True)
    seen_on = models.CharField(max_length=253, blank=True, help_text="The host that has it.")

    class Meta:
        db_table = "source_address"
        verbose_name, verbose_name_plural = "IP address", "IP addresses"

    def __str__(self) -> str:
        return str(self.address)


class SourceRest(models.Model):
    """An address that one receiver distrusts: nothing is begun from it there until then (record/rests.py)."""

    address = models.CharField(max_length=45)
    site = models.CharField(max_length=253)
    why = models.CharField(max_length=300, help_text="The receiver's words.")
    strikes = models.SmallIntegerField(help_text="How often in turn.")
    since = models.DateTimeField()
    until = models.DateTimeField()

    class Meta:
        db_table = "source_rest"
        constraints = [models.UniqueConstraint(fields=("address", "site"), name="source_rest_once")]

    def __str__(self) -> str:
        return f"{self.address} rests for {self.site}"


class PoolRule(models.Model):
    """Whose mail goes by a pool. The nearest rule counts: tenant and kind, then tenant, then kind, then all."""

    class Kind(models.TextChoices):
        ALL = "", "all mail"
        TRANSACTIONAL = "transactional", "transactional (priority high and normal)"
        BULK = "bulk", "bulk (priority bulk)"

    tenant = models.ForeignKey(Tenant, models.CASCADE, null=True, blank=True, help_text="Empty: every tenant.")
    kind = models.CharField(max_length=20, blank=True, choices=Kind.choices, default=Kind.ALL)
    pool = models.ForeignKey(SourcePool, models.CASCADE)

    class Meta:
        db_table = "pool_rule"
        verbose_name = "IP pool rule"
        constraints = [
            models.UniqueConstraint(
                fields=("tenant", "kind"), name="pool_rule_once", nulls_distinct=False,
                violation_error_message="There is a rule for this tenant and kind already.",
            ),
            models.CheckConstraint(condition=Q(kind__in=("", "transactional", "bulk")), name="pool_rule_kind"),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.get_kind_display()} of {self.tenant or 'every tenant'} → {self.pool}"
