"""Looking at the records of domains, and what follows from what was found.

A record that DNS says is missing has GRACE to come back before mail stops; a nameserver that fails, or keeps silent,
proves nothing and changes nothing. No transaction is open while DNS is asked.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from deliveries.domains.rows import audit, locked, tell_of, with_keys
from deliveries.mime.dkim import KeyType
from deliveries.models import DkimKey, SendingDomain
from deliveries.read import domains as read
from deliveries.routing import published
from deliveries.routing.published import Finding, Standing, Wanted
from deliveries.routing.resolver import Resolver

log = logging.getLogger(__name__)

#: how long a record may be missing before a verified domain stops, and a new one is given up
GRACE = timedelta(hours=72)
#: a retired key stays published: what it signed may wait at a receiver, or be read again
RETIRED = timedelta(days=7)
#: how soon a domain is looked at again: all is well; something is missing; a person waits for DNS; given up
_WELL = timedelta(hours=6)
_LACKING = timedelta(hours=1)
_WAITING = timedelta(minutes=1)
_GIVEN_UP = timedelta(days=1)
#: a person waits that long; then DNS is asked less often
_PATIENCE = timedelta(hours=1)
_SLOWLY = timedelta(minutes=10)
#: a worker that dies with domains in hand leaves them to the next after this
_CLAIM = timedelta(minutes=5)
#: domains that one run takes, and how many of them it looks up at a time
_BATCH = 200
_AT_A_TIME = 25
_TAKEN = (
    "The record is right, but another account has verified this domain and keeps it until its own DKIM record has been "
    f"gone for {GRACE // timedelta(hours=1)} hours. If it is yours, claim it (POST /domains/claim)."
)
#: no domain is begun after it; the task's own limit lies above
_MAX_RUN_S = 90.0
#: verifications that the threads of one web process do at a time; the others are left to the next run
turns = threading.BoundedSemaphore(2)


def run(now: datetime | None = None) -> int:
    """Look at the domains that are due, and take away keys that have served their time; how many domains."""
    now = now or timezone.now()
    _remove_retired_keys(now)
    end = time.monotonic() + _MAX_RUN_S
    count = 0
    while time.monotonic() < end and (batch := _claim(now)):
        domains = list(with_keys().filter(id__in=batch))
        found = look(records_of(domains))
        for domain in domains:
            record_findings(domain, found[domain.id], now)
        count += len(batch)
    return count


def _claim(now: datetime) -> list[UUID]:
    with transaction.atomic():
        due = SendingDomain.objects.select_for_update(skip_locked=True).filter(next_check_at__lte=now)
        ids = list(due.order_by("next_check_at").values_list("id", flat=True)[:_BATCH])
        SendingDomain.objects.filter(id__in=ids).update(next_check_at=now + _CLAIM)
    return ids


def records_of(domains: Sequence[SendingDomain]) -> list[tuple[UUID, list[Wanted]]]:
    return [(domain.id, read.wanted_of(domain)) for domain in domains]


def look(asked: Sequence[tuple[UUID, list[Wanted]]]) -> dict[UUID, dict[str, Finding]]:
    """What DNS says of each; a resolver of its own, so that nothing older than the nameservers' caches is believed."""
    return asyncio.run(_look_all(asked))


async def _look_all(asked: Sequence[tuple[UUID, list[Wanted]]]) -> dict[UUID, dict[str, Finding]]:
    resolver = Resolver(settings.DNS_NAMESERVERS or None)
    places = asyncio.Semaphore(_AT_A_TIME)

    async def one(wanted: list[Wanted]) -> dict[str, Finding]:
        async with places:
            return await published.look(resolver, wanted)

    return dict(zip([i for i, _ in asked], await asyncio.gather(*(one(w) for _, w in asked)), strict=True))


def record_findings(was: SendingDomain, found: Mapping[str, Finding], now: datetime, asked: bool = False) -> None:
    """What was found of the domain as it was, written; `asked`: by a person, who begins a new time of waiting."""
    seen = {(w.key, w.name, w.value): found[w.key] for w in read.wanted_of(was)}
    try:
        _write(was.id, seen, now, asked)
    except IntegrityError:  # another tenant proved it in the same moment, and has committed
        _write(was.id, seen, now, asked)


def _write(domain_id: UUID, seen: Mapping[tuple[str, str, str], Finding], now: datetime, asked: bool) -> None:
    with transaction.atomic():
        domain = locked(domain_id)
        if domain is None:
            return
        # what was wished for while DNS was asked is looked at the next time
        wanted = {(w.key, w.name, w.value): w.key for w in read.wanted_of(domain)}
        found = {wanted[record]: finding for record, finding in seen.items() if record in wanted}
        before = _facts(domain)
        trusted = domain.verified_at is not None and domain.next_check_at is None
        domain.checked_at = now
        if asked and not domain.verified_at:
            domain.missing_since = domain.failed_at = None
        _turn_keys(domain, found, now)
        if not trusted:
            _prove(domain, found, now)
        _return_path(domain, found, now)
        domain.findings = {key: asdict(finding) for key, finding in found.items()}
        domain.next_check_at = None if trusted else now + _next(domain, now)
        domain.save()
        if _facts(domain) != before:
            log.info("domain %s of tenant %s is %s", domain.name, domain.tenant_id, domain.status)
            tell_of(domain)


def _prove(domain: SendingDomain, found: dict[str, Finding], now: datetime) -> None:
    """Whether it may send. A signing key that was made after DNS was asked has no finding, and changes nothing."""
    signing = read.signing_key(list(domain.dkim_keys.all()))
    key = f"dkim:{signing.selector}" if signing else ""
    finding = found.get(key)
    proved = finding is not None and finding.status is Standing.VERIFIED
    if proved and not domain.verified_at and taken(domain):
        proved = False
        found[key] = replace(found[key], advice=_TAKEN)
    if proved:
        domain.verified_at = domain.verified_at or now
        domain.missing_since = domain.failed_at = None
        return
    if domain.failed_at:
        return
    unknown = finding is None or finding.status is Standing.TEMPORARY_FAILURE
    if unknown and domain.verified_at:
        return
    domain.missing_since = domain.missing_since or now
    if not unknown and now - domain.missing_since >= GRACE:
        domain.verified_at, domain.failed_at = None, now


def taken(domain: SendingDomain) -> bool:
    """Whether another tenant has proved it; of two at once the constraint stops one, which then asks again."""
    others = SendingDomain.objects.filter(name=domain.name, verified_at__isnull=False)
    return others.exclude(id=domain.id).exists()


def _return_path(domain: SendingDomain, found: Mapping[str, Finding], now: datetime) -> None:
    seen = {found[key].status for key in ("mx", "spf") if key in found}
    if seen == {Standing.VERIFIED}:
        domain.return_path_verified_at = domain.return_path_verified_at or now
    elif seen & {Standing.PENDING, Standing.FAILED}:
        domain.return_path_verified_at = None


def _turn_keys(domain: SendingDomain, found: Mapping[str, Finding], now: datetime) -> None:
    """A waiting key whose record is there signs from now on; those of its type before it retire.

    An Ed25519 key whose record is gone waits again at once: unlike with RSA no mail stops for it, and a signature that
    nobody can verify is of no use (RFC 6376 §6.1.2: no key is a permanent failure).
    """
    for key in domain.dkim_keys.all():
        finding = found.get(f"dkim:{key.selector}")
        if key.retired_at or finding is None:
            continue
        if key.active:
            if key.key_type == KeyType.ED25519 and finding.status in (Standing.PENDING, Standing.FAILED):
                domain.dkim_keys.filter(id=key.id).update(active=False)
                audit(domain, "the checker", "domain.key_missing", key.selector)
        elif finding.status is Standing.VERIFIED:
            before = domain.dkim_keys.filter(key_type=key.key_type, retired_at=None, id__lt=key.id)
            before.update(active=False, retired_at=now)
            domain.dkim_keys.filter(id=key.id).update(active=True)
            audit(domain, "the checker", "domain.key_turned", key.selector)
    domain._prefetched_objects_cache = {}  # type: ignore[attr-defined]


def _remove_retired_keys(now: datetime) -> None:
    """Retired keys whose time is over: private keys that sign nothing are a risk and no use."""
    for key in DkimKey.objects.filter(retired_at__lte=now - RETIRED).select_related("domain").defer("private_key"):
        with transaction.atomic():
            audit(key.domain, "the checker", "domain.key_removed", key.selector)
            DkimKey.objects.filter(id=key.id).delete()


def _next(domain: SendingDomain, now: datetime) -> timedelta:
    if domain.failed_at:
        return _GIVEN_UP
    waiting = [k.created_at for k in domain.dkim_keys.all() if not k.active and not k.retired_at]
    if not domain.verified_at and domain.missing_since:
        waiting.append(domain.missing_since)
    if waiting:
        return _WAITING if now - max(waiting) < _PATIENCE else _SLOWLY
    lacking = any(f["status"] != Standing.VERIFIED for f in domain.findings.values())
    return _LACKING if domain.missing_since or lacking else _WELL


def _facts(domain: SendingDomain) -> tuple[Any, ...]:
    """What is told when it changes."""
    keys = sorted((k.selector, k.active) for k in domain.dkim_keys.all())
    return domain.status, domain.return_path_verified_at is None, keys
