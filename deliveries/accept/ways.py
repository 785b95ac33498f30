"""The way to each recipient domain, and what is known of it, without a connection to anything but the nameserver.

    found = look(tenant_id, ["example.org"], lab=False, floor=Tls.MAY)

An MTA-STS policy is not fetched here: whoever may ask could have us call on any host. It counts as far as the account's
own mail has brought it (deliveries/read/encryption.py). What has no answer within LOOK_S is told as not known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn
from uuid import UUID

from django.conf import settings

from deliveries.errors import FetchFailed
from deliveries.read import encryption
from deliveries.read.encryption import Spoken
from deliveries.routers import router
from deliveries.routing.mta_sts import MemoryStore, Stored, record_id
from deliveries.routing.resolver import Answer, NoData, Resolver, Result, Trouble
from deliveries.routing.route import Routed, Unroutable, at_least
from deliveries.routing.static import SANDBOX_SITE
from deliveries.smtp.hop import Hop, Tls

#: for all domains together
LOOK_S = 8.0
#: for one question
_ASK_S = 3.0
#: hosts of one domain that are shown
_MOST_HOSTS = 5

NOT_KNOWN = "not_known"

_TLS_WORDS = {
    Tls.NONE: "none", Tls.MAY: "where it is offered, unverified", Tls.MUST: "required",
    Tls.VERIFY: "required and verified (MTA-STS, or by the domain's wish)", Tls.DANE: "required and verified (DANE)",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MtaSts:
    """`mode`: enforce, testing, none, published (there is a policy, which comes with the first mail) or not_known."""

    mode: str = NOT_KNOWN
    covers: bool | None = None  #: every MX host is one that the policy names


@dataclass(frozen=True, slots=True)
class Way:
    """Where the mail of one recipient domain would go; `hosts` is empty where there is no way, for the `reason`."""

    domain: str
    site: str = ""
    hosts: tuple[str, ...] = ()
    tls: str = ""
    reason: str = ""
    mx: str = NOT_KNOWN  #: found, implicit (RFC 5321 §5.1), null (RFC 7505), none, fixed (a route of ours)
    mta_sts: MtaSts = field(default_factory=MtaSts)
    dane: str = NOT_KNOWN  #: all, some or none of the hosts
    last_tls: Spoken | None = None


@dataclass(frozen=True, slots=True)
class Looked:
    """What came back for one domain; `routed` is None where DNS gave no answer in time."""

    routed: Routed | Unroutable | None = None
    mx: Result | None = None
    sts: Result | None = None


def look(
    tenant_id: UUID, names: Sequence[str], lab: bool, floor: Tls
) -> tuple[tuple[Way, ...], dict[str, Routed | Unroutable | None]]:
    """A Way for each name, and what the router said."""
    kept = encryption.policies(tenant_id, names) if names else {}
    found, validates = asyncio.run(_look(names, lab, kept))
    hosts = {name: _hosts(at_least(floor, at.routed)) for name, at in found.items() if isinstance(at.routed, Routed)}
    every = sorted({host for of in hosts.values() for host in of})
    spoken = encryption.spoken(tenant_id, names, every) if every else {}
    ways = []
    for name, at in found.items():
        last = [spoken[host] for host in hosts.get(name, ()) if host in spoken]
        ways.append(_way(name, at, floor, validates, kept.get(name), max(last, key=lambda s: s.at, default=None)))
    return tuple(ways), {name: at.routed for name, at in found.items()}


async def _look(names: Sequence[str], lab: bool, kept: dict[str, Stored]) -> tuple[dict[str, Looked], bool]:
    resolver = Resolver(settings.DNS_NAMESERVERS or None, trust_ad=settings.DNS_TRUST_AD, timeout_s=_ASK_S)
    store = MemoryStore()
    for name, stored in kept.items():
        await store.put(name, stored)
    routes = router(resolver, store, get=_not_now)

    async def one(name: str) -> Looked:
        routed = await routes.route(name, lab)
        if _fixed(routed):
            return Looked(routed)
        # asked a moment ago: these come from the resolver's memory
        return Looked(routed, *await asyncio.gather(resolver.mx(name), resolver.txt(f"_mta-sts.{name}")))

    tasks = {name: asyncio.ensure_future(one(name)) for name in names}
    if tasks:
        await asyncio.wait(tasks.values(), timeout=LOOK_S)
    for task in tasks.values():
        task.cancel()
    done = {name: t.result() if t.done() and not t.cancelled() else Looked() for name, t in tasks.items()}
    return done, resolver.validates


async def _not_now(*_: Any, **__: Any) -> NoReturn:
    raise FetchFailed("not fetched for a question")


def _way(name: str, at: Looked, floor: Tls, validates: bool, kept: Stored | None, last: Spoken | None) -> Way:
    if at.routed is None:
        return Way(name, reason=f"DNS gave no answer within {LOOK_S:.0f} s.")
    mx = "fixed" if _fixed(at.routed) else _mx(at.mx)
    sts = MtaSts() if mx == "fixed" else _mta_sts(at, kept)
    if isinstance(at.routed, Unroutable):
        return Way(name, reason=at.routed.text, mx=mx, mta_sts=sts)
    hops = at_least(floor, at.routed)
    return Way(
        name, at.routed.site, _hosts(hops)[:_MOST_HOSTS], _TLS_WORDS[hops[0].tls], mx=mx, mta_sts=sts,
        dane=_dane(hops) if validates and mx != "fixed" else NOT_KNOWN, last_tls=last,
    )  # fmt: skip


def _hosts(hops: Sequence[Hop]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(hop.host for hop in hops))


def _fixed(routed: Routed | Unroutable) -> bool:
    if isinstance(routed, Unroutable):
        return False
    return routed.site == SANDBOX_SITE or (routed.static is not None and bool(routed.static.hosts))


def _mx(answer: Result | None) -> str:
    match answer:
        case Answer(records):
            return "found" if any(host for _, host in records) else "null"
        case NoData():
            return "implicit"
        case None | Trouble():
            return NOT_KNOWN
    return "none"


def _mta_sts(at: Looked, kept: Stored | None) -> MtaSts:
    """A policy that is kept binds whatever DNS says (RFC 8461 §3.1)."""
    if kept is not None:
        covers = None
        if isinstance(at.mx, Answer):
            covers = all(kept.policy.allows(host) for _, host in at.mx.records if host)
        return MtaSts(kept.policy.mode.value, covers)
    if at.sts is None or isinstance(at.sts, Trouble):
        return MtaSts()
    return MtaSts("published" if isinstance(at.sts, Answer) and record_id(at.sts.records) else "none")


def _dane(hops: Sequence[Hop]) -> str:
    bound = {hop.host for hop in hops if hop.tlsa}
    return "all" if len(bound) == len(_hosts(hops)) else "some" if bound else "none"
