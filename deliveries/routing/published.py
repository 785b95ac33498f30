"""What a sending domain publishes in DNS, and what stands there instead: the records, and advice for a person.

    wanted = records(domain, keys, …)                 what to publish
    findings = await look(resolver, wanted)           what was found of each, with what to change

Read are DKIM keys (RFC 6376 §3.6.1), SPF (RFC 7208) and MX of the return path, DMARC (RFC 7489) and the tracking host's
CNAME. A nameserver that fails or keeps silent says nothing about a record: that is TEMPORARY_FAILURE, never a lack.
Left out: what SPF would say in the end (other mechanisms and includes are the publisher's), DNSSEC.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import idna

from deliveries.routing.mx import is_host_name, registrable
from deliveries.routing.resolver import Answer, NxDomain, Resolver, Result, Trouble

#: how the record of a claim begins
CLAIM = "mailapi-domain-claim="
#: room for `<selector>._domainkey.` and for labels of 63 before it (RFC 1035 §2.3.4: 253 in all)
MOST_CHARACTERS = 180
#: all look-ups of a domain together
LOOK_S = 8.0
#: found values that are told, and how much of each
_MOST_FOUND = 5
_MOST_CHARACTERS = 600
#: preference of our MX: any number serves, it is the only one
_PREFERENCE = 10


class Standing(StrEnum):
    """Of one record; Resend's words."""

    NOT_STARTED = "not_started"  #: nobody looked yet
    PENDING = "pending"  #: nothing of the kind is published
    VERIFIED = "verified"  #: as it should be
    FAILED = "failed"  #: something else is published; the advice says what to change
    TEMPORARY_FAILURE = "temporary_failure"  #: DNS could not be asked


@dataclass(frozen=True, slots=True)
class Wanted:
    """One record to publish. `key` tells the records of a domain apart (`dkim:<selector>`, `spf`, `mx` …)."""

    key: str
    record: str  #: DKIM, SPF, DMARC or Tracking, as Resend groups them
    name: str  #: fully qualified, without a final dot
    type: str
    value: str
    priority: int | None = None
    required: bool = False  #: without it nothing may be sent


@dataclass(frozen=True, slots=True)
class Finding:
    """What DNS said. `found` is empty where nothing of the kind is published; `advice` is empty where all is well."""

    status: Standing
    found: tuple[str, ...] = ()
    advice: str = ""


def domain_name(text: str, invented: bool = True) -> str:
    """A domain that can be somebody's, in lower-case A-labels; ValueError says what is wrong and what to do.

    `invented`: top levels that nobody registered (`.test`) are good enough, in a sandbox.
    """
    name = text.strip().rstrip(".").lower()
    if "@" in name:
        raise ValueError("This is an address; write only what stands after the @.")
    try:
        name = idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError:
        raise ValueError("This is no domain name; write it as example.com.") from None
    # LDH labels only (RFC 5890 §2.3.1): an underscore is for records, and no receiver takes it after an @
    if not is_host_name(name) or "_" in name or len(name) > MOST_CHARACTERS:
        raise ValueError("This is no domain name; write it as example.com.")
    if registrable(name, invented) is None:
        raise ValueError("Nobody can own this name: it is a public suffix, or its top level does not exist.")
    return name


def dkim(domain: str, selector: str, value: str, required: bool) -> Wanted:
    return Wanted(f"dkim:{selector}", "DKIM", f"{selector}._domainkey.{domain}", "TXT", value, required=required)


def claim(domain: str, token: str) -> Wanted:
    return Wanted("claim", "Claim", domain, "TXT", f"{CLAIM}{token}", required=True)


def around(
    domain: str, *, return_path: str, mx_name: str, spf_domain: str, tracking: str, tracking_host: str
) -> list[Wanted]:
    """The records beside the keys. `return_path` and `tracking` are labels below the domain.

    SPF names `spf_domain` by include, so that the operator's addresses may change without the tenants' zones.
    """
    bounces = f"{return_path}.{domain}"
    return [
        Wanted("mx", "SPF", bounces, "MX", mx_name.lower(), _PREFERENCE),
        Wanted("spf", "SPF", bounces, "TXT", f"v=spf1 include:{spf_domain.lower()} ~all"),
        Wanted("dmarc", "DMARC", f"_dmarc.{domain}", "TXT", "v=DMARC1; p=none;"),
        Wanted("tracking", "Tracking", f"{tracking}.{domain}", "CNAME", tracking_host.lower()),
    ]


async def look(resolver: Resolver, wanted: Sequence[Wanted], timeout_s: float = LOOK_S) -> dict[str, Finding]:
    """The finding of each record by its key; what has no answer within `timeout_s` is a temporary failure."""

    async def one(record: Wanted) -> Finding:
        try:
            async with asyncio.timeout(timeout_s):
                return await _KINDS[record.key.partition(":")[0]](resolver, record)
        except TimeoutError:
            return _trouble(Trouble(f"no answer within {timeout_s:g} s"))

    return dict(zip([w.key for w in wanted], await asyncio.gather(*map(one, wanted)), strict=True))


# --- one record ---------------------------------------------------------------------------------------------------


async def _dkim(resolver: Resolver, wanted: Wanted) -> Finding:
    texts = await _texts(resolver, wanted)
    if isinstance(texts, Finding):
        return texts
    if len(texts) > 1:  # RFC 6376 §3.6.2.2: the results of several are undefined
        return _wrong(texts, f"{len(texts)} TXT records stand at this name; leave the one below and remove the others.")
    tags = _tags(texts[0])
    own = _tags(wanted.value)
    ours, theirs = own["p"], "".join(tags.get("p", "").split())
    if '"' in texts[0]:
        return _wrong(texts, "Quotation marks are part of the published value; enter it without them.")
    if theirs == ours:
        return _usable(texts, tags, own["k"])
    if "p" not in tags:
        return _wrong(texts, "There is no p= in it, so it is no DKIM key; publish the value below.")
    if not theirs:  # RFC 6376 §3.6.1: revoked
        return _wrong(texts, "Its p= is empty, which says that the key is revoked; publish the value below.")
    if ours.startswith(theirs):
        return _wrong(
            texts, f"The key ends after {len(theirs)} of {len(ours)} characters; enter the whole value. Where a "
            "provider takes 255 characters at most, enter it as several strings in quotation marks."
        )  # fmt: skip
    return _wrong(texts, "Another key is published; replace it by the value below.")


def _usable(texts: list[str], tags: dict[str, str], key_type: str) -> Finding:
    """Ours is there: whether its other tags (RFC 6376 §3.6.1) let a verifier use it for mail of this kind."""
    if tags.get("v", "DKIM1") != "DKIM1":
        return _wrong(texts, "Its v= is not DKIM1; publish the value below.")
    if tags.get("k", "rsa") != key_type:
        return _wrong(texts, f"Its k= is not {key_type}; publish the value below.")
    if "h" in tags and "sha256" not in tags["h"].split(":"):
        return _wrong(texts, "Its h= leaves sha256 out; remove the tag h.")
    if "s" in tags and not {"*", "email"} & set(tags["s"].split(":")):
        return _wrong(texts, "Its s= leaves mail out; remove the tag s.")
    testing = "y" in tags.get("t", "").split(":")
    return Finding(
        Standing.VERIFIED, _told(texts), "t=y tells receivers to pass over the signature; remove it." if testing else ""
    )


async def _spf(resolver: Resolver, wanted: Wanted) -> Finding:
    texts = await _texts(resolver, wanted, "v=spf1")
    if isinstance(texts, Finding):
        return texts
    if len(texts) > 1:  # RFC 7208 §4.5: permerror
        return _wrong(texts, f"{len(texts)} records begin with v=spf1; only one may. Put them together into one.")
    include = wanted.value.split()[1]
    for word in texts[0].lower().split()[1:]:
        if word.removeprefix("+") == include or word == include.replace("include:", "redirect="):
            return Finding(Standing.VERIFIED, _told(texts))
        if word.lstrip("+-~?") == "all":  # RFC 7208 §5.1: mechanisms after it are never tested
            break
    return _wrong(texts, f"Put {include} into it, before the word that ends in all.")


async def _mx(resolver: Resolver, wanted: Wanted) -> Finding:
    result = await resolver.mx(wanted.name)
    if not isinstance(result, Answer):
        return await _nothing(resolver, wanted, result)
    hosts = sorted(result.records)
    told = [f"{preference} {host or '.'}" for preference, host in hosts]
    others = [host or "." for _, host in hosts if host != wanted.value]
    if not others:
        return Finding(Standing.VERIFIED, _told(told))
    if len(others) == len(hosts):
        return _wrong(told, f"The MX is {', '.join(others)}; replace it by {wanted.value}.")
    return _wrong(told, f"Bounces may go to {', '.join(others)}, where nobody reads them; leave {wanted.value} only.")


async def _dmarc(resolver: Resolver, wanted: Wanted) -> Finding:
    texts = await _texts(resolver, wanted, "v=dmarc1")
    root = registrable(wanted.name.removeprefix("_dmarc."))
    if isinstance(texts, Finding):
        if texts.status is Standing.PENDING and root and wanted.name != f"_dmarc.{root}":
            # RFC 7489 §6.6.3: the organizational domain's holds for what is below it
            above = await _dmarc(resolver, Wanted(wanted.key, wanted.record, f"_dmarc.{root}", "TXT", wanted.value))
            return texts if above.status is Standing.PENDING else above
        return texts
    if len(texts) > 1:  # RFC 7489 §6.6.3: no policy at all
        return _wrong(texts, f"{len(texts)} records begin with v=DMARC1; only one may.")
    policy = _tags(texts[0]).get("p", "").lower()
    if policy not in ("none", "quarantine", "reject"):
        return _wrong(texts, "Its p= must be none, quarantine or reject.")
    return Finding(Standing.VERIFIED, _told(texts))


async def _tracking(resolver: Resolver, wanted: Wanted) -> Finding:
    result = await resolver.cname(wanted.name)
    if not isinstance(result, Answer):
        return await _nothing(resolver, wanted, result)
    if wanted.value in result.records:
        return Finding(Standing.VERIFIED, _told(result.records))
    return _wrong(list(result.records), f"It points to {result.records[0]}; let it point to {wanted.value}.")


async def _claim(resolver: Resolver, wanted: Wanted) -> Finding:
    """Beside it may stand whatever else a domain's own name has, other claims too."""
    texts = await _texts(resolver, wanted, CLAIM)
    if isinstance(texts, Finding):
        return texts
    if wanted.value in (text.strip() for text in texts):
        return Finding(Standing.VERIFIED, _told(texts))
    return _wrong(texts, "This is another claim's record; add the one below.")


_KINDS = {"claim": _claim, "dkim": _dkim, "spf": _spf, "mx": _mx, "dmarc": _dmarc, "tracking": _tracking}

# --- what they share ----------------------------------------------------------------------------------------------


async def _texts(resolver: Resolver, wanted: Wanted, beginning: str = "") -> list[str] | Finding:
    """The TXT records at its name (those that begin so, in any case); a finding where there is none."""
    result = await resolver.txt(wanted.name)
    if not isinstance(result, Answer):
        return await _nothing(resolver, wanted, result)
    texts = [t for t in result.records if t.strip().lower().startswith(beginning)]
    if not texts:
        return Finding(Standing.PENDING, (), f"No record at {wanted.name} begins with {beginning}; add the one below.")
    return texts


async def _nothing(resolver: Resolver, wanted: Wanted, result: Result) -> Finding:
    if isinstance(result, Trouble):
        return _trouble(result)
    domain = registrable(wanted.name) or wanted.name
    doubled = f"{wanted.name}.{domain}"  # what a provider makes of a full name when it appends the zone
    if wanted.type == "TXT" and isinstance(await resolver.txt(doubled), Answer):
        short = wanted.name.removesuffix(f".{domain}")
        return _wrong(
            [doubled], f"It was published at {doubled}, since the provider adds {domain} by itself; enter {short}."
        )
    what = "does not exist" if isinstance(result, NxDomain) else f"has no {wanted.type} record"
    return Finding(Standing.PENDING, (), f"{wanted.name} {what}; add the one below. DNS may take a while to show it.")


def _trouble(result: Trouble) -> Finding:
    words = f"DNS could not be asked ({result.text[:200]}); it is asked again."
    return Finding(Standing.TEMPORARY_FAILURE, (), words)


def _wrong(found: Sequence[str], advice: str) -> Finding:
    return Finding(Standing.FAILED, _told(found), advice)


def _told(found: Sequence[str]) -> tuple[str, ...]:
    """As values for a person: bounded, and without what Postgres and terminals refuse."""
    clean = ("".join(c if c.isprintable() else "�" for c in text) for text in found[:_MOST_FOUND])
    return tuple(text[:_MOST_CHARACTERS] for text in clean)


def _tags(text: str) -> dict[str, str]:
    """A tag list (RFC 6376 §3.2); what is no tag is passed over."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}
