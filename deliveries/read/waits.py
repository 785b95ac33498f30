"""Why mail waits that is due: its receiver rests. A reason in words, and the end."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import OuterRef, QuerySet, Subquery

from deliveries.models import Queued, Site
from deliveries.models.queue import NEVER


@dataclass(frozen=True, slots=True)
class Rest:
    """`site` is left alone; `until` is None where a person must resume it."""

    site: str
    reason: str
    until: datetime | None


def with_rests(rows: QuerySet[Queued], now: datetime) -> QuerySet[Queued]:
    """The queue rows with `rests_until` and `rests_why`, both None where their site takes mail."""
    resting = Site.objects.filter(name=OuterRef("destination"), suspended_until__gt=now)
    return rows.annotate(
        rests_until=Subquery(resting.values("suspended_until")[:1]), rests_why=Subquery(resting.values("reason")[:1])
    )


def rest_of(row: Queued | None) -> Rest | None:
    """The rest of a row that came `with_rests`; None where it does not wait for that."""
    until = getattr(row, "rests_until", None)
    if row is None or until is None or row.lease_id is not None:
        return None
    return Rest(row.destination, row.rests_why, until if until < NEVER else None)  # type: ignore[attr-defined]


def rests(delivery_ids: Collection[UUID], now: datetime) -> dict[UUID, Rest]:
    """Of these deliveries, those that wait for their receiver's rest to end. One query."""
    rows = with_rests(Queued.objects.filter(delivery_id__in=list(delivery_ids)), now)
    return {row.delivery_id: rest for row in rows if (rest := rest_of(row)) is not None}
