"""The doctor: our own addresses and domains as receivers see them, asked when a person asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from django.conf import settings

from deliveries.models import SendingDomain
from deliveries.routing.doctor import Check, of_address, of_domain, port_25
from deliveries.routing.resolver import Resolver

#: domains of one visit
MAX_DOMAINS = 20
_TIMEOUT_S = 5.0


def examine(domains: Sequence[str], probe: str = "") -> list[Check]:
    """SOURCE_IPS, then `domains` (A-labels); with `probe` an MX of that domain is connected to from each address."""
    return asyncio.run(_examine(domains[:MAX_DOMAINS], probe))


async def _examine(domains: Sequence[str], probe: str) -> list[Check]:
    resolver = Resolver(settings.DNS_NAMESERVERS or None, timeout_s=_TIMEOUT_S)
    lists, helo = settings.DNS_BLOCK_LISTS, settings.HELO_NAME
    work = [of_address(resolver, ip, helo, lists) for ip in settings.SOURCE_IPS]
    work += [of_domain(resolver, name) for name in domains]
    found = [check for checks in await asyncio.gather(*work) for check in checks]
    if probe:
        sources = settings.SOURCE_IPS or ("",)
        ways = (port_25(resolver, probe, settings.SMTP_PORT, ip, settings.MX_ALLOW_PRIVATE) for ip in sources)
        found += await asyncio.gather(*ways)
    return found


def own_domains() -> list[str]:
    """The verified ones, of all tenants."""
    names = SendingDomain.objects.filter(verified_at__isnull=False).order_by("name").values_list("name", flat=True)
    return list(names.distinct()[:MAX_DOMAINS])
