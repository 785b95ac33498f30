"""Addresses at which tenants receive mail: which route takes a forward-path (asked at RCPT, and when it is stored).

An exact address goes before the same one without its detail (`name+anything`, RFC 5233), and `*` comes last. Where two
tenants have verified one domain, the first of them receives.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from deliveries.errors import ComposeError
from deliveries.models import AuditEntry, InboundRoute
from deliveries.models.sql import execute
from deliveries.smtp.path import domain_on_wire

ANY = "*"


@dataclass(frozen=True, slots=True)
class Found:
    """`route_id` and `tenant_id` are None where nobody takes the address; `receives`: whether the domain takes any."""

    receives: bool
    route_id: UUID | None = None
    tenant_id: UUID | None = None
    forward: str = InboundRoute.Forward.NONE


def find(forward_path: str) -> Found:
    """Who receives at this address."""
    routes = execute(_ROUTES, {"domain": domain_of(forward_path)}).fetchall()
    own = {row["address"]: row for row in routes if row["domain_id"] == routes[0]["domain_id"]}
    local = forward_path.rpartition("@")[0].strip('"').lower()
    for name in (local, local.partition("+")[0], ANY):
        if row := own.get(name):
            return Found(True, row["id"], row["tenant_id"], row["forward"])
    return Found(bool(own))


def domain_of(forward_path: str) -> str:
    """Lower case, "" where it has none; in A-labels, though RFC 6531 §3.2 lets a client write U-labels."""
    domain = forward_path.rpartition("@")[2] if "@" in forward_path else ""
    try:
        return domain_on_wire(domain).lower()
    except ComposeError:
        return domain.lower()


def remove(ids: Iterable[UUID], actor: str) -> int:
    """Mail to these is refused from now on; what came stays readable."""
    routes = list(InboundRoute.objects.filter(id__in=list(ids)).select_related("domain"))
    for route in routes:
        AuditEntry.objects.create(
            tenant_id=route.tenant_id, actor=actor, action="address.removed", subject=str(route)[:300]
        )
    InboundRoute.objects.filter(id__in=[r.id for r in routes]).delete()
    return len(routes)


_ROUTES = """
SELECT r.id, r.tenant_id, r.address, r.forward, r.domain_id
  FROM sending_domain d JOIN inbound_route r ON r.domain_id = d.id
 WHERE d.name = %(domain)s AND d.verified_at IS NOT NULL
 ORDER BY d.verified_at, d.id
"""
