"""DMARC as a receiver applies it to our mail (RFC 7489): whose policy holds, what it asks, and what of ours aligns.

    policy = await find(resolver, domain)       the record at the domain, else at its organizational domain (§6.6.3)
    aligned(name, domain, strict)               whether an authenticated name speaks for the domain in From (§3.1)

Left out: what a receiver does beyond what it is asked, and reports (§7).
"""

from __future__ import annotations

from dataclasses import dataclass

from deliveries.routing.mx import registrable
from deliveries.routing.resolver import Answer, Resolver, Result

POLICIES = ("none", "quarantine", "reject")


@dataclass(frozen=True, slots=True)
class Policy:
    """`at` is the domain whose record it is; `asks` one of POLICIES, for the domain that was asked about."""

    at: str
    text: str
    asks: str
    dkim_strict: bool
    spf_strict: bool
    percent: int  #: of failing mail that it concerns; the rest is treated one step milder
    reports: bool  #: somebody hears of it (rua=)


async def find(resolver: Resolver, domain: str) -> Policy | Result | int:
    """The policy; else what DNS said, or how many records stand where one must."""
    result, texts = await _texts(resolver, domain)
    at = domain
    if not texts and (above := registrable(domain)) and above != domain:
        higher, texts = await _texts(resolver, above)
        if texts:
            result, at = higher, above
    if len(texts) != 1:
        return len(texts) or result
    return parse(texts[0], at, below=at != domain)


async def _texts(resolver: Resolver, domain: str) -> tuple[Result, list[str]]:
    result = await resolver.txt(f"_dmarc.{domain}")
    records = [str(t) for t in result.records] if isinstance(result, Answer) else []
    return result, [t for t in records if t.replace(" ", "").startswith("v=DMARC1")]


def parse(text: str, at: str, below: bool = False) -> Policy:
    """`below`: the domain asked about is a subdomain of `at`, for which sp= counts before p= (§6.3).

    A p= that is none of the three counts as none where reports are asked for (§6.6.3), and else as no policy; either
    way nothing is asked of receivers."""
    tags = {}
    for part in text.split(";"):
        name, _, value = part.partition("=")
        tags[name.strip().lower()] = value.strip()
    asks = tags.get("p", "").lower()
    if below:
        asks = tags.get("sp", "").lower() or asks
    percent = tags.get("pct", "100")
    return Policy(
        at=at,
        text=text,
        asks=asks if asks in POLICIES else "none",
        dkim_strict=tags.get("adkim", "r").lower() == "s",
        spf_strict=tags.get("aspf", "r").lower() == "s",
        percent=min(int(percent), 100) if percent.isascii() and percent.isdigit() else 100,
        reports=bool(tags.get("rua")),
    )


def aligned(name: str, domain: str, strict: bool) -> bool:
    """§3.1: the same name, or relaxed, one of the same organizational domain."""
    return name == domain or (not strict and bool(name) and registrable(name) == registrable(domain) is not None)
