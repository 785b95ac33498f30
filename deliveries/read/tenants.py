"""Tenants and their members, as programs of an operator read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from deliveries.models import Membership, QuotaUse, Tenant
from deliveries.read.emails import iso, keyset

Page = tuple[list[dict[str, Any]], bool]


def page(name: str, limit: int, after: UUID | None, before: UUID | None) -> Page:
    """Newest first; of that very name where one is given."""
    rows, more = keyset(Tenant.objects.filter(name=name) if name else Tenant.objects.all(), limit, after, before)
    return _tenants(rows), more


def one(tenant: Tenant) -> dict[str, Any]:
    return {"object": "tenant", **_tenants([tenant])[0]}


def _tenants(rows: Sequence[Tenant]) -> list[dict[str, Any]]:
    used = QuotaUse.of(rows)
    return [
        {
            "id": str(row.id),
            "name": row.name,
            "created_at": iso(row.created_at),
            "status": "suspended" if row.suspended_at else "active",
            "suspended_at": iso(row.suspended_at),
            "suspended_reason": row.suspended_reason,
            "daily_quota": row.daily_quota,
            "daily_used": None if row.daily_quota is None else used.get((row.id, "day"), 0),
            "monthly_quota": row.monthly_quota,
            "monthly_used": None if row.monthly_quota is None else used.get((row.id, "month"), 0),
            "privacy": row.privacy,
        }
        for row in rows
    ]


def members(tenant_id: UUID, limit: int, after: str | None, before: str | None) -> Page:
    """By login; `after` and `before` are logins."""
    own = Membership.objects.filter(tenant_id=tenant_id).select_related("user")
    if before is not None:
        found = list(own.filter(user__username__lt=before).order_by("-user__username")[: limit + 1])
        return [_member(row) for row in found[:limit][::-1]], len(found) > limit
    if after is not None:
        own = own.filter(user__username__gt=after)
    found = list(own.order_by("user__username")[: limit + 1])
    return [_member(row) for row in found[:limit]], len(found) > limit


def member(row: Membership) -> dict[str, Any]:
    return {"object": "member", **_member(row)}


def _member(row: Membership) -> dict[str, Any]:
    return {
        "login": row.user.username,
        "email": row.user.email,
        "role": row.role,
        "last_login_at": iso(row.user.last_login),
    }
