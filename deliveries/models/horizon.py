"""Up to where the events stand still: before that moment every transaction has ended."""

from __future__ import annotations

from datetime import datetime

from deliveries.models.sql import execute

_HORIZON = """
SELECT least(clock_timestamp() - make_interval(secs => %(settle)s::float8), min(a.xact_start)) AS at
  FROM pg_stat_activity a
 WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
   AND (a.backend_xid IS NOT NULL OR a.xact_start > clock_timestamp() - make_interval(secs => %(readers)s::float8))
"""


def horizon(settle_s: float, readers_s: float) -> datetime:
    """No event with an earlier created_at will ever appear. Read it in a statement before the one that reads events.

    Never within the last `settle_s` seconds; a transaction that has written nothing counts for `readers_s` at most.
    """
    row = execute(_HORIZON, {"settle": settle_s, "readers": readers_s}).fetchone()
    assert row is not None
    at: datetime = row["at"]
    return at
