"""TLS reports: who asks for them, what was promised and held, and the report itself (RFC 8460).

where = await destinations(resolver, "example.org")     the URIs of its `rua`; empty = no report is wanted
Promise, Session                                        a policy, and sessions under it, in a report's words
report(...)                                             a day's sessions as the JSON of §4
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from deliveries.routing.dane import Tlsa
from deliveries.routing.mta_sts import Policy
from deliveries.routing.resolver import Answer, Resolver
from deliveries.smtp.outcome import TlsFailure

_BEGINS = re.compile(r"v=TLSRPTv1[ \t]*;")
_FIELD = re.compile(r"(?P<key>[A-Za-z0-9][A-Za-z0-9_.-]{0,31})=(?P<value>[\x20-\x3a\x3c-\x7e]+)\Z")
#: §3: mail or HTTPS; `!`, `,` and `;` stand percent-encoded in it
_URI = re.compile(r"(mailto:[^@\s!,;]+@[^@\s!,;]+|https://[^\s!,;]+)\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Promise:
    """`kind` is `sts`, `tlsa` or `no-policy-found`; `strings` the policy line by line, `hosts` its MX patterns.

    `broken`: why it could not be had or kept whatever a session does; each session is told as failed for it.
    """

    kind: str = "no-policy-found"
    strings: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    broken: TlsFailure | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """What sessions of one kind have in common: the policy, the MX host with its address, ours, and what went wrong."""

    promise: Promise
    host: str = ""
    address: str = ""
    source: str = ""  #: empty: the system chose
    failure: TlsFailure | None = None


def of_policy(policy: Policy, broken: TlsFailure | None = None) -> Promise:
    """§4.4: each line of the MTA-STS policy is a string of its own."""
    hosts = tuple(f"mx: {pattern}" for pattern in policy.mx)
    lines = ("version: STSv1", f"mode: {policy.mode}", *hosts, f"max_age: {policy.max_age_s}")
    return Promise("sts", lines, policy.mx, broken)


def of_tlsa(host: str, records: Iterable[Tlsa]) -> Promise:
    """§4.4: the TLSA records as presented in a zone file (RFC 6698 §2.2)."""
    return Promise("tlsa", tuple(f"{u} {s} {m} {data.hex()}" for u, s, m, data in records), (host,))


def parse_record(text: str) -> tuple[str, ...] | None:
    """§3: the URIs of a `v=TLSRPTv1; rua=…` record; None where it is malformed. Fields that are not known are passed
    over, and so are URIs of other schemes."""
    if not _BEGINS.match(text):
        return None
    _, *fields = text.split(";")
    if fields and not fields[-1].strip(" \t"):
        fields.pop()  # one delimiter may stand at the end
    found: list[str] = []
    for field in fields:
        match = _FIELD.match(field.strip(" \t"))
        if match is None:
            return None
        if match["key"] == "rua":
            found += [uri for one in match["value"].split(",") if _URI.match(uri := one.strip(" \t"))]
    return tuple(dict.fromkeys(found)) or None


async def destinations(resolver: Resolver, domain: str) -> tuple[str, ...]:
    """§3: where exactly one record begins with the version; never raises, trouble of DNS counts as none."""
    answer = await resolver.txt(f"_smtp._tls.{domain}")
    texts = map(str, answer.records) if isinstance(answer, Answer) else ()
    ours = [text for text in texts if _BEGINS.match(text)]
    return (parse_record(ours[0]) or ()) if len(ours) == 1 else ()


# --- the report ---------------------------------------------------------------------------------------------------


def report(
    counts: Sequence[tuple[Session, int]], domain: str, day: date, organization: str, contact: str
) -> dict[str, Any]:
    """§4.4: the sessions of one day of UTC with the hosts of `domain`, each kind with how many there were.

    The same sessions are the same report, by its id, however often it is made.
    """
    by_policy: dict[tuple[str, tuple[str, ...], tuple[str, ...]], list[tuple[Session, int]]] = {}
    for session, count in counts:
        promise = session.promise
        by_policy.setdefault((promise.kind, promise.strings, promise.hosts), []).append((session, count))
    facts = {
        "organization-name": organization,
        "date-range": {"start-datetime": f"{day}T00:00:00Z", "end-datetime": f"{day}T23:59:59Z"},
        "contact-info": contact,
        "policies": [_policy(domain, *policy, part) for policy, part in by_policy.items()],
    }
    return facts | {"report-id": str(uuid.uuid5(uuid.NAMESPACE_DNS, json.dumps(facts)))}


def _policy(
    domain: str, kind: str, strings: tuple[str, ...], hosts: tuple[str, ...], counts: Iterable[tuple[Session, int]]
) -> dict[str, Any]:
    good, bad = 0, Counter[tuple[tuple[str, str], ...]]()
    for session, count in counts:
        if session.failure is None:
            good += count
        else:
            bad[_failure(session, session.failure)] += count
    policy: dict[str, Any] = {"policy-type": kind, "policy-string": list(strings), "policy-domain": domain}
    if hosts:
        policy["mx-host"] = list(hosts)
    part: dict[str, Any] = {
        "policy": policy,
        "summary": {"total-successful-session-count": good, "total-failure-session-count": bad.total()},
    }
    if bad:
        part["failure-details"] = [{**dict(facts), "failed-session-count": count} for facts, count in bad.items()]
    return part


def _failure(session: Session, failure: TlsFailure) -> tuple[tuple[str, str], ...]:
    facts = {
        "result-type": failure.result.value,
        "sending-mta-ip": session.source,
        "receiving-mx-hostname": session.host,
        "receiving-ip": session.address,
        "failure-reason-code": failure.text,
    }
    return tuple((name, value) for name, value in facts.items() if value)
