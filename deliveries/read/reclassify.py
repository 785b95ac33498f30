"""What the rules of today would say to the replies of the last days: the raw reply of every attempt is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from deliveries.mime.address import folded
from deliveries.models import Attempt, Delivery, Suppression
from deliveries.models.fields import uuid7_floor
from deliveries.smtp.classify import classify
from deliveries.smtp.outcome import Replied, Stage, Verdict
from deliveries.smtp.reply import Reply
from deliveries.states import Category, Status

_CHUNK = 2_000


@dataclass(frozen=True, slots=True)
class Reading:
    """How a reply was read: `suppresses` says whether its address was, or would be, put on the list for it."""

    category: str
    rule: str
    suppresses: bool


@dataclass(frozen=True, slots=True)
class Altered:
    """An attempt whose reply is read otherwise now. `final`: it is the one that its delivery bounced by."""

    delivery_id: UUID
    host: str
    reply: str
    before: Reading
    after: Reading
    final: bool


def altered(since: datetime) -> Iterator[Altered]:
    """Attempts since then, oldest first, in chunks by key; those whose meaning changed."""
    last = uuid7_floor(int(since.timestamp() * 1000))
    while True:
        rows = list(
            Attempt.objects.filter(id__gt=last).exclude(category="").order_by("id").defer("transcript")[:_CHUNK]
        )
        if not rows:
            return
        last = rows[-1].id
        yield from _of_chunk([(row, verdict) for row in rows if (verdict := again(row)) is not None])


def again(row: Attempt) -> Verdict | None:
    """What `row` means by today's rules; None where no reply of the peer decided."""
    if row.code is None or row.code // 100 not in (4, 5):
        return None
    text = row.reply.removeprefix(str(row.code)).strip()
    return classify(Replied(Stage(row.stage), Reply(row.code, (text,))))


def _of_chunk(judged: list[tuple[Attempt, Verdict]]) -> Iterator[Altered]:
    deliveries = {
        d.id: d
        for d in Delivery.objects.filter(id__in={row.delivery_id for row, _ in judged}).only(
            "id", "tenant_id", "recipient", "status", "category", "rule"
        )
    }
    listed = set(
        Suppression.objects.filter(
            reason="bounce",
            tenant_id__in={d.tenant_id for d in deliveries.values()},
            address__in={folded(d.recipient) for d in deliveries.values()},
        ).values_list("tenant_id", "address", "rule")
    )
    for row, verdict in judged:
        delivery = deliveries.get(row.delivery_id)
        if delivery is None:
            continue
        bounced = row.status == Status.BOUNCED
        stands = bounced and (delivery.tenant_id, folded(delivery.recipient), row.rule) in listed
        category = (verdict.category or Category.UNKNOWN).value
        before = Reading(row.category, row.rule, stands)
        after = Reading(category, verdict.rule, bounced and verdict.suppress)
        if (before.category, before.rule) != (after.category, after.rule) or (stands and not after.suppresses):
            final = bounced and delivery.status == Status.BOUNCED and delivery.rule == row.rule
            yield Altered(row.delivery_id, row.host, row.reply, before, after, final)
