"""Orders to erase one person's data, without the person; rehearsals are the panel's alone."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from deliveries.models import Erasure
from deliveries.read.emails import iso, keyset


def page(tenant_id: UUID, limit: int, after: UUID | None, before: UUID | None) -> tuple[list[dict[str, Any]], bool]:
    rows, more = keyset(Erasure.objects.filter(tenant_id=tenant_id, rehearsal=False), limit, after, before)
    return [shown(row) for row in rows], more


def one(tenant_id: UUID, erasure_id: UUID) -> dict[str, Any] | None:
    row = Erasure.objects.filter(tenant_id=tenant_id, id=erasure_id, rehearsal=False).first()
    return {"object": "erasure", **shown(row)} if row else None


def shown(row: Erasure) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "status": row.status,
        "suppressions": "keep" if row.keep_suppressions else "drop",
        "found": row.found,
        "waiting": row.waiting,
        "created_at": iso(row.asked_at),
        "done_at": iso(row.done_at),
    }
