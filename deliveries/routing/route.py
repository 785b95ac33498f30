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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import idna

from deliveries.fetch import not_public
from deliveries.routing import dane, mx, tls_rpt, unroutable
from deliveries.routing.mta_sts import Mode, MtaSts, Policy
from deliveries.routing.resolver import Answer, NoData, Resolver, Result, Trouble
from deliveries.routing.static import SANDBOX_SITE, StaticRoute, find
from deliveries.routing.tls_rpt import Promise
from deliveries.routing.unroutable import Unroutable
from deliveries.smtp.hop import Hop, Tls
from deliveries.smtp.outcome import TlsFailure, TlsResult
from deliveries.smtp.sources import Source

__all__ = ["Routed", "Router", "Unroutable"]

BY_MX = "mx"
BY_SANDBOX = "sandbox"
#: how long a fixed route is believed; its host may get another address
STATIC_TTL_S = 300.0


@dataclass(frozen=True, slots=True)
class Routed:
    """Where a domain's mail goes. `hops` is never empty; keep it for `ttl_s` seconds at most."""

    hops: tuple[Hop, ...]
    site: str  #: registrable domain of the best MX host (`google.com`), or the route's name
    ttl_s: float
    static: StaticRoute | None = None  #: the entry of MAIL_ROUTES that decided, with its return_path
    #: what the domain promised of the TLS of each MX host; nothing of fixed routes
    promises: Mapping[str, Promise] = field(default_factory=dict)


#: weakest first: of the operator's policy and the domain's, the stronger counts
_STRENGTH = (Tls.NONE, Tls.MAY, Tls.MUST, Tls.VERIFY, Tls.DANE)


@dataclass(frozen=True, slots=True)
class _Way:
    """One MX host after its look-ups; no `found.usable` = no way."""

    host: str
    found: mx.Found
    tls: Tls = Tls.MAY
    tlsa: tuple[dane.Tlsa, ...] = ()
    names: tuple[str, ...] = ()
    watched: bool = False
    promise: Promise = Promise()  # noqa: RUF009 (frozen)
    refused: str = ""  #: why the domain's policy forbids it

    def closed(self, *, own: bool = False, trouble: str = "") -> _Way:
        return replace(self, found=replace(self.found, usable=(), own=own, trouble=trouble))


def at_least(floor: Tls, routed: Routed) -> tuple[Hop, ...]:
    """The hops with the protection that a sender asks for; a fixed route's is the operator's to choose."""
    if floor is Tls.MAY or (routed.static is not None and routed.static.hosts):
        return routed.hops
    return tuple(replace(hop, tls=max(hop.tls, floor, key=_STRENGTH.index)) for hop in routed.hops)


class Router:
    """Turns domains into hops; keeps no connection, belongs to one event loop.

    `own_names` and `own_addresses` are ours: an MX that points there is a loop. `source_ips` are bound to by family,
    one at random per round. `ipv6_ok`: a source address of ours has verified FCrDNS for IPv6. `allow_private` lets MX
    hosts have private addresses (labs). `mta_sts` None leaves MTA-STS out; DANE is used where the resolver validates.
    `sandbox_domain` goes to the sandbox in every mode, where there is one.
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
        mta_sts: MtaSts | None = None,
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
        self._mta_sts = mta_sts
        self._rng = rng or random.Random()

    async def route(self, domain: str, lab: bool = False, any_tls: bool = False) -> Routed | Unroutable:
        """The hops of `domain` (A-label or U-label, any case). `lab`: to the receiver lab, wherever it would go.
        `any_tls`: whatever the domain's MTA-STS and DANE say (RFC 8689 §3); the operator's own policy holds."""
        name = _a_label(domain)
        if lab:
            return await self._fixed(self._sandbox, None) if self._sandbox else unroutable.no_lab()
        if self._sandbox and (self._all_to_sandbox or name == self._sandbox_domain):
            return await self._fixed(self._sandbox, None)
        if name is None:
            return unroutable.bad_name(domain)
        static = find(self._routes, name)
        if static is not None and static.hosts:
            return await self._fixed(static, static)
        return await self._by_mx(name, static, any_tls)

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

    async def _by_mx(self, domain: str, static: StaticRoute | None, any_tls: bool) -> Routed | Unroutable:
        chosen = mx.hosts(domain, await self._resolver.mx(domain), self._rng, self._own_names)
        if chosen is None:
            return mx.missing(domain, await self._resolver.a(domain))
        if isinstance(chosen, Unroutable):
            return chosen
        if any_tls:
            chosen = replace(chosen, secure=False)  # as if nobody could vouch for TLSA records
        policy = await self._mta_sts.policy(domain) if self._mta_sts and not any_tls else None
        ways = await self._look_up(domain, chosen, policy)
        pairs = mx.spread([(way.host, way.found.usable) for way in ways])
        if not pairs:
            return await self._why_no_address(domain, chosen, ways)
        floor = static.tls if static else Tls.MAY
        by_host = {way.host: way for way in ways}
        hops = []
        for host, address in pairs:
            way = by_host[host]
            tls = max(way.tls, floor, key=_STRENGTH.index)
            site = mx.site(host)
            hops.append(
                Hop(
                    host, address, self._smtp_port,
                    tls=tls, watched=way.watched, tls_names=way.names, tlsa=way.tlsa, site=site,
                )
            )  # fmt: skip
        ttl = min(chosen.ttl_s, *(way.found.ttl_s for way in ways if way.found.usable))
        promises = {} if any_tls else {way.host: way.promise for way in ways}
        return Routed(self._bound(hops), chosen.site, ttl, static, promises)

    async def _look_up(self, domain: str, chosen: mx.Hosts, policy: Policy | None) -> list[_Way]:
        """Addresses of the hosts in order, two hosts at a time, until a round is filled or one of them is us."""
        ways: list[_Way] = []
        names = chosen.names[: mx.MAX_HOSTS]
        for start in range(0, len(names), 2):
            pair = names[start : start + 2]
            looked = await asyncio.gather(*(self._way(domain, host, chosen, policy) for _, host in pair))
            for (preference, _), way in zip(pair, looked, strict=True):
                ways.append(way)
                if way.found.own:  # RFC 5321 §5.1: ourselves, and all that is no better, are no way on
                    better = {host for p, host in chosen.names if p < preference}
                    return [w if w.host in better else w.closed(own=True) for w in ways]
            if mx.enough(way.found.usable for way in ways):
                break
        return ways

    async def _way(self, domain: str, host: str, chosen: mx.Hosts, policy: Policy | None) -> _Way:
        """A host's addresses and what protection it must offer. DANE goes before MTA-STS (RFC 8461 §2)."""
        found = await self._addresses(host)
        floor = Tls.MAY
        if found.usable and self._resolver.validates and chosen.secure and found.secure:
            binding = await dane.bound(self._resolver, host, found.name, self._smtp_port, domain)
            if isinstance(binding, Trouble):
                return _Way(host, found).closed(trouble=binding.text)
            if binding is not None and binding.tls is Tls.DANE:
                promise = tls_rpt.of_tlsa(host, binding.records)
                return _Way(host, found, binding.tls, binding.records, binding.names, promise=promise)
            floor = binding.tls if binding else Tls.MAY
        if policy is None:
            return _Way(host, found, floor, promise=self._unfetched(domain))
        enforced = policy.mode is Mode.ENFORCE
        if policy.allows(host):
            promise = tls_rpt.of_policy(policy)
            return _Way(host, found, Tls.VERIFY if enforced else floor, watched=not enforced, promise=promise)
        refused = f"{host} is not among the hosts of its MTA-STS policy"
        promise = tls_rpt.of_policy(policy, TlsFailure(TlsResult.FAILED, refused))
        if enforced:
            return _Way(host, replace(found, usable=()), promise=promise, refused=refused)
        return _Way(host, found, floor, promise=promise)

    def _unfetched(self, domain: str) -> Promise:
        """No policy is known: there is none, or it could not be had."""
        failure = self._mta_sts.failures.get(domain) if self._mta_sts else None
        return Promise("sts", broken=failure) if failure else Promise()

    async def _addresses(self, host: str) -> mx.Found:
        v4: Result
        v6: Result | None
        if self._ipv6_ok:
            v6, v4 = await asyncio.gather(self._resolver.aaaa(host), self._resolver.a(host))
        else:
            v6, v4 = None, await self._resolver.a(host)
        return mx.addresses(v6, v4, self._rng, self._own_addresses, self._allow_private)

    async def _why_no_address(self, domain: str, chosen: mx.Hosts, ways: list[_Way]) -> Unroutable:
        """The reason, the most hopeful first: only where every host is certainly useless may the mail bounce."""
        for way in ways:
            if way.found.trouble:
                return unroutable.trouble(domain, way.found.trouble)
        for way in ways:
            if way.refused:
                return unroutable.policy_unmet(domain, way.refused, way.promise)
        if not self._ipv6_ok:
            for result in await asyncio.gather(*(self._resolver.aaaa(way.host) for way in ways)):
                if isinstance(result, Trouble):
                    return unroutable.trouble(domain, result.text)
                if mx.addresses(result, NoData(), self._rng, allow_private=self._allow_private).usable:
                    return unroutable.only_ipv6(domain)
        if any(way.found.own for way in ways):
            return unroutable.loop(domain)
        private = next((way.found.private for way in ways if way.found.private), "")
        if private:
            return unroutable.not_public(domain, private)
        if chosen.implicit:
            return unroutable.no_mail_host(domain)
        return unroutable.no_usable_mx(domain, certain=len(ways) == len(chosen.names))

    # --- source addresses -------------------------------------------------------------------------------------

    def _bound(self, hops: list[Hop]) -> tuple[Hop, ...]:
        """Each hop with a source address of its family; one per round, so that connections are used again."""
        if not self._sources:
            return tuple(hops)
        chosen = {
            version: Source(str(self._rng.choice(of_family)))
            for version in (4, 6)
            if (of_family := [s for s in self._sources if s.version == version])
        }
        return tuple(_from(hop, chosen.get(_version(hop.address))) for hop in hops)


def leaving_from(hops: Sequence[Hop], sources: Sequence[Source]) -> tuple[Hop, ...]:
    """The hops that these addresses of ours can reach, each from one of its family; empty where there is none.

    From a spare one only where no other reaches any.
    """
    for spare in (False, True):
        by_family = {_version(source.address): source for source in sources if source.spare is spare}
        if found := tuple(_from(hop, by_family[v]) for hop in hops if (v := _version(hop.address)) in by_family):
            return found
    return ()


def _from(hop: Hop, source: Source | None) -> Hop:
    if source is None:
        return replace(hop, source=None)
    # a neighbour is not reached from a public address: the system knows the way
    inward = not_public(hop.address) and not not_public(source.address)
    return replace(hop, source=None if inward else source.address, helo=source.helo)


def _version(address: str) -> int:
    return ipaddress.ip_address(address).version


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
