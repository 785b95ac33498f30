"""manage.py operator_key: the keys of programs that see to tenants over HTTP."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from deliveries import keys, operators
from deliveries.management.commands.tenant import whoever
from deliveries.models import OperatorKey


def _network(text: str) -> str:
    try:
        return keys.network(text)
    except ValueError as e:
        raise argparse.ArgumentTypeError(str(e)) from None


def _end(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None or at <= datetime.now(UTC):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no time to come with a zone, such as 2030-01-31T09:00:00Z")
    return at


class Command(BaseCommand):
    help = "Operator keys: create, list, revoke"

    def add_arguments(self, parser: CommandParser) -> None:
        orders = parser.add_subparsers(dest="order", required=True)
        create = orders.add_parser("create", help="prints the key, once")
        create.add_argument("name", help="what it is for")
        create.add_argument(
            "--scope", choices=OperatorKey.Scope.values, default=OperatorKey.Scope.TENANTS,
            help="full_access also hands out API keys and first passwords, by which mail can be read",
        )  # fmt: skip
        create.add_argument("--from", dest="networks", type=_network, action="append", default=[], metavar="NETWORK",
                            help="may be used from there only; may be given several times")  # fmt: skip
        create.add_argument("--expires", type=_end, metavar="TIME", help="ISO 8601 with a zone")
        orders.add_parser("list", help="those that are not revoked")
        revoke = orders.add_parser("revoke", help="refused from then on")
        revoke.add_argument("prefix", help="how it begins, as `list` shows it")

    def handle(self, *args: Any, order: str, **options: Any) -> None:
        getattr(self, f"_{order}")(options)

    def _create(self, options: dict[str, Any]) -> None:
        name = options["name"].strip()
        if not name or len(name) > 100 or not name.isprintable():
            raise CommandError("The name must be one line of 1 to 100 characters.")
        _, secret = operators.create(name, options["scope"], whoever(), options["networks"], options["expires"])
        self.stdout.write(secret)

    def _list(self, options: dict[str, Any]) -> None:
        for key in OperatorKey.objects.filter(revoked_at=None):
            ends = f"  until {key.expires_at.isoformat()}" if key.expires_at else ""
            origin = f"  from {', '.join(key.networks)}" if key.networks else ""
            self.stdout.write(f"{key.prefix}…  {key.name}  {key.scope}{origin}{ends}")

    def _revoke(self, options: dict[str, Any]) -> None:
        prefix = options["prefix"].rstrip("…")
        found = OperatorKey.objects.filter(prefix=prefix, revoked_at=None).values_list("id", flat=True)
        if not operators.revoke(list(found), whoever()):
            raise CommandError(f"No operator key in use begins with {prefix!r}; `operator_key list` names them.")
        self.stdout.write("Revoked.")
