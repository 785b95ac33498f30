"""manage.py seed: what a first start needs, and nothing that is there already."""

from __future__ import annotations

import json
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.utils import timezone

from deliveries import keys, prune
from deliveries.mime import dkim
from deliveries.models import ApiKey, DkimKey, Membership, SendingDomain, Tenant, User

TENANT = "Main"
#: the domain that the sandbox' key may send from; nothing sent in the sandbox leaves the machine
SENDER_DOMAIN = "sandbox.test"
SENDER = f"hello@{SENDER_DOMAIN}"
ADMIN = "admin"


class Command(BaseCommand):
    help = "Create the first tenant, admin, API key and verified sandbox domain; a second run changes nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--secrets", help="JSON file with api_key and admin_password; without it they are made up, and shown once"
        )

    @transaction.atomic
    def handle(self, *args: Any, secrets: str | None, **options: Any) -> None:
        if secrets is None:
            if User.objects.exists():
                raise CommandError("there are logins already; seed is for a first start")
            api_key, password = keys.new_secret(), token_urlsafe(12)
        else:
            try:
                wanted = json.loads(Path(secrets).read_text())
                api_key, password = str(wanted["api_key"]), str(wanted["admin_password"])
            except (OSError, ValueError, KeyError, TypeError) as e:
                raise CommandError(f"--secrets {secrets}: {e!r}") from None
        prune.run()
        tenant, _ = Tenant.objects.get_or_create(name=TENANT)
        self._admin(tenant, password)
        self._key(tenant, api_key)
        if settings.SANDBOX:
            self._domain(tenant)
        self.stdout.write(
            json.dumps(
                {
                    "api_key": api_key,
                    "sender": SENDER if settings.SANDBOX else None,
                    "admin": {"username": ADMIN, "password": password},
                    "sandbox_domain": settings.SANDBOX_DOMAIN,
                }
            )
        )

    def _admin(self, tenant: Tenant, password: str) -> None:
        admin, new = User.objects.get_or_create(username=ADMIN, defaults={"is_staff": True, "is_superuser": True})
        if new:
            admin.set_password(password)
            admin.save()
        Membership.objects.get_or_create(user=admin, tenant=tenant, defaults={"role": Membership.Role.OWNER})

    def _key(self, tenant: Tenant, secret: str) -> None:
        if not ApiKey.objects.filter(secret_hash=keys.hash_of(secret)).exists():
            keys.create(tenant, "First key", secret=secret)

    def _domain(self, tenant: Tenant) -> None:
        domain, new = SendingDomain.objects.get_or_create(
            tenant=tenant, name=SENDER_DOMAIN, defaults={"verified_at": timezone.now()}
        )
        if new:
            private_key, public_key = dkim.generate_key()
            DkimKey.objects.create(domain=domain, selector="m1", private_key=private_key, public_key=public_key)
