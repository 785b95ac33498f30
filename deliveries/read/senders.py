"""Who sends: the addresses in From, found without a walk through their mail.

`message_sender` (tenant, address, id) is read from one address to the next, so that a tenant with a million mails from
three addresses costs four steps. The newest From of each address is read along with it, for its name.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from django.db import connection

from deliveries.models.messages import SENDER
from deliveries.read.panel import prefix

#: addresses that are looked at; where there are more, only those that begin with what is asked
MOST = 1000
_SENDER = SENDER.format("m.")


def matching(tenants: Collection[UUID] | None, text: str) -> list[tuple[UUID, str]]:
    """(tenant, address) of those whose address, or name as it was last used, holds `text`; any case.

    `tenants` None = everybody's. Of more than MOST addresses those that begin with `text`, and of these the first.
    """
    rows = _addresses(tenants, "")
    if len(rows) > MOST:
        return [(tenant, sender) for tenant, sender, _ in _addresses(tenants, text.lower())[:MOST]]
    part = text.lower()
    return [(tenant, sender) for tenant, sender, header in rows if part in sender.lower() or part in header.lower()]


def _addresses(tenants: Collection[UUID] | None, begins: str) -> list[tuple[UUID, str, str]]:
    """(tenant, address, newest From), MOST + 1 at most: a loose index scan, which Postgres does not do by itself."""
    groups = "SELECT id FROM tenant" if tenants is None else "SELECT unnest(%(tenants)s::uuid[])"
    like = f"AND {_SENDER} LIKE %(begins)s" if begins else ""
    params: dict[str, Any] = {"tenants": list(tenants or ()), "most": MOST + 1, "begins": prefix(begins)}
    # the operators are those of text_pattern_ops, which the index has for prefixes in any locale
    first = f"ORDER BY {_SENDER} USING ~<~, m.id DESC LIMIT 1"
    statement = f"""
        WITH RECURSIVE known(tenant_id, sender, from_header) AS (
          SELECT t.id, f.* FROM ({groups}) AS t(id)
           CROSS JOIN LATERAL (SELECT {_SENDER}, m.from_header FROM message m
                                WHERE m.tenant_id = t.id {like} {first}) f
          UNION ALL
          SELECT k.tenant_id, f.* FROM known k
           CROSS JOIN LATERAL (SELECT {_SENDER}, m.from_header FROM message m
                                WHERE m.tenant_id = k.tenant_id AND {_SENDER} ~>~ k.sender {like} {first}) f
        )
        SELECT tenant_id, sender, from_header FROM known LIMIT %(most)s
    """
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return list(cursor.fetchall())
