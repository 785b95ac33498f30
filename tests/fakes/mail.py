"""Rows as the service would have written them, made directly: tenants, people, messages and their story."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from django.contrib.auth.hashers import make_password

from deliveries.models import (
    ApiKey,
    Attachment,
    Attempt,
    AuditEntry,
    BounceMailbox,
    Delivery,
    Destination,
    Erasure,
    Event,
    Handover,
    InboundMessage,
    InboundRoute,
    Membership,
    Message,
    MessageContent,
    Queued,
    SendingDomain,
    Site,
    Suppression,
    Template,
    Tenant,
    User,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookTry,
)
from deliveries.models.accounts import DkimKey
from deliveries.models.fields import uuid7
from deliveries.states import OUTCOME_EVENT, EventType, Status

#: statuses with a next attempt
WAITS = (Status.DEFERRED, Status.QUEUED, Status.SCHEDULED, Status.UNKNOWN)

PASSWORD = "correct-horse-battery"

TRANSCRIPT = """\
0 *: connecting to 192.0.2.25:25
12 S: 220 mx.example.net ESMTP
12 C: EHLO mail.example.org
24 S: 250-mx.example.net
250-PIPELINING
250 STARTTLS
25 C: STARTTLS
37 S: 220 go ahead
58 *: TLSv1.3 TLS_AES_256_GCM_SHA384
59 C: MAIL FROM:<b-x@bounce.example.org>
59 C: RCPT TO:<{recipient}>
59 C: DATA
71 S: 250 ok
71 S: {reply}"""


def tenant(name: str) -> Tenant:
    return Tenant.objects.create(name=name)


@cache
def _hash() -> str:
    """Argon2 is slow on purpose; once is enough."""
    return make_password(PASSWORD)


def person(name: str, *tenants: Tenant, role: str = "viewer", operator: bool = False) -> User:
    """A login with PASSWORD and a membership in each of `tenants`."""
    user = User.objects.create(username=name, password=_hash(), is_staff=True, is_superuser=operator)
    for own in tenants:
        Membership.objects.create(user=user, tenant=own, role=role)
    return user


def domain(owner: Tenant, name: str) -> SendingDomain:
    return SendingDomain.objects.create(tenant=owner, name=name, verified_at=datetime.now(UTC))


def message(
    owner: Tenant,
    *recipients: str,
    subject: str = "Your receipt",
    status: str = Status.DELIVERED,
    sender: str = "Shop <shop@example.org>",
    html: str | None = "<p>Thank you</p>",
    text: str | None = "Thank you",
    reply: str = "250 2.0.0 OK queued as 4F2A",
    transcript: str = TRANSCRIPT,
    filename: str | None = None,
    tags: list[dict[str, str]] | None = None,
    age: timedelta = timedelta(0),
    **delivery: Any,
) -> Message:
    """A message with a delivery, an attempt and events for each recipient, all in `status`."""
    now = datetime.now(UTC) - age
    made = uuid7() if not age else uuid.UUID(int=int(now.timestamp() * 1000) << 80 | 7 << 76 | uuid.uuid4().int >> 66)
    row = Message.objects.create(
        id=made,
        tenant=owner,
        message_id=f"{made.hex}@example.org",
        from_header=sender,
        to=list(recipients),
        subject=subject,
        tags=tags or [],
        size=2048,
        attachment_count=1 if filename else 0,
        created_at=now,
    )
    MessageContent.objects.create(id=made, html=html, text=text, headers=[["X-Campaign", "spring"]])
    if filename:
        Attachment.objects.create(
            message_id=made, position=0, filename=filename, content_type="text/html", content=b"<script>1</script>"
        )
    for position, recipient in enumerate(recipients):
        path = Delivery.objects.create(
            id=uuid7() if not age else uuid.UUID(int=made.int + position + 1),
            message=row,
            tenant=owner,
            position=position,
            field="to",
            recipient=recipient,
            status=status,
            **{
                "category": "bad_mailbox" if status == Status.BOUNCED else "",
                "rule": "enhanced-5.1.1" if status == Status.BOUNCED else "",
                "reply": reply,
                "host": "mx.example.net",
                "attempts": 1,
                "created_at": now,
                "expires_at": now + timedelta(days=4),
                "next_attempt_at": now + timedelta(minutes=10) if status in WAITS else None,
                "settled_at": now if status in (Status.DELIVERED, Status.BOUNCED) else None,
                **delivery,
            },
        )
        if not path.final:
            due = path.next_attempt_at or now
            Queued.objects.create(
                delivery_id=path.id, lane=1, destination="example.net", tenant_id=owner.id, due_at=due, size=2048
            )
        Attempt.objects.create(
            delivery=path,
            tenant_id=owner.id,
            number=1,
            host="mx.example.net",
            address="192.0.2.25",
            port=25,
            tls="TLSv1.3 TLS_AES_256_GCM_SHA384, verified",
            started_at=now,
            finished_at=now + timedelta(milliseconds=71),
            stage="dot",
            status=status,
            category=path.category,
            rule=path.rule,
            code=550 if status == Status.BOUNCED else 250,
            reply=reply,
            transcript=transcript.replace("{recipient}", recipient).replace("{reply}", reply),
        )
        for kind in (EventType.SENT, OUTCOME_EVENT[Status(status)]):
            Event.objects.create(
                tenant_id=owner.id,
                type=kind,
                message=row,
                delivery_id=path.id,
                recipient=recipient,
                data={"reply": reply} if kind != EventType.SENT else {},
                created_at=now,
            )
    return row


def post(endpoint: WebhookEndpoint, event: Event, response: str = "ok") -> WebhookDelivery:
    """One event told to `endpoint`, answered 200."""
    now = datetime.now(UTC)
    row = WebhookDelivery.objects.create(
        tenant_id=endpoint.tenant_id,
        endpoint=endpoint,
        event_id=event.id,
        type=event.type,
        body='{"type": "email.delivered"}',
        state="delivered",
        tries=1,
        next_try_at=now,
        created_at=now,
    )
    WebhookTry.objects.create(
        delivery=row, at=now, address="192.0.2.80", status_code=200, elapsed_ms=31, response=response
    )
    return row


def everything(owner: Tenant, mark: str) -> dict[type, Any]:
    """One row of every model that a tenant owns; `mark` stands in whatever a page could show of it."""
    now = datetime.now(UTC)
    mail = message(owner, f"{mark}@example.net", subject=mark, sender=f"{mark} <a@example.org>")
    own_domain = domain(owner, f"{mark}.example")
    DkimKey.objects.create(domain=own_domain, selector="s1", private_key=b"never shown", public_key="MIIB")
    endpoint = WebhookEndpoint.objects.create(tenant=owner, url=f"https://{mark}.example/hook", secret=b"whsec_never")
    return {
        Message: mail,
        SendingDomain: own_domain,
        ApiKey: ApiKey.objects.create(
            tenant=owner, name=mark, prefix="re_12345", secret_hash=hashlib.sha256(mark.encode()).digest()
        ),
        WebhookEndpoint: endpoint,
        WebhookDelivery: post(endpoint, Event.objects.filter(message=mail).latest("id")),
        Template: Template.objects.create(
            tenant=owner, name=mark, subject=mark, html=f"<p>{mark}</p>", created_at=now, updated_at=now
        ),
        Suppression: Suppression.objects.create(
            tenant=owner, address=f"{mark}@example.net", reason="manual", detail=mark, created_at=now
        ),
        InboundMessage: InboundMessage.objects.create(
            tenant=owner,
            received_at=now,
            peer="192.0.2.9",
            forward_path=f"{mark}@bounce.example",
            octets=f"Subject: {mark}\r\n\r\n".encode(),
            state="acted",
        ),
        AuditEntry: AuditEntry.objects.create(tenant=owner, actor=mark, action="key.created", subject=mark),
        InboundRoute: InboundRoute.objects.create(tenant=owner, domain=own_domain, address=mark, host="mda.example"),
        Erasure: Erasure.objects.create(tenant=owner, asked_by=mark),
        Handover: Handover.objects.create(
            tenant=owner,
            inbound_id=own_domain.id,
            route_id=own_domain.id,
            forward_path=f"{mark}@example.net",
            state="failed",
            reply=mark,
            due_at=now,
            created_at=now,
        ),
        BounceMailbox: BounceMailbox.objects.create(
            tenant=owner, host="imap.example.com", username=f"{mark}@example.com", password=b"never shown"
        ),
        Membership: Membership.objects.create(
            tenant=owner, user=User.objects.create_user(f"{mark}-member", is_staff=True), role="viewer"
        ),
    }


def site(name: str = "example.net", **changes: Any) -> Site:
    now = datetime.now(UTC)
    facts = {"places": 20, "proven": True, "misses": 0, "strikes": 0, "changed_at": now, **changes}
    return Site.objects.create(name=name, **facts)


def destination(name: str = "example.net") -> Destination:
    return Destination.objects.create(lane=1, name=name, next_due=datetime.now(UTC))
