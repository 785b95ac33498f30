"""manage.py tenant: customers of the installation, made, listed, suspended and released. The operator's alone.

Programs do the same over HTTP, with an operator key (`manage.py operator_key`).
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Count, Q
from django.utils import timezone

from deliveries import keys, people, quotas
from deliveries.errors import BadInput
from deliveries.models import ApiKey, Membership, Tenant
from deliveries.record import brakes


def named(text: str) -> Tenant:
    """The tenant of that name or id; CommandError where there is none."""
    tenant = Tenant.objects.filter(name=text).first()
    if tenant is None:
        with contextlib.suppress(ValueError):
            tenant = Tenant.objects.filter(id=UUID(text)).first()
    if tenant is None:
        raise CommandError(f"There is no tenant {text!r}; `manage.py tenant list` names them.")
    return tenant


def whoever() -> str:
    """Who gives the order, for the audit log."""
    return f"shell:{getpass.getuser()}"


def _quota(text: str) -> int | None:
    if text == "any":
        return None
    if not text.isascii() or not text.isdigit() or int(text[:12]) > 2**31 - 1:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is neither `any` nor a number from 0 to {2**31 - 1}")
    return int(text)


class Command(BaseCommand):
    help = "Tenants: create, list, quota, suspend, release, privacy"

    def add_arguments(self, parser: CommandParser) -> None:
        orders = parser.add_subparsers(dest="order", required=True)
        create = orders.add_parser("create", help="a new tenant; prints its id, and what was made with it, once")
        create.add_argument("name")
        create.add_argument("--owner", help="login or mail address of its first owner")
        create.add_argument("--key", metavar="NAME", help="make an API key of that name")
        orders.add_parser("list", help="all tenants")
        quota = orders.add_parser("quota", help="recipients that it may have a day and a month; without options: used")
        quota.add_argument("tenant", help="name or id")
        quota.add_argument("--daily", type=_quota, default=argparse.SUPPRESS, help="a number, or `any`")
        quota.add_argument("--monthly", type=_quota, default=argparse.SUPPRESS, help="a number, or `any`")
        suspend = orders.add_parser("suspend", help="nothing of it is accepted or sent until it is released")
        suspend.add_argument("tenant", help="name or id")
        suspend.add_argument("--reason", default="Suspended by the operator.")
        release = orders.add_parser("release", help="what was held is due at once")
        release.add_argument("tenant", help="name or id")
        privacy = orders.add_parser("privacy", help="whether its mail is tracked and kept (docs/operations.md)")
        privacy.add_argument("tenant", help="name or id")
        privacy.add_argument("mode", choices=("on", "off"), help="of mail that is accepted from now on")

    def handle(self, *args: Any, order: str, **options: Any) -> None:
        getattr(self, f"_{order}")(options)

    def _create(self, options: dict[str, Any]) -> None:
        try:
            tenant = people.create_tenant(options["name"], whoever())
            self.stdout.write(f"tenant    {tenant.id}  {tenant.name}")
            if options["owner"]:
                member, password = people.invite(tenant, options["owner"], Membership.Role.OWNER, whoever())
                self.stdout.write(f"owner     {member.user}" + (f"  first password {password}" if password else ""))
        except BadInput as e:
            raise CommandError(str(e)) from None
        if options["key"]:
            _, secret = keys.grant(tenant.id, options["key"][:100], ApiKey.Scope.FULL, whoever())
            self.stdout.write(f"API key   {secret}")

    def _list(self, options: dict[str, Any]) -> None:
        rows = Tenant.objects.annotate(
            people=Count("memberships", distinct=True),
            verified=Count("domains", filter=Q(domains__verified_at__isnull=False), distinct=True),
            active=Count("api_keys", filter=Q(api_keys__revoked_at=None), distinct=True),
        )
        for row in rows.iterator():
            state = f"suspended: {row.suspended_reason}" if row.suspended_at else "active"
            counts = f"{row.people} members, {row.verified} verified domains, {row.active} keys"
            quota = "".join(f"  {words}" for words in quotas.told([row]).values())
            self.stdout.write(f"{row.id}  {row.name}  {state}  ({counts}){quota}")

    def _quota(self, options: dict[str, Any]) -> None:
        tenant = named(options["tenant"])
        if options.keys() & {"daily", "monthly"}:
            wishes = {f"{name}_quota": options[name] for name in ("daily", "monthly") if name in options}
            people.change_tenant(tenant, whoever(), **wishes)
        self.stdout.write(quotas.told([tenant]).get(tenant.id, f"{tenant.name} has no quota."))

    def _suspend(self, options: dict[str, Any]) -> None:
        tenant = named(options["tenant"])
        brakes.hold_tenant(tenant.id, options["reason"][:300], whoever(), timezone.now())
        self.stdout.write(f"{tenant.name} is suspended.")

    def _privacy(self, options: dict[str, Any]) -> None:
        tenant = named(options["tenant"])
        people.change_tenant(tenant, whoever(), privacy=options["mode"] == "on")
        self.stdout.write(f"Privacy mode of {tenant.name} is {options['mode']}.")

    def _release(self, options: dict[str, Any]) -> None:
        tenant = named(options["tenant"])
        count = brakes.release_tenant(tenant.id, whoever())
        self.stdout.write(f"{tenant.name} is released; {count} held mails are due now.")
