"""Rows of sending domains: read with their keys, locked, and what is told of them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import Prefetch, Q

from deliveries.models import AuditEntry, DkimKey, SendingDomain
from deliveries.read import domains as read
from deliveries.record.notices import Notice, tell
from deliveries.states import EventType


def with_keys() -> Any:
    public = DkimKey.objects.defer("private_key").order_by("id")
    return SendingDomain.objects.prefetch_related(Prefetch("dkim_keys", queryset=public))


def locked(domain_id: UUID, tenant_id: UUID | None = None) -> SendingDomain | None:
    own = Q() if tenant_id is None else Q(tenant_id=tenant_id)
    row: SendingDomain | None = with_keys().select_for_update().filter(own, id=domain_id).first()
    return row


def tell_of(domain: SendingDomain) -> None:
    whole = with_keys().get(id=domain.id)
    tell([Notice(domain.tenant_id, EventType.DOMAIN_UPDATED, read.shown(whole))])


def audit(domain: SendingDomain, actor: str, action: str, more: str = "") -> None:
    subject = f"{domain.name}: {more}" if more else domain.name
    AuditEntry.objects.create(tenant_id=domain.tenant_id, actor=actor, action=action, subject=subject[:300])
