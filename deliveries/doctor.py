"""The doctor: our own addresses and domains as receivers see them, and whether the installation itself is fit to send.

    examine     DNS and port 25, asked when a person asks
    inside      secrets, certificate, database, clock, workers, what waits

Both change nothing. The panel shows the first, `manage.py deploy_check` prints both.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from cryptography import x509
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import F

from deliveries import metrics
from deliveries.models import SendingDomain
from deliveries.models.sql import clock
from deliveries.read import installation, pools
from deliveries.read.gauges import gauges
from deliveries.routing.doctor import Check, Sent, Tone, of_address, of_bounces, of_domain, port_25
from deliveries.routing.resolver import Resolver

#: domains of one visit
MAX_DOMAINS = 20
_TIMEOUT_S = 5.0
#: due mail that nothing keeps back leaves within a second; a minute is trouble
_LATE_S = 60.0
#: a clock that is off by more makes signatures and certificates doubtful
_CLOCK_S = 2.0
_EXPIRES_DAYS = 14
_ROLES = ("deliver", "jobs", "beat")


def examine(domains: Sequence[str], probe: str = "") -> list[Check]:
    """Our addresses, then `domains` (A-labels); with `probe` an MX of that domain is connected to from SOURCE_IPS."""
    some = domains[:MAX_DOMAINS]
    return asyncio.run(_examine(addresses(), some, _sent(some), probe))


def addresses() -> dict[str, str]:
    """SOURCE_IPS of this process and of every host that lives; each with its name in EHLO."""
    names = dict.fromkeys(settings.SOURCE_IPS, settings.HELO_NAME)
    try:
        now = clock()
        rows = pools.network(now, names).addresses
    except DatabaseError:  # what else is wrong is told elsewhere
        return names
    return names | {a.address: a.helo or settings.HELO_NAME for a in rows if a.lives(now)}


async def _examine(
    helos: Mapping[str, str], domains: Sequence[str], sent: Mapping[str, Sent], probe: str
) -> list[Check]:
    resolver = Resolver(settings.DNS_NAMESERVERS or None, timeout_s=_TIMEOUT_S)
    work = [of_address(resolver, ip, helo, settings.DNS_BLOCK_LISTS) for ip, helo in helos.items()]
    work += [of_bounces(resolver, settings.BOUNCE_DOMAIN, settings.MX_NAME)]
    work += [of_domain(resolver, name, sent.get(name)) for name in domains]
    found = [check for checks in await asyncio.gather(*work) for check in checks]
    if probe:
        sources = settings.SOURCE_IPS or ("",)
        ways = (port_25(resolver, probe, settings.SMTP_PORT, ip, settings.MX_ALLOW_PRIVATE) for ip in sources)
        found += await asyncio.gather(*ways)
    return found


def _sent(domains: Sequence[str]) -> dict[str, Sent]:
    """How mail leaves that is from those of `domains` that are ours; of two tenants' the verified one counts."""
    rows = SendingDomain.objects.filter(name__in=domains).order_by(F("verified_at").asc(nulls_last=True))
    return {
        row.name: Sent(
            row.name if row.verified_at else "",
            f"{row.return_path}.{row.name}" if row.return_path_verified_at else settings.BOUNCE_DOMAIN.lower(),
        )
        for row in reversed(rows)
    }


def own_domains() -> list[str]:
    """The verified ones, of all tenants."""
    names = SendingDomain.objects.filter(verified_at__isnull=False).order_by("name").values_list("name", flat=True)
    return list(names.distinct()[:MAX_DOMAINS])


def inside() -> list[Check]:
    """What needs no look from outside."""
    return [*_secrets(), *_certificate(), *_database(), *_work()]


def _check(name: str, tone: Tone, found: str, advice: str = "") -> Check:
    return Check("this installation", name, tone, found, advice)


def _secrets() -> list[Check]:
    checks = []
    if len(settings.SECRET_KEY) < 32:
        checks.append(_check("SECRET_KEY", Tone.MISSING, "It is short.", "Take 32 random octets or more."))
    if not settings.SANDBOX and not settings.BASE_URL.startswith("https://"):
        checks.append(
            _check("BASE_URL", Tone.MISSING, settings.BASE_URL, "Keys and passwords go over it: put HTTPS before it.")
        )
    if settings.METRICS_TOKEN and len(settings.METRICS_TOKEN) < 16:
        checks.append(_check("METRICS_TOKEN", Tone.WARNING, "It is short.", "Take 16 characters or more."))
    return checks or [_check("Secrets", Tone.GOOD, "They are long enough, and go over HTTPS or not out.")]


def _certificate() -> list[Check]:
    path = settings.SMTPD_CERT_FILE
    if not path:
        return []
    try:
        with open(path, "rb") as f:
            end = x509.load_pem_x509_certificate(f.read()).not_valid_after_utc
    except (OSError, ValueError) as e:
        return [_check("Certificate of smtpd", Tone.MISSING, f"{path}: {e}", "smtpd cannot offer TLS with it.")]
    days = (end - datetime.now(UTC)).days
    tone = Tone.MISSING if days < 0 else Tone.WARNING if days < _EXPIRES_DAYS else Tone.GOOD
    advice = "" if tone is Tone.GOOD else "Renew it; smtpd takes the new one within a minute."
    return [_check("Certificate of smtpd", tone, f"It ends on {end:%Y-%m-%d}.", advice)]


def _database() -> list[Check]:
    try:
        with connection.cursor() as cursor:
            off = [p.name for p in installation.postgres()[1] if p.breaks]
            before = time.time()
            cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
            apart = cursor.fetchone()[0] - (before + time.time()) / 2
    except DatabaseError as e:
        return [_check("Database", Tone.MISSING, str(e).strip().partition("\n")[0], "Nothing is accepted without it.")]
    checks = [
        _check("Database", Tone.MISSING, f"{name} is off.", "What was answered 2xx is lost in a crash.") for name in off
    ]
    if abs(apart) > _CLOCK_S:
        checks.append(
            _check("Clock", Tone.WARNING, f"This host and the database are {apart:+.1f} s apart.", "Run an NTP client.")
        )
    return checks or [_check("Database", Tone.GOOD, "It answers, keeps what it confirms, and agrees on the time.")]


def _work() -> list[Check]:
    try:
        now = gauges()
    except DatabaseError:
        return []
    checks = []
    if lacking := sorted(set(_ROLES) - metrics.living(_ROLES)):
        checks.append(
            _check(
                "Workers", Tone.MISSING, f"No sign of life of {', '.join(lacking)}.", "Start them (manage.py serve)."
            )
        )
    if (late := max(now.oldest_due_s.values())) > _LATE_S:
        checks.append(
            _check(
                "Queue",
                Tone.MISSING,
                f"Due mail waits for {late:.0f} s.",
                "See the deliver workers' log.",
            )
        )
    if now.webhooks_late_s > 300:
        checks.append(
            _check("Webhooks", Tone.WARNING, f"They are late by {now.webhooks_late_s:.0f} s.", "More jobs workers?")
        )
    if now.inbound_late_s > 300:
        checks.append(
            _check(
                "Reports", Tone.WARNING, f"The oldest waits for {now.inbound_late_s:.0f} s.", "See the jobs workers."
            )
        )
    if now.brakes_open:
        checks.append(_check("Brakes", Tone.WARNING, f"{now.brakes_open} wait for a decision.", "Decide in the panel."))
    return checks or [_check("Work", Tone.GOOD, "Workers live, nothing that is due waits.")]
