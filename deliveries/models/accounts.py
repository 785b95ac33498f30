"""Who may send what: tenants, people, keys, domains and their DKIM keys."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db import models
from django.utils.translation import gettext_lazy as _

from deliveries.models.fields import EncryptedField, uuid7


class Tenant(models.Model):
    """One customer of the installation; nothing of one tenant is ever seen by another."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=200, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    suspended_at = models.DateTimeField(null=True, blank=True, help_text="No mail is accepted or sent from then on.")
    suspended_reason = models.CharField(max_length=300, blank=True)

    class Meta:
        db_table = "tenant"
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class User(AbstractUser):
    """A person who logs in to the panel. Superusers are the operators of the installation."""

    class Meta:
        db_table = "account"
        verbose_name = _("user")


class Membership(models.Model):
    """What a person may do in a tenant."""

    class Role(models.TextChoices):
        #: everything, people and keys included
        OWNER = "owner", _("Owner")
        #: everything but people
        DEVELOPER = "developer", _("Developer")
        #: reads
        VIEWER = "viewer", _("Viewer")

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=12, choices=Role.choices, default=Role.VIEWER)

    class Meta:
        db_table = "membership"
        constraints = [models.UniqueConstraint(fields=("user", "tenant"), name="membership_once")]

    def __str__(self) -> str:
        return f"{self.user} in {self.tenant} ({self.role})"


class AuditEntry(models.Model):
    """Who did what in the panel or over the API to keys, domains, endpoints, suppressions and mail."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, null=True, on_delete=models.SET_NULL, related_name="+")
    actor = models.CharField(max_length=200, help_text="A person's login, or key:<prefix>.")
    action = models.CharField(max_length=60)
    subject = models.CharField(max_length=300)
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "audit_entry"
        verbose_name_plural = "audit entries"
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.subject}"


class SendingDomain(models.Model):
    """A domain that a tenant may put into From; mail leaves only once it is verified."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="domains")
    name = models.CharField(max_length=253, help_text="A-label, lower case, no trailing dot.")
    verified_at = models.DateTimeField(null=True, blank=True)
    suspended_at = models.DateTimeField(null=True, blank=True, help_text="No mail of it is accepted or sent.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "sending_domain"
        constraints = [models.UniqueConstraint(fields=("tenant", "name"), name="sending_domain_once")]
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class DkimKey(models.Model):
    """A signing key of a domain. The newest active one signs; a retired one stays published ≥ 7 days."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    domain = models.ForeignKey(SendingDomain, on_delete=models.CASCADE, related_name="dkim_keys")
    selector = models.CharField(max_length=63)
    private_key = EncryptedField()
    public_key = models.TextField(help_text="Base64, as it stands in p= of the DNS record.")
    active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "dkim_key"
        constraints = [models.UniqueConstraint(fields=("domain", "selector"), name="dkim_selector_once")]

    def __str__(self) -> str:
        return f"{self.selector}._domainkey.{self.domain}"


class ApiKey(models.Model):
    """A bearer secret of 256 bits, kept only as its SHA-256; the plain text is shown once, at birth."""

    class Scope(models.TextChoices):
        #: every endpoint
        FULL = "full_access", _("Full access")
        #: sending only
        SENDING = "sending_access", _("Sending only")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=12, help_text="The first characters, to tell keys apart.")
    secret_hash = models.BinaryField(max_length=32, unique=True)
    scope = models.CharField(max_length=20, choices=Scope.choices, default=Scope.FULL)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    suspended_at = models.DateTimeField(null=True, blank=True, help_text="Refused, and its mail held, until released.")

    class Meta:
        db_table = "api_key"
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"
