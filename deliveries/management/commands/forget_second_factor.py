"""manage.py forget_second_factor LOGIN: the last way in for an operator who lost phone and codes."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from deliveries import logins
from deliveries.models import User


class Command(BaseCommand):
    help = "Remove the second factor of a login, so that its password alone opens the panel."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("login")

    def handle(self, *args: Any, login: str, **options: Any) -> None:
        user = User.objects.filter(username=login).first()
        if user is None:
            raise CommandError(f"There is no login {login!r}.")
        gone = logins.remove(user, "terminal")
        self.stdout.write(f"{login}: {'its second factor is gone' if gone else 'it had no second factor'}.")
