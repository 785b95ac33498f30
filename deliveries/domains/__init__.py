"""Sending domains: added, proved by their DNS records, looked at again, given new DKIM keys, removed.

    create → the tenant publishes the records → verify → run() looks again, for as long as the domain is there

    rows        read, lock, tell
    looking     ask DNS, decide, again when due
    claims      a domain that goes over to another tenant

The proof of a domain is its DKIM record: the key is made for this tenant alone, so nobody else's zone can hold it.
Where two tenants add one domain, the first that proves it keeps it until its own record is gone for GRACE; the other
waits. A record that DNS says is missing has GRACE to come back before mail stops; a nameserver that fails, or keeps
silent, proves nothing and changes nothing. The records of the return path are watched beside it: both seen, bounces go
there; one of them gone, they go to BOUNCE_DOMAIN again, at once and without harm.

Where it is wished for (`dkim_ed25519`), an Ed25519 key signs beside the RSA key while its own record is seen. It proves
nothing and stops nothing, and turns like the others.

A domain may also be trusted by the operator's word, without DNS (the sandbox's is): its DKIM record is not asked for.

No transaction is open while DNS is asked. Every change is told as `domain.updated`.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from deliveries.domains.looking import look, record_findings, records_of, taken, turns
from deliveries.domains.looking import run as run
from deliveries.domains.rows import audit, locked, tell_of, with_keys
from deliveries.errors import BadInput, Fault
from deliveries.mime import dkim
from deliveries.mime.dkim import KeyType
from deliveries.models import ApiKey, SendingDomain

#: domains of one tenant: each has a key of 2,048 bits
MOST = 500
#: streams of one domain whose mails can be left with one click
MOST_STREAMS = 50


# --- orders of a tenant -------------------------------------------------------------------------------------------


def create(tenant_id: UUID, name: str, actor: str, **wishes: Any) -> UUID:
    """A new domain and its first key; `wishes` as in update(). BadInput where it cannot be the tenant's."""
    _check(name, wishes, {"return_path": "send", "tracking_label": "links"})
    second = wishes.pop("dkim_ed25519", False)
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
        audit(domain, actor, "domain.created")
        if second:
            _wait_for_key(domain, KeyType.ED25519, dkim.generate_key(KeyType.ED25519), actor)
    return domain.id


def update(tenant_id: UUID, domain_id: UUID, actor: str, **wishes: Any) -> bool:
    """Change `return_path`, `tracking_label`, `open_tracking`, `click_tracking`, `unsubscribe_streams`,
    `redact_streams`, `tls`, `dkim_ed25519` (a second signature); False where there is none."""
    with transaction.atomic():
        domain = locked(domain_id, tenant_id)
        if domain is None:
            return False
        _check(domain.name, wishes, {"return_path": domain.return_path, "tracking_label": domain.tracking_label})
        changed = {name: value for name, value in wishes.items() if getattr(domain, name) != value}
        if not changed:
            return True
        for name, value in changed.items():
            if name != "dkim_ed25519":  # that follows from its keys
                setattr(domain, name, value)
        if "dkim_ed25519" in changed:
            (_begin_ed25519 if changed["dkim_ed25519"] else _end_ed25519)(domain, actor)
        if "return_path" in changed:  # bounces go to BOUNCE_DOMAIN until the new one is seen
            domain.return_path_verified_at = None
            _forget(domain, "mx", "spf")
        if "tracking_label" in changed:
            _forget(domain, "tracking")
        if domain.next_check_at:
            domain.next_check_at = timezone.now()
        domain.save()
        audit(domain, actor, "domain.changed", "; ".join(f"{n} {v}" for n, v in changed.items()))
        tell_of(domain)
    return True


def goes_with(domain: SendingDomain) -> dict[str, list[str]]:
    """What remove() takes away besides, by kind."""
    return {
        "DKIM keys": [f"selector {s}" for s in domain.dkim_keys.values_list("selector", flat=True)],
        "receiving addresses": [f"{a}@{domain.name}" for a in domain.inbound_routes.values_list("address", flat=True)],
        "API keys": [
            f"{key}, which sends from this domain alone"
            for key in ApiKey.objects.filter(domain=domain, revoked_at=None)
        ],
    }  # fmt: skip


def remove(tenant_id: UUID, domain_id: UUID, actor: str) -> bool:
    """Gone with its keys and receiving addresses; False where there is none. What still waits to be sent fails."""
    with transaction.atomic():
        domain = locked(domain_id, tenant_id)
        if domain is None:
            return False
        if domain.suspended_at:  # added anew it would be free
            words = f"{domain.name} is suspended by the operator; it can be removed once released."
            raise BadInput([Fault("", "suspended", words)], http_status=403)
        for key in ApiKey.objects.filter(domain=domain, revoked_at=None):
            audit(domain, actor, "key.revoked", f"{key.name} ({key.prefix}…) was for this domain alone")
        audit(domain, actor, "domain.removed")
        domain.delete()
    return True


def verify(tenant_id: UUID, domain_id: UUID, actor: str, now: datetime | None = None) -> bool:
    """Look at its records now, within seconds, and by itself from then on; False where there is none.

    Where this process looks for others already, the next run looks, within a minute.
    """
    domain = with_keys().filter(tenant_id=tenant_id, id=domain_id).first()
    if domain is None:
        return False
    now = now or timezone.now()
    if turns.acquire(blocking=False):
        try:
            found = look(records_of([domain]))
        finally:
            turns.release()
        record_findings(domain, found[domain.id], now, asked=True)
    else:
        left = SendingDomain.objects.filter(Q(verified_at=None) | Q(next_check_at__isnull=False), id=domain.id)
        left.update(next_check_at=now)
    audit(domain, actor, "domain.checked")
    return True


def rotate(tenant_id: UUID, domain_id: UUID, actor: str, now: datetime | None = None) -> bool:
    """A second key of each type that the domain has, which signs once its record was seen; where one waits already, it
    stays. False where there is no such domain."""
    if not SendingDomain.objects.filter(tenant_id=tenant_id, id=domain_id).exists():
        return False
    made = {key_type: dkim.generate_key(key_type) for key_type in KeyType}  # RSA takes long: before the lock
    with transaction.atomic():
        domain = locked(domain_id, tenant_id)
        if domain is None:
            return False
        _must_be_looked_at(domain, "")
        waiting = set(domain.dkim_keys.filter(active=False, retired_at=None).values_list("key_type", flat=True))
        wanted = KeyType if domain.dkim_ed25519 else (KeyType.RSA,)
        missing = [key_type for key_type in wanted if key_type not in waiting]
        if not missing:
            return True
        for key_type in missing:
            _wait_for_key(domain, key_type, made[key_type], actor)
        domain.next_check_at = now or timezone.now()
        domain.save(update_fields=["next_check_at"])
        tell_of(domain)
    return True


def trust(domain_ids: Sequence[UUID], actor: str) -> int:
    """The operator's word: verified from now on, without DNS and without end; how many were not so before.

    One that another tenant has proved is passed over."""
    count = 0
    for domain_id in domain_ids:
        # another tenant may prove it in this very moment
        with contextlib.suppress(IntegrityError), transaction.atomic():
            domain = locked(domain_id)
            if domain is None or domain.verified_at or taken(domain):
                continue
            domain.verified_at, domain.missing_since = timezone.now(), None
            domain.failed_at = domain.next_check_at = None
            domain.save()
            audit(domain, actor, "domain.trusted")
            tell_of(domain)
            count += 1
    return count


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


def _begin_ed25519(domain: SendingDomain, actor: str) -> None:
    _must_be_looked_at(domain, "dkim_ed25519")
    _wait_for_key(domain, KeyType.ED25519, dkim.generate_key(KeyType.ED25519), actor)


def _end_ed25519(domain: SendingDomain, actor: str) -> None:
    """What signed retires, since its mail is still on its way; what only waited goes at once."""
    own = domain.dkim_keys.filter(key_type=KeyType.ED25519, retired_at=None)
    waiting = own.filter(active=False)
    for selector in waiting.values_list("selector", flat=True):
        audit(domain, actor, "domain.key_removed", selector)
        _forget(domain, f"dkim:{selector}")
    waiting.delete()
    own.update(active=False, retired_at=timezone.now())


def _wait_for_key(domain: SendingDomain, key_type: KeyType, pair: tuple[bytes, str], actor: str) -> None:
    """A new key that signs nothing before its record is seen."""
    private_key, public_key = pair
    selector = _selector()
    domain.dkim_keys.create(
        selector=selector, key_type=key_type, private_key=private_key, public_key=public_key, active=False
    )
    audit(domain, actor, "domain.key_made", selector)


def _must_be_looked_at(domain: SendingDomain, field: str) -> None:
    if domain.verified_at and domain.next_check_at is None:
        words = "Its records are not looked at (the operator's word verified it), so no new key would be seen."
        raise BadInput([Fault(field, "not_looked_at", words)])


def _selector() -> str:
    """Unlike any other, so that the records of two tenants may stand side by side in one zone."""
    return f"m{secrets.token_hex(5)}"


def _forget(domain: SendingDomain, *keys: str) -> None:
    domain.findings = {key: finding for key, finding in domain.findings.items() if key not in keys}
