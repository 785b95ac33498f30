"""The log of API requests, as Resend's API shows it."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from deliveries.models import RequestLog
from deliveries.read.emails import iso, keyset


def page(tenant_id: UUID, limit: int, after: UUID | None, before: UUID | None) -> tuple[list[dict[str, Any]], bool]:
    own = RequestLog.objects.filter(tenant_id=tenant_id).defer("request_body", "response_body")
    rows, more = keyset(own, limit, after, before)
    return [_line(row) for row in rows], more


def one(tenant_id: UUID, ident: UUID) -> dict[str, Any] | None:
    row = RequestLog.objects.filter(tenant_id=tenant_id, id=ident).first()
    if row is None:
        return None
    bodies = {"request_body": row.request_body, "response_body": row.response_body}
    return {"object": "log", **_line(row), **{name: text and json.loads(text) for name, text in bodies.items()}}


def _line(row: RequestLog) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "request_id": row.request_id or str(row.id),
        "created_at": iso(row.created_at),
        "endpoint": row.endpoint,
        "method": row.method,
        "response_status": row.status,
        "user_agent": row.user_agent,
        "duration_ms": row.took_ms,
        "api_key_id": str(row.key_id),
    }
