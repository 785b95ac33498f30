"""Figures of the first page: what happened in an hour, how a site took our mail. Made from facts, never the facts."""

from __future__ import annotations

from uuid import UUID

from django.db import models

from deliveries.states import EventType

#: whose rows add up everybody's, so that the operator's page reads as few rows as a tenant's
EVERYBODY = UUID(int=0)

#: seconds from when a mail was due to its 2xx: bucket n holds what took less than the n-th bound
TOOK_S = (
    0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 450, 600, 900, 1200,
    1800, 2700, 3600, 5400, 7200, 10800, 14400, 21600, 28800, 43200, 86400, 172800, 259200, 345600,
)  # fmt: skip

#: event → what is counted
WHAT: dict[EventType, str] = {
    EventType.SENT: "accepted",
    EventType.SCHEDULED: "accepted",
    EventType.DELIVERED: "delivered",
    EventType.DELIVERY_DELAYED: "deferred",
    EventType.BOUNCED: "bounced",
    EventType.FAILED: "failed",
    EventType.EXPIRED: "failed",
    EventType.SUPPRESSED: "suppressed",
    EventType.COMPLAINED: "complained",
}


class HourTally(models.Model):
    """How often `what` happened to a tenant's mail in the hour that began at `hour`; record.figures adds to it."""

    tenant_id = models.UUIDField()
    hour = models.DateTimeField()
    what = models.CharField(max_length=16, help_text="accepted, delivered …; took:07 = a delivery's time, by bucket.")
    count = models.BigIntegerField()

    class Meta:
        db_table = "hour_tally"
        constraints = [models.UniqueConstraint(fields=("tenant_id", "hour", "what"), name="hour_tally_once")]

    def __str__(self) -> str:
        return f"{self.what} at {self.hour:%Y-%m-%d %H}: {self.count}"


class TallyMark(models.Model):
    """One row: every event before `until` is in the hours."""

    until = models.DateTimeField()

    class Meta:
        db_table = "tally_mark"

    def __str__(self) -> str:
        return f"{self.until:%Y-%m-%d %H:%M:%S}"


class SiteWeather(models.Model):
    """What a site answered in ten minutes. Counted in the processes: a killed one takes up to ten seconds with it."""

    site = models.TextField()
    slot = models.DateTimeField(help_text="When the ten minutes began.")
    delivered = models.IntegerField()
    deferred = models.IntegerField()
    bounced = models.IntegerField()
    ms = models.BigIntegerField(help_text="Milliseconds that the delivered ones took, from MAIL (or connect) to 250.")

    class Meta:
        db_table = "site_weather"
        constraints = [models.UniqueConstraint(fields=("site", "slot"), name="site_weather_once")]
        # what is said now, and what is old enough to go
        indexes = [models.Index(fields=("slot",), name="site_weather_slot")]

    def __str__(self) -> str:
        return f"{self.site} at {self.slot:%Y-%m-%d %H:%M}"
