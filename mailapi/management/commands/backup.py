"""manage.py backup FOLDER: a dump of everything, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from mailapi.environment import url
from mailapi.up import backups
from mailapi.up.words import Refusal


class Command(BaseCommand):
    help = (
        "Dump the database into a folder, named by the time. FIELD_KEYS and VERP_KEYS are not in it: keep them apart."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path)
        parser.add_argument("--keep", type=int, default=14, help="so many stay, the oldest go (14)")

    def handle(self, *args: Any, folder: Path, keep: int, **options: Any) -> None:
        if keep < 1:
            raise CommandError("--keep is 1 or more: the newest one stays.")
        try:
            made = backups.back_up(url("DATABASE_URL", ("postgres", "postgresql")), folder, keep)
        except (Refusal, OSError) as e:
            raise CommandError(str(e)) from None
        self.stdout.write(f"{made} ({made.stat().st_size:,} octets)")
