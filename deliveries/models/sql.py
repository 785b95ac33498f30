"""The way to Postgres for hot statements."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import psycopg
from django.db import connection
from psycopg.rows import dict_row

from deliveries.models.arrays import packer

_PLACEHOLDER = re.compile(r"%(?:\((\w+)\)s(?=(?:::(\w+)\[\])?)|%)")


def execute(statement: str, params: Mapping[str, Any] | None = None) -> psycopg.Cursor[dict[str, Any]]:
    """Run one prepared statement, binary both ways, in the current transaction (or one of its own).

    Values stand in `statement` as %(name)s, lists as %(name)s::type[], which go as octets (arrays.py). Django's own
    cursor binds parameters on the client and therefore never prepares. Rows are dicts, jsonb is decoded. Errors are
    Django's (OperationalError …) with psycopg's as their cause.
    """
    text, values = statement, None
    if params is not None:
        text, wanted = _numbered(statement)
        values = [pack(params[name]) if pack else params[name] for name, pack in wanted]
    connection.ensure_connection()
    with connection.wrap_database_errors:
        cursor = psycopg.RawCursor(connection.connection, row_factory=dict_row)
        return cursor.execute(text, values, prepare=True, binary=True)


@lru_cache(maxsize=512)  # statements are constants of ours
def _numbered(statement: str) -> tuple[str, tuple[tuple[str, Callable[[Any], Any] | None], ...]]:
    """%(name)s → $1, as Postgres reads it; the names in order, each with what makes an array of it.

    psycopg reads long statements anew each time.
    """
    names: dict[str, int] = {}
    packers: dict[str, Callable[[Any], Any] | None] = {}

    def number(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "%"
        packers[name] = packers.get(name) or packer(found[2] or "")
        return f"${names.setdefault(name, len(names) + 1)}"

    text = _PLACEHOLDER.sub(number, statement)
    return text, tuple((name, packers[name]) for name in names)


def clock() -> datetime:
    """Now, by Postgres and in UTC: due times, leases and ages go by it, whatever the clocks of hosts say."""
    (row,) = execute("SELECT clock_timestamp() AS now").fetchall()
    told: datetime = row["now"]
    return told.astimezone(UTC)


@contextmanager
def alone(lock: int) -> Iterator[bool]:
    """Whether this process holds `lock`, a number that no other work has; it ends with the block, or the connection."""
    (row,) = execute("SELECT pg_try_advisory_lock(%(lock)s::bigint) AS mine", {"lock": lock}).fetchall()
    try:
        yield row["mine"]
    finally:
        if row["mine"]:
            execute("SELECT pg_advisory_unlock(%(lock)s::bigint)", {"lock": lock})


def drop_broken() -> None:
    """After a restart of Postgres every pooled connection is dead: find them now, not one failed request at a time."""
    pool = getattr(connection, "pool", None)
    if pool is not None:
        pool.check()
