"""Forward-confirmed reverse DNS of our own source addresses: receivers refuse mail from one without it.

`fcrdns` is asked for each source address; IPv6 is used only when it holds (`Router(ipv6_ok=…)`).
"""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass

from deliveries.routing.resolver import Answer, Resolver, Trouble

#: PTR names that are followed back; more than a few is a misconfiguration
MAX_NAMES = 5


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The names of an address that lead back to it; empty = not confirmed, `text` says why, for a person."""

    names: tuple[str, ...]
    text: str
    certain: bool = True  #: DNS gave an answer; False = ask again


async def fcrdns(resolver: Resolver, address: str) -> Confirmed:
    """Whether `address` has a PTR whose name has that address (RFC 1912 §2.1)."""
    ip = ipaddress.ip_address(address)
    ptr = await resolver.ptr(str(ip))
    if isinstance(ptr, Trouble):
        return Confirmed((), f"DNS gives no answer about the PTR of {ip}: {ptr.text}.", certain=False)
    if not isinstance(ptr, Answer):
        return Confirmed((), f"{ip} has no PTR record.")
    names = ptr.records[:MAX_NAMES]
    look_up = resolver.a if ip.version == 4 else resolver.aaaa
    results = await asyncio.gather(*(look_up(name) for name in names))
    good = tuple(
        name
        for name, result in zip(names, results, strict=True)
        if isinstance(result, Answer) and str(ip) in {str(ipaddress.ip_address(a)) for a in result.records}
    )
    if good:
        return Confirmed(good, f"{ip} is {good[0]}, and {good[0]} is {ip}.")
    certain = not any(isinstance(result, Trouble) for result in results)
    return Confirmed((), f"The PTR of {ip} is {', '.join(names)}, which has another address.", certain)
