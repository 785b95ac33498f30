"""manage.py migrate beside a running service: nobody waits behind a migration for long, and two never run at once.

A table's lock is asked for, and until it is had, everybody else queues behind the question. So the question is a short
one, shorter than web's patience (lock_timeout of its sessions), and asked again after a pause. Migrations that are no
transaction build indexes concurrently: they hold up nobody, and may wait for whoever was there before them.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg.errors
from django.core.management.base import CommandError
from django.core.management.commands.migrate import Command as Migrate
from django.db import OperationalError, connection
from django.db.migrations.migration import Migration

#: below the 2 s that web waits for a lock before it answers 503
ASK_MS = 500
PAUSE_S = 1.0
#: for as long as a dump may hold its tables; then a person has to look
PATIENCE_S = 600.0
#: of pg_try_advisory_lock: whoever waited inside Postgres would hold up indexes that are built concurrently
_LOCK = 0x6D696772617465


class Command(Migrate):
    def handle(self, *args: Any, **options: Any) -> None:
        if options["plan"] or options["check_unapplied"] or connection.vendor != "postgresql":
            super().handle(*args, **options)
            return
        end = time.monotonic() + PATIENCE_S
        while not _asked("SELECT pg_try_advisory_lock(%s)", _LOCK):
            self._pause(end, "Another migrate is at work")
        try:
            self._migrate(end, args, options)
        finally:
            if connection.is_usable():
                _ask("RESET lock_timeout")
                _asked("SELECT pg_advisory_unlock(%s)", _LOCK)

    def _migrate(self, end: float, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        while True:
            try:
                super().handle(*args, **options)
                return
            except OperationalError as e:
                if not isinstance(e.__cause__, psycopg.errors.LockNotAvailable):
                    raise
                self._pause(end, "A table is in use")

    def _pause(self, end: float, why: str) -> None:
        if time.monotonic() > end:
            raise CommandError(f"{why}, for {PATIENCE_S:.0f} s now: see pg_stat_activity.")
        self.stdout.write(f"{why}, asking again.")
        time.sleep(PAUSE_S)

    def migration_progress_callback(self, action: str, migration: Migration | None = None, fake: bool = False) -> None:
        if action in ("apply_start", "unapply_start") and migration is not None:
            if not migration.atomic:
                _drop_halves()
            _ask("SET lock_timeout = %s", ASK_MS if migration.atomic else 0)
        super().migration_progress_callback(action, migration, fake)


def _ask(statement: str, *params: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, params)


def _asked(statement: str, *params: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchone()[0]


def _drop_halves() -> None:
    """What a CREATE INDEX CONCURRENTLY that was broken off has left is in the way of the next one, and of no use."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT format('DROP INDEX CONCURRENTLY %s', i.indexrelid::regclass) FROM pg_index i"
            " JOIN pg_class c ON c.oid = i.indexrelid"
            " WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relnamespace = current_schema()::regnamespace"
        )
        for (drop,) in cursor.fetchall():
            cursor.execute(drop)
