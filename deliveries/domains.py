"""Sending domains: added, proved by their DNS records, looked at again, given new DKIM keys, removed.

    create → the tenant publishes the records → verify → run() looks again, for as long as the domain is there

The proof of a domain is its DKIM record: the key is made for this tenant alone, so nobody else's zone can hold it.
Where two tenants add one domain, the first that proves it keeps it until its own record is gone for GRACE; the other
waits. A record that DNS says is missing has GRACE to come back before mail stops; a nameserver that fails, or keeps
silent, proves nothing and changes nothing. The records of the return path are watched beside it: both seen, bounces go
there; one of them gone, they go to BOUNCE_DOMAIN again, at once and without harm.

A domain may also be trusted by the operator's word, without DNS (the sandbox's is): its DKIM record is not asked for.

No transaction is open while DNS is asked. Every change is told as `domain.updated`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Prefetch, Q
from django.utils import timezone

from deliveries.errors import BadInput, Fault
from deliveries.mime import dkim
from deliveries.models import ApiKey, AuditEntry, DkimKey, SendingDomain
from deliveries.read import domains as read
from deliveries.record.notices import Notice, tell
from deliveries.routing import published
from deliveries.routing.published import Finding, Standing, Wanted
from deliveries.routing.resolver import Resolver
from deliveries.states import EventType

log = logging.getLogger(__name__)

#: domains of one tenant: each has a key of 2,048 bits
MOST = 500
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
    f"gone for {GRACE // timedelta(hours=1)} hours."
)
#: no domain is begun after it; the task's own limit lies above
_MAX_RUN_S = 90.0
#: verifications that the threads of one web process do at a time; the others are left to the next run
_turns = threading.BoundedSemaphore(2)


# --- orders of a tenant -------------------------------------------------------------------------------------------


def create(tenant_id: UUID, name: str, actor: str, **wishes: Any) -> UUID:
    """A new domain and its first key; `wishes` as in update(). BadInput where it cannot be the tenant's."""
    _check(name, wishes, {"return_path": "send", "tracking_label": "links"})
    private_key, public_key = dkim.generate_key()
    with transaction.atomic():
        own = SendingDomain.objects.filter(tenant_id=tenant_id)
        if own.filter(name=name).exists():
            raise BadInput([Fault("name", "already_exists", f"{name} is among your domains already.")])
        if own.count() >= MOST:
            raise BadInput([Fault("name", "too_many", f"There are {MOST} domains already; remove one first.")])
        try:
            with transaction.atomic():
                domain = own.create(tenant_id=tenant_id, name=name, **wishes)
        except IntegrityError:  # the same request at the same time
            raise BadInput([Fault("name", "already_exists", f"{name} is among your domains already.")]) from None
        domain.dkim_keys.create(selector=_selector(), private_key=private_key, public_key=public_key)
        _audit(domain, actor, "domain.created")
    return domain.id


def update(tenant_id: UUID, domain_id: UUID, actor: str, **wishes: Any) -> bool:
    """Change `return_path`, `tracking_label`, `open_tracking`, `click_tracking`, `tls`; False where there is none."""
    with transaction.atomic():
        domain = _locked(domain_id, tenant_id)
        if domain is None:
            return False
        _check(domain.name, wishes, {"return_path": domain.return_path, "tracking_label": domain.tracking_label})
        changed = {name: value for name, value in wishes.items() if getattr(domain, name) != value}
        if not changed:
            return True
        for name, value in changed.items():
            setattr(domain, name, value)
        if "return_path" in changed:  # bounces go to BOUNCE_DOMAIN until the new one is seen
            domain.return_path_verified_at = None
            _forget(domain, "mx", "spf")
        if "tracking_label" in changed:
            _forget(domain, "tracking")
        if domain.next_check_at:
            domain.next_check_at = timezone.now()
        domain.save()
        _audit(domain, actor, "domain.changed", "; ".join(f"{n} {v}" for n, v in changed.items()))
        _tell(domain)
    return True


def remove(tenant_id: UUID, domain_id: UUID, actor: str) -> bool:
    """Gone with its keys and receiving addresses; False where there is none. What still waits to be sent fails."""
    with transaction.atomic():
        domain = _locked(domain_id, tenant_id)
        if domain is None:
            return False
        if domain.suspended_at:  # added anew it would be free
            fault = Fault(
                "", "suspended", f"{domain.name} is suspended by the operator; it can be removed once released."
            )
            raise BadInput([fault], http_status=403)
        for key in ApiKey.objects.filter(domain=domain, revoked_at=None):
            _audit(domain, actor, "key.revoked", f"{key.name} ({key.prefix}…) was for this domain alone")
        _audit(domain, actor, "domain.removed")
        domain.delete()
    return True


def verify(tenant_id: UUID, domain_id: UUID, actor: str, now: datetime | None = None) -> bool:
    """Look at its records now, within seconds, and by itself from then on; False where there is none.

    Where this process looks for others already, the next run looks, within a minute.
    """
    domain = _with_keys().filter(tenant_id=tenant_id, id=domain_id).first()
    if domain is None:
        return False
    now = now or timezone.now()
    if _turns.acquire(blocking=False):
        try:
            found = _look([domain])
        finally:
            _turns.release()
        _settle(domain.id, found[domain.id], now, asked=True)
    else:
        left = SendingDomain.objects.filter(Q(verified_at=None) | Q(next_check_at__isnull=False), id=domain.id)
        left.update(next_check_at=now)
    _audit(domain, actor, "domain.checked")
    return True


def rotate(tenant_id: UUID, domain_id: UUID, actor: str, now: datetime | None = None) -> bool:
    """A second key, which signs once its record was seen; one that waits already stays. False where there is none."""
    if not SendingDomain.objects.filter(tenant_id=tenant_id, id=domain_id).exists():
        return False
    private_key, public_key = dkim.generate_key()
    with transaction.atomic():
        domain = _locked(domain_id, tenant_id)
        if domain is None:
            return False
        if domain.verified_at and domain.next_check_at is None:
            words = (
                "It was verified by the operator's word, and its records are not looked at: no new key would be seen."
            )
            raise BadInput([Fault("", "not_looked_at", words)])
        if domain.dkim_keys.filter(active=False, retired_at=None).exists():
            return True
        selector = _selector()
        domain.dkim_keys.create(selector=selector, private_key=private_key, public_key=public_key, active=False)
        domain.next_check_at = now or timezone.now()
        domain.save(update_fields=["next_check_at"])
        _audit(domain, actor, "domain.key_made", selector)
        _tell(domain)
    return True


def trust(domain_ids: Sequence[UUID], actor: str) -> int:
    """The operator's word: verified from now on, without DNS and without end; how many were not so before.

    One that another tenant has proved is passed over."""
    count = 0
    for domain_id in domain_ids:
        with transaction.atomic():
            domain = _locked(domain_id)
            if domain is None or domain.verified_at or _taken(domain):
                continue
            domain.verified_at, domain.missing_since = timezone.now(), None
            domain.failed_at = domain.next_check_at = None
            domain.save()
            _audit(domain, actor, "domain.trusted")
            _tell(domain)
            count += 1
    return count


# --- looking again ------------------------------------------------------------------------------------------------


def run(now: datetime | None = None) -> int:
    """Look at the domains that are due, and take away keys that have served their time; how many domains."""
    now = now or timezone.now()
    _bury(now)
    end = time.monotonic() + _MAX_RUN_S
    count = 0
    while time.monotonic() < end and (batch := _claim(now)):
        domains = list(_with_keys().filter(id__in=batch))
        found = _look(domains)
        for domain in domains:
            _settle(domain.id, found[domain.id], now)
        count += len(batch)
    return count


def _claim(now: datetime) -> list[UUID]:
    with transaction.atomic():
        due = SendingDomain.objects.select_for_update(skip_locked=True).filter(next_check_at__lte=now)
        ids = list(due.order_by("next_check_at").values_list("id", flat=True)[:_BATCH])
        SendingDomain.objects.filter(id__in=ids).update(next_check_at=now + _CLAIM)
    return ids


def _look(domains: Sequence[SendingDomain]) -> dict[UUID, dict[str, Finding]]:
    """What DNS says of each; a resolver of its own, so that nothing older than the nameservers' caches is believed."""
    return asyncio.run(_look_all([(domain.id, read.wanted_of(domain)) for domain in domains]))


async def _look_all(asked: Sequence[tuple[UUID, list[Wanted]]]) -> dict[UUID, dict[str, Finding]]:
    resolver = Resolver(settings.DNS_NAMESERVERS or None)
    places = asyncio.Semaphore(_AT_A_TIME)

    async def one(wanted: list[Wanted]) -> dict[str, Finding]:
        async with places:
            return await published.look(resolver, wanted)

    return dict(zip([i for i, _ in asked], await asyncio.gather(*(one(w) for _, w in asked)), strict=True))


def _settle(domain_id: UUID, found: Mapping[str, Finding], now: datetime, asked: bool = False) -> None:
    """What was found, written, with what follows; `asked`: by a person, who begins a new time of waiting."""
    try:
        _write(domain_id, dict(found), now, asked)
    except IntegrityError:  # another tenant proved it in the same moment, and has committed
        _write(domain_id, dict(found), now, asked)


def _write(domain_id: UUID, found: dict[str, Finding], now: datetime, asked: bool) -> None:
    with transaction.atomic():
        domain = _locked(domain_id)
        if domain is None:
            return
        before = _facts(domain)
        trusted = domain.verified_at is not None and domain.next_check_at is None
        domain.checked_at = now
        if asked and not domain.verified_at:
            domain.missing_since = domain.failed_at = None
        if not trusted:
            _prove(domain, found, now)
        _return_path(domain, found, now)
        _turn_keys(domain, found, now)
        # a record that came with a new wish while DNS was asked is looked at the next time
        domain.findings = {w.key: asdict(found[w.key]) for w in read.wanted_of(domain) if w.key in found}
        domain.next_check_at = None if trusted else now + _next(domain, now)
        domain.save()
        if _facts(domain) != before:
            log.info("domain %s of tenant %s is %s", domain.name, domain.tenant_id, domain.status)
            _tell(domain)


def _prove(domain: SendingDomain, found: dict[str, Finding], now: datetime) -> None:
    """Whether it may send. A signing key that was made after DNS was asked has no finding, and changes nothing."""
    signing = read.signing_key(list(domain.dkim_keys.all()))
    key = f"dkim:{signing.selector}" if signing else ""
    finding = found.get(key)
    proved = finding is not None and finding.status is Standing.VERIFIED
    if proved and not domain.verified_at and _taken(domain):
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


def _taken(domain: SendingDomain) -> bool:
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
    """A waiting key whose record is there signs from now on; the one before retires."""
    for key in domain.dkim_keys.all():
        finding = found.get(f"dkim:{key.selector}")
        if key.active or key.retired_at or finding is None or finding.status is not Standing.VERIFIED:
            continue
        domain.dkim_keys.filter(active=True).update(active=False, retired_at=now)
        domain.dkim_keys.filter(id=key.id).update(active=True)
        _audit(domain, "the checker", "domain.key_turned", key.selector)
    domain._prefetched_objects_cache = {}  # type: ignore[attr-defined]


def _bury(now: datetime) -> None:
    """Retired keys whose time is over: private keys that sign nothing are a risk and no use."""
    for key in DkimKey.objects.filter(retired_at__lte=now - RETIRED).select_related("domain").defer("private_key"):
        with transaction.atomic():
            _audit(key.domain, "the checker", "domain.key_removed", key.selector)
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


# --- what they share ----------------------------------------------------------------------------------------------


def _check(name: str, wishes: Mapping[str, Any], now: Mapping[str, str]) -> None:
    """What of these no domain can be: ours, or with a return path that is something else already."""
    ours = {settings.HELO_NAME.lower(), settings.BOUNCE_DOMAIN.lower(), settings.SANDBOX_DOMAIN.lower()}
    if name in ours or name.endswith(f".{settings.BOUNCE_DOMAIN.lower()}"):
        raise BadInput([Fault("name", "not_yours", f"{name} belongs to this installation; add a domain of your own.")])
    labels = {**now, **{k: v for k, v in wishes.items() if k in now}}
    faults = []
    if f"{labels['return_path']}.{name}" in ours:
        faults.append(
            Fault("custom_return_path", "not_yours", "This name belongs to this installation; choose another label.")
        )
    if labels["return_path"] == labels["tracking_label"]:
        # RFC 1034 §3.6.2: no other record beside a CNAME
        faults.append(
            Fault("tracking_subdomain", "invalid_parameter", "Must be another label than that of the return path.")
        )
    if faults:
        raise BadInput(faults)


def _selector() -> str:
    """Unlike any other, so that the records of two tenants may stand side by side in one zone."""
    return f"m{secrets.token_hex(5)}"


def _with_keys() -> Any:
    public = DkimKey.objects.defer("private_key").order_by("id")
    return SendingDomain.objects.prefetch_related(Prefetch("dkim_keys", queryset=public))


def _locked(domain_id: UUID, tenant_id: UUID | None = None) -> SendingDomain | None:
    own = Q() if tenant_id is None else Q(tenant_id=tenant_id)
    row: SendingDomain | None = _with_keys().select_for_update().filter(own, id=domain_id).first()
    return row


def _facts(domain: SendingDomain) -> tuple[Any, ...]:
    """What is told when it changes."""
    keys = sorted((k.selector, k.active) for k in domain.dkim_keys.all())
    return domain.status, domain.return_path_verified_at is None, keys


def _forget(domain: SendingDomain, *keys: str) -> None:
    domain.findings = {key: finding for key, finding in domain.findings.items() if key not in keys}


def _tell(domain: SendingDomain) -> None:
    whole = _with_keys().get(id=domain.id)
    tell([Notice(domain.tenant_id, EventType.DOMAIN_UPDATED, read.shown(whole))])


def _audit(domain: SendingDomain, actor: str, action: str, more: str = "") -> None:
    subject = f"{domain.name}: {more}" if more else domain.name
    AuditEntry.objects.create(tenant_id=domain.tenant_id, actor=actor, action=action, subject=subject[:300])
