"""Templates, as Resend's API shows them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models import Q

from deliveries.models import Template
from deliveries.read.emails import iso, keyset


def page(tenant_id: UUID, limit: int, after: UUID | None, before: UUID | None) -> tuple[list[dict[str, Any]], bool]:
    own = Template.objects.filter(tenant_id=tenant_id).defer("html", "text", "variables")
    rows, more = keyset(own, limit, after, before)
    return [_line(row) for row in rows], more


def one(tenant_id: UUID, ref: str) -> dict[str, Any] | None:
    """By id or alias; the draft's parts. None when the tenant has no such template."""
    if "\0" in ref:
        return None
    try:
        named = Q(id=UUID(ref))
    except ValueError:
        named = Q(alias=ref)
    row = Template.objects.filter(named, tenant_id=tenant_id).first()
    if row is None:
        return None
    return {
        "object": "template",
        **_line(row),
        "current_version_id": str(row.published_id) if row.published_id else None,
        "has_unpublished_versions": row.changed,
        "from": row.sender,
        "subject": row.subject,
        "reply_to": row.reply_to or None,
        "html": row.html,
        "text": row.text,
        "variables": row.variables,
        "language": row.language,
        "redact": row.redact or None,
    }


def _line(row: Template) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "name": row.name,
        "alias": row.alias,
        "status": "published" if row.published_id else "draft",
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
        "published_at": iso(row.published_at),
    }
