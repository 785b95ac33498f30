"""manage.py import_suppressions: the suppression list of another service becomes a tenant's."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q

from deliveries import imports
from deliveries.models import Tenant


class Command(BaseCommand):
    help = "Put the addresses of a file on a tenant's suppression list; a second run adds nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="CSV with the service's columns, or the JSON that its API answers")
        parser.add_argument("--format", choices=imports.FORMS, default="csv")
        parser.add_argument("--tenant", required=True, help="Name or id")
        parser.add_argument("--reason", choices=imports.REASONS, default="", help="Instead of what the file says")
        parser.add_argument("--dry-run", action="store_true", help="Tell what would happen, change nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        tenant = self._tenant(options["tenant"])
        try:
            reading = imports.read(options["file"].read_bytes(), options["format"], options["reason"])
        except (OSError, ValueError) as e:
            raise CommandError(f"{options['file']}: {e}") from None
        for line, why in reading.faults[:20]:
            self.stderr.write(f"line {line}: {why}")
        if reading.faulty > 20:
            self.stderr.write(f"and {reading.faulty - 20} more lines that cannot be used")
        by_reason = ", ".join(f"{n} {reason}" for reason, n in sorted(reading.by_reason().items())) or "none"
        self.stdout.write(
            f"{len(reading.entries)} addresses ({by_reason}); {reading.passed} lines need no suppression, "
            f"{reading.faulty} cannot be used."
        )
        if options["dry_run"]:
            self.stdout.write("Dry run: nothing was changed.")
            return
        done = new = 0
        for done, new in imports.load(tenant.id, reading.entries, options["format"], "manage.py import_suppressions"):
            self.stdout.write(f"{done} of {len(reading.entries)}, {new} new")
        self.stdout.write(f"{new} new; {len(reading.entries) - new} were on the list already.")

    def _tenant(self, named: str) -> Tenant:
        which = Q(name=named)
        with contextlib.suppress(ValueError):
            which |= Q(id=UUID(named))
        tenant = Tenant.objects.filter(which).first()
        if tenant is None:
            known = ", ".join(Tenant.objects.order_by("name").values_list("name", flat=True)[:10])
            raise CommandError(f"There is no tenant {named!r}; there are: {known or 'none'}.")
        return tenant
