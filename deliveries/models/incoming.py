"""Mail that comes in by other ways than bounces on port 25: polled mailboxes, addresses of tenants, its handing on."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from deliveries.models.accounts import SendingDomain, Tenant
from deliveries.models.fields import EncryptedField, uuid7


class BounceMailbox(models.Model):
    """A mailbox polled for returned mail, for people who cannot open port 25. Without a tenant: the operator's."""

    class Protocol(models.TextChoices):
        IMAP = "imap", "IMAP"
        POP3 = "pop3", "POP3"

    class Security(models.TextChoices):
        #: TLS from the first octet; ports 993 and 995
        IMPLICIT = "implicit", "TLS"
        #: ports 143 and 110; never clear text after a failure
        STARTTLS = "starttls", "STARTTLS"
        #: for a server on this machine
        NONE = "none", "none"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, null=True, blank=True, on_delete=models.CASCADE, related_name="+")
    protocol = models.CharField(max_length=4, choices=Protocol.choices, default=Protocol.IMAP)
    host = models.CharField(max_length=253)
    port = models.PositiveIntegerField(default=993, help_text="IMAP: 993, STARTTLS 143. POP3: 995, STARTTLS 110.")
    tls = models.CharField(max_length=8, choices=Security.choices, default=Security.IMPLICIT)
    username = models.CharField(max_length=254)
    password = EncryptedField()
    folder = models.CharField(max_length=200, default="INBOX", help_text="IMAP only.")
    delete_after = models.BooleanField(
        default=True, help_text="Delete what was read. Otherwise it stays, with IMAP as seen and with a mark of ours."
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    next_poll_at = models.DateTimeField(db_default=Now())
    last_polled_at = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=400, blank=True)
    failures = models.SmallIntegerField(default=0, help_text="Polls in a row that failed.")

    class Meta:
        db_table = "bounce_mailbox"
        verbose_name_plural = "bounce mailboxes"
        constraints = [
            models.UniqueConstraint(
                fields=("host", "port", "username", "folder"), name="bounce_mailbox_once"
            )  # two pollers of one mailbox would take each other's mail away
        ]

    def __str__(self) -> str:
        return f"{self.username} at {self.host}"


class FetchedMail(models.Model):
    """A mail of a polled mailbox that is still there; `taken_at` is written with its InboundMessage, in one commit."""

    mailbox = models.ForeignKey(BounceMailbox, on_delete=models.CASCADE, related_name="fetched")
    key = models.CharField(max_length=300, help_text="UIDVALIDITY and UID, or the unique-id of UIDL.")
    tries = models.SmallIntegerField(default=0)
    taken_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "fetched_mail"
        constraints = [models.UniqueConstraint(fields=("mailbox", "key"), name="fetched_mail_once")]

    def __str__(self) -> str:
        return self.key


class InboundRoute(models.Model):
    """An address at a verified domain of a tenant at which mail is received; `*` is every other one of that domain."""

    class Forward(models.TextChoices):
        #: read over the API and told by webhook, nothing else
        NONE = "none", "no"
        #: into mailboxes of an MDA such as Dovecot (RFC 2033)
        LMTP = "lmtp", "LMTP"
        #: to a mail server
        SMTP = "smtp", "SMTP"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="+")
    domain = models.ForeignKey(SendingDomain, on_delete=models.CASCADE, related_name="inbound_routes")
    address = models.CharField(
        max_length=64, help_text="What stands before the @, or * for all. name also takes name+anything."
    )
    forward = models.CharField(max_length=4, choices=Forward.choices, default=Forward.NONE)
    host = models.CharField(max_length=253, blank=True)
    port = models.PositiveIntegerField(default=24)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "inbound_route"
        verbose_name, verbose_name_plural = "receiving address", "receiving addresses"
        constraints = [models.UniqueConstraint(fields=("domain", "address"), name="inbound_route_once")]

    def __str__(self) -> str:
        return f"{self.address}@{self.domain}"


class Handover(models.Model):
    """One received mail to be handed on to one address; what came of it is shown, and no mail is written about it."""

    class State(models.TextChoices):
        #: to be tried at due_at
        PENDING = "pending"
        #: the other server took it
        DONE = "done"
        #: it refused, or the time ran out; the mail is still here
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+")
    inbound_id = models.UUIDField(db_index=True)
    route = models.ForeignKey(InboundRoute, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+")
    forward_path = models.TextField()
    state = models.CharField(max_length=8, choices=State.choices, default=State.PENDING)
    tries = models.SmallIntegerField(default=0)
    due_at = models.DateTimeField()
    reply = models.TextField(blank=True)
    created_at = models.DateTimeField()

    class Meta:
        db_table = "handover"
        verbose_name, verbose_name_plural = "mail handed on", "mails handed on"
        indexes = [models.Index(fields=("due_at",), condition=Q(state="pending"), name="handover_due")]

    def __str__(self) -> str:
        return f"{self.forward_path}: {self.state}"
