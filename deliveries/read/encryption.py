"""What an account has itself seen of the way to a receiver: its MTA-STS policy, and how TLS went last.

Only the account's own attempts count, also for policies, which all share: that one is kept, or that a host was spoken
to, would tell a stranger that somebody else on this installation writes there, and when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from deliveries.models.sql import execute
from deliveries.routing.mta_sts import Mode, Policy, Stored

#: deliveries of each status that are looked through, the youngest first: a bounded question to a table of millions
_MOST = 500


@dataclass(frozen=True, slots=True)
class Spoken:
    """How the last conversation that came as far as STARTTLS went."""

    host: str
    worked: bool
    version: str  #: `TLSv1.3`; empty where it was in clear
    verified: bool
    at: datetime


def policies(tenant_id: UUID, domains: Sequence[str]) -> dict[str, Stored]:
    """Policies as last fetched, of those domains that the account has written to."""
    rows = execute(_POLICIES, {"tenant": tenant_id, "domains": list(domains), "most": _MOST})
    return {
        r["domain"]: Stored(
            r["policy_id"], Policy(Mode(r["mode"]), tuple(r["mx"]), r["max_age_s"]), r["fetched_at"].timestamp()
        )
        for r in rows
    }


def spoken(tenant_id: UUID, domains: Sequence[str], hosts: Sequence[str]) -> dict[str, Spoken]:
    """Host → the account's last conversation with it."""
    given = {"tenant": tenant_id, "domains": list(domains), "hosts": list(hosts), "most": _MOST}
    return {row["host"]: _spoken(row["host"], row["tls"], row["finished_at"]) for row in execute(_SPOKEN, given)}


def _spoken(host: str, tls: str, at: datetime) -> Spoken:
    return Spoken(host, bool(tls), tls.partition(" ")[0], tls.endswith(", verified"), at)


_RECENT = """
SELECT d.id, s.status, d.host, lower(substring(d.recipient FROM '[^@]*$')) AS domain
  FROM unnest(ARRAY['delivered', 'deferred', 'bounced']) AS s (status)
 CROSS JOIN LATERAL (
       SELECT id, host, recipient FROM delivery
        WHERE tenant_id = %(tenant)s AND status = s.status AND attempts > 0
        ORDER BY id DESC LIMIT %(most)s) AS d
"""

_POLICIES = f"""
WITH recent AS ({_RECENT})
SELECT domain, policy_id, mode, mx, max_age_s, fetched_at FROM mta_sts_policy
 WHERE domain = ANY(%(domains)s::text[]) AND domain IN (SELECT domain FROM recent)
"""

# of each status one delivery of each host, and of each domain whose mail names none: its tries are found by the index
_SPOKEN = f"""
WITH recent AS ({_RECENT}),
     chosen AS (
       SELECT DISTINCT ON (status, host, CASE WHEN host = '' THEN domain END) id FROM recent
        WHERE host = ANY(%(hosts)s::text[]) OR (host = '' AND domain = ANY(%(domains)s::text[]))
        ORDER BY status, host, CASE WHEN host = '' THEN domain END, id DESC)
SELECT DISTINCT ON (a.host) a.host, a.tls, a.finished_at
  FROM chosen JOIN attempt a ON a.delivery_id = chosen.id
 WHERE a.host = ANY(%(hosts)s::text[]) AND a.stage NOT IN ('connect', 'greeting', 'ehlo')
 ORDER BY a.host, a.finished_at DESC
"""
