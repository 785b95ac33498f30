"""The suppression list changed by a person or the API: rows, events, outbox and audit together.

Writing stands here because it appends events, which only this room may; deliveries.suppress looks up.
Bounces and complaints write their suppressions with the outcome (outcomes, reports).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from django.db.models import QuerySet

from deliveries import queue
from deliveries.mime.address import folded
from deliveries.models import Suppression, Tenant
from deliveries.models.sql import execute
from deliveries.record.again import again
from deliveries.states import EventType

#: suppression rows for the relation {wanted}(tenant_id, stream, address, reason, detail, source_event, expires_at,
#: rule, category, site); returns those that are new. One that had run out, or was provisional, is made new again.
SUPPRESS_FROM = """
    INSERT INTO suppression (id, tenant_id, stream, address, reason, detail, source_event, rule, category, site,
                             created_at, expires_at)
    SELECT make_uuid7(), s.tenant_id, s.stream, s.address, s.reason, s.detail, s.source_event, s.rule, s.category,
           s.site, now(), s.expires_at
      FROM {wanted} s
    ON CONFLICT (tenant_id, stream, address) DO UPDATE
       SET reason = EXCLUDED.reason, detail = EXCLUDED.detail, source_event = EXCLUDED.source_event,
           rule = EXCLUDED.rule, category = EXCLUDED.category, site = EXCLUDED.site, brake_id = NULL,
           created_at = now(), expires_at = EXCLUDED.expires_at
     WHERE suppression.expires_at <= now() OR suppression.brake_id IS NOT NULL
    RETURNING tenant_id, stream, address, reason, source_event
"""

#: the events that tell of them, for an INSERT INTO event; `suppressed` is what SUPPRESS_FROM returned
SUPPRESSED_TOLD = f"""
    SELECT make_uuid7(), s.tenant_id, '{EventType.SUPPRESSION_ADDED}', NULL, NULL, NULL, s.address,
           jsonb_build_object('reason', s.reason, 'stream', s.stream), now()
      FROM suppressed s
"""


def add(
    tenant: Tenant | UUID,
    address: str,
    reason: str,
    detail: str,
    actor: str,
    stream: str = "*",
    expires_at: datetime | None = None,
) -> Suppression:
    """Put one address on the list; where it stands there already, that row is given back unchanged."""
    return add_many(tenant, [address], reason, detail, actor, stream, expires_at)[0]


def add_many(
    tenant: Tenant | UUID,
    addresses: Sequence[str],
    reason: str,
    detail: str,
    actor: str,
    stream: str = "*",
    expires_at: datetime | None = None,
) -> list[Suppression]:
    """The rows of `addresses` (any case; checked by the caller) in their order, new or not. One transaction."""
    tenant_id = tenant.pk if isinstance(tenant, Tenant) else tenant
    keys = [folded(a.strip()) for a in addresses]
    params = {
        "tenant": tenant_id,
        "stream": stream,
        # in one order everywhere, so that two lists with the same addresses never wait in a circle
        "addresses": sorted(set(keys)),
        "reason": reason,
        "detail": detail,
        "expires": expires_at,
        "actor": actor,
    }
    again(lambda: execute(_ADD, params))
    rows = {s.address: s for s in Suppression.objects.filter(tenant_id=tenant_id, stream=stream, address__in=keys)}
    return [rows[a] for a in keys]


class Listed(Protocol):
    """An address of a list that is loaded; what `deliveries.imports` reads."""

    @property
    def address(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def stream(self) -> str: ...
    @property
    def expires_at(self) -> datetime | None: ...


def load(tenant_id: UUID, rows: Sequence[Listed], rule: str, actor: str) -> int:
    """Put a piece of a list on the tenant's, without events, in one transaction; how many were new.

    `rule` names where the list came from, so that it can be undone by it. No (address, stream) stands there twice.
    """
    rows = sorted(rows, key=lambda r: (r.stream, r.address))
    params = {
        "tenant": tenant_id,
        "rule": rule,
        "actor": actor,
        "stream": [r.stream for r in rows],
        "address": [r.address for r in rows],
        "reason": [r.reason for r in rows],
        "detail": [r.detail for r in rows],
        "expires": [r.expires_at for r in rows],
    }
    row = again(lambda: execute(_LOAD, params).fetchone())
    assert row is not None
    return int(row["n"])


@dataclass(frozen=True, slots=True)
class Mistake:
    """What a wrong reading put on the list: any of rule, site and reason, within a window of time."""

    since: datetime
    until: datetime
    rule: str = ""
    site: str = ""
    reason: str = ""
    #: None: of every tenant
    tenants: Sequence[UUID] | None = None

    def rows(self) -> QuerySet[Suppression]:
        found = Suppression.objects.filter(created_at__gte=self.since, created_at__lte=self.until)
        wanted = {"rule": self.rule, "site": self.site, "reason": self.reason}
        found = found.filter(**{name: value for name, value in wanted.items() if value})
        return found if self.tenants is None else found.filter(tenant_id__in=self.tenants)


def undo(mistake: Mistake, actor: str) -> int:
    """Take all of it off the list, a thousand per transaction; how many."""
    removed = 0
    while ids := list(mistake.rows().values_list("id", flat=True)[:1_000]):
        removed += remove(ids, actor)
    return removed


def remove(ids: Sequence[UUID], actor: str, tenant_id: UUID | None = None) -> int:
    """Take rows off the list, only the tenant's where one is given; how many there were."""
    row = again(lambda: execute(_REMOVE, {"ids": list(ids), "tenant": tenant_id, "actor": actor}).fetchone())
    assert row is not None
    return int(row["n"])


#: for a bounce of the relation {c}(tenant_id, recipient) whose category is {category}: a domain that is said not to
#: exist for the second time, a day or more after the first, with nothing delivered in between. OFFSET 0 keeps Postgres
#: from hashing the whole table of deliveries instead of looking one address up
SECOND_SIGHT = """
    {category} = 'bad_domain' AND EXISTS (
        SELECT FROM delivery e
         WHERE e.recipient = {c}.recipient AND e.tenant_id = {c}.tenant_id AND e.status = 'bounced'
           AND e.category = 'bad_domain'
           AND e.settled_at BETWEEN now() - interval '30 days' AND now() - interval '1 day'
           AND NOT EXISTS (SELECT FROM delivery f
                            WHERE f.recipient = e.recipient AND f.tenant_id = e.tenant_id AND f.status = 'delivered'
                              AND f.settled_at > e.settled_at OFFSET 0)
         OFFSET 0)
"""

_ADD = f"""
WITH wanted AS (
    SELECT %(tenant)s::uuid AS tenant_id, %(stream)s::text AS stream, a.address, %(reason)s::text AS reason,
           %(detail)s::text AS detail, NULL::uuid AS source_event, %(expires)s::timestamptz AS expires_at,
           ''::text AS rule, ''::text AS category, ''::text AS site
      FROM unnest(%(addresses)s::text[]) AS a(address)
), suppressed AS ({SUPPRESS_FROM.format(wanted="wanted")}
), told AS (
    INSERT INTO event (id, tenant_id, type, message_id, delivery_id, recipient, data, created_at)
    SELECT make_uuid7(), s.tenant_id, '{EventType.SUPPRESSION_ADDED}', NULL, NULL, s.address,
           jsonb_build_object('reason', s.reason, 'stream', s.stream), now()
      FROM suppressed s
    RETURNING id, tenant_id, type
), outbox AS ({queue.OUTBOX_FROM.format(events="told")}
), audited AS (
    INSERT INTO audit_entry (id, tenant_id, actor, action, subject, at)
    SELECT make_uuid7(), s.tenant_id, %(actor)s::text, 'suppression.added', left(s.address, 300), now()
      FROM suppressed s
)
SELECT 1
"""

_LOAD = f"""
WITH wanted AS (
    SELECT %(tenant)s::uuid AS tenant_id, a.stream, a.address, a.reason, a.detail, NULL::uuid AS source_event,
           a.expires_at, %(rule)s::text AS rule, ''::text AS category, ''::text AS site
      FROM unnest(%(stream)s::text[], %(address)s::text[], %(reason)s::text[], %(detail)s::text[],
                  %(expires)s::timestamptz[]) AS a(stream, address, reason, detail, expires_at)
), suppressed AS ({SUPPRESS_FROM.format(wanted="wanted")}
), audited AS (
    INSERT INTO audit_entry (id, tenant_id, actor, action, subject, at)
    SELECT make_uuid7(), %(tenant)s::uuid, %(actor)s::text, 'suppression.imported',
           count(*) || ' by ' || %(rule)s::text, now()
      FROM suppressed HAVING count(*) > 0
)
SELECT count(*) AS n FROM suppressed
"""

_REMOVE = f"""
WITH gone AS (
    DELETE FROM suppression s
     WHERE s.id = ANY (%(ids)s::uuid[]) AND (%(tenant)s::uuid IS NULL OR s.tenant_id = %(tenant)s)
    RETURNING s.tenant_id, s.stream, s.address, s.reason
), told AS (
    INSERT INTO event (id, tenant_id, type, message_id, delivery_id, recipient, data, created_at)
    SELECT make_uuid7(), g.tenant_id, '{EventType.SUPPRESSION_REMOVED}', NULL, NULL, g.address,
           jsonb_build_object('reason', g.reason, 'stream', g.stream), now()
      FROM gone g
    RETURNING id, tenant_id, type
), outbox AS ({queue.OUTBOX_FROM.format(events="told")}
), audited AS (
    INSERT INTO audit_entry (id, tenant_id, actor, action, subject, at)
    SELECT make_uuid7(), g.tenant_id, %(actor)s::text, 'suppression.removed', left(g.address, 300), now()
      FROM gone g
)
SELECT count(*) AS n FROM gone
"""
