"""Claims: a domain goes over to the tenant that controls its DNS, though another has it verified.

    claim → the tenant publishes the TXT record of the claim and its DKIM record → verify → the other one stops at once

Without a claim the other keeps the domain until its DKIM record is gone for three days: good for a broken zone, too
slow for a domain that was sold. Whether another tenant has the domain at all, a claim does not tell before its proof.
"""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from deliveries import domains
from deliveries.domains.looking import look, record_findings, turns
from deliveries.domains.rows import audit, locked, tell_of, with_keys
from deliveries.errors import BadInput, Fault
from deliveries.models import DomainClaim, SendingDomain
from deliveries.read.domains import claimed, wanted_of
from deliveries.routing.published import Finding, Standing


def claim(tenant_id: UUID, name: str, actor: str, now: datetime | None = None, **wishes: Any) -> UUID:
    """The domain's id, made where it is not among the tenant's; a claim that still waits stays as it is."""
    now = now or timezone.now()
    own = SendingDomain.objects.filter(tenant_id=tenant_id, name=name).first()
    domain_id = own.id if own else domains.create(tenant_id, name, actor, **wishes)
    with transaction.atomic():
        domain = locked(domain_id, tenant_id)
        if domain is None:  # removed in between
            raise BadInput([Fault("name", "not_found", "The domain was removed meanwhile; claim it again.")])
        if domain.verified_at:
            words = f"{name} is yours and verified; there is nothing to claim."
            raise BadInput([Fault("name", "already_verified", words)])
        waiting = DomainClaim.objects.filter(domain=domain, completed_at=None, created_at__gt=now - DomainClaim.LIFE)
        if not waiting.exists():
            DomainClaim.objects.filter(domain=domain).delete()
            DomainClaim.objects.create(domain=domain, token=secrets.token_hex(16), created_at=now)
            audit(domain, actor, "domain.claimed")
    return domain_id


def verify(tenant_id: UUID, domain_id: UUID, actor: str, now: datetime | None = None) -> bool:
    """Look for its records now; False where there is no claim. One that is over, and a busy process, change nothing."""
    now = now or timezone.now()
    domain = with_keys().filter(tenant_id=tenant_id, id=domain_id, claim__isnull=False).first()
    if domain is None:
        return False
    row = DomainClaim.objects.get(domain=domain)
    if row.completed_at or row.created_at <= now - DomainClaim.LIFE or not turns.acquire(blocking=False):
        return True
    try:
        found = look([(domain.id, [claimed(row, domain), *wanted_of(domain)])])[domain.id]
    finally:
        turns.release()
    if found["claim"].status is Standing.VERIFIED:
        DomainClaim.objects.filter(id=row.id).update(seen_at=now)
        _hand_over(domain, found, actor, now)
    record_findings(domain, found, now, asked=True)
    if SendingDomain.objects.filter(id=domain.id, verified_at__isnull=False).exists():
        DomainClaim.objects.filter(id=row.id, seen_at__isnull=False, completed_at=None).update(completed_at=now)
    return True


def _hand_over(domain: SendingDomain, found: dict[str, Finding], actor: str, now: datetime) -> None:
    """Whoever has it verified stops, once its DKIM record proves that this tenant goes on."""
    signing = [w.key for w in wanted_of(domain) if w.required]
    if not signing or found[signing[0]].status is not Standing.VERIFIED:
        return
    with transaction.atomic():
        others = SendingDomain.objects.filter(name=domain.name, verified_at__isnull=False).exclude(id=domain.id)
        for ident in others.values_list("id", flat=True):
            other = locked(ident)
            if other is None or not other.verified_at:
                continue
            other.verified_at, other.failed_at, other.missing_since = None, now, None
            other.save()
            audit(other, "the checker", "domain.taken_over", "its DNS proved the claim of another account")
            tell_of(other)
        audit(domain, actor, "domain.handed_over")
