"""manage.py erase ADDRESS: take one person's data away, now; or tell what would go."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from deliveries import erase
from deliveries.management.commands.tenant import named, whoever
from deliveries.management.terminal import dumps
from deliveries.mime.address import parse_address
from deliveries.record.retention import Time


class Command(BaseCommand):
    help = "Erase what names an address: mails, their events and conversations, received mail, webhooks, requests."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address")
        parser.add_argument("--tenant", help="name or id; without it: of every tenant")
        parser.add_argument("--drop-suppressions", action="store_true", help="else they stay, as hashes")
        parser.add_argument("--dry-run", action="store_true", help="tell what would go, and change nothing")
        parser.add_argument("--json", action="store_true", help="one JSON object")

    def handle(self, *args: Any, address: str, tenant: str | None, **options: Any) -> None:
        try:
            spec = parse_address(address).addr_spec
        except ValueError as e:
            raise CommandError(str(e)) from None
        tenant_id = named(tenant).id if tenant else None
        keep = not options["drop_suppressions"]
        if options["dry_run"]:
            found, waiting, status = *_facts(erase.rehearse(tenant_id, spec, keep)), "dry run"
        else:
            row = erase.order(tenant_id, spec, whoever(), keep)
            erase.work(row, Time(float("inf")))
            found, waiting, status = row.found, row.waiting, row.status
        if options["json"]:
            self.stdout.write(dumps({"status": status, "found": found, "waiting": waiting}))
            return
        for kind, count in found.items():
            self.stdout.write(f"{count:8}  {kind}")
        if not found:
            self.stdout.write("Nothing names the address.")
        if waiting:
            self.stdout.write(
                f"{waiting:8}  mails that wait for others, or to be read: erased by itself once they are finished"
            )


def _facts(at: Any) -> tuple[dict[str, int], int]:
    return at.found, at.waiting
