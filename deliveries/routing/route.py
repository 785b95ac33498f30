"""Destination domain → hops.

    router = Router(resolver, mail_route="mx", ...)
    match await router.route("example.org"):
        case Routed(hops, site): try the hops in order
        case Unroutable(permanent): bounce or defer, with its text, enhanced code, category and rule

The order of decisions: the sandbox (nothing leaves the machine), a fixed route (MAIL_ROUTES), DNS. Nothing here
raises for trouble of the network: it is an Unroutable that is not permanent.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace

import idna

from deliveries.routing import mx, unroutable
from deliveries.routing.resolver import Answer, NoData, Resolver, Result, Trouble
from deliveries.routing.static import StaticRoute, find
from deliveries.routing.unroutable import Unroutable
from deliveries.smtp.hop import Hop, Tls

__all__ = ["Routed", "Router", "Unroutable"]

BY_MX = "mx"
BY_SANDBOX = "sandbox"
SANDBOX_SITE = "sandbox"
#: how long a fixed route is believed; its host may get another address
STATIC_TTL_S = 300.0


@dataclass(frozen=True, slots=True)
class Routed:
    """Where a domain's mail goes. `hops` is never empty; keep it for `ttl_s` seconds at most."""

    hops: tuple[Hop, ...]
    site: str  #: registrable domain of the best MX host (`google.com`), or the route's name
    ttl_s: float
    static: StaticRoute | None = None  #: the entry of MAIL_ROUTES that decided, with its return_path


class Router:
    """Turns domains into hops; keeps no connection, belongs to one event loop.

    `own_names` and `own_addresses` are ours: an MX that points there is a loop. `source_ips` are bound to by family,
    one at random per round. `ipv6_ok`: a source address of ours has verified FCrDNS for IPv6. `allow_private` lets MX
    hosts have private addresses (labs). `sandbox_domain` goes to the sandbox in every mode, where there is one.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        mail_route: str = BY_MX,
        sandbox: tuple[str, int] | None = None,
        sandbox_domain: str = "simulator.test",
        routes: Mapping[str, StaticRoute] | None = None,
        smtp_port: int = 25,
        allow_private: bool = False,
        own_names: frozenset[str] = frozenset(),
        own_addresses: frozenset[str] = frozenset(),
        source_ips: tuple[str, ...] | list[str] = (),
        ipv6_ok: bool = False,
        policies: object | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if mail_route not in (BY_MX, BY_SANDBOX):
            raise ValueError(f"MAIL_ROUTE is {mail_route!r}; it must be {BY_MX} or {BY_SANDBOX}")
        if mail_route == BY_SANDBOX and sandbox is None:
            raise ValueError("MAIL_ROUTE=sandbox needs the address of the sandbox")
        self._resolver = resolver
        self._all_to_sandbox = mail_route == BY_SANDBOX
        self._sandbox = StaticRoute(SANDBOX_SITE, (sandbox,)) if sandbox else None
        self._sandbox_domain = sandbox_domain
        self._routes = routes or {}
        self._smtp_port = smtp_port
        self._allow_private = allow_private
        self._own_names = frozenset(n.lower().rstrip(".") for n in own_names)
        self._own_addresses = frozenset(str(ipaddress.ip_address(a)) for a in own_addresses)
        self._sources = tuple(map(ipaddress.ip_address, source_ips))
        self._ipv6_ok = ipv6_ok
        self._policies = policies
        self._rng = rng or random.Random()

    async def route(self, domain: str) -> Routed | Unroutable:
        """The hops of `domain`, an A-label or U-label, in any case."""
        name = _a_label(domain)
        if self._sandbox and (self._all_to_sandbox or name == self._sandbox_domain):
            return await self._fixed(self._sandbox, None)
        if name is None:
            return unroutable.bad_name(domain)
        static = find(self._routes, name)
        if static is not None and static.hosts:
            return await self._fixed(static, static)
        return await self._by_mx(name, static)

    # --- fixed routes -----------------------------------------------------------------------------------------

    async def _fixed(self, route: StaticRoute, static: StaticRoute | None) -> Routed | Unroutable:
        hops: list[Hop] = []
        said = ""
        for host, port in route.hosts:
            found = await self._addresses_of_our_host(host)
            if isinstance(found, str):
                said = found
                continue
            hops += [
                Hop(host, address, port, route.lmtp, route.tls, auth=route.auth, site=route.name)
                for address in found
            ]  # fmt: skip
        if not hops:
            return unroutable.route_host_unknown(route.name, said)
        return Routed(self._bound(hops[: mx.MAX_ADDRESSES]), route.name, STATIC_TTL_S, static)

    async def _addresses_of_our_host(self, host: str) -> list[str] | str:
        """IPv4 before IPv6; a text where there is none. Private addresses are as good as any: the operator chose."""
        if _is_literal(host):
            return [host]
        if "." not in host:  # a neighbour (`localhost`, a container): known to the system, not to DNS
            try:
                infos = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except OSError as e:
                return f"{host}: {e.strerror or e}"
            return list(dict.fromkeys(str(info[4][0]) for info in infos))
        results = await asyncio.gather(self._resolver.a(host), self._resolver.aaaa(host))
        found = [a for r in results if isinstance(r, Answer) for a in r.records]
        troubles = [r.text for r in results if isinstance(r, Trouble)]
        return found or (troubles[0] if troubles else f"{host} has no address in DNS")

    # --- by MX ------------------------------------------------------------------------------------------------

    async def _by_mx(self, domain: str, static: StaticRoute | None) -> Routed | Unroutable:
        chosen = mx.hosts(domain, await self._resolver.mx(domain), self._rng, self._own_names)
        if chosen is None:
            return mx.missing(domain, await self._resolver.a(domain))
        if isinstance(chosen, Unroutable):
            return chosen
        found = await self._look_up(chosen)
        pairs = mx.spread([(host, f.usable) for host, f in found])
        if not pairs:
            return await self._why_no_address(domain, chosen, found)
        tls = static.tls if static else Tls.MAY
        hops = [Hop(host, address, self._smtp_port, tls=tls, site=mx.site(host)) for host, address in pairs]
        ttl = min(chosen.ttl_s, *(f.ttl_s for _, f in found if f.usable))
        return Routed(self._bound(hops), chosen.site, ttl, static)

    async def _look_up(self, chosen: mx.Hosts) -> list[tuple[str, mx.Found]]:
        """Addresses of the hosts in order, two hosts at a time, until a round is filled or one of them is ourselves."""
        found: list[tuple[str, mx.Found]] = []
        names = chosen.names[: mx.MAX_HOSTS]
        for start in range(0, len(names), 2):
            pair = names[start : start + 2]
            for (preference, host), one in zip(
                pair, await asyncio.gather(*(self._host(h) for _, h in pair)), strict=True
            ):
                found.append((host, one))
                if one.own:  # RFC 5321 §5.1: ourselves, and all that is no better, are no way on
                    better = {h for p, h in chosen.names if p < preference}
                    return [(h, f if h in better else replace(f, usable=(), own=True)) for h, f in found]
            if mx.enough(f.usable for _, f in found):
                break
        return found

    async def _host(self, host: str) -> mx.Found:
        v4: Result
        v6: Result | None
        if self._ipv6_ok:
            v6, v4 = await asyncio.gather(self._resolver.aaaa(host), self._resolver.a(host))
        else:
            v6, v4 = None, await self._resolver.a(host)
        return mx.addresses(v6, v4, self._rng, self._own_addresses, self._allow_private)

    async def _why_no_address(
        self, domain: str, chosen: mx.Hosts, found: list[tuple[str, mx.Found]]
    ) -> Unroutable:  # fmt: skip
        """The reason, the most hopeful first: only where every host is certainly useless may the mail bounce."""
        for _, one in found:
            if one.trouble:
                return unroutable.trouble(domain, one.trouble)
        if not self._ipv6_ok:
            for result in await asyncio.gather(*(self._resolver.aaaa(host) for host, _ in found)):
                if isinstance(result, Trouble):
                    return unroutable.trouble(domain, result.text)
                if (
                    isinstance(result, Answer)
                    and mx.addresses(result, NoData(), self._rng, allow_private=self._allow_private).usable
                ):
                    return unroutable.only_ipv6(domain)
        if any(one.own for _, one in found):
            return unroutable.loop(domain)
        private = next((one.private for _, one in found if one.private), "")
        if private:
            return unroutable.not_public(domain, private)
        if chosen.implicit:
            return unroutable.no_mail_host(domain)
        return unroutable.no_usable_mx(domain, certain=len(found) == len(chosen.names))

    # --- source addresses -------------------------------------------------------------------------------------

    def _bound(self, hops: list[Hop]) -> tuple[Hop, ...]:
        """Each hop with a source address of its family; one per round, so that connections are used again."""
        chosen = {
            version: str(self._rng.choice(of_family))
            for version in (4, 6)
            if (of_family := [s for s in self._sources if s.version == version])
        }
        bound = []
        for hop in hops:
            address = ipaddress.ip_address(hop.address)
            # loopback is reached from loopback: a public source would be refused or answered elsewhere
            source = None if address.is_loopback else chosen.get(address.version)
            bound.append(replace(hop, source=source))
        return tuple(bound)


def _a_label(domain: str) -> str | None:
    """Lower-case A-label without a final dot; None where DNS cannot hold it."""
    name = domain.strip().rstrip(".").lower()
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError:
            return None
    return name if mx.is_host_name(name) else None


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
