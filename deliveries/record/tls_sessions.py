"""Sessions by how well they were protected, per day and recipient domain, until a TLS report tells them (RFC 8460).

    note       what sessions were like; in the process
    flush      that, written at most once in ten seconds
    owed, of   what is written of days that are over, until `forget`

A killed process takes up to ten seconds with it: reports are statistics, no mail depends on them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date, datetime
from typing import Any

from django.db import DatabaseError

from deliveries.models import TlsSessions
from deliveries.models.sql import execute
from deliveries.routing.tls_rpt import Promise, Session
from deliveries.smtp.outcome import TlsFailure, TlsResult

log = logging.getLogger(__name__)

_FLUSH_S = 10.0
#: kinds of sessions that wait to be written; a storm of more is cut there
_MOST = 10_000


_lock = threading.Lock()
_pending: Counter[tuple[date, str, Session]] = Counter()
_flushed = -_FLUSH_S


def note(domain: str, sessions: Iterable[Session], at: datetime) -> None:
    """Count sessions with the hosts of `domain` that ended at `at` (UTC)."""
    with _lock:
        for session in sessions:
            if len(_pending) < _MOST:
                _pending[at.date(), domain.lower(), session] += 1


def flush(now: bool = False) -> int:
    """Write what was counted, where the last write is ten seconds ago; how many rows."""
    global _flushed
    with _lock:
        if not _pending or (not now and time.monotonic() - _flushed < _FLUSH_S):
            return 0
        _flushed = time.monotonic()
        counts = dict(_pending)
        _pending.clear()
    # in one order everywhere, so that two processes never wait in a circle
    rows = sorted((key[0].isoformat(), key[1], *_facts(key[2]), count) for key, count in counts.items())
    names = ("day", "domain", "digest", "facts", "count")
    try:
        execute(_ADD, {name: [row[n] for row in rows] for n, name in enumerate(names)})
    except DatabaseError as e:  # statistics are no reason to repeat a batch that is written
        log.warning("%d figures of TLS sessions are lost: %r", len(rows), e)
        return 0
    return len(rows)


def _facts(session: Session) -> tuple[str, str]:
    facts = json.dumps(asdict(session), sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest(), facts


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
