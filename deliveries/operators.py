"""Operator keys: what a program asks with that sees to tenants, made by an operator and by nobody else.

They open /tenants alone, and stand in a table that no door to mail looks into. Mail can be reached by what one hands
out (an API key, a first password), so only the scope that says so does.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from deliveries import keys
from deliveries.models import AuditEntry, OperatorKey

#: tells them from API keys at sight
PREFIX = "op_"
_SHOWN = len(PREFIX) + 5


@dataclass(frozen=True, slots=True)
class Operator:
    """A program that asks with an operator key."""

    key_id: UUID
    scope: str
    networks: tuple[str, ...] = ()  #: empty = from everywhere

    @property
    def actor(self) -> str:
        """As it stands in the audit log."""
        return f"operator_key:{self.key_id}"

    def admits(self, address: str) -> bool:
        """Whether it may be used from this address."""
        return keys.admitted(self.networks, address)


def create(
    name: str, scope: str, actor: str, networks: Sequence[str] = (), expires_at: datetime | None = None
) -> tuple[OperatorKey, str]:
    """A new key and its plain text, which is not kept anywhere. `networks` as keys.network() gives them."""
    secret = PREFIX + secrets.token_urlsafe(32)
    with transaction.atomic():
        key = OperatorKey.objects.create(
            name=name, scope=scope, prefix=secret[:_SHOWN], secret_hash=keys.hash_of(secret), networks=list(networks),
            expires_at=expires_at,
        )  # fmt: skip
        _audit(key, actor, "operator_key.created")
    return key, secret


def find(secret: str) -> Operator | None:
    """None when it is unknown, revoked or past its end. Asked at every request: a revoked one is refused at once."""
    row = (
        OperatorKey.objects.filter(secret_hash=keys.hash_of(secret), revoked_at=None)
        .filter(Q(expires_at=None) | Q(expires_at__gt=Now()))
        .values_list("id", "scope", "networks")
        .first()
    )
    if row is None:
        return None
    keys.touch(row[0], OperatorKey)
    return Operator(row[0], row[1], tuple(row[2]))


def revoke(key_ids: Sequence[UUID], actor: str) -> int:
    """Refused from now on, for good; how many were not so before."""
    with transaction.atomic():
        rows = list(OperatorKey.objects.filter(id__in=key_ids, revoked_at=None).select_for_update().order_by("id"))
        OperatorKey.objects.filter(id__in=[k.id for k in rows]).update(revoked_at=Now())
        for key in rows:
            _audit(key, actor, "operator_key.revoked")
    return len(rows)


def _audit(key: OperatorKey, actor: str, action: str) -> None:
    AuditEntry.objects.create(tenant=None, actor=actor[:200], action=action, subject=str(key)[:300])
