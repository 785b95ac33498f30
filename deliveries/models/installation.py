"""The one row that knows which database it lies in, and how far that had come."""

from __future__ import annotations

import uuid

from django.db import models


class Installation(models.Model):
    """Made at the first look, and read by whatever sends (deliveries.continuity).

    `beats` only grows, and is repeated outside of the database: who is ahead of it there has seen a later one.
    """

    id = models.SmallIntegerField(primary_key=True, default=1)
    name = models.UUIDField(default=uuid.uuid4, help_text="What the beats outside belong to.")
    lies_in = models.TextField(help_text="Cluster, timeline and table as they were at the last beat.")
    beats = models.BigIntegerField(default=0)
    beat_at = models.DateTimeField()
    asked_at = models.DateTimeField(
        null=True, help_text="A restore was noticed; nothing is sent until a person answers."
    )
    why = models.TextField(blank=True, help_text="What gave it away, in words.")

    class Meta:
        db_table = "installation"

    def __str__(self) -> str:
        return str(self.name)
