"""Quotas of a tenant: recipients a day and a month (UTC), by the day on which their mail is due.

Only tenants that have a quota are counted. Accept counts within its one statement and stores nothing where a count goes
beyond its quota; a mail that is canceled before any try gives back what it took.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import DatabaseError

from deliveries.errors import OverQuota
from deliveries.models import QuotaUse, Tenant

#: SQLSTATE of the function quota_kept
_OVER = "MQ001"

#: counts the rows of `path` (tenant_id, due_at, suppressed) for the tenant in `go`; a counter's row stays locked to the
#: commit, so that two requests never share the last of a quota
COUNTED = """counted AS (
    INSERT INTO quota_use AS q (tenant_id, kind, starts, used)
    SELECT path.tenant_id, period.kind, period.starts, count(*)
      FROM go JOIN path ON path.suppressed IS NULL
     CROSS JOIN LATERAL (VALUES
           ('day', (path.due_at AT TIME ZONE 'UTC')::date, go.daily_quota),
           ('month', date_trunc('month', path.due_at AT TIME ZONE 'UTC')::date, go.monthly_quota)
         ) AS period(kind, starts, most)
     WHERE period.most IS NOT NULL
     GROUP BY 1, 2, 3 ORDER BY 2, 3
    ON CONFLICT (tenant_id, kind, starts) DO UPDATE SET used = q.used + excluded.used
    RETURNING kind, used
)"""

#: raises where a count went beyond its quota, so that nothing at all is stored
KEPT = """(SELECT max(quota_kept(kind, used, CASE kind WHEN 'day' THEN daily_quota ELSE monthly_quota END))
          FROM counted, go)"""

#: gives back what rows of `changed` (tenant_id, message_id, attempts) took that were never tried
UNCOUNTED = """uncounted AS (
    UPDATE quota_use q SET used = greatest(q.used - g.n, 0)
      FROM (SELECT c.tenant_id, period.kind, period.starts, count(*) AS n
              FROM changed c JOIN message m ON m.id = c.message_id
             CROSS JOIN LATERAL (SELECT greatest(m.scheduled_at, m.created_at) AT TIME ZONE 'UTC' AS at) due
             CROSS JOIN LATERAL (VALUES ('day', due.at::date), ('month', date_trunc('month', due.at)::date))
                   AS period(kind, starts)
             WHERE c.attempts = 0
             GROUP BY 1, 2, 3) g
     WHERE q.tenant_id = g.tenant_id AND q.kind = g.kind AND q.starts = g.starts
)"""


def refusal(error: DatabaseError) -> OverQuota | None:
    """What KEPT raised, in words; None where `error` is another one."""
    if getattr(error.__cause__, "sqlstate", None) != _OVER:
        return None
    word, period = ("monthly", "month") if str(error.__cause__).startswith("month") else ("daily", "day")
    return OverQuota(
        f"{word}_quota_exceeded",
        f"This account's quota of recipients for the {period} in which the mail is due does not suffice; send it "
        "later, or ask the operator for more.",
    )


def told(tenants: Sequence[Tenant]) -> dict[UUID, str]:
    """`12 of 100 today, 40 of 1000 this month` for each that has a quota: recipients whose mail is due in it (UTC)."""
    used, found = QuotaUse.of(tenants), {}
    for tenant in tenants:
        periods = (("day", "today", tenant.daily_quota), ("month", "this month", tenant.monthly_quota))
        parts = [
            f"{used.get((tenant.id, kind), 0)} of {most} {words}" for kind, words, most in periods if most is not None
        ]
        if parts:
            found[tenant.id] = ", ".join(parts)
    return found
