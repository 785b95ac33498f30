"""What receivers look at before they look at a mail: our addresses and names, and what a domain publishes.

    of_address     FCrDNS (RFC 1912 §2.1), the HELO name (RFC 5321 §4.1.4), block lists
    port_25        whether the way out is open: a connection to one MX, its greeting, QUIT
    of_bounces     whether what comes back finds us: the MX of the reverse-paths' domain
    of_domain      SPF and its look-ups (RFC 7208 §4.6.4), MTA-STS (RFC 8461), TLS reports (RFC 8460), DMARC (RFC 7489):
                   what it asks of receivers, and whether our signature and return path align with it

Each answers with a list of Check; none raises for what DNS or a host does. What nobody answered is a warning.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from deliveries.routing import dmarc, mta_sts, tls_rpt
from deliveries.routing.rdns import fcrdns
from deliveries.routing.resolver import Answer, NoData, NxDomain, Resolver, Result, Trouble
from deliveries.smtp.reply import clean

#: RFC 7208 §4.6.4: terms that cost a look-up, all together
SPF_LOOKUPS = 10
_COSTLY = ("include:", "a", "mx", "ptr", "exists:", "redirect=")
PORT_S = 10.0
#: RFC 5782 §2.1: what says "listed"; and within it what some lists answer to those who may not ask
_LISTED = ipaddress.ip_network("127.0.0.0/8")
_REFUSALS = ipaddress.ip_network("127.255.255.0/24")


class Tone(StrEnum):
    GOOD = "good"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Check:
    """`found` is what stands there, from outside; `advice` what to do, empty where all is well."""

    subject: str
    name: str
    tone: Tone
    found: str
    advice: str = ""


async def of_address(resolver: Resolver, address: str, helo: str, lists: Sequence[str]) -> list[Check]:
    """One of our source addresses."""
    named, greeted, *listed = await asyncio.gather(
        _named(resolver, address), _greeted(resolver, address, helo), *(_listed(resolver, address, z) for z in lists)
    )
    return [named, greeted, *listed]


async def _named(resolver: Resolver, address: str) -> Check:
    found = await fcrdns(resolver, address)
    if found.names:
        return Check(address, "FCrDNS", Tone.GOOD, found.text)
    tone = Tone.MISSING if found.certain else Tone.WARNING
    return Check(
        address, "FCrDNS", tone, found.text, "Have your provider set the PTR to HELO_NAME, and point that here."
    )


async def _greeted(resolver: Resolver, address: str, helo: str) -> Check:
    ip = ipaddress.ip_address(address)
    result = await (resolver.a if ip.version == 4 else resolver.aaaa)(helo)
    if isinstance(result, Answer) and str(ip) in {str(ipaddress.ip_address(a)) for a in result.records}:
        return Check(address, "HELO name", Tone.GOOD, f"{helo} is {address}.")
    kind = "A" if ip.version == 4 else "AAAA"
    return Check(address, "HELO name", _lack(result), f"{helo}: {_words(result)}",
                 f"Publish {helo} {kind} {address}; receivers compare our EHLO with it.")  # fmt: skip


async def _listed(resolver: Resolver, address: str, zone: str) -> Check:
    reverse = ipaddress.ip_address(address).reverse_pointer.rsplit(".", 2)[0]
    result = await resolver.a(f"{reverse}.{zone}")
    if isinstance(result, NxDomain | NoData):
        return Check(address, zone, Tone.GOOD, "not listed")
    if isinstance(result, Answer):
        said, codes = _words(result), [ipaddress.ip_address(a) for a in result.records]
        if any(code in _REFUSALS or code not in _LISTED for code in codes):
            return Check(address, zone, Tone.WARNING, f"{said}: no word about the address, but about who asks",
                         "Ask by a nameserver of your own; lists turn public ones away.")  # fmt: skip
        return Check(
            address, zone, Tone.MISSING, f"listed: {said}", f"See at {zone} why, mend it, ask to be taken off."
        )
    return Check(address, zone, Tone.WARNING, _words(result), "Ask again.")


async def port_25(resolver: Resolver, domain: str, port: int, source: str = "", private: bool = False) -> Check:
    """Whether an MX of `domain` greets us, from the address `source` where one is given."""
    subject = source or "this host"
    result = await resolver.mx(domain)
    if not isinstance(result, Answer) or not result.records:
        return Check(subject, f"port {port}", Tone.WARNING, f"{domain}: {_words(result)}", "Name another domain.")
    host = str(min(result.records)[1]).rstrip(".")
    addresses = await (resolver.aaaa if ":" in source else resolver.a)(host)
    if not isinstance(addresses, Answer):
        return Check(subject, f"port {port}", Tone.WARNING, f"{host}: {_words(addresses)}", "Name another domain.")
    target = addresses.records[0]
    if not private and not ipaddress.ip_address(target).is_global:
        return Check(subject, f"port {port}", Tone.WARNING, f"{host} is {target}, no public address.")
    try:
        greeting = await asyncio.wait_for(_greeting(target, port, source), PORT_S)
    except (OSError, TimeoutError) as e:
        why = "no answer" if isinstance(e, TimeoutError) else clean(str(e))
        return Check(subject, f"port {port}", Tone.MISSING, f"{host} [{target}]: {why}",
                     "Many hosts close it: ask yours to open it, or send by a smarthost (MAIL_ROUTES).")  # fmt: skip
    tone = Tone.GOOD if greeting.startswith("2") else Tone.WARNING
    return Check(subject, f"port {port}", tone, f"{host} [{target}]: {greeting}")


async def _greeting(target: str, port: int, source: str) -> str:
    local = (source, 0) if source else None
    reader, writer = await asyncio.open_connection(target, port, local_addr=local, limit=4096)
    try:
        line = await reader.readline()
        writer.write(b"QUIT\r\n")
        with contextlib.suppress(OSError):
            await writer.drain()
        return clean(line[:300].decode("utf-8", "replace")).strip()
    except ValueError:  # a line without an end
        return "a line without an end"
    finally:
        writer.close()


async def of_bounces(resolver: Resolver, domain: str, mx_name: str) -> list[Check]:
    """The domain of our reverse-paths: its MX is our smtpd, or somebody whose mailbox is polled."""
    result = await resolver.mx(domain)
    advice = f"Publish {domain} MX 10 {mx_name}."
    if not isinstance(result, Answer):
        return [Check(domain, "MX", _lack(result), _words(result), advice)]
    names = [str(name) for _, name in result.records]
    if mx_name.lower() in names:
        return [Check(domain, "MX", Tone.GOOD, ", ".join(names))]
    return [Check(domain, "MX", Tone.WARNING, ", ".join(names), f"{advice} Fine where its mailbox is polled instead.")]


@dataclass(frozen=True, slots=True)
class Sent:
    """How mail of a domain leaves here. `d` is the domain of its signature, empty where no key of it was seen in DNS;
    `return_path` the domain of its reverse-path."""

    d: str
    return_path: str


async def of_domain(resolver: Resolver, domain: str, sent: Sent | None = None) -> list[Check]:
    """What a domain publishes for its mail; of one of ours (`sent`) also what DMARC makes of that mail."""
    spf, policy, sts, tls = await asyncio.gather(
        _spf(resolver, domain),
        dmarc.find(resolver, domain),
        _published(resolver, domain, "MTA-STS", f"_mta-sts.{domain}", mta_sts.parse_record, "v=STSv1; id=…"),
        _published(
            resolver, domain, "TLS reports", f"_smtp._tls.{domain}", tls_rpt.parse_record, "v=TLSRPTv1; rua=mailto:…"
        ),
    )
    if sent is None:
        return [spf, _policy(domain, policy), sts, tls]
    # what receivers look up is the SPF of the reverse-path; the domain's own is for mail that others send
    own = [await _spf(resolver, sent.return_path, "SPF of the return path")] if sent.return_path != domain else []
    return [*own, spf, _policy(domain, policy), *_alignment(domain, policy, sent), sts, tls]


_ASKS = {
    "none": "receivers are asked to treat mail that fails as any other",
    "quarantine": "receivers are asked to put mail that fails among the spam",
    "reject": "receivers are asked to refuse mail that fails",
}


def _policy(domain: str, found: dmarc.Policy | Result | int) -> Check:
    if isinstance(found, int):
        return Check(
            domain, "DMARC", Tone.MISSING, f"{found} records at _dmarc.{domain}", "Leave one: two count as none."
        )
    if not isinstance(found, dmarc.Policy):
        return Check(domain, "DMARC", _lack(found), _words(found),
                     f'Publish _dmarc.{domain} TXT "v=DMARC1; p=none; rua=mailto:…".')  # fmt: skip
    where = "" if found.at == domain else f" (of {found.at})"
    part = "" if found.percent == 100 else f", for {found.percent} % of it"
    text = f"{clean(found.text)[:300]}{where}: {_ASKS[found.asks]}{part}"
    if found.asks == "none" and not found.reports:
        return Check(domain, "DMARC", Tone.WARNING, text, "It asks for nothing and tells nobody: add rua=mailto:….")
    return Check(domain, "DMARC", Tone.GOOD, text)


def _alignment(domain: str, found: dmarc.Policy | Result | int, sent: Sent) -> list[Check]:
    """RFC 7489 §3.1 for a mail with `domain` in From; without a policy as with one that says nothing about it."""
    policy = found if isinstance(found, dmarc.Policy) else dmarc.parse("", domain)
    signed = dmarc.aligned(sent.d, domain, policy.dkim_strict)
    returned = dmarc.aligned(sent.return_path, domain, policy.spf_strict)
    ways = {True: "strict", False: "relaxed"}
    dkim = Check(domain, "DKIM alignment", Tone.GOOD if signed else Tone.MISSING,
                 f"d={sent.d or 'nobody'}, {ways[policy.dkim_strict]}: {'aligned' if signed else 'not aligned'}",
                 "" if signed else "Publish the DKIM record of the domain and check it.")  # fmt: skip
    if returned:
        advice = ""
    elif policy.spf_strict and dmarc.aligned(sent.return_path, domain, strict=False):
        advice = "aspf=s wants the very domain of From: leave it out, or DMARC rests on the signature alone."
    else:
        advice = "Publish MX and SPF of the domain's return path: until then DMARC rests on the signature alone."
    spf = Check(domain, "SPF alignment", Tone.GOOD if returned else Tone.WARNING,
                f"return path {sent.return_path}, {ways[policy.spf_strict]}: "
                f"{'aligned' if returned else 'not aligned'}", advice)  # fmt: skip
    if signed or returned:
        by = " and ".join(["DKIM"] * signed + ["SPF"] * returned)
        return [dkim, spf, Check(domain, "DMARC verdict", Tone.GOOD, f"Mail from here passes, by {by}.")]
    tone = Tone.WARNING if policy.asks == "none" else Tone.MISSING
    return [dkim, spf, Check(domain, "DMARC verdict", tone, f"Mail from here fails: {_ASKS[policy.asks]}.",
                             "Gmail and others want DMARC to pass in any case. Mend one of the two.")]  # fmt: skip


async def _published(
    resolver: Resolver, domain: str, name: str, at: str, read: Callable[[str], object], example: str
) -> Check:
    """A record that mail goes without; senders pass over one that `read` finds malformed (None)."""
    result = await resolver.txt(at)
    begins = example.partition(";")[0]
    found = [t for t in result.records if str(t).startswith(begins)] if isinstance(result, Answer) else []
    if len(found) == 1 and read(str(found[0])) is None:
        return Check(domain, name, Tone.MISSING, f"malformed: {clean(str(found[0]))[:300]}",
                     f'Publish {at} TXT "{example}".')  # fmt: skip
    if len(found) == 1:
        return Check(domain, name, Tone.GOOD, clean(str(found[0]))[:300])
    if len(found) > 1:
        return Check(domain, name, Tone.MISSING, f"{len(found)} records at {at}", "Leave one: two count as none.")
    return Check(domain, name, Tone.WARNING, _words(result),
                 f'Publish {at} TXT "{example}", for the mail that you receive.')  # fmt: skip


async def _spf(resolver: Resolver, domain: str, name: str = "SPF") -> Check:
    """The record, and how many look-ups a receiver needs for it; more than ten is a permanent error."""
    result = await resolver.txt(domain)
    found = [str(t) for t in result.records if _is_spf(str(t))] if isinstance(result, Answer) else []
    if len(found) != 1:
        said = f"{len(found)} records" if found else _words(result)
        return Check(domain, name, _lack(result), said, "Publish one TXT record that begins with v=spf1.")
    cost = await _cost(resolver, found[0])
    text = f"{clean(found[0])[:300]} ({cost}{'+' if cost > SPF_LOOKUPS else ''} of {SPF_LOOKUPS} look-ups)"
    if cost > SPF_LOOKUPS:
        return Check(domain, name, Tone.MISSING, text, f"Receivers stop at {SPF_LOOKUPS}: leave out includes.")
    return Check(domain, name, Tone.GOOD if cost < SPF_LOOKUPS - 1 else Tone.WARNING, text)


async def _cost(resolver: Resolver, record: str) -> int:
    """Counted term by term, and through includes and redirects, until it is too many; nothing recurses."""
    cost, waiting, seen = 0, [record], set[str]()
    while waiting and cost <= SPF_LOOKUPS:
        for term in waiting.pop().lower().split()[1:]:
            bare = term.lstrip("+-~?")
            if not any(bare == c or bare.startswith((c if c[-1] in ":=" else c + ":", c + "/")) for c in _COSTLY):
                continue
            cost += 1
            if bare.startswith(("include:", "redirect=")):
                name = bare.partition(":" if ":" in bare else "=")[2]
                if name in seen or len(seen) > SPF_LOOKUPS:
                    continue
                seen.add(name)
                result = await resolver.txt(name)
                if isinstance(result, Answer):
                    waiting += [str(t) for t in result.records if _is_spf(str(t))][:1]
    return cost


def _is_spf(text: str) -> bool:
    return text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")


def _lack(result: Result) -> Tone:
    """A nameserver that fails says nothing about the record."""
    return Tone.WARNING if isinstance(result, Trouble) else Tone.MISSING


def _words(result: Result) -> str:
    if isinstance(result, Answer):
        return ", ".join(clean(str(r))[:100] for r in result.records[:5]) or "nothing of the kind"
    return result.text if isinstance(result, Trouble) else "nothing is published"
