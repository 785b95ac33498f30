"""The router of this installation: its settings, put into a deliveries.routing.route.Router."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from django.conf import settings

from deliveries.fetch import Fetched, fetch
from deliveries.routing import static
from deliveries.routing.mta_sts import MtaSts, PolicyStore
from deliveries.routing.resolver import Resolver
from deliveries.routing.route import Router


def router(
    resolver: Resolver,
    policies: PolicyStore,
    ipv6_ok: bool = False,
    get: Callable[..., Awaitable[Fetched]] = fetch,
) -> Router:
    """For one event loop; `ipv6_ok` where a source address of ours leads to a name and back. `get` fetches policies."""
    return Router(
        resolver,
        mail_route=settings.MAIL_ROUTE,
        sandbox=settings.SANDBOX_SMTP,
        sandbox_domain=settings.SANDBOX_DOMAIN,
        routes=static.parse(settings.MAIL_ROUTES),
        smtp_port=settings.SMTP_PORT,
        allow_private=settings.MX_ALLOW_PRIVATE,
        own_names=frozenset({settings.HELO_NAME, settings.BOUNCE_DOMAIN}),
        own_addresses=frozenset(settings.SOURCE_IPS),
        source_ips=settings.SOURCE_IPS,
        ipv6_ok=ipv6_ok,
        mta_sts=MtaSts(
            resolver,
            policies,
            port=settings.MTA_STS_PORT,
            ca_file=settings.SMTP_CA_FILE or None,
            allow_private=settings.MX_ALLOW_PRIVATE,
            get=get,
        ),
    )
