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

    def __str__(self) -> str:
        return f"{self.delivery_id} to {self.destination}"


class Destination(models.Model):
    """Lane × site (or recipient domain whose site is not known yet): when its next mail is due.

    `next_due` is never later than the due time of its earliest unleased row or the end of its site's
    suspension, whichever is later; NEVER while nothing waits. It is lowered only under the protocol that
    deliveries.queue describes. `proven` repeats the site's, so that a claim finds those that answer by index.
    """

    lane = models.SmallIntegerField()
    name = models.TextField()
    next_due = models.DateTimeField()
    proven = models.BooleanField(default=False)

    class Meta:
        db_table = "destination"
        constraints = [models.UniqueConstraint(fields=("lane", "name"), name="destination_once")]
        indexes = [
            # claim: what is due of a lane, those that answer apart from those that may not
            models.Index(fields=("lane", "proven", "next_due"), name="destination_ready"),
        ]

    def __str__(self) -> str:
        return self.name


class Site(models.Model):
    """Who receives the mail of many domains (`google.com`), or a route: how it takes ours, learned from its answers.

    Written by record.paces where something changes, and by the orders of an operator; what a provider is known to
    bear stands in smtp/providers.toml. A site without a row was never met: it begins as its profile says.
    """

    name = models.TextField(primary_key=True)
    places = models.IntegerField(help_text="Transactions at a time, over all worker processes.")
    most_places = models.IntegerField(null=True, help_text="An operator's bound; empty: the profile's.")
    proven = models.BooleanField(help_text="It answered, and within seconds, when it was last asked.")
    misses = models.IntegerField(help_text="Rounds in a row in which none of its hosts was reached.")
    strikes = models.IntegerField(help_text="Requests to slow down, or refusals of our route, since it was calm.")
    slowed_at = models.DateTimeField(null=True)
    suspended_until = models.DateTimeField(null=True)
    reason = models.TextField(blank=True, help_text="Why it is suspended or slowed, in words.")
    last_reply = models.TextField(blank=True)
    paused_by = models.TextField(blank=True, help_text="The person who paused it; only a person resumes it then.")
    changed_at = models.DateTimeField()

    class Meta:
        db_table = "site"
        indexes = [
            # the panel: what rests now, and until when
            models.Index(fields=("suspended_until",), condition=Q(suspended_until__isnull=False), name="site_resting"),
        ]

    def __str__(self) -> str:
        return self.name


class MxSite(models.Model):
    """Learned from a route: the mail of `domain` goes to `site`. New rows are born there (accept)."""

    domain = models.TextField(primary_key=True)
    site = models.TextField()
    learned_at = models.DateTimeField()

    class Meta:
        db_table = "mx_site"

    def __str__(self) -> str:
        return f"{self.domain} → {self.site}"
