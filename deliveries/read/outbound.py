"""Mail, bounces and suppressions as the faces list them: by offset and with a total, both bounded.

Their clients page by offset up to 10,000, so that is where counting stops too; the native lists go by keyset.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Count, Exists, Func, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from deliveries.mime.address import folded
from deliveries.models import Delivery, Event, IdempotencyKey, Message, MessageContent, Suppression
from deliveries.read.archive import fetched
from deliveries.smtp.rules import OF_ANOTHER, unproven
from deliveries.states import FINAL, SUPPRESSING, Status

#: rows that are counted, and the end of every offset
MOST = 10_000


@dataclass(frozen=True)
class Mail:
    message: Message
    deliveries: Sequence[Delivery]
    content: MessageContent | None = None
    events: Sequence[Event] = ()


@dataclass(frozen=True)
class Wanted:
    """Filters of a list; what is empty does not count."""

    recipient: str = ""
    sender: str = ""
    subject: str = ""
    label: str = ""
    stream: str = ""
    since: datetime | None = None
    until: datetime | None = None
    message_id: UUID | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    statuses: Sequence[str] = ()
    #: of bounces; of a category of dead addresses only those that prove it
    categories: Sequence[str] = ()
    #: and, where categories are wanted, those of dead addresses that prove it not
    unproven: bool = False
    #: of bounces: whether mail of their stream goes to the address no longer
    barred: bool | None = None


def mails(tenant_id: UUID, wanted: Wanted, count: int, offset: int) -> tuple[list[Mail], int]:
    """(a page, newest first, with its deliveries; how many there are, MOST at the most)."""
    rows = _of_message(Message.objects.filter(tenant_id=tenant_id), wanted, "")
    if wanted.recipient:
        theirs = Delivery.objects.filter(tenant_id=tenant_id, recipient=wanted.recipient)
        rows = rows.filter(id__in=theirs.values("message_id"))
    if wanted.statuses:
        some = Delivery.objects.filter(tenant_id=tenant_id, status__in=wanted.statuses)
        rows = rows.filter(id__in=some.values("message_id"))
    page = list(rows.order_by("-id")[offset : offset + count])
    found: dict[UUID, list[Delivery]] = {m.id: [] for m in page}
    for delivery in Delivery.objects.filter(message_id__in=found).order_by("position"):
        found[delivery.message_id].append(delivery)
    return [Mail(m, found[m.id]) for m in page], _count(rows)


def mail(tenant_id: UUID, message_id: UUID) -> Mail | None:
    """One mail with content and events; None when the tenant has no such one."""
    message = Message.objects.filter(tenant_id=tenant_id, id=message_id).first()
    if message is None:
        return None
    return Mail(
        message,
        list(Delivery.objects.filter(tenant_id=tenant_id, message_id=message_id).order_by("position")),
        fetched(message).content,
        list(Event.objects.filter(tenant_id=tenant_id, message_id=message_id).order_by("id")[:MOST]),
    )


def bounces(tenant_id: UUID, wanted: Wanted, count: int, offset: int) -> tuple[list[Delivery], int]:
    """(a page of deliveries that bounced or were complained about, newest first, with their messages; how many)."""
    rows = _bounced(tenant_id)
    if wanted.categories:
        found = Q(category__in=wanted.categories) & ~_unproven()
        rows = rows.filter(found | _unproven() if wanted.unproven else found, status=Status.BOUNCED)
    if wanted.recipient:
        rows = rows.filter(recipient__icontains=wanted.recipient)
    if wanted.message_id:
        rows = rows.filter(message_id=wanted.message_id)
    if wanted.barred is not None:
        rows = rows.filter(_standing() if wanted.barred else ~_standing())
    rows = _of_message(rows, wanted, "message__")
    return list(rows.select_related("message").order_by("-id")[offset : offset + count]), _count(rows)


def bounce(tenant_id: UUID, first: int, last: int) -> Delivery | None:
    """The one whose id is between these, as 128 bits."""
    rows = _bounced(tenant_id).filter(id__gte=UUID(int=first), id__lte=UUID(int=last))
    return rows.select_related("message").order_by("id").first()


def _standing() -> Exists:
    """deliveries.suppress.find, for each delivery."""
    rows = Suppression.objects.filter(
        Q(expires_at=None) | Q(expires_at__gt=Now()),
        Q(stream="*") | Q(stream=OuterRef("message__stream")),
        brake_id=None,
        tenant_id=OuterRef("tenant_id"),
        address=Func(OuterRef("recipient"), function="folded_address"),
    )
    return Exists(rows)


def _unproven() -> Q:
    """deliveries.notify.words.dead, turned round."""
    words = Q(rule__in=unproven()) | Q(rule__endswith=OF_ANOTHER) | Q(enhanced__startswith="4.")
    return Q(category__in=SUPPRESSING) & words


def readings(tenant_id: UUID) -> Counter[tuple[str, str, str]]:
    """Bounces by category, rule and enhanced code, over the last MOST of them."""
    rows = Delivery.objects.filter(tenant_id=tenant_id, status=Status.BOUNCED).order_by("-id")
    return Counter(rows.values_list("category", "rule", "enhanced")[:MOST])


def suppressed(
    tenant_id: UUID,
    reasons: Sequence[str],
    count: int = MOST,
    offset: int = 0,
    *,
    streams: Sequence[str] = (),
    address: str = "",
    addresses: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
) -> list[Suppression]:
    """Of the list what has one of these reasons, newest first; all reasons where none is named.

    `addresses`: any of them, each without NUL.
    """
    if "\0" in address:  # no text of Postgres holds it
        return []
    rows = Suppression.objects.filter(tenant_id=tenant_id)
    given: dict[str, Any] = {
        "reason__in": reasons,
        "stream__in": streams,
        "address": folded(address),
        "address__in": [folded(one) for one in addresses],
        "created_at__gte": since,
        "created_at__lte": until,
    }
    rows = rows.filter(**{name: value for name, value in given.items() if value})
    return list(rows.order_by("-id")[offset : offset + count])


def events(
    tenant_id: UUID,
    domain: str,
    kinds: Sequence[str],
    wanted: Wanted,
    *,
    message_id: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    beyond: UUID | None = None,
    ascending: bool = False,
    count: int = 100,
) -> list[UUID]:
    """Ids of events of mail from `domain`, by id; `beyond` goes on after a page. The times are the events'."""
    rows = Event.objects.filter(tenant_id=tenant_id, type__in=kinds, message__domain__name=domain)
    rows = _of_message(rows, wanted, "message__")
    given: dict[str, Any] = {
        "recipient": wanted.recipient,
        "message__message_id": message_id,
        "created_at__gte": since,
        "created_at__lte": until,
        "id__gt" if ascending else "id__lt": beyond,
    }
    rows = rows.filter(**{name: value for name, value in given.items() if value})
    return list(rows.order_by("id" if ascending else "-id").values_list("id", flat=True)[:count])


@dataclass(frozen=True)
class Together:
    """Mails that one request brought: how many, and how many of their deliveries have ended."""

    at: datetime
    mails: int
    total: int
    ended: int
    subject: str


def together(tenant_id: UUID, endpoint: str, key: str) -> Together | None:
    """The mails of a request with an idempotency key; None where there was none, or it is forgotten."""
    row = IdempotencyKey.objects.filter(tenant_id=tenant_id, endpoint=endpoint, key=key).first()
    if row is None:
        return None
    ids = [UUID(ident) for ident in row.answer["ids"]]
    deliveries = Delivery.objects.filter(tenant_id=tenant_id, message_id__in=ids)
    counts = deliveries.aggregate(total=Count("id"), ended=Count("id", filter=Q(status__in=FINAL)))
    first = Message.objects.filter(tenant_id=tenant_id, id__in=ids).order_by("id").first()
    return Together(row.created_at, len(ids), counts["total"], counts["ended"], first.subject if first else "")


def _bounced(tenant_id: UUID) -> QuerySet[Delivery]:
    return Delivery.objects.filter(Q(status=Status.BOUNCED) | Q(complained_at__isnull=False), tenant_id=tenant_id)


def _of_message(rows: QuerySet[Any], wanted: Wanted, prefix: str) -> QuerySet[Any]:
    given: dict[str, Any] = {
        "from_header__icontains": wanted.sender,
        "subject__icontains": wanted.subject,
        "stream": wanted.stream,
        "created_at__gte": wanted.since,
        "created_at__lte": wanted.until,
        "tags__contains": [{"name": wanted.label}] if wanted.label else None,
        "metadata__contains": dict(wanted.metadata) or None,
    }
    return rows.filter(**{prefix + name: value for name, value in given.items() if value})


def _count(rows: QuerySet[Any]) -> int:
    return rows.values("pk")[: MOST + 1].count()
