"""What other domains have promised about the way to them."""

from __future__ import annotations

from django.db import models


class MtaStsPolicy(models.Model):
    """A domain's MTA-STS policy as last fetched (RFC 8461); it binds until it expires, also while DNS is lost."""

    domain = models.CharField(max_length=253, primary_key=True)
    policy_id = models.CharField(max_length=32, help_text="The id of the TXT record that it came with.")
    mode = models.CharField(max_length=8)
    mx = models.JSONField(default=list)
    max_age_s = models.BigIntegerField()
    fetched_at = models.DateTimeField()

    class Meta:
        db_table = "mta_sts_policy"

    def __str__(self) -> str:
        return f"{self.domain}: {self.mode}"
