"""manage.py restore DUMP: into an empty database, which then waits for a person's word (manage.py restored)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from deliveries import continuity
from mailapi.environment import url
from mailapi.up import backups
from mailapi.up.words import Refusal


class Command(BaseCommand):
    help = "Read a dump (or a folder's newest) into the empty database of DATABASE_URL; nothing is sent until an answer"
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("dump", type=Path)

    def handle(self, *args: Any, dump: Path, **options: Any) -> None:
        try:
            dump = backups.newest(dump) if dump.is_dir() else dump
            backups.restore(url("DATABASE_URL", ("postgres", "postgresql")), dump)
        except (Refusal, OSError) as e:
            raise CommandError(str(e)) from None
        call_command("migrate", interactive=False, verbosity=0)
        continuity.ask(f"{dump.name} was read into this database.")
        self.stdout.write(
            f"{dump.name} is restored. Nothing is sent until `manage.py restored` is answered (hold, or nothing-lost)."
        )
