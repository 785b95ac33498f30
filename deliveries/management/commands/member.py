"""manage.py member: the people of a tenant."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from deliveries import people
from deliveries.errors import BadInput
from deliveries.management.commands.tenant import named, whoever
from deliveries.models import Membership


class Command(BaseCommand):
    help = "Members of a tenant: add, list, role, remove"

    def add_arguments(self, parser: CommandParser) -> None:
        orders = parser.add_subparsers(dest="order", required=True)
        for name, words in (
            ("add", "a member; a new login gets a first password, printed once"),
            ("list", "who they are"),
            ("role", "another role"),
            ("remove", "the login stays"),
        ):
            order = orders.add_parser(name, help=words)
            order.add_argument("tenant", help="name or id")
            if name != "list":
                order.add_argument("login", help="login or mail address")
            if name == "add":
                order.add_argument("--role", default=Membership.Role.DEVELOPER, choices=Membership.Role.values)
            if name == "role":
                order.add_argument("role", choices=Membership.Role.values)

    def handle(self, *args: Any, order: str, **options: Any) -> None:
        try:
            getattr(self, f"_{order}")(options)
        except BadInput as e:
            raise CommandError(str(e)) from None

    def _add(self, options: dict[str, Any]) -> None:
        member, password = people.invite(named(options["tenant"]), options["login"], options["role"], whoever())
        self.stdout.write(f"{member}" + (f"  first password {password}" if password else ""))

    def _list(self, options: dict[str, Any]) -> None:
        members = Membership.objects.filter(tenant=named(options["tenant"])).select_related("user")
        for member in members.order_by("user__username"):
            self.stdout.write(f"{member.user.get_username()}  {member.role}")

    def _role(self, options: dict[str, Any]) -> None:
        self.stdout.write(str(people.set_role(self._one(options).id, options["role"], whoever())))

    def _remove(self, options: dict[str, Any]) -> None:
        member = self._one(options)
        people.remove(member.id, whoever())
        self.stdout.write(f"{member.user} is no member of {member.tenant} any more.")

    def _one(self, options: dict[str, Any]) -> Membership:
        member = people.member_of(named(options["tenant"]).id, options["login"])
        if member is None:
            raise CommandError(f"{options['login']} is no member of {options['tenant']}.")
        return member
