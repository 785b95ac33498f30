"""TLS reports of the day before, to the domains that ask for them (RFC 8460): by HTTPS or by a mail of ours.

    what was counted (record.tls_sessions) → who asks, looked up anew → the report (routing.tls_rpt) → each `rua`

Sent by the domain of TLS_REPORT_FROM, within four hours after the day's end, each domain at a time of its own (§4.1).
A day is forgotten once every destination took its report, or a day later. One process does it at a time.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from datetime import UTC, date, datetime, time, timedelta
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import partial
from hashlib import sha256
from typing import Any
from urllib.parse import unquote

from django.conf import settings

from deliveries import fetch
from deliveries.accept import Idempotency, accept, of_raw
from deliveries.accept.repeat import key_of
from deliveries.errors import MailapiError
from deliveries.mime import raw
from deliveries.mime.address import parse_address
from deliveries.models import SendingDomain
from deliveries.models.sql import alone
from deliveries.record import tls_sessions
from deliveries.routing import tls_rpt
from deliveries.routing.resolver import Resolver, addresses

log = logging.getLogger(__name__)

STREAM = "tls-reports"
#: what the processes counted in the last seconds of the day is written by then
_SOONEST = timedelta(minutes=5)
_SPREAD_S = 4 * 3600
_GIVE_UP = timedelta(days=1)
#: of one run; the next comes ten minutes later
_MOST = 200
#: any number, the same in all processes
_LOCK = 7_201_944


def run(now: datetime | None = None) -> int:
    """Send what is due; to how many domains nothing is owed any more. Nothing where TLS_REPORT_FROM is not set."""
    if not settings.TLS_REPORT_FROM:
        return 0
    now = now or datetime.now(UTC)
    told = 0
    with alone(_LOCK) as mine:
        owed = [one for one in tls_sessions.owed(now.date()) if due(*one) <= now] if mine else []
        for day, domain in owed[:_MOST]:
            if _tell(day, domain):
                told += 1
            elif now < due(day, domain) + _GIVE_UP:
                continue
            tls_sessions.forget(day, domain)
    return told


def due(day: date, domain: str) -> datetime:
    """When the report of `day` goes out: the same however often it is asked."""
    chance = int.from_bytes(sha256(f"{domain}/{day}".encode()).digest()[:4], "big")
    return datetime.combine(day + timedelta(days=1), time(), UTC) + _SOONEST + timedelta(seconds=chance % _SPREAD_S)


def _tell(day: date, domain: str) -> bool:
    """Whether nobody waits for it any more: all took it, or none asks."""
    resolver = Resolver(settings.DNS_NAMESERVERS or None)
    where = asyncio.run(tls_rpt.destinations(resolver, domain))
    us = parse_address(settings.TLS_REPORT_FROM).domain
    facts = tls_rpt.report(tls_sessions.of(day, domain), domain, day, us, settings.TLS_REPORT_FROM)
    octets = gzip.compress(json.dumps(facts, indent=1).encode(), mtime=0)
    took = True
    for uri in where:
        try:
            if uri.lower().startswith("mailto:"):
                _mail(uri, octets, facts, day, domain)
            else:
                _post(resolver, uri, octets)
        except (MailapiError, ValueError) as e:
            took = False
            log.warning("the TLS report of %s for %s is not taken by %s: %s", day, domain, uri, e)
    return took


def _post(resolver: Resolver, uri: str, octets: bytes) -> None:
    """§5.4: any 2xx is a yes."""
    got = asyncio.run(
        fetch.fetch(
            "POST", uri, content=octets, headers={"content-type": "application/tlsrpt+gzip"},
            allow_private=settings.MX_ALLOW_PRIVATE, ca_file=settings.SMTP_CA_FILE or None,
            resolve=partial(addresses, resolver),
        )
    )  # fmt: skip
    if not 200 <= got.status < 300:
        raise ValueError(f"it answered {got.status}")


def _mail(uri: str, octets: bytes, facts: dict[str, Any], day: date, domain: str) -> None:
    us = parse_address(settings.TLS_REPORT_FROM).domain
    own = SendingDomain.objects.filter(name=us, verified_at__isnull=False).first()
    if own is None:
        raise ValueError(f"TLS_REPORT_FROM: {us} is no verified domain of this installation")
    to = unquote(uri[len("mailto:") :].partition("?")[0])
    letter = _letter(parse_address(to).addr_spec, octets, facts, day, domain, us)
    once = Idempotency("tls-report", sha256(f"{facts['report-id']} {to}".encode()).hexdigest(), sha256(octets).digest())
    accept(key_of(own.tenant_id, own.id), [of_raw(raw.read(letter), stream=STREAM)], once)


def _letter(to: str, octets: bytes, facts: dict[str, Any], day: date, domain: str, us: str) -> bytes:
    """§5.3: a multipart/report of a few words and the compressed report."""
    ident = facts["report-id"]
    start = int(datetime.combine(day, time(), UTC).timestamp())
    letter = EmailMessage(policy=SMTP)
    letter["From"] = settings.TLS_REPORT_FROM
    letter["To"] = to
    letter["Subject"] = f"Report Domain: {domain} Submitter: {us} Report-ID: <{ident}@{us}>"
    letter["Date"] = format_datetime(datetime.now(UTC))
    letter["Message-ID"] = f"<{ident}@{us}>"
    letter["TLS-Report-Domain"] = domain
    letter["TLS-Report-Submitter"] = us
    letter["Auto-Submitted"] = "auto-generated"
    # §5.3.1: it goes whatever the receiver's MTA-STS or DANE says of its hosts; a relay hears it, too (RFC 8689)
    letter["TLS-Required"] = "No"
    words = f"How our sessions with the mail hosts of {domain} were protected on {day} (UTC), see RFC 8460."
    letter.set_content(f"{words}\n{_sum(facts)}\n")
    name = f"{us}!{domain}!{start}!{start + 86_399}!{ident[:8]}.json.gz"
    letter.add_attachment(octets, maintype="application", subtype="tlsrpt+gzip", filename=name)
    letter.replace_header("Content-Type", letter["Content-Type"].replace("multipart/mixed", "multipart/report"))
    letter.set_param("report-type", "tlsrpt")
    return letter.as_bytes()


def _sum(facts: dict[str, Any]) -> str:
    def of(name: str) -> int:
        return sum(policy["summary"][f"total-{name}-session-count"] for policy in facts["policies"])

    return f"{of('successful')} as they should be, {of('failure')} not."
