"""What was asked of the API and answered, for those who look for a fault in their own code."""

from __future__ import annotations

from django.db import models

from deliveries.models.fields import uuid7


class RequestLog(models.Model):
    """One request; its id is the X-Request-Id of the answer, unless the client gave one. Partitioned by month."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    request_id = models.TextField(null=True, help_text="The client's own X-Request-Id.")
    tenant_id = models.UUIDField()
    key_id = models.UUIDField()
    method = models.CharField(max_length=7)
    endpoint = models.TextField(help_text="The path, without the query.")
    status = models.IntegerField()
    took_ms = models.IntegerField()
    user_agent = models.TextField()
    request_body = models.TextField(null=True, help_text="JSON: an outline, without secrets and files.")
    response_body = models.TextField(null=True, help_text="JSON: an outline, without secrets.")
    created_at = models.DateTimeField()

    class Meta:
        db_table = "request_log"
        indexes = [models.Index(fields=["tenant_id", "id"], name="request_log_tenant")]

    def __str__(self) -> str:
        return f"{self.method} {self.endpoint} {self.status}"
