"""Who may send what: tenants, people, keys, domains and their DKIM keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Value
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from deliveries.mime.dkim import KeyType
from deliveries.models.fields import EncryptedField, uuid7


class Tenant(models.Model):
    """One customer of the installation; nothing of one tenant is ever seen by another."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=200, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    suspended_at = models.DateTimeField(null=True, blank=True, help_text="No mail is accepted or sent from then on.")
    suspended_reason = models.CharField(max_length=300, blank=True)
    daily_quota = models.PositiveIntegerField(
        null=True, blank=True, help_text="Recipients a day (UTC); empty: any number."
    )
    privacy = models.BooleanField(
        default=False, db_default=False, help_text="Nothing is tracked, and finished mail keeps no content."
    )
    erased = models.BooleanField(
        default=False, db_default=False, help_text="Some of its suppressions are hashes: of people who were erased."
    )
    monthly_quota = models.PositiveIntegerField(
        null=True, blank=True, help_text="Recipients a month; empty: any number."
    )

    class Meta:
        db_table = "tenant"
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class QuotaUse(models.Model):
    """What a tenant with a quota has used of one day or month (UTC): recipients, by the day on which they are due."""

    id = models.BigAutoField(primary_key=True)
    tenant_id = models.UUIDField()
    kind = models.CharField(max_length=5, help_text="day or month.")
    starts = models.DateField()
    used = models.IntegerField()

    class Meta:
        db_table = "quota_use"
        constraints = [models.UniqueConstraint(fields=("tenant_id", "kind", "starts"), name="quota_use_once")]

    def __str__(self) -> str:
        return f"{self.used} of {self.tenant_id} in the {self.kind} of {self.starts}"

    @classmethod
    def of(cls, tenants: Sequence[Tenant]) -> dict[tuple[UUID, str], int]:
        """By tenant and kind, what those with a quota have used of today and of this month; missing is none."""
        ids = [t.id for t in tenants if t.daily_quota is not None or t.monthly_quota is not None]
        if not ids:
            return {}
        today = timezone.now().date()
        rows = cls.objects.filter(tenant_id__in=ids, starts__in=[today, today.replace(day=1)]).values_list(
            "tenant_id", "kind", "starts", "used"
        )
        return {(tenant_id, kind): n for tenant_id, kind, starts, n in rows if kind == "month" or starts == today}


class User(AbstractUser):
    """A person who logs in to the panel. Superusers are the operators of the installation."""

    class Meta:
        db_table = "account"
        verbose_name = "login"


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
        verbose_name = "member"
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
        verbose_name, verbose_name_plural = "audit log entry", "audit log entries"
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.subject}"


class SendingDomain(models.Model):
    """A domain that a tenant may put into From; mail leaves only once it is verified.

    Where it stands follows from three times (`status`); deliveries.domains alone moves them. A row that somebody
    verified by hand has no `next_check_at`, and is left alone.
    """

    class Status(models.TextChoices):
        #: added, and nobody asked yet whether its records stand in DNS
        NOT_STARTED = "not_started"
        #: asked for; its DKIM record is not there yet
        PENDING = "pending"
        #: may send
        VERIFIED = "verified"
        #: may send for the rest of the grace: its DKIM record went missing
        TEMPORARY_FAILURE = "temporary_failure"
        #: may not send: the record was missing for too long
        FAILED = "failed"

    class Tls(models.TextChoices):
        #: STARTTLS where it is offered; Resend's `opportunistic`
        MAY = "may"
        #: encrypted or not at all; Resend's `enforced`
        MUST = "must"
        #: encrypted, with a certificate that names the MX host
        VERIFY = "verify"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="domains")
    name = models.CharField(max_length=253, help_text="A-label, lower case, no trailing dot.")
    verified_at = models.DateTimeField(null=True, blank=True)
    missing_since = models.DateTimeField(
        null=True, blank=True, help_text="Its DKIM record was looked for since then, and is not there."
    )
    failed_at = models.DateTimeField(null=True, blank=True, help_text="It was missing for too long.")
    checked_at = models.DateTimeField(null=True, blank=True)
    next_check_at = models.DateTimeField(null=True, blank=True, help_text="Empty: never by itself.")
    findings = models.JSONField(default=dict, help_text="By record: status, found, advice.")
    return_path = models.CharField(max_length=63, default="send", help_text="The label below it that gets bounces.")
    return_path_verified_at = models.DateTimeField(
        null=True, blank=True, help_text="SPF and MX of the return path were seen: reverse-paths use it."
    )
    tracking_label = models.CharField(max_length=63, default="links", help_text="The label below it of tracking links.")
    open_tracking = models.BooleanField(default=False)
    click_tracking = models.BooleanField(default=False)
    unsubscribe_streams = ArrayField(
        models.CharField(max_length=64),
        default=list,
        db_default=Value([], ArrayField(models.CharField(max_length=64))),
        blank=True,
        help_text="Streams whose mails can be left with one click unless a mail says otherwise.",
    )
    redact_streams = models.JSONField(
        default=dict,
        db_default=Value({}, models.JSONField()),
        blank=True,
        help_text='By stream: "content" or "everything" of its mails goes once they are finished.',
    )
    tls = models.CharField(max_length=6, choices=Tls.choices, default=Tls.MAY)
    suspended_at = models.DateTimeField(null=True, blank=True, help_text="No mail of it is accepted or sent.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "sending_domain"
        verbose_name = "domain"
        constraints = [
            models.UniqueConstraint(fields=("tenant", "name"), name="sending_domain_once"),
            # whose mail it is must have one answer: the first that proves it keeps it
            models.UniqueConstraint(
                fields=("name",), condition=models.Q(verified_at__isnull=False), name="sending_domain_one_verified"
            ),
        ]
        # smtpd looks for a bounce's domain, and the checker for what is due
        indexes = [
            models.Index(fields=("name",), name="sending_domain_name"),
            models.Index(
                fields=("next_check_at",), condition=models.Q(next_check_at__isnull=False), name="sending_domain_due"
            ),
        ]
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def status(self) -> str:
        if self.verified_at:
            return self.Status.TEMPORARY_FAILURE if self.missing_since else self.Status.VERIFIED
        if self.failed_at:
            return self.Status.FAILED
        return self.Status.PENDING if self.missing_since else self.Status.NOT_STARTED

    @property
    def dkim_ed25519(self) -> bool:
        """A second signature is wished for: by a key that waits for its record, or signs."""
        return any(key.key_type == KeyType.ED25519 and not key.retired_at for key in self.dkim_keys.all())

    @property
    def bounce_domain(self) -> str:
        """Where its bounces come once that is verified; A-labels."""
        return f"{self.return_path}.{self.name}"


class DomainClaim(models.Model):
    """A tenant says that a domain is its own, whoever had it verified; proved by a TXT record of its own."""

    #: how long the record may be waited for
    LIFE = timedelta(days=7)

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    domain = models.OneToOneField(SendingDomain, on_delete=models.CASCADE, related_name="claim")
    token = models.CharField(max_length=64)
    created_at = models.DateTimeField()
    seen_at = models.DateTimeField(null=True, blank=True, help_text="Its record stood in DNS.")
    completed_at = models.DateTimeField(null=True, blank=True, help_text="The domain went over.")

    class Meta:
        db_table = "domain_claim"

    def __str__(self) -> str:
        return f"claim of {self.domain}"


class DkimKey(models.Model):
    """A signing key of a domain: waiting for its record to be seen, or active, or retired.

    The newest active one of each type signs. A retired one stays published ≥ 7 days, for what it signed may still be on
    its way; then its row goes. An Ed25519 key is there where the domain asked for it, beside the RSA keys; one whose
    record is gone waits again, since the mail passes without it.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    domain = models.ForeignKey(SendingDomain, on_delete=models.CASCADE, related_name="dkim_keys")
    selector = models.CharField(max_length=63)
    key_type = models.CharField(
        max_length=10, default="rsa", db_default="rsa", help_text="As it stands in k= of the DNS record."
    )
    private_key = EncryptedField()
    public_key = models.TextField(help_text="Base64, as it stands in p= of the DNS record.")
    active = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    retired_at = models.DateTimeField(null=True, blank=True, help_text="Signs nothing since then.")

    class Meta:
        db_table = "dkim_key"
        constraints = [models.UniqueConstraint(fields=("domain", "selector"), name="dkim_selector_once")]

    def __str__(self) -> str:
        return f"{self.selector}._domainkey.{self.domain}"


class BearerSecret(models.Model):
    """256 random bits, kept only as their SHA-256; the plain text is shown once, at birth."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=12, help_text="The first characters, to tell keys apart.")
    secret_hash = models.BinaryField(max_length=32, unique=True)
    networks = ArrayField(
        models.CharField(max_length=43), default=list, blank=True, help_text="Used from these addresses only (CIDR)."
    )
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Refused from then on.")
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class ApiKey(BearerSecret):
    """What an application of a tenant sends with."""

    class Scope(models.TextChoices):
        #: every endpoint, and what only owners may order
        OWNER = "owner_access", _("Full access, and erasing people")
        #: every endpoint but that
        FULL = "full_access", _("Full access")
        #: sending only
        SENDING = "sending_access", _("Sending only")
        #: looking only, and no secrets
        READING = "read_access", _("Reading only")

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="api_keys")
    scope = models.CharField(max_length=20, choices=Scope.choices, default=Scope.FULL)
    domain = models.ForeignKey(
        SendingDomain, null=True, blank=True, on_delete=models.CASCADE, related_name="+",
        help_text="Sends from this domain only.",
    )  # fmt: skip
    test = models.BooleanField(default=False, help_text="What it sends goes to the receiver lab, never out.")
    rate_limit = models.PositiveIntegerField(null=True, blank=True, help_text="Requests a second; empty: RATE_LIMIT.")
    suspended_at = models.DateTimeField(null=True, blank=True, help_text="Refused, and its mail held, until released.")

    class Meta:
        db_table = "api_key"
        verbose_name = "API key"
        ordering = ("-created_at",)


class OperatorKey(BearerSecret):
    """What a program that sees to tenants asks with. A table of its own: no door to mail looks into it."""

    class Scope(models.TextChoices):
        #: and whoever holds a key or a password that it handed out reads the tenant's mail
        FULL = "full_access", _("Tenants, and hands out API keys and first passwords")
        #: no mail can be reached with it
        TENANTS = "tenants_access", _("Tenants, their members and keys; hands out none")
        #: looks
        READING = "read_access", _("Reading only")

    scope = models.CharField(max_length=20, choices=Scope.choices, default=Scope.TENANTS)

    class Meta:
        db_table = "operator_key"
        verbose_name = "operator key"
        ordering = ("-created_at",)
