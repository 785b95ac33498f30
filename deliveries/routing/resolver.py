"""DNS look-ups as values: typed answers, a cache that honours TTLs, one question on the wire at a time.

    resolver = Resolver((("192.0.2.53", 53),), trust_ad=False)
    match await resolver.mx("example.org"):
        case Answer(records): each (preference, host)
        case NoData() | NxDomain(): DNS said no, with authority
        case Trouble(text): nobody could say; try later

It asks recursive nameservers (RFC 1034 §5.3.1: a stub), over UDP and, after truncation, TCP (RFC 7766). Negative
answers are kept as RFC 2308 asks. It never raises for trouble of the network, and what it returns as a "no" is one
that a server was entitled to say: a lame server's empty answer is Trouble, so that no mail bounces for it.
Left out: DNSSEC validation (`secure` repeats the AD bit of a nameserver that the operator trusts, RFC 6840 §5.8).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dns.asyncquery
import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.reversename

log = logging.getLogger(__name__)

#: RFC 9715 / DNS flag day 2020: replies of this many octets pass every path unfragmented
UDP_PAYLOAD_OCTETS = 1232
#: longest that an answer is believed, whatever its TTL says
MAX_TTL_S = 86_400.0
#: RFC 2308 §5 lets us cap; a domain that was mended is seen within a quarter of an hour
MAX_NEGATIVE_TTL_S = 900.0
#: a TTL of 0 would put one question on the wire for each mail of a burst
MIN_TTL_S = 5.0
#: RFC 2308 §7.1 allows up to 5 minutes; a burst of mails to a dead zone asks once per this time
TROUBLE_TTL_S = 5.0
#: longest chain of CNAMEs that is followed; sane ones have one or two
MAX_CNAMES = 8
#: questions on the wire at once, each with a socket of its own: a burst of domains must not eat all descriptors
MAX_ASKING = 256
#: rounds over the nameservers before a question is given up
ROUNDS = 2
#: a UDP question unanswered for this long is lost: ask the next nameserver
TRY_S = 2.0

_SILENCE = "the nameserver does not answer"
_NO_EDNS = frozenset({dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS})


@dataclass(frozen=True, slots=True)
class Answer:
    """What stands in DNS; `records` is never empty. `name` is the owner after CNAMEs, lower case, no final dot.

    One record is: MX (preference, host), A and AAAA a literal, TXT its strings joined, TLSA (usage, selector,
    matching type, data), CNAME, NS and PTR a name. Names are lower-case A-labels; the root is "".
    """

    records: tuple[Any, ...]
    ttl_s: float
    secure: bool = False  #: a trusted nameserver validated it (AD)
    name: str = ""


@dataclass(frozen=True, slots=True)
class NoData:
    """The name exists and has no record of that type (RFC 2308 §2.2)."""

    ttl_s: float = 0.0
    secure: bool = False


@dataclass(frozen=True, slots=True)
class NxDomain:
    """The name does not exist (RFC 2308 §2.1)."""

    ttl_s: float = 0.0
    secure: bool = False


@dataclass(frozen=True, slots=True)
class Trouble:
    """No usable answer: SERVFAIL, silence, a lame server, a CNAME loop. Says nothing about the domain."""

    text: str


Result = Answer | NoData | NxDomain | Trouble


@dataclass(frozen=True, slots=True)
class _Onward:
    """The nameserver gave a CNAME and left the rest to us."""

    target: dns.name.Name
    ttl_s: float
    secure: bool


class Resolver:
    """A caching stub resolver of one event loop.

    `nameservers` are (IP literal, port) or `ip`, `ip:port`, `[ip6]:port`, in order of preference; None takes the
    system's; ValueError where one is no address. `timeout_s` bounds one
    question, all tries together. `cache_size` counts questions; the least recently used go first.
    """

    def __init__(
        self,
        nameservers: Sequence[tuple[str, int] | str] | None = None,
        trust_ad: bool = False,
        timeout_s: float = 10.0,
        cache_size: int = 20_000,
        clock: Callable[[], float] = time.monotonic,
        trouble_ttl_s: float = TROUBLE_TTL_S,
    ) -> None:
        self._nameservers = tuple(map(_nameserver, nameservers)) if nameservers is not None else _system()
        self._trust_ad = trust_ad
        self._timeout_s = timeout_s
        self._cache_size = cache_size
        self._clock = clock
        self._trouble_ttl_s = trouble_ttl_s
        self._cache: OrderedDict[tuple[str, str], tuple[float, Result]] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Task[Result]] = {}
        self._places = asyncio.Semaphore(MAX_ASKING)
        self._first = 0  # the nameserver that answered last

    @property
    def validates(self) -> bool:
        """Whether `secure` may ever be true: the ground for DANE (RFC 7672 §2.2)."""
        return self._trust_ad

    async def mx(self, name: str) -> Result:
        return await self.lookup(name, "MX")

    async def a(self, name: str) -> Result:
        return await self.lookup(name, "A")

    async def aaaa(self, name: str) -> Result:
        return await self.lookup(name, "AAAA")

    async def txt(self, name: str) -> Result:
        return await self.lookup(name, "TXT")

    async def tlsa(self, name: str) -> Result:
        return await self.lookup(name, "TLSA")

    async def cname(self, name: str) -> Result:
        return await self.lookup(name, "CNAME")

    async def ptr(self, address: str) -> Result:
        """The names of an IP literal (`in-addr.arpa`, `ip6.arpa`)."""
        return await self.lookup(dns.reversename.from_address(address).to_text(), "PTR")

    async def lookup(self, name: str, rdtype: str) -> Result:
        """The answer to one question, from the cache or the network. A name that DNS cannot carry is NxDomain."""
        key = (name.lower().rstrip("."), rdtype)
        kept = self._kept(key)
        if kept is not None:
            return kept
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask_and_keep(key))
        # shielded: one caller's cancellation must not fail the others that wait for the same question
        return await asyncio.shield(task)

    def forget(self, name: str) -> None:
        """Drop what is cached about `name`: a person says that its zone was mended."""
        for key in [k for k in self._cache if k[0] == name.lower().rstrip(".")]:
            del self._cache[key]

    def _kept(self, key: tuple[str, str]) -> Result | None:
        entry = self._cache.get(key)
        if entry is None:
            return None
        until, result = entry
        left = until - self._clock()
        if left <= 0:
            del self._cache[key]
            return None
        self._cache.move_to_end(key)
        match result:  # not replace(): this is the one line of the module that runs for every mail
            case Answer(records, _, secure, name):
                return Answer(records, left, secure, name)
            case NoData() | NxDomain():
                return type(result)(left, result.secure)
            case _:
                return result

    async def _ask_and_keep(self, key: tuple[str, str]) -> Result:
        try:
            async with self._places:
                result = await self._resolve(*key)
        finally:
            del self._asking[key]
        ttl = self._trouble_ttl_s if isinstance(result, Trouble) else result.ttl_s
        if ttl > 0:
            self._cache[key] = (self._clock() + ttl, result)
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return result

    async def _resolve(self, text: str, rdtype: str) -> Result:
        try:
            name = dns.name.from_text(text)
        except (dns.exception.DNSException, UnicodeError):
            return NxDomain()  # an empty or overlong label: no zone can hold it (RFC 1035 §2.3.4)
        wanted = dns.rdatatype.from_text(rdtype)
        seen: list[dns.name.Name] = []
        ttl, secure = MAX_TTL_S, True
        deadline = self._clock() + self._timeout_s
        while True:
            if name in seen or len(seen) > MAX_CNAMES:
                return Trouble(f"{text}: CNAMEs go in a circle or on for more than {MAX_CNAMES} steps")
            seen.append(name)
            found = await self._question(name, wanted, deadline)
            if isinstance(found, Trouble):
                return found
            # a chain is as short-lived and as secure as its weakest link
            ttl, secure = min(ttl, found.ttl_s), secure and found.secure
            if not isinstance(found, _Onward):
                return replace(found, ttl_s=ttl, secure=secure)
            name = found.target

    async def _question(
        self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, deadline: float
    ) -> Result | _Onward:
        """One question to the nameservers in turn; the first usable answer counts."""
        if not self._nameservers:
            return Trouble("no nameserver is configured")
        said = ""
        for turn in range(ROUNDS * len(self._nameservers)):
            left = deadline - self._clock()
            if left <= 0:
                break
            which = (self._first + turn) % len(self._nameservers)
            address, port = self._nameservers[which]
            try:
                response = await self._exchange(name, rdtype, address, port, min(TRY_S, left), left)
            except dns.exception.Timeout:
                said = _SILENCE
                continue
            except (dns.exception.DNSException, OSError, EOFError) as e:
                said = _words(e)
                log.debug("%s:%s: %r", address, port, e)
                continue
            result = _read(response, name, rdtype, self._trust_ad)
            if not isinstance(result, Trouble):
                self._first = which
                return result
            said = result.text
            log.debug("%s:%s: %s %s: %s", address, port, _text(name), dns.rdatatype.to_text(rdtype), said)
        asked = f"{_text(name)} {dns.rdatatype.to_text(rdtype)}"
        return Trouble(f"{asked}: {said or f'no answer within {self._timeout_s:g} s'}")

    async def _exchange(
        self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, address: str, port: int, try_s: float, left: float
    ) -> dns.message.Message:
        flags = dns.flags.RD | (dns.flags.AD if self._trust_ad else 0)  # RFC 6840 §5.7: "tell me AD"
        query = dns.message.make_query(name, rdtype, use_edns=0, payload=UDP_PAYLOAD_OCTETS, flags=flags)
        # A new socket, and so a new source port, for each question: answers cannot be guessed (RFC 5452 §9.2).
        async with asyncio.timeout(left):
            response = await _udp_then_tcp(query, address, port, try_s)
            if response.rcode() in _NO_EDNS:  # RFC 6891 §7: an old server; ask in the old way
                plain = dns.message.make_query(name, rdtype, flags=flags)
                response = await _udp_then_tcp(plain, address, port, try_s)
        return response


async def _udp_then_tcp(query: dns.message.Message, address: str, port: int, try_s: float) -> dns.message.Message:
    try:
        return await dns.asyncquery.udp(
            query, address, try_s, port, ignore_unexpected=True, raise_on_truncation=True, ignore_errors=True
        )
    except dns.message.Truncated:
        return await dns.asyncquery.tcp(query, address, 2 * try_s, port)


def _nameserver(given: tuple[str, int] | str) -> tuple[str, int]:
    if isinstance(given, tuple):
        return given
    host, _, port = given.rpartition(":") if given.count(":") == 1 or "]:" in given else (given, "", "53")
    try:
        return str(ipaddress.ip_address(host.strip("[]"))), int(port)
    except ValueError:
        raise ValueError(f"{given!r} is no nameserver: ip, ip:port or [ip6]:port") from None


def _system() -> tuple[tuple[str, int], ...]:
    try:
        system = dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        return ()
    return tuple((str(address), system.port) for address in system.nameservers)


def _read(
    response: dns.message.Message, asked: dns.name.Name, rdtype: dns.rdatatype.RdataType, trust_ad: bool
) -> Result | _Onward:
    """What one response says about the question; Trouble where it says nothing."""
    rcode = response.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return Trouble(dns.rcode.to_text(rcode) + _extended(response))
    secure = trust_ad and bool(response.flags & dns.flags.AD)
    sets = {(rrset.name, rrset.rdtype): rrset for rrset in response.answer}
    name, ttl = asked, MAX_TTL_S
    seen = {asked}
    while (name, rdtype) not in sets and (alias := sets.get((name, dns.rdatatype.CNAME))) is not None:
        name, ttl = alias[0].target, min(ttl, alias.ttl)
        if name in seen:
            return Trouble("CNAMEs go in a circle")
        seen.add(name)
    ttl = max(ttl, MIN_TTL_S)
    found = sets.get((name, rdtype))
    if found is not None:
        return Answer(tuple(map(_record, found)), max(min(ttl, found.ttl), MIN_TTL_S), secure, _text(name))

    soa = next((rrset for rrset in response.authority if rrset.rdtype == dns.rdatatype.SOA), None)
    entitled = soa is not None or response.flags & (dns.flags.AA | dns.flags.RA)
    referral = soa is None and any(rrset.rdtype == dns.rdatatype.NS for rrset in response.authority)
    if not entitled or (referral and not response.flags & dns.flags.AA):
        # neither an authority nor a recursive server, or one that points elsewhere: it does not know
        return Trouble("lame: an empty answer from a server without authority")
    if rcode == dns.rcode.NOERROR and name != asked and soa is None:
        return _Onward(name, ttl, secure)
    # RFC 2308 §5: the lesser of the SOA's TTL and its MINIMUM; without an SOA only for the burst at hand
    kept = min(ttl, soa.ttl, soa[0].minimum, MAX_NEGATIVE_TTL_S) if soa is not None else MIN_TTL_S
    return (NxDomain if rcode == dns.rcode.NXDOMAIN else NoData)(max(kept, MIN_TTL_S), secure)


def _extended(response: dns.message.Message) -> str:
    """RFC 8914: why it failed, in the nameserver's words (`DNSSEC bogus`); empty when it gives none."""
    texts = [e.text or dns.edns.EDECode.to_text(e.code) for e in response.extended_errors()]
    return f" ({'; '.join(texts)})" if texts else ""


def _record(rdata: Any) -> Any:
    match rdata.rdtype:
        case dns.rdatatype.MX:
            return rdata.preference, _text(rdata.exchange)
        case dns.rdatatype.A | dns.rdatatype.AAAA:
            return rdata.address
        case dns.rdatatype.TXT:
            return b"".join(rdata.strings).decode("utf-8", "replace")
        case dns.rdatatype.TLSA:
            return rdata.usage, rdata.selector, rdata.mtype, rdata.cert
        case _:
            return _text(rdata.target)


def _words(error: Exception) -> str:
    """Which nameservers this installation asks is no tenant's affair: the libraries' words may name them."""
    if isinstance(error, OSError) and error.errno:
        return f"the nameserver cannot be asked ({os.strerror(error.errno)})"
    return f"the nameserver's answer makes no sense ({type(error).__name__})"


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower() if name != dns.name.root else ""


async def addresses(resolver: Resolver, host: str, port: int) -> list[str]:
    """All of `host`, as `deliveries.fetch` asks for them; OSError where there are none."""
    results = await asyncio.gather(resolver.a(host), resolver.aaaa(host))
    found = [str(a) for r in results if isinstance(r, Answer) for a in r.records]
    if not found:
        raise OSError(next((r.text for r in results if isinstance(r, Trouble)), "it has no address in DNS"))
    return found
