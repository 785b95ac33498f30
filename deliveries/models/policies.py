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


class TlsSessions(models.Model):
    """Sessions of one kind with the hosts of a domain that asks for TLS reports (RFC 8460), on a day of UTC."""

    day = models.DateField()
    domain = models.CharField(max_length=253)
    digest = models.CharField(max_length=64, help_text="SHA-256 of the facts.")
    facts = models.JSONField(help_text="Policy, hosts, addresses, and what went wrong.")
    count = models.BigIntegerField()

    class Meta:
        db_table = "tls_sessions"
        constraints = [models.UniqueConstraint(fields=("day", "domain", "digest"), name="tls_sessions_once")]

    def __str__(self) -> str:
        return f"{self.domain} on {self.day}: {self.count}"
