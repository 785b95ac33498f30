"""What was asked, and what became of it.

Message is the request, Delivery one forward-path of it with the status, Attempt one SMTP transaction,
Event the append-only story. No foreign key constraints between growing tables: retention drops
partitions and deletes in batches, and accept writes thousands of rows a second.
"""

from __future__ import annotations

from typing import Any

from django.contrib.postgres.indexes import GinIndex, OpClass
from django.contrib.postgres.search import SearchVector
from django.db import models
from django.db.models import Func, JSONField, Q, Value
from django.db.models.functions import Left, Lower

from deliveries.models.accounts import SendingDomain, Tenant
from deliveries.models.fields import uuid7
from deliveries.states import FINAL, ORDINARY_STREAM, Lane, Status


def _loose(to: Any, **kwargs: Any) -> models.ForeignKey:
    """A reference without a constraint in the database (see the module's docstring)."""
    return models.ForeignKey(to, on_delete=models.DO_NOTHING, db_constraint=False, **kwargs)


#: the address in From as it is searched by, of several the last; `SENDER.format("m.")` is SQL. Cut, since an index
#: takes no more than a third of a page
SENDER = "lower(left(rtrim(split_part({}from_header, '<', -1), '> '), 254))"
_SENDER = Lower(
    Left(
        Func(
            Func(
                models.F("from_header"), Value("<"), Value(-1), function="split_part", output_field=models.TextField()
            ),
            Value("> "),
            function="rtrim",
        ),
        254,
    )
)


class Message(models.Model):
    """A mail as it was asked for; frozen at accept. Header values are kept as the sender wrote them."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = _loose(Tenant, db_index=False, related_name="+")
    api_key_id = models.UUIDField(null=True)
    domain = _loose(SendingDomain, null=True, db_index=False, related_name="+")
    message_id = models.CharField(max_length=320, help_text="The Message-ID field without angle brackets.")
    from_header = models.TextField(help_text="`Name <a@b>` or `a@b`.")
    to = models.JSONField(default=list)
    cc = models.JSONField(default=list)
    bcc = models.JSONField(default=list)
    reply_to = models.JSONField(default=list)
    subject = models.TextField(blank=True)
    tags = models.JSONField(default=list, help_text='[{"name", "value"}]')
    metadata = models.JSONField(default=dict, db_default=Value({}, JSONField()), help_text="The caller's own words.")
    stream = models.CharField(max_length=64, default=ORDINARY_STREAM)
    tracking = models.SmallIntegerField(
        default=0, db_default=0, help_text="1: opens, 2: clicks; as its domain had it at accept."
    )
    unsubscribe = models.BooleanField(
        default=False, db_default=False, help_text="It can be left with one click (RFC 8058)."
    )
    test = models.BooleanField(
        default=False, db_default=False, help_text="A test key sent it: to the receiver lab and nowhere else."
    )
    redact = models.SmallIntegerField(
        default=0, db_default=0, help_text="states.Redact: what goes once it is finished; as it was asked at accept."
    )
    archived_at = models.DateTimeField(null=True, help_text="Its bodies were moved to the S3 store then.")
    redacted_at = models.DateTimeField(null=True, help_text="It went then.")
    lane = models.SmallIntegerField(default=Lane.NORMAL)
    size = models.IntegerField(help_text="Octets of content before encoding.")
    attachment_count = models.SmallIntegerField(default=0)
    created_at = models.DateTimeField(help_text="When it was accepted, by the database's clock.")
    scheduled_at = models.DateTimeField(null=True)
    deliver_before = models.DateTimeField(null=True)

    class Meta:
        db_table = "message"
        indexes = [
            # GET /emails and the panel: newest first, by keyset
            models.Index(fields=("tenant", "-id"), name="message_tenant"),
            # … those of one stream; the ordinary one is most of them
            models.Index(
                fields=("tenant", "stream", "-id"), condition=~Q(stream=ORDINARY_STREAM), name="message_stream"
            ),
            GinIndex(SearchVector("subject", config="simple"), name="message_subject", fastupdate=True),
            # search by tag and, where the sender gave one of its own, by Message-ID; most of ours grow at the right end
            GinIndex(
                fields=("tags",),
                opclasses=("jsonb_path_ops",),
                condition=~Q(tags=[]),
                name="message_tags",
                fastupdate=True,
            ),
            models.Index(fields=("message_id",), name="message_msgid"),
            # search by sender, the newest of each first (deliveries.read.senders)
            models.Index(
                models.F("tenant"),
                OpClass(_SENDER, name="text_pattern_ops"),
                models.F("id").desc(),
                name="message_sender",
            ),
            # retention of what was moved to the store
            models.Index(fields=("id",), condition=Q(archived_at__isnull=False), name="message_archived"),
            # what is still to be redacted
            models.Index(fields=("id",), condition=Q(redact__gt=0, redacted_at__isnull=True), name="message_to_redact"),
        ]

    def __str__(self) -> str:
        return self.subject or str(self.id)


class MessageContent(models.Model):
    """The frozen content, apart from the narrow row; partitioned by id, which is the message's."""

    id = models.UUIDField(primary_key=True)
    html = models.TextField(null=True)
    text = models.TextField(null=True)
    headers = models.JSONField(default=list, help_text="[[name, value]] in the sender's order.")
    raw = models.BinaryField(null=True, help_text="A mail that came whole: its octets, without Bcc.")

    class Meta:
        db_table = "message_content"

    def __str__(self) -> str:
        return str(self.id)


class Attachment(models.Model):
    """A file that goes along; octets as decoded at accept."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    message_id = models.UUIDField(db_index=True)
    position = models.SmallIntegerField()
    filename = models.TextField()
    content_type = models.TextField()
    content_id = models.TextField(null=True)
    content = models.BinaryField()

    class Meta:
        db_table = "attachment"

    def __str__(self) -> str:
        return self.filename


class DeadObject(models.Model):
    """An object of the S3 store that no mail needs any more, until it is deleted there."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    key = models.TextField()

    class Meta:
        db_table = "dead_object"

    def __str__(self) -> str:
        return self.key


class Delivery(models.Model):
    """One forward-path of a message. The row changes only on outcomes (deliveries.record)."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    message = _loose(Message, related_name="deliveries")
    tenant = _loose(Tenant, db_index=False, related_name="+")
    position = models.SmallIntegerField(default=0)
    field = models.CharField(max_length=3, help_text="to, cc or bcc: where the address stood.")
    recipient = models.TextField(help_text="The forward-path: local part as given, domain as A-label.")
    status = models.CharField(max_length=12)
    reason = models.TextField(blank=True, help_text="Why it stands there, in words.")
    category = models.CharField(max_length=20, blank=True)
    rule = models.CharField(max_length=80, blank=True)
    enhanced = models.CharField(max_length=12, blank=True)
    reply = models.TextField(blank=True, help_text="The peer's last words.")
    host = models.TextField(blank=True, help_text="Who said so.")
    attempts = models.IntegerField(default=0)
    events = models.IntegerField(db_default=1, help_text="Events of this delivery so far; accept writes the first.")
    unknowns = models.SmallIntegerField(default=0, help_text="How often the final reply was lost; two are final.")
    late = models.BooleanField(default=False, help_text="Bounced by a report after it was delivered.")
    duplicate_possible = models.BooleanField(default=False)
    complained_at = models.DateTimeField(null=True)
    opened_at = models.DateTimeField(null=True, help_text="First by a person, as far as one can tell.")
    clicked_at = models.DateTimeField(null=True, help_text="First by a person, as far as one can tell.")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(help_text="Given up from then on.")
    next_attempt_at = models.DateTimeField(null=True)
    settled_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "delivery"
        verbose_name_plural = "deliveries"
        indexes = [
            models.Index(fields=("tenant", "status", "-id"), name="delivery_status"),
            # search by recipient, by prefix, or exactly and then in the order of messages
            models.Index(
                fields=("recipient", "message"),
                opclasses=("text_pattern_ops", "uuid_ops"),
                name="delivery_recipient",
            ),
            # search by category; what is accepted and what is delivered has none, and no entry here
            models.Index(fields=("tenant", "category", "-id"), condition=~Q(category=""), name="delivery_category"),
            # the brake on a tenant's complaints
            models.Index(
                fields=("tenant", "complained_at"),
                condition=Q(complained_at__isnull=False),
                name="delivery_complained",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.recipient}: {self.status}"

    @property
    def final(self) -> bool:
        return Status(self.status) in FINAL or (self.status == Status.UNKNOWN and self.next_attempt_at is None)


class Attempt(models.Model):
    """One SMTP transaction with one hop, or a connection that failed; partitioned by id."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    delivery = _loose(Delivery, db_index=False, related_name="tries")
    tenant_id = models.UUIDField()
    number = models.IntegerField(help_text="The round it belongs to, from 1.")
    host = models.TextField()
    address = models.TextField()
    port = models.IntegerField()
    tls = models.CharField(max_length=80, blank=True, help_text="`TLSv1.3 TLS_AES_256_GCM_SHA384, verified`.")
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()
    stage = models.CharField(max_length=10)
    status = models.CharField(max_length=12, help_text="The verdict: delivered, deferred, bounced or unknown.")
    category = models.CharField(max_length=20, blank=True)
    rule = models.CharField(max_length=80, blank=True)
    code = models.SmallIntegerField(null=True)
    enhanced = models.CharField(max_length=12, blank=True)
    reply = models.TextField(blank=True)
    transcript = models.TextField(blank=True)

    class Meta:
        db_table = "attempt"
        # the story of one delivery
        indexes = [models.Index(fields=("delivery", "id"), name="attempt_delivery")]

    def __str__(self) -> str:
        return f"{self.host} [{self.address}]: {self.status}"


class Event(models.Model):
    """A fact that was told or may be told; append-only, partitioned by id."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant_id = models.UUIDField()
    type = models.CharField(max_length=40)
    message = _loose(Message, null=True, db_index=False, related_name="events")
    delivery_id = models.UUIDField(null=True)
    place = models.IntegerField(null=True, help_text="Which event of its delivery, from 1 (delivery.events then).")
    recipient = models.TextField(blank=True)
    data = models.JSONField(default=dict)
    created_at = models.DateTimeField(help_text="When its transaction began, by the database's clock.")

    class Meta:
        db_table = "event"
        indexes = [
            models.Index(fields=("message", "id"), name="event_message"),
            # GET /events and replays: in the order of the clock that all transactions share
            models.Index(fields=("tenant_id", "created_at", "id"), name="event_feed"),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.recipient}".strip()


class Suppression(models.Model):
    """An address that a tenant's mail (of one stream, or `*`) does not go to."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="suppressions")
    stream = models.CharField(max_length=64, default="*")
    address = models.TextField(help_text="Lower case.")
    reason = models.CharField(max_length=12, help_text="bounce, complaint, unsubscribe, manual or import.")
    detail = models.TextField(blank=True, help_text="The reply or report that led here.")
    source_event = models.UUIDField(null=True)
    #: of a bounce: the rule that read the refusal, what it meant, and who said so; a wrong rule is undone by them
    rule = models.CharField(max_length=80, blank=True, db_default="")
    category = models.CharField(max_length=20, blank=True, db_default="")
    site = models.TextField(blank=True, db_default="")
    brake_id = models.UUIDField(null=True, help_text="Provisional while a brake doubts it: it keeps no mail back.")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "suppression"
        constraints = [models.UniqueConstraint(fields=("tenant", "stream", "address"), name="suppression_once")]
        indexes = [
            models.Index(fields=("tenant", "-id"), name="suppression_newest"),
            # the brake, and an operator who undoes what a wrong reading of a provider did
            models.Index(fields=("site", "created_at"), condition=~Q(site=""), name="suppression_site"),
            models.Index(fields=("brake_id",), condition=Q(brake_id__isnull=False), name="suppression_brake"),
        ]

    def __str__(self) -> str:
        return self.address


class IdempotencyKey(models.Model):
    """A request that was answered 2xx, written in the mail's own transaction and kept ≥ 24 h."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant_id = models.UUIDField()
    endpoint = models.CharField(max_length=60)
    key = models.CharField(max_length=256)
    body_hash = models.BinaryField(max_length=32)
    answer = models.JSONField()
    created_at = models.DateTimeField(db_index=True)

    class Meta:
        db_table = "idempotency_key"
        constraints = [models.UniqueConstraint(fields=("tenant_id", "endpoint", "key"), name="idempotency_key_once")]

    def __str__(self) -> str:
        return f"{self.endpoint} {self.key}"


class InboundMessage(models.Model):
    """A mail that came to a bounce address or a role address, stored before its 250."""

    class State(models.TextChoices):
        #: set by smtpd; to be read by feedback
        WAITING = "waiting"
        #: set by feedback: its report acted
        ACTED = "acted"
        #: set by feedback: readable, but nothing to act on (ordinary mail, auto-reply, delay notice)
        READ = "read"
        #: set by feedback: a report without a valid token of ours
        UNMATCHED = "unmatched"
        #: set by feedback: could not be read within its bounds; shown, never retried
        UNREADABLE = "unreadable"
        #: set by smtpd (postmaster@) or feedback (abuse@, when it is no report of ours): for a person
        KEPT = "kept"
        #: set by feedback: it came to an address of a tenant; told, readable at /emails/receiving
        RECEIVED = "received"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    received_at = models.DateTimeField()
    peer = models.TextField()
    helo = models.TextField(blank=True)
    reverse_path = models.TextField(blank=True)
    forward_path = models.TextField()
    octets = models.BinaryField()
    state = models.CharField(max_length=12, choices=State.choices, default=State.WAITING)
    tries = models.SmallIntegerField(default=0)
    kind = models.CharField(max_length=20, blank=True)
    note = models.TextField(blank=True)
    tenant = _loose(Tenant, null=True, db_index=False, related_name="+")
    delivery_id = models.UUIDField(null=True)
    received_for = models.JSONField(default=list, help_text="The forward-paths that the tenant claims; else empty.")
    letter = models.JSONField(null=True, help_text="Of received mail: from, to, subject, attachments …, as listed.")

    class Meta:
        db_table = "inbound_message"
        verbose_name = "inbound mail"
        indexes = [
            # GET /emails/receiving: newest first, by keyset
            models.Index(fields=("tenant", "-id"), condition=Q(state="received"), name="inbound_received"),
            # feedback: what is still to be read
            models.Index(fields=("id",), condition=Q(state="waiting"), name="inbound_waiting"),
        ]

    def __str__(self) -> str:
        return f"{self.forward_path} at {self.received_at:%Y-%m-%d %H:%M}"
