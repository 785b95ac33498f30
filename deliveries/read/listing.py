"""GET /emails: pages of a tenant's messages, newest first, over tables of any size.

Rows come in the order of the message's id from the index that fits best:

- recipient: `delivery_recipient`;
- stream, other than the ordinary one: `message_stream`;
- status, where few deliveries of the tenant have it: `delivery_status`;
- else `message_tenant`.

The other filters are asked row by row, of at most WALK rows a page. A page that ends there is short, and says where to
go on. Times are ids: UUIDv7 begin with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from deliveries.models.fields import uuid7_floor
from deliveries.models.sql import execute
from deliveries.states import ORDINARY_STREAM, Status

#: rows that one page looks at; some 50 ms
WALK = 10_000


#: what people did with a mail that arrived; no status, since several may hold
HAPPENED = ("opened", "clicked", "complained")


@dataclass(frozen=True, slots=True)
class Filters:
    """What to list; None is any. Times are aware: from `since` on, and before `until`."""

    recipient: str | None = None  #: as it was given, or in lower case
    status: Status | None = None  #: of any recipient
    happened: str | None = None  #: to any recipient: one of HAPPENED
    tag: str | None = None  #: `name` or `name:value`; or the whole of a face's tag, which may hold colons
    stream: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Ids of messages, newest first. `next`: the cursor in the same direction, None where there is no more."""

    ids: list[UUID]
    next: UUID | None


def page(tenant_id: UUID, filters: Filters, limit: int, after: UUID | None, before: UUID | None) -> Found:
    """`after` an id come older messages, `before` it the next newer ones."""
    newer = before is not None
    name, _, value = (filters.tag or "").partition(":")
    p = {
        "tenant": tenant_id, "tenants": [tenant_id], "limit": limit + 1, "walk": WALK, "stream": filters.stream,
        "status": str(filters.status or ""), "tag": filters.tag, "name": name, "value": value or None,
        "above": _highest(before, _floor(filters.since)),
        "below": _lowest(after, _floor(filters.until)),
        "recipients": sorted({filters.recipient or "", (filters.recipient or "").lower()}),
    }  # fmt: skip
    order = "ASC" if newer else "DESC"
    rows, asked = _source(filters, p, order)
    walked = f"SELECT c.id FROM ({rows}) c ORDER BY c.id {order} LIMIT %(walk)s"
    conditions = [_HAPPENED[filters.happened or ""] if name == "happened" else _ROW_BY_ROW[name] for name in asked]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    text = f"SELECT c.id FROM ({walked}) c {where} ORDER BY c.id {order} LIMIT %(limit)s"
    found = [row["id"] for row in execute(text, p)]
    ids = found[:limit]
    more: UUID | None = ids[-1] if len(found) > limit else None
    if more is None and conditions:
        last = execute(f"SELECT w.id FROM ({walked}) w ORDER BY w.id {order} OFFSET %(walk)s - 1", p).fetchone()
        more = last["id"] if last else None
    return Found(ids[::-1] if newer else ids, more)


def _source(filters: Filters, p: dict[str, Any], order: str) -> tuple[str, list[str]]:
    """Ids in order, and the filters that are still to be asked of each."""
    back = "DESC" if order == "ASC" else "ASC"  # the indexes' other columns
    asked = [name for name in ("status", "happened", "tag", "stream") if getattr(filters, name) is not None]
    if filters.recipient is not None:
        return _BY_RECIPIENT.format(order=order), asked
    if filters.stream not in (None, ORDINARY_STREAM):
        return _BY_STREAM.format(order=order, back=back), [name for name in asked if name != "stream"]
    if filters.status is not None and not execute(_COMMON, p).fetchone():
        return _BY_STATUS, [name for name in asked if name != "status"]
    return _BY_TENANT.format(order=order, back=back), asked


# scalar subqueries: the planner cannot turn them into a join that reads the whole table
_ROW_BY_ROW = {
    "status": "(SELECT bool_or(d.status = %(status)s::text) FROM delivery d WHERE d.message_id = c.id)",
    "tag": """(SELECT m.tags @> jsonb_build_array(jsonb_strip_nulls(
                   jsonb_build_object('name', %(name)s::text, 'value', %(value)s::text)))
                      OR m.tags @> jsonb_build_array(jsonb_build_object('name', %(tag)s::text, 'value', ''))
                 FROM message m WHERE m.id = c.id)""",
    "stream": "(SELECT m.stream = %(stream)s::text FROM message m WHERE m.id = c.id)",
}
_HAPPENED = {
    word: f"(SELECT bool_or(d.{word}_at IS NOT NULL) FROM delivery d WHERE d.message_id = c.id)" for word in HAPPENED
}

_BOUNDS = "{id} > %(above)s::uuid AND {id} < %(below)s::uuid"
_OF_MESSAGE, _OF_DELIVERY = _BOUNDS.format(id="m.id"), _BOUNDS.format(id="d.message_id")

# as a list, and in the order of both columns: else the primary key would do for the order, and a small tenant's page
# would read the mails of all the others
_BY_TENANT = f"""
SELECT m.id FROM message m WHERE m.tenant_id = ANY (%(tenants)s::uuid[]) AND {_OF_MESSAGE}
 ORDER BY m.tenant_id {{back}}, m.id {{order}} LIMIT %(walk)s
"""

_BY_STREAM = f"""
SELECT m.id FROM message m
 WHERE m.tenant_id = ANY (%(tenants)s::uuid[]) AND m.stream = %(stream)s::text AND m.stream <> '{ORDINARY_STREAM}'
   AND {_OF_MESSAGE}
 ORDER BY m.tenant_id {{back}}, m.id {{order}} LIMIT %(walk)s
"""

_BY_RECIPIENT = f"""
SELECT DISTINCT d.message_id AS id FROM unnest(%(recipients)s::text[]) AS r(address) CROSS JOIN LATERAL (
    SELECT d.message_id FROM delivery d
     WHERE d.recipient = r.address AND d.tenant_id = %(tenant)s::uuid AND {_OF_DELIVERY}
     ORDER BY d.message_id {{order}} LIMIT %(walk)s) d
"""

_COMMON = """
SELECT 1 FROM delivery d WHERE d.tenant_id = %(tenant)s::uuid AND d.status = %(status)s::text
 OFFSET %(walk)s LIMIT 1
"""

_BY_STATUS = f"""
SELECT DISTINCT d.message_id AS id FROM delivery d
 WHERE d.tenant_id = %(tenant)s::uuid AND d.status = %(status)s::text AND {_OF_DELIVERY}
"""

_LOWEST, _HIGHEST = UUID(int=0), UUID(int=(1 << 128) - 1)


def _highest(*ids: UUID | None) -> UUID:
    return max((i for i in ids if i), default=_LOWEST)


def _lowest(*ids: UUID | None) -> UUID:
    return min((i for i in ids if i), default=_HIGHEST)


def _floor(moment: datetime | None) -> UUID | None:
    # what a UUIDv7 holds
    return uuid7_floor(max(0, min(int(moment.timestamp() * 1000), (1 << 48) - 1))) if moment else None
