"""IP pools as they stand: which send, which hand over, and why mail waits."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from django.conf import settings
from django.db.models.functions import Now

from deliveries.models import SourceAddress, SourcePool, SourceRest
from deliveries.smtp import sources
from deliveries.smtp.sources import Address, Network, Pool, Waits

_MOST_RESTS = 1_000


@dataclass(frozen=True, slots=True)
class Standing:
    """`word`: sends, overflows or waits. `why` in words belongs to the others, `until` (the next look) to waits."""

    name: str
    word: str
    why: str
    until: datetime | None


def address_of(row: SourceAddress, now: datetime, here: bool = False) -> Address:
    today = now.astimezone(UTC).date()
    return Address(
        address=row.address,
        pool=row.pool_id,
        helo=row.helo,
        most=sources.allowance((today - row.warm_from).days, settings.WARM_UP) if row.warm_from else None,
        used=row.used if row.used_on == today else 0,
        rests_until=row.rests_until,
        rests_why=row.rests_why,
        seen_at=row.seen_at,
        host=row.seen_on,
        here=here,
    )


def network(now: datetime, here: Collection[str] = ()) -> Network:
    """Every pool and address of the installation, as Postgres has them; `here` are those of this host."""
    return Network(
        {pool.pk: Pool(pool.pk, pool.name, pool.overflow_id) for pool in SourcePool.objects.all()},
        tuple(address_of(row, now, row.address in here) for row in SourceAddress.objects.order_by("address")),
    )


def standing(now: datetime) -> list[Standing]:
    """By name; empty where there are no pools. No process of ours counts as living that did not say so."""
    at = network(now)
    found = []
    for pool in sorted(at.pools.values(), key=lambda p: p.name):
        way = sources.way(pool.id, at, now)
        if isinstance(way, Waits):
            found.append(Standing(pool.name, "waits", way.reason, way.until))
        elif way != pool.id:
            alone = sources.way(pool.id, Network({pool.id: pool}, at.addresses), now)
            why = f"{alone.reason} " if isinstance(alone, Waits) else ""
            found.append(Standing(pool.name, "overflows", f"{why}{at.pools[way].name} sends for it.", None))
        else:
            found.append(Standing(pool.name, "sends", "", None))
    return found


def stuck(now: datetime) -> list[Standing]:
    """Those that wait, and that mail was put off for; one nobody uses is no trouble."""
    asked = set(SourcePool.objects.filter(waits_at__isnull=False).values_list("name", flat=True))
    return [one for one in standing(now) if one.name in asked and one.word == "waits"] if asked else []


def resting() -> dict[str, list[SourceRest]]:
    """For which receivers addresses of ours rest now, by address."""
    found: dict[str, list[SourceRest]] = {}
    for rest in SourceRest.objects.filter(until__gt=Now()).order_by("site")[:_MOST_RESTS]:
        found.setdefault(rest.address, []).append(rest)
    return found


def word_of(row: SourceAddress, now: datetime) -> str:
    """sends, rests, used up or gone."""
    address = address_of(row, now)
    if not address.lives(now):
        return "gone"
    if address.rests(now):
        return "rests"
    return "sends" if address.sends(now) else "used up"


def today_of(row: SourceAddress, now: datetime) -> str:
    """What its warm-up allows today, and what of it is used; empty where it is warm."""
    address = address_of(row, now)
    return "" if address.most is None else f"{address.used:,} of {address.most:,}"
