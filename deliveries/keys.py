"""API keys: made once, kept as a hash, looked up by it; and what each may do.

A key may be limited: to sending or to reading, to one sender domain, to some networks, in time, or to the receiver lab
(a test key). A key that makes another gives it no more than it has itself.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now

from deliveries.errors import BadInput, Fault
from deliveries.models import ApiKey, AuditEntry, OperatorKey, SendingDomain, Tenant

#: the shape that Resend's SDKs expect of a key; 32 octets = 256 bits behind it
PREFIX = "re_"
TEST_PREFIX = "re_test_"
#: keys of one tenant that are not revoked
MOST = 500
#: a second, where the installation has no limit
MOST_REQUESTS = 1_000_000
#: characters of a key that are shown, to tell keys apart: some after the prefix, and far from all
_SHOWN = {False: 8, True: 12}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: what a request may do follows from it alone."""

    key_id: UUID
    tenant_id: UUID
    scope: str
    secret_hash: bytes
    domain_id: UUID | None = None  #: sends from this domain only
    networks: tuple[str, ...] = ()  #: empty = from everywhere
    test: bool = False  #: its mail goes to the receiver lab
    expires_at: datetime | None = None
    rate_limit: int | None = None  #: requests a second; None = RATE_LIMIT
    prefix: str = ""  #: of its text, to tell keys apart

    def admits(self, address: str) -> bool:
        """Whether it may be used from this address."""
        return admitted(self.networks, address)


def admitted(networks: tuple[str, ...], address: str) -> bool:
    """Whether an address (IPv4, IPv6, or mapped) is in one of the networks; an unknown one where there are none."""
    if not networks:
        return True
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any((mapped or found) in network for network in _networks(networks))


@lru_cache(maxsize=1000)
def _networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


def network(text: str) -> str:
    """An address or a network in CIDR notation, as it is kept; ValueError says what is wrong and how to write it."""
    try:
        return str(ipaddress.ip_network(text.strip()))
    except ValueError as e:
        why = "has bits below its mask" if "host bits" in str(e) else "is neither an address nor a network"
        raise ValueError(f"{text[:50]!r} {why}; write 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32.") from None


def address_of(meta: Mapping[str, Any]) -> str:
    """The client of a WSGI request: what the outermost of our own PROXIES saw; "" where nobody knows.

    X-Forwarded-For is read from its end: what stands further left was written by the client. Only our own proxies are
    believed, by the address that they come from (PROXY_NETWORKS).
    """
    found: str = meta.get("REMOTE_ADDR") or ""
    if settings.PROXIES and _is_proxy(found):
        hops = [h.strip() for h in (meta.get("HTTP_X_FORWARDED_FOR") or "").split(",") if h.strip()]
        if hops:
            found = hops[-min(settings.PROXIES, len(hops))]
    return found.strip("[]")


@lru_cache(maxsize=64)
def _is_proxy(peer: str) -> bool:
    """A peer without an address came by a Unix socket."""
    if not peer:
        return True
    try:
        address = ipaddress.ip_address(peer.strip("[]"))
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in settings.PROXY_NETWORKS)


def hash_of(secret: str) -> bytes:
    """SHA-256: a fast hash serves, since the secret has 256 random bits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def new_secret(test: bool = False) -> str:
    return (TEST_PREFIX if test else PREFIX) + secrets.token_urlsafe(32)


def create(
    tenant: Tenant, name: str, scope: str = ApiKey.Scope.FULL, secret: str | None = None, **limits: Any
) -> tuple[ApiKey, str]:
    """A new key and its plain text, which is not kept anywhere.

    `limits`: domain_id, networks, test, expires_at, rate_limit."""
    test = bool(limits.get("test"))
    secret = secret or new_secret(test)
    key = ApiKey.objects.create(
        tenant=tenant, name=name, scope=scope, prefix=secret[: _SHOWN[test]], secret_hash=hash_of(secret), **limits
    )
    return key, secret


def issue(caller: Caller, name: str, scope: str, **limits: Any) -> tuple[ApiKey, str]:
    """A new key, asked for with another one, whose own limits hold for it too; BadInput names what goes beyond."""
    limits = _within(caller, limits)
    if scope == ApiKey.Scope.OWNER and caller.scope != ApiKey.Scope.OWNER:
        words = "Only a key with owner_access gives it on; an owner makes the first one in the panel."
        raise BadInput([Fault("permission", "beyond_own", words)])
    return grant(caller.tenant_id, name, scope, f"key:{caller.key_id}", **limits)


def grant(tenant_id: UUID, name: str, scope: str, actor: str, **limits: Any) -> tuple[ApiKey, str]:
    """A new key of the tenant by an order of `actor`, whom no key limits; issue() looks at the limits of one first.

    BadInput for another tenant's domain, and for a key too many.
    """
    if faults := _too_fast(limits.get("rate_limit"), None):
        raise BadInput(faults)
    domain_id = limits.get("domain_id")
    if domain_id and not SendingDomain.objects.filter(tenant_id=tenant_id, id=domain_id).exists():
        raise BadInput([Fault("domain_id", "not_found", "There is no domain with this id; GET /domains lists yours.")])
    with transaction.atomic():
        tenant = Tenant.objects.get(id=tenant_id)
        if ApiKey.objects.filter(tenant=tenant, revoked_at=None).count() >= MOST:
            raise BadInput([Fault("name", "too_many", f"There are {MOST} API keys already; remove one first.")])
        key, secret = create(tenant, name, scope, **limits)
        _audit(key, actor, "key.created")
    return key, secret


def change(caller: Caller, key_id: UUID, wishes: Mapping[str, Any]) -> bool:
    """Those of name, networks and rate_limit that are there; False when the tenant has no such key.

    BadInput as issue()."""
    within = _within(caller, dict(wishes))
    changes = {name: within[name] for name in wishes}
    return _change(ApiKey.objects.filter(tenant_id=caller.tenant_id, id=key_id), changes, f"key:{caller.key_id}")


def limit(key_id: UUID, rate_limit: int | None, actor: str) -> bool:
    """A person's order: so many requests a second, None = as the installation has it. False without such a key."""
    return _change(ApiKey.objects.filter(id=key_id), {"rate_limit": rate_limit}, actor)


def highest_rate() -> int:
    """Requests a second that a key may be given: no more than the installation's own limit."""
    return settings.RATE_LIMIT or MOST_REQUESTS


def _change(own: QuerySet[ApiKey], changes: dict[str, Any], actor: str) -> bool:
    with transaction.atomic():
        key = own.filter(revoked_at=None).select_for_update().first()
        if key is not None and changes:
            ApiKey.objects.filter(id=key.id).update(**changes)
            _audit(key, actor, "key.changed")
    return key is not None


def _within(caller: Caller, limits: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, with the caller's own limits where it left one out."""
    faults = []
    limits = dict(limits)
    if caller.networks:
        own = _networks(caller.networks)
        wanted = _networks(tuple(limits.get("networks") or caller.networks))
        if not all(any(w.version == o.version and w.subnet_of(o) for o in own) for w in wanted):  # type: ignore[arg-type]
            allowed = ", ".join(caller.networks)
            faults.append(Fault("ip_allow", "beyond_own", f"The key that asks is limited to {allowed}; stay within."))
        limits["networks"] = [str(w) for w in wanted]
    if caller.expires_at:
        limits["expires_at"] = limits.get("expires_at") or caller.expires_at
        if limits["expires_at"] > caller.expires_at:
            words = f"The key that asks ends at {caller.expires_at.isoformat()}; the new one cannot outlive it."
            faults.append(Fault("expires_at", "beyond_own", words))
    if caller.test:
        limits["test"] = True
    faults += _too_fast(limits.get("rate_limit"), caller.rate_limit)
    if caller.rate_limit:
        limits["rate_limit"] = limits.get("rate_limit") or caller.rate_limit
    if faults:
        raise BadInput(faults)
    return limits


def _too_fast(wanted: int | None, own: int | None) -> list[Fault]:
    most = own or highest_rate()
    if (wanted or 0) <= most:
        return []
    whose = "The key that asks" if own else "The installation"
    return [Fault("rate_limit", "beyond_own", f"{whose} is limited to {most} requests a second; stay within.")]


def find(secret: str) -> Caller | None:
    """The caller behind `secret`; None when it is unknown, revoked, suspended or past its end.

    Whether it may be used from where the request came is Caller.admits()."""
    digest = hash_of(secret)
    row = (
        ApiKey.objects.filter(secret_hash=digest, revoked_at=None, suspended_at=None)
        .filter(Q(expires_at=None) | Q(expires_at__gt=Now()))
        .values_list("id", "tenant_id", "scope", "domain_id", "networks", "test", "expires_at", "rate_limit", "prefix")
        .first()
    )
    if row is None:
        return None
    key_id, tenant_id, scope, domain_id, networks, test, expires_at, limit, prefix = row
    return Caller(key_id, tenant_id, scope, digest, domain_id, tuple(networks), test, expires_at, limit, prefix)


def revoke(key_ids: Sequence[UUID], actor: str, tenant_id: UUID | None = None) -> int:
    """Refused from now on, for good; how many were not so before. With a tenant: its keys alone."""
    own = ApiKey.objects.filter(id__in=key_ids, revoked_at=None)
    if tenant_id is not None:
        own = own.filter(tenant_id=tenant_id)
    with transaction.atomic():
        rows = list(own.select_for_update().order_by("id"))
        ApiKey.objects.filter(id__in=[k.id for k in rows]).update(revoked_at=Now())
        for key in rows:
            _audit(key, actor, "key.revoked")
    return len(rows)


def touch(key_id: UUID, kind: type[ApiKey | OperatorKey] = ApiKey) -> None:
    """Note that the key was used; once a minute is enough to tell which keys are dead."""
    stale = Q(last_used_at=None) | Q(last_used_at__lt=Now() - timedelta(minutes=1))
    kind._default_manager.filter(stale, id=key_id).update(last_used_at=Now())


def _audit(key: ApiKey, actor: str, action: str) -> None:
    AuditEntry.objects.create(tenant_id=key.tenant_id, actor=actor, action=action, subject=str(key)[:300])
