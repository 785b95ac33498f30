"""A tenant with all it needs to send: made anew for each test, so that tests never meet in the data."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.utils import timezone

from deliveries import keys
from deliveries.accept import Draft, accept
from deliveries.mime import dkim
from deliveries.mime.address import parse_address
from deliveries.models import ApiKey, Delivery, DkimKey, SendingDomain, Site, Tenant


@lru_cache(maxsize=1)
def dkim_pair() -> tuple[bytes, str]:
    """One key pair for all tests: making one takes longer than most tests."""
    return dkim.generate_key()


@dataclass(frozen=True)
class House:
    tenant: Tenant
    domain: SendingDomain
    key: ApiKey
    secret: str

    @property
    def sender(self) -> str:
        return f"App <app@{self.domain.name}>"

    def draft(self, *to: str, **fields: Any) -> Draft:
        fields.setdefault("subject", "Your receipt")
        fields.setdefault("text", "Thank you.")
        return Draft(parse_address(self.sender), to=tuple(parse_address(a) for a in to), **fields)

    def send(self, *to: str, **fields: Any) -> list[Delivery]:
        """Accept one mail; its deliveries in the order of their forward-paths."""
        accepted = accept(keys.hash_of(self.secret), [self.draft(*to, **fields)])
        return list(Delivery.objects.filter(message_id=accepted.ids[0]).order_by("position"))


def build() -> House:
    word = uuid.uuid4().hex[:12]
    tenant = Tenant.objects.create(name=f"tenant {word}")
    domain = SendingDomain.objects.create(tenant=tenant, name=f"{word}.test", verified_at=timezone.now())
    private_key, public_key = dkim_pair()
    DkimKey.objects.create(domain=domain, selector="m1", private_key=private_key, public_key=public_key)
    key, secret = keys.create(tenant, "test", "owner_access")
    return House(tenant, domain, key, secret)


def known_sites(*names: str, places: int = 20) -> None:
    """Receivers that answered before: as many transactions at a time as `places`."""
    now = timezone.now()
    Site.objects.bulk_create(
        [Site(name=name, places=places, proven=True, misses=0, strikes=0, changed_at=now) for name in names]
    )
