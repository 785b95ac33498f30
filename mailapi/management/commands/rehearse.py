"""manage.py rehearse FOLDER: is the newest backup good? One line, and 1 where it is not; the service is left alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections
from django.db.migrations.executor import MigrationExecutor

from deliveries.models.fields import decrypt
from mailapi import settings
from mailapi.environment import url
from mailapi.up import backups, postgres
from mailapi.up.words import Refusal

_ALIAS = "rehearsal"
#: whose bodies are read
_SAMPLE = 200


class Command(BaseCommand):
    help = "Read the newest backup into a scratch database, look whether it is whole and ours, and drop it again"
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("backup", type=Path, help="a folder of `manage.py backup`, or one dump")

    def handle(self, *args: Any, backup: Path, **options: Any) -> None:
        address = url("DATABASE_URL", ("postgres", "postgresql"))
        try:
            postgres.refuse_unsafe(address)
            dump = backups.newest(backup) if backup.is_dir() else backup
            age = datetime.now(UTC) - datetime.fromtimestamp(dump.stat().st_mtime, UTC)
            said, took_s = backups.rehearse(address, dump, _look)
        except (Refusal, OSError, DatabaseError, ValueError) as e:
            raise CommandError(f"NOT GOOD: {str(e).strip().partition(chr(10))[0]}") from None
        hours = age.total_seconds() / 3600
        self.stdout.write(f"good: {dump.name}, {hours:.1f} h old, restored and read in {took_s:.1f} s: {said}")


def _look(address: str) -> str:
    """What is in it, in words; raises Refusal with what is wrong."""
    connections.databases[_ALIAS] = {**connections.databases["default"], **settings.database(address)}
    connection = connections[_ALIAS]
    try:
        executor = MigrationExecutor(connection)
        applied = set(executor.loader.applied_migrations)
        if unknown := applied - set(executor.loader.disk_migrations):
            raise Refusal(f"it is of a later version than this one: {sorted(unknown)[-1][1]}")
        behind = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
        with connection.cursor() as cursor:

            def one(sql: str) -> Any:
                cursor.execute(sql)
                return cursor.fetchone()[0]

            if lost := one(_WITHOUT_MAIL):
                raise Refusal(f"{lost} waiting deliveries have no mail")
            keys = 0
            for table, column in _SECRETS:
                cursor.execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")
                for (sealed,) in cursor.fetchall():
                    _open(bytes(sealed), table)
                    keys += 1
            cursor.execute(f"SELECT length(coalesce(html, '') || coalesce(text, '')) FROM message_content"
                           f" ORDER BY id DESC LIMIT {_SAMPLE}")  # fmt: skip
            bodies = len(cursor.fetchall())
            mails, waiting = one("SELECT count(*) FROM message"), one("SELECT count(*) FROM queued")
            last = one("SELECT max(created_at) FROM message")
    finally:
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined]
        del connections[_ALIAS], connections.databases[_ALIAS]
    return (
        f"{mails} mails{f' up to {last:%Y-%m-%d %H:%M:%S} UTC' if last else ''}, {waiting} deliveries waiting,"
        f" {bodies} bodies read, {keys} secrets opened with FIELD_KEYS,"
        f" {len(applied)} migrations{f' ({behind} to come)' if behind else ''}"
    )


def _open(sealed: bytes, table: str) -> None:
    try:
        decrypt(sealed)
    except Exception as e:  # whatever the cipher raises: the key is another one
        raise Refusal(f"FIELD_KEYS does not open what is in {table}: keep the keys with the backups ({e!r})") from None


_SECRETS = (("dkim_key", "private_key"), ("webhook_endpoint", "secret"), ("bounce_mailbox", "password"))

_WITHOUT_MAIL = """
SELECT count(*) FROM queued q LEFT JOIN delivery d ON d.id = q.delivery_id LEFT JOIN message m ON m.id = d.message_id
 WHERE m.id IS NULL
"""
