"""API keys: made once, kept as a hash, looked up by it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from deliveries.models import ApiKey, AuditEntry, Tenant

#: the shape that Resend's SDKs expect of a key; 32 octets = 256 bits behind it
PREFIX = "re_"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: what a request may do follows from it alone."""

    key_id: UUID
    tenant_id: UUID
    scope: str
    secret_hash: bytes


def hash_of(secret: str) -> bytes:
    """SHA-256: a fast hash serves, since the secret has 256 random bits."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(32)


def create(tenant: Tenant, name: str, scope: str = ApiKey.Scope.FULL, secret: str | None = None) -> tuple[ApiKey, str]:
    """A new key and its plain text, which is not kept anywhere."""
    secret = secret or new_secret()
    key = ApiKey.objects.create(tenant=tenant, name=name, scope=scope, prefix=secret[:8], secret_hash=hash_of(secret))
    return key, secret


def find(secret: str) -> Caller | None:
    """The caller behind `secret`; None when it is unknown, revoked or suspended."""
    row = (
        ApiKey.objects.filter(secret_hash=hash_of(secret), revoked_at=None, suspended_at=None)
        .values_list("id", "tenant_id", "scope")
        .first()
    )
    return Caller(*row, secret_hash=hash_of(secret)) if row else None


def revoke(key_ids: Sequence[UUID], actor: str) -> int:
    """Refused from now on, for good; how many were not so before."""
    with transaction.atomic():
        rows = list(ApiKey.objects.select_for_update().filter(id__in=key_ids, revoked_at=None).order_by("id"))
        ApiKey.objects.filter(id__in=[k.id for k in rows]).update(revoked_at=Now())
        AuditEntry.objects.bulk_create(
            AuditEntry(tenant_id=k.tenant_id, actor=actor, action="key.revoked", subject=f"{k.name} ({k.prefix}…)")
            for k in rows
        )
    return len(rows)


def touch(key_id: UUID) -> None:
    """Note that the key was used; once a minute is enough to tell which keys are dead."""
    ApiKey.objects.filter(Q(last_used_at=None) | Q(last_used_at__lt=Now() - timedelta(minutes=1)), id=key_id).update(
        last_used_at=Now()
    )
