"""MX answers → the hosts and addresses to try, in order (RFC 5321 §5.1, RFC 7505). Pure: answers in, values out.

hosts(domain, answer)     which hosts, ordered by preference, equal ones shuffled
addresses(...)            which addresses of one host may be tried, IPv6 and IPv4 interleaved
spread(...)               the few that one round tries, so that two hosts have their turn
"""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest

from publicsuffixlist import PublicSuffixList

from deliveries.fetch import not_public
from deliveries.routing import unroutable
from deliveries.routing.resolver import Answer, NoData, NxDomain, Result, Trouble
from deliveries.routing.unroutable import Unroutable

#: RFC 5321 §5.1 asks for at least two; more would let one dead domain hold a worker for its connect timeouts
MAX_ADDRESSES = 5
#: of the first host, where there is a second: both have their turn
MAX_ADDRESSES_OF_A_HOST = 3
#: hosts whose addresses are looked up; a domain with 60 MX does not cost 120 questions
MAX_HOSTS = 10

_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\Z")


@dataclass(frozen=True, slots=True)
class Hosts:
    """MX hosts to look up, best first; never empty."""

    names: tuple[tuple[int, str], ...]  #: (preference, host)
    site: str  #: registrable domain of the best host; the same for every shuffle
    implicit: bool  #: no MX: the domain itself (RFC 5321 §5.1)
    secure: bool  #: the MX answer was validated by DNSSEC
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Found:
    """Addresses of one host. Empty `usable` with nothing else set: the host has no address, with authority."""

    usable: tuple[str, ...] = ()
    ttl_s: float = 0.0
    secure: bool = False  #: all answers used were validated
    name: str = ""  #: the host's name after CNAMEs
    own: bool = False  #: one of the addresses is ourselves
    private: str = ""  #: an address that was refused
    trouble: str = ""


def hosts(domain: str, answer: Result, rng: random.Random, own_names: frozenset[str]) -> Hosts | Unroutable | None:
    """The hosts that take mail for `domain`; None where the name does not exist, which wants a second question."""
    if isinstance(answer, Trouble):
        return unroutable.trouble(domain, answer.text)
    if isinstance(answer, NxDomain):
        return None
    if isinstance(answer, NoData):
        # RFC 5321 §5.1: an empty list is treated as one MX of preference 0 that points to the domain
        if domain in own_names:
            return unroutable.loop(domain)
        return Hosts(((0, domain),), site(domain), True, answer.secure, answer.ttl_s)
    # RFC 7505 §3: "." is no host; where it stands beside others, which it must not, the others are meant
    named = [(preference, host) for preference, host in answer.records if host]
    if not named:
        return unroutable.null_mx(domain)
    # RFC 5321 §5.1: drop ourselves and all that is no better, or the mail would go in circles
    own = min((preference for preference, host in named if host in own_names), default=1 << 16)
    left = [(preference, host) for preference, host in named if preference < own]
    if not left:
        return unroutable.loop(domain)
    # a host that is named twice is tried once, at its best preference
    best_of = {host: preference for preference, host in sorted(left, reverse=True) if is_host_name(host)}
    usable = [(preference, host) for host, preference in best_of.items()]
    if not usable:
        return unroutable.no_usable_mx(domain, certain=True)
    best = min(usable)[1]
    rng.shuffle(usable)  # RFC 5321 §5.1: equal preferences MUST be tried in random order
    usable.sort(key=lambda mx: mx[0])  # stable: the shuffle stays within a preference
    return Hosts(tuple(usable), site(best), False, answer.secure, answer.ttl_s)


def is_host_name(host: str) -> bool:
    """A host name; an address written as a name (`MX 10 192.0.2.1`) is none and no zone holds it."""
    return bool(_HOST.match(host)) and not host.rpartition(".")[2].isdigit()


def missing(domain: str, a: Result) -> Unroutable:
    """The MX question said NXDOMAIN; `a` is what the A question said. Only two equal answers are believed."""
    if isinstance(a, NxDomain):
        return unroutable.no_such_domain(domain)
    if isinstance(a, Trouble):
        return unroutable.trouble(domain, a.text)
    return unroutable.contradiction(domain)


def addresses(
    v6: Result | None,
    v4: Result,
    rng: random.Random,
    own: frozenset[str] = frozenset(),
    allow_private: bool = False,
) -> Found:
    """What of a host's AAAA and A answers may be connected to; `v6` is None where IPv6 is not used."""
    families: list[list[str]] = []
    answers: list[Answer] = []
    troubles: list[str] = []
    private, is_own = "", False
    for result in (v6, v4):
        if isinstance(result, Trouble):
            troubles.append(result.text)
        if not isinstance(result, Answer):
            continue
        answers.append(result)
        good = []
        for address in result.records:
            if _is_own(address, own, allow_private):
                is_own = True
            elif not allow_private and not_public(address):
                private = address
            else:
                good.append(address)
        rng.shuffle(good)
        families.append(good)
    # IPv6 first, and IPv4 at once after it: a broken tunnel costs one connect timeout
    usable = tuple(a for pair in zip_longest(*families) for a in pair if a)
    return Found(
        usable,
        min((a.ttl_s for a in answers), default=0.0),
        bool(answers) and all(a.secure for a in answers),
        answers[-1].name if answers else "",
        is_own,
        private,
        troubles[0] if troubles else "",
    )


def _is_own(address: str, own: frozenset[str], allow_private: bool) -> bool:
    # a lab (allow_private) has every part on loopback: that says nothing about who it is
    return address in own and not (allow_private and ipaddress.ip_address(address).is_loopback)


def spread(found: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[str, str]]:
    """(host, its addresses) in order → at most MAX_ADDRESSES pairs (host, address), of two hosts where there are two.

    The first host gives up to 3, so 3 + 2 with two hosts that have many; a lone host gives all 5.
    """
    share = MAX_ADDRESSES_OF_A_HOST if sum(1 for _, usable in found if usable) > 1 else MAX_ADDRESSES
    return [(host, address) for host, usable in found for address in usable[:share]][:MAX_ADDRESSES]


def enough(found: Iterable[Sequence[str]]) -> bool:
    """Whether the looked-up hosts fill a round already, so that no further question is asked."""
    return sum(min(len(usable), MAX_ADDRESSES_OF_A_HOST) for usable in found) >= MAX_ADDRESSES


@lru_cache(maxsize=20_000)  # 30 µs each, and asked for every hop of every mail
def site(host: str) -> str:
    """The registrable domain of a host (`gmail-smtp-in.l.google.com` → `google.com`); the host where it has none."""
    return _suffixes().privatesuffix(host) or host


def registrable(domain: str, invented: bool = True) -> str | None:
    """The part of a domain that somebody registered (`mail.shop.co.uk` → `shop.co.uk`); None for a public suffix.

    `invented`: a top level that the list does not know (`.test`) counts as one.
    """
    return _suffixes().privatesuffix(domain, accept_unknown=invented)


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    # the list ships with the package: no network. Private suffixes count: two customers of a cloud are two sites.
    return PublicSuffixList()
