"""What is wrong with the installation now: what a look of a few milliseconds tells, and what DNS says, asked rarely."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings
from django.db.models.functions import Now

from deliveries import metrics
from deliveries.alerts.judge import Kind, Trouble
from deliveries.models import Brake, SendingDomain, SourceRest, WebhookEndpoint
from deliveries.models.sql import execute
from deliveries.read.gauges import Gauges, gauges
from deliveries.routing.doctor import Check, Tone, of_address
from deliveries.routing.resolver import Resolver

#: mail that is due leaves within a second; one that waits for longer than this is told
LATE_S = 60.0
SLOW_S = 300.0
ROLES = ("web", "deliver", "jobs", "beat")
#: a disk is nearly full below both: large disks have room in a hundredth
FREE_PART, FREE_OCTETS = 0.05, 5 * 1024**3
#: rows of a kind in one look; more of them are one trouble of the installation, not fifty
_MOST = 50
_DNS_S = 5.0


def look() -> list[Trouble]:
    """All but block lists. Raises DatabaseError."""
    return [
        *_of_gauges(gauges()), *_of_roles(metrics.signs(ROLES)), *_brakes(), *_domains(), *_endpoints(),
        *_disks(_paths()), *_partitions(), *_rests(),
    ]  # fmt: skip


def _of_gauges(now: Gauges) -> list[Trouble]:
    found = []
    if (late := max(now.oldest_due_s.values(), default=0)) > LATE_S:
        found.append(Trouble(Kind.MAIL_WAITS, "", f"Accepted mail that is due waits for {late:.0f} s unattempted."))
    if now.webhooks_late_s > SLOW_S:
        found.append(Trouble(Kind.WEBHOOKS_LATE, "", f"Webhooks are late by {now.webhooks_late_s:.0f} s."))
    if now.inbound_late_s > SLOW_S:
        found.append(Trouble(Kind.REPORTS_LATE, "", f"The oldest bounce waits {now.inbound_late_s:.0f} s to be read."))
    return found


def _of_roles(living: set[str] | None) -> list[Trouble]:
    """Without Valkey nobody knows who lives."""
    if living is None:
        return [Trouble(Kind.VALKEY_AWAY, "", "Valkey (REDIS_URL) does not answer: limits are not shared.")]
    return [
        Trouble(Kind.ROLE_GONE, role, f"No {role} process gives a sign of life.")
        for role in ROLES
        if role not in living
    ]


def _brakes() -> list[Trouble]:
    rows = Brake.objects.filter(state=Brake.State.OPEN).select_related("tenant").order_by("at")[:_MOST]
    return [Trouble(Kind.BRAKE, b.site or f"tenant {b.tenant_id}", f"Mail is held: {b.reason}") for b in rows]


def _domains() -> list[Trouble]:
    rows = SendingDomain.objects.filter(verified_at__isnull=False, missing_since__isnull=False).order_by("id")[:_MOST]
    return [
        Trouble(
            Kind.DOMAIN_BROKE, d.name, f"{d.name}: a record that it needs is missing since {d.missing_since:%F %R}."
        )
        for d in rows
    ]


def _endpoints() -> list[Trouble]:
    """Those that we switched off; a person knows what she switched off."""
    rows = WebhookEndpoint.objects.filter(enabled=False).exclude(disabled_reason="")
    rows = rows.exclude(disabled_reason__startswith="Switched off by").order_by("id")
    return [
        Trouble(Kind.ENDPOINT_OFF, str(e.id), f"Webhook endpoint {e.id} is switched off: {e.disabled_reason}")
        for e in rows[:_MOST]
    ]


def _rests() -> list[Trouble]:
    rows = SourceRest.objects.filter(until__gt=Now()).order_by("id")[:_MOST]
    return [Trouble(Kind.SOURCE_RESTS, str(r), f"{r} until {r.until:%F %R} UTC, which said: {r.why}") for r in rows]


def _paths() -> list[Path]:
    return [path for path in (settings.VAR, Path("/tmp")) if path.exists()]  # noqa: S108 – asked about, not written to


def _disks(paths: Sequence[Path]) -> list[Trouble]:
    found: dict[int, Trouble] = {}
    for path in paths:
        use = shutil.disk_usage(path)
        if use.free < min(FREE_PART * use.total, FREE_OCTETS):
            host, left = socket.gethostname(), f"{use.free / 1024**2:.0f} MB left of {use.total / 1024**3:.0f} GB"
            found.setdefault(os.stat(path).st_dev, Trouble(Kind.DISK, f"{host}:{path}", f"{path} on {host}: {left}."))
    return list(found.values())


def ours(trouble: Trouble) -> bool:
    """Whether `look` from this host would have seen it."""
    if trouble.kind is Kind.DISK:
        return trouble.subject.startswith(f"{socket.gethostname()}:")
    return trouble.kind is not Kind.LISTED


def _partitions() -> list[Trouble]:
    """Housekeeping makes two months ahead; where next month's is missing, it has not run for long."""
    lacking = [row["name"] for row in execute(_LACKING)]
    if not lacking:
        return []
    return [Trouble(Kind.PARTITIONS, "", f"Next month's partitions are not made: {', '.join(lacking)}.")]


_LACKING = """
SELECT c.relname AS name FROM pg_partitioned_table p JOIN pg_class c ON c.oid = p.partrelid
 WHERE c.relnamespace = current_schema()::regnamespace
   AND to_regclass(quote_ident(
           c.relname || to_char((now() AT TIME ZONE 'UTC') + interval '1 month', '_YYYY_MM'))) IS NULL
 ORDER BY c.relname
"""


def listings() -> list[Trouble] | None:
    """SOURCE_IPS on DNS_BLOCK_LISTS; None where some list did not answer, so that nothing can be said to be over."""
    if not (settings.SOURCE_IPS and settings.DNS_BLOCK_LISTS):
        return []
    checks = asyncio.run(_ask())
    lists = [check for check in checks if check.name in settings.DNS_BLOCK_LISTS]
    found = [
        Trouble(Kind.LISTED, f"{c.subject} {c.name}", f"{c.subject} stands on {c.name} ({c.found}).")
        for c in lists
        if c.tone is Tone.MISSING
    ]
    return found if found or all(check.tone is Tone.GOOD for check in lists) else None


async def _ask() -> list[Check]:
    resolver = Resolver(settings.DNS_NAMESERVERS or None, timeout_s=_DNS_S)
    asked = (of_address(resolver, ip, settings.HELO_NAME, settings.DNS_BLOCK_LISTS) for ip in settings.SOURCE_IPS)
    return [check for checks in await asyncio.gather(*asked) for check in checks]
