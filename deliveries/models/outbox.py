"""What the application is told: endpoints, the outbox, and every try."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from deliveries.models.accounts import Tenant
from deliveries.models.fields import EncryptedField, Sealed, uuid7


class WebhookEndpoint(models.Model):
    """A URL of the tenant's that hears events. `events` empty = all but the opt-in ones."""

    class Format(models.TextChoices):
        #: Resend's shape, signed as Standard Webhooks are
        NATIVE = "native"
        #: Postmark's flat objects; signed as the native ones, which its receivers do not look at
        POSTMARK = "postmark"
        #: SendGrid's lists; ECDSA, so the secret is a private key and receivers are given the public one
        SENDGRID = "sendgrid"
        #: Mailgun's signature and event-data; HMAC
        MAILGUN = "mailgun"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="endpoints")
    url = models.URLField(max_length=2000)
    events = ArrayField(models.CharField(max_length=40), default=list, blank=True)
    format = models.CharField(
        max_length=10,
        choices=Format.choices,
        default=Format.NATIVE,
        db_default=Format.NATIVE,
        help_text="The service whose words and signature its receiver reads.",
    )
    secret = EncryptedField(help_text="`whsec_` and base64; of SendGrid's format a private key, of Mailgun's a text.")
    previous_secret = EncryptedField(null=True, help_text="Signs beside the new one until previous_until.")
    credentials = EncryptedField(null=True, editable=False, help_text="`user:password` for Basic authentication.")
    previous_until = models.DateTimeField("the secret before signs until", null=True, blank=True)
    enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=300, blank=True)
    failing_since = models.DateTimeField(null=True, blank=True, help_text="The first failure since the last 2xx.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "webhook_endpoint"
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return self.url

    @property
    def verifier(self) -> str:
        """What a receiver verifies with: the secret; of SendGrid's format the public key, as its clients take it.
        Empty where it cannot be read."""
        if isinstance(self.secret, Sealed):
            return ""
        secret = bytes(self.secret).decode("ascii")
        if self.format != self.Format.SENDGRID:
            return secret
        key = load_der_private_key(base64.b64decode(secret), None).public_key()
        return base64.b64encode(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode("ascii")


class WebhookDelivery(models.Model):
    """Outbox: one event for one endpoint, written with the outcome that it tells; partitioned by id."""

    class State(models.TextChoices):
        #: to be tried at next_try_at
        PENDING = "pending"
        #: answered 2xx; final
        DELIVERED = "delivered"
        #: the schedule ran out, or the endpoint is gone; final but for a replay
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant_id = models.UUIDField()
    endpoint = models.ForeignKey(
        WebhookEndpoint, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="deliveries"
    )
    event_id = models.UUIDField(db_index=True)
    type = models.CharField(max_length=40)
    body = models.TextField(help_text="The JSON octets as they are signed, the same at every try.")
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    tries = models.SmallIntegerField(default=0)
    next_try_at = models.DateTimeField()
    created_at = models.DateTimeField()

    class Meta:
        db_table = "webhook_delivery"
        verbose_name = "webhook post"
        indexes = [
            # notify: what is due, endpoint by endpoint, so that one with a million rows costs the others nothing
            models.Index(fields=("endpoint", "next_try_at"), condition=Q(state="pending"), name="webhook_due"),
            # the log of one endpoint
            models.Index(fields=("endpoint", "-id"), name="webhook_endpoint_log"),
            # replay of all that failed; such rows are few
            models.Index(fields=("endpoint", "id"), condition=Q(state="failed"), name="webhook_failed"),
        ]

    def __str__(self) -> str:
        return f"{self.type}: {self.status}"

    @property
    def status(self) -> str:
        """In the words of the API: pending, attempting (it failed and is tried again), success or failed."""
        if self.state == self.State.PENDING:
            return "attempting" if self.tries else "pending"
        return "success" if self.state == self.State.DELIVERED else "failed"


class WebhookTry(models.Model):
    """One POST and what came back; partitioned by id."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    delivery = models.ForeignKey(WebhookDelivery, on_delete=models.DO_NOTHING, db_constraint=False, related_name="log")
    at = models.DateTimeField()
    url = models.TextField(db_default="", help_text="Where it went: an endpoint's URL may be changed.")
    address = models.TextField(blank=True, help_text="The address that the URL was pinned to.")
    status_code = models.SmallIntegerField(null=True)
    elapsed_ms = models.IntegerField()
    response = models.TextField(blank=True, help_text="The first 2 KB.")
    error = models.TextField(blank=True)

    class Meta:
        db_table = "webhook_try"
        verbose_name_plural = "webhook tries"

    def __str__(self) -> str:
        return f"{self.status_code or self.error} at {self.at:%Y-%m-%d %H:%M:%S}"
