"""The way to Postgres for hot statements."""

from __future__ import annotations

from typing import Any

import psycopg
from django.db import connection
from psycopg.rows import dict_row


def execute(statement: str, params: Any = None) -> psycopg.Cursor[dict[str, Any]]:
    """Run one prepared statement, binary both ways, in the current transaction (or one of its own).

    Django's own cursor binds parameters on the client and therefore never prepares. Rows are dicts,
    jsonb is decoded. Errors are Django's (OperationalError …) with psycopg's as their cause.
    """
    connection.ensure_connection()
    with connection.wrap_database_errors:
        cursor = psycopg.Cursor(connection.connection, row_factory=dict_row)
        return cursor.execute(statement, params, prepare=True, binary=True)


def drop_broken() -> None:
    """After a restart of Postgres every pooled connection is dead: find them now, not one failed request at a time."""
    pool = getattr(connection, "pool", None)
    if pool is not None:
        pool.check()
