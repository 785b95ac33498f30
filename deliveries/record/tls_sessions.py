"""Sessions by how well they were protected, per day and recipient domain, until a TLS report tells them (RFC 8460).

note       what sessions were like; in the process
flush      that, written at most once in ten seconds
owed, of   what is written of days that are over, until `forget`
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

from deliveries.models import TlsSessions
from deliveries.models.sql import execute
from deliveries.record.counts import Counts
from deliveries.routing.tls_rpt import Promise, Session
from deliveries.smtp.outcome import TlsFailure, TlsResult


def note(domain: str, sessions: Iterable[Session], at: datetime) -> None:
    """Count sessions with the hosts of `domain` that ended at `at` (UTC)."""
    for session in sessions:
        facts = json.dumps(asdict(session), sort_keys=True)
        _counts.add((at.date().isoformat(), domain.lower(), facts), sessions=1)


def flush(now: bool = False) -> int:
    """Write what was counted, where the last write is ten seconds ago; how many rows."""
    return _counts.flush(now)


def _write(rows: list[tuple[tuple[str, str, str], Counter[str]]]) -> None:
    days, domains, facts = map(list, zip(*(key for key, _ in rows), strict=True))
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in facts]
    counts = [figures["sessions"] for _, figures in rows]
    execute(_ADD, {"day": days, "domain": domains, "digest": digests, "facts": facts, "count": counts})


_counts: Counts[tuple[str, str, str]] = Counts("TLS sessions", _write)

_ADD = """
INSERT INTO tls_sessions (day, domain, digest, facts, count)
SELECT day::date, domain, digest, facts::jsonb, count
  FROM unnest(%(day)s::text[], %(domain)s::text[], %(digest)s::text[], %(facts)s::text[], %(count)s::bigint[])
       AS t (day, domain, digest, facts, count)
ON CONFLICT (day, domain, digest) DO UPDATE SET count = tls_sessions.count + EXCLUDED.count
"""


def owed(before: date) -> list[tuple[date, str]]:
    """Days before `before` with the domains that a report is owed to, the oldest first."""
    rows = TlsSessions.objects.filter(day__lt=before).order_by("day", "domain")
    return list(rows.values_list("day", "domain").distinct())


def of(day: date, domain: str) -> list[tuple[Session, int]]:
    """How many sessions there were of each kind."""
    rows = TlsSessions.objects.filter(day=day, domain=domain).order_by("digest")
    return [(_session(row.facts), row.count) for row in rows]


def _session(facts: dict[str, Any]) -> Session:
    promise, failure = facts["promise"], facts["failure"]
    return Session(
        Promise(promise["kind"], tuple(promise["strings"]), tuple(promise["hosts"]), _failure(promise["broken"])),
        facts["host"],
        facts["address"],
        facts["source"],
        _failure(failure),
    )


def _failure(facts: dict[str, str] | None) -> TlsFailure | None:
    return TlsFailure(TlsResult(facts["result"]), facts["text"]) if facts else None


def forget(day: date, domain: str) -> None:
    """The report is on its way, or comes too late."""
    TlsSessions.objects.filter(day=day, domain=domain).delete()
