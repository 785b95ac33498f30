"""Troubles of the installation, as deliveries.alerts last saw them and told the operator."""

from __future__ import annotations

from django.db import models


class OperatorAlert(models.Model):
    """One trouble, now or before; a row per kind and subject, written by deliveries.alerts alone."""

    kind = models.CharField(max_length=20)
    subject = models.TextField(blank=True, help_text="What tells troubles of a kind apart.")
    words = models.TextField()
    since = models.DateTimeField()
    seen_at = models.DateTimeField()
    open = models.BooleanField()
    told_at = models.DateTimeField(null=True, help_text="When somebody was last told of it, or of its end.")
    told_open = models.BooleanField(default=False, help_text="It was told, and its end was not yet.")

    class Meta:
        db_table = "operator_alert"
        constraints = [models.UniqueConstraint(fields=("kind", "subject"), name="operator_alert_once")]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}".strip()
