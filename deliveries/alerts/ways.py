"""How the operator is told: a mail through our own queue, the same mail through a smarthost, a post to a webhook.

The queue may be what is broken, so the smarthost is asked directly, with smtplib. Both mails have one Message-ID, so
that mail programs show one. Each way is tried by itself; a word is out once one of
them took it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import smtplib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from hashlib import sha256
from urllib.parse import unquote, urlsplit

from django.conf import settings

from deliveries import fetch
from deliveries.accept import Idempotency, accept, of_raw
from deliveries.accept.repeat import key_of
from deliveries.alerts.judge import Step, Word
from deliveries.counters import ALERTS_FAILED
from deliveries.errors import MailapiError
from deliveries.mime import raw
from deliveries.mime.address import parse_address
from deliveries.models import SendingDomain

log = logging.getLogger(__name__)

STREAM = "alerts"
_PATIENCE_S = 15.0
_SUBJECTS = {Word.BEGINS: "trouble", Word.LASTS: "still trouble", Word.ENDS: "over"}


@dataclass(frozen=True, slots=True)
class News:
    """Steps of one kind and one word, which are told together."""

    steps: tuple[Step, ...]
    at: datetime

    @property
    def word(self) -> Word:
        word = self.steps[0].word
        assert word is not None
        return word

    @property
    def subject(self) -> str:
        kind = self.steps[0].known.trouble.kind
        many = f" ({len(self.steps)})" if len(self.steps) > 1 else ""
        return f"[mailapi] {_SUBJECTS[self.word]}: {kind.replace('_', ' ')}{many}"

    @property
    def text(self) -> str:
        lines = [f"{step.known.trouble.words} (since {step.known.since:%Y-%m-%d %H:%M} UTC)" for step in self.steps]
        if self.word is Word.ENDS:
            lines = [f"Over: {line}" for line in lines]
        return "\n".join([*lines, "", f'What to do: {settings.BASE_URL}/admin/ and docs/operations.md, "Alerts".'])

    @property
    def ident(self) -> str:
        """The same for the same news, however often it is tried to be told."""
        facts: list[tuple[str, ...]] = [
            (*step.known.trouble.key, step.known.since.isoformat(), self.word) for step in self.steps
        ]
        if self.word is Word.LASTS:
            facts.append((self.at.date().isoformat(),))
        return sha256(json.dumps(facts).encode()).hexdigest()[:32]


def any_set() -> bool:
    return bool(settings.ALERT_EMAIL or settings.ALERT_WEBHOOK_URL)


def tell(news: News, queue: bool = True) -> bool:
    """Whether one of the ways took it; without `queue`, of those that need no database."""
    ways = []
    if settings.ALERT_EMAIL:
        if queue:
            ways.append(("queue", _by_queue))
        if settings.ALERT_SMARTHOST:
            ways.append(("smarthost", _by_smarthost))
    if settings.ALERT_WEBHOOK_URL:
        ways.append(("webhook", _by_webhook))
    took = False
    for name, way in ways:
        try:
            way(news)
            took = True
        except (MailapiError, OSError, smtplib.SMTPException, ValueError) as e:
            ALERTS_FAILED.inc()
            log.error("an alert is not told by the %s: %s", name, e, extra={"event": "alert.failed"})
    return took


def _letter(news: News) -> bytes:
    letter = EmailMessage(policy=SMTP)
    letter["From"] = f"mailapi <{settings.ALERT_FROM}>"
    letter["To"] = ", ".join(settings.ALERT_EMAIL)
    letter["Subject"] = news.subject
    letter["Date"] = format_datetime(news.at)
    letter["Message-ID"] = f"<alert.{news.ident}@{settings.ALERT_FROM.rpartition('@')[2]}>"
    # RFC 3834 §5: nobody's holiday shall answer
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(news.text)
    return letter.as_bytes()


def _by_queue(news: News) -> None:
    name = parse_address(settings.ALERT_FROM).domain
    domain = SendingDomain.objects.filter(name=name, verified_at__isnull=False).first()
    if domain is None:
        raise ValueError(f"ALERT_FROM: {name} is no verified domain of this installation")
    # the words may tell another number by now; it is the same news
    once = Idempotency("alert", news.ident, sha256(news.ident.encode()).digest())
    accept(key_of(domain.tenant_id, domain.id), [of_raw(raw.read(_letter(news)), stream=STREAM)], once)


def _by_smarthost(news: News) -> None:
    to = urlsplit(settings.ALERT_SMARTHOST)
    host, tls = to.hostname or "", ssl.create_default_context(cafile=settings.SMTP_CA_FILE or None)
    if to.scheme == "smtps":
        client: smtplib.SMTP = smtplib.SMTP_SSL(host, to.port or 465, timeout=_PATIENCE_S, context=tls)
    else:
        client = smtplib.SMTP(host, to.port or 587, timeout=_PATIENCE_S)
    with client:
        client.ehlo(settings.HELO_NAME)
        if to.scheme == "smtp" and client.has_extn("starttls"):
            client.starttls(context=tls)
            client.ehlo(settings.HELO_NAME)
        if to.username:
            # a password in clear is for nobody but this machine
            if to.scheme == "smtp" and not isinstance(client.sock, ssl.SSLSocket) and not _loopback(client.sock):
                raise ValueError("ALERT_SMARTHOST has a password and does not offer TLS")
            client.login(unquote(to.username), unquote(to.password or ""))
        client.sendmail(settings.ALERT_FROM, list(settings.ALERT_EMAIL), _letter(news))


def _loopback(wire: socket.socket | None) -> bool:
    return wire is not None and str(wire.getpeername()[0]) in ("127.0.0.1", "::1")


def _by_webhook(news: News) -> None:
    """`text` is what Slack, Mattermost and Google Chat show."""
    alerts = [
        {"kind": s.known.trouble.kind, "subject": s.known.trouble.subject, "words": s.known.trouble.words,
         "word": news.word, "since": s.known.since.isoformat()}
        for s in news.steps
    ]  # fmt: skip
    body = json.dumps({"id": news.ident, "text": f"{news.subject}\n{news.text}", "alerts": alerts}).encode()
    headers = {"content-type": "application/json", "idempotency-key": news.ident}
    got = asyncio.run(
        # the operator's own word, so that it may lead into the own network
        fetch.fetch("POST", settings.ALERT_WEBHOOK_URL, content=body, headers=headers, allow_private=True)
    )
    if not 200 <= got.status < 300:
        raise ValueError(f"the webhook answered {got.status}")


def group(steps: Sequence[Step], now: datetime) -> list[News]:
    """One word of one kind is one mail, however many troubles it names: a hundred domains may break at once."""
    groups: dict[tuple[str, Word], list[Step]] = {}
    for step in steps:
        if step.word is not None:
            groups.setdefault((step.known.trouble.kind, step.word), []).append(step)
    return [News(tuple(part), now) for part in groups.values()]
