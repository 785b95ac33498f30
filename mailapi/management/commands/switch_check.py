"""manage.py switch_check: a provider's own requests, sent to this service, and what works as a table."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from deliveries import keys
from deliveries.read import domains

_TIMEOUT_S = 30
_TEXT = base64.b64encode(b"attached").decode()
_IMAGE = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
_HTML = '<p>Hello <img src="cid:logo.png"></p>'


@dataclass(frozen=True)
class Ask:
    """One request, and whether its answer is what the provider's clients expect."""

    what: str
    method: str
    path: str
    body: Any = None
    status: int = 200
    #: looks into the answer's JSON; None where the status says it all
    fits: Callable[[Any], bool] | None = None
    #: instead of the provider's own
    key: str | None = None


@dataclass(frozen=True)
class Given:
    key: str
    sender: str
    to: str
    domain: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "domain", self.sender.rpartition("@")[2])


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    ignored: str


class Command(BaseCommand):
    help = "Send a provider's own requests to this service and tell what works; mail goes to the receiver lab."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--provider", required=True, choices=sorted(_PROVIDERS))
        parser.add_argument("--key", required=True, help="An API key of this service with full access")
        parser.add_argument("--url", default="", help="Where this service answers; BASE_URL where it is left out")
        parser.add_argument("--from", dest="sender", default="", help="An address of a verified domain of the account")
        parser.add_argument("--to", default="delivered@simulator.test", help="Who gets the mails")

    def handle(self, *args: Any, **options: Any) -> None:
        base = (options["url"] or settings.BASE_URL).rstrip("/")
        if urlsplit(base).scheme not in ("http", "https"):
            raise CommandError("--url must begin with http:// or https://")
        given = Given(options["key"], options["sender"] or self._sender(options["key"]), options["to"])
        asks, root, signed = _PROVIDERS[options["provider"]]
        rows: list[tuple[str, ...]] = []
        failed = 0
        for ask in asks(given):
            answer = _answer(f"{base}{root}", ask, signed(given.key if ask.key is None else ask.key))
            fits = answer.status == ask.status and (ask.fits is None or _looked(ask.fits, answer.body))
            failed += not fits
            note = f"without effect: {answer.ignored}" if answer.ignored else ""
            rows.append((ask.what, str(answer.status), "works" if fits else "FAILS", note or _said(answer, fits)))
        self._table(rows)
        if failed:
            raise CommandError(f"{failed} of {len(rows)} do not work as {options['provider']}'s clients expect.")
        self.stdout.write(f"All {len(rows)} work. docs/migrating.md says what differs.")

    def _sender(self, secret: str) -> str:
        caller = keys.find(secret)
        if caller is None:
            raise CommandError("This API key is unknown or was revoked; make one in the panel.")
        if not (name := domains.first_verified(caller.tenant_id)):
            raise CommandError("The account has no verified domain; verify one, or name a sender with --from.")
        return f"switch-check@{name}"

    def _table(self, rows: list[tuple[str, ...]]) -> None:
        head = ("request", "answer", "", "")
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(3)]
        for row in [head, *rows]:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            self.stdout.write("  ".join([*cells, row[3]]).rstrip())


def _answer(base: str, ask: Ask, headers: dict[str, str]) -> Answer:
    octets, kind = _content(ask.body)
    asked = Request(f"{base}{ask.path}", data=octets, headers=headers | kind, method=ask.method)  # noqa: S310
    try:
        with urlopen(asked, timeout=_TIMEOUT_S) as came:  # noqa: S310  # http or https: handle() looked
            return Answer(came.status, _json(came.read()), came.headers.get("X-Ignored-Fields", ""))
    except HTTPError as refused:
        with refused:
            return Answer(refused.code, _json(refused.read()), "")
    except (URLError, TimeoutError) as error:
        raise CommandError(f"{base} does not answer: {error}") from None


def _content(body: Any) -> tuple[bytes | None, dict[str, str]]:
    if body is None:
        return None, {}
    if isinstance(body, Form):
        return urlencode(body.fields, doseq=True).encode(), {"Content-Type": "application/x-www-form-urlencoded"}
    return json.dumps(body).encode(), {"Content-Type": "application/json"}


def _json(octets: bytes) -> Any:
    try:
        return json.loads(octets) if octets else None
    except ValueError:
        return octets.decode("utf-8", "replace")


def _looked(fits: Callable[[Any], bool], body: Any) -> bool:
    try:
        return fits(body)
    except (KeyError, TypeError, IndexError, AttributeError):
        return False


def _said(answer: Answer, fits: bool) -> str:
    return "" if fits else json.dumps(answer.body)[:300]


@dataclass(frozen=True)
class Form:
    fields: dict[str, Any]


# --- what each provider's clients send ------------------------------------------------------------------------------


def _postmark(g: Given) -> Iterator[Ask]:
    mail = {"From": g.sender, "To": g.to, "Subject": "Switch check", "TextBody": "Hello"}
    files = [
        {"Name": "a.txt", "Content": _TEXT, "ContentType": "text/plain"},
        {"Name": "logo.png", "Content": _IMAGE, "ContentType": "image/png", "ContentID": "cid:logo.png"},
    ]
    more = {"Tag": "switch", "Metadata": {"check": "1"}, "ReplyTo": g.sender, "TrackOpens": True}
    yield Ask("a text", "POST", "/email", mail, fits=lambda a: a["ErrorCode"] == 0)
    yield Ask("html, files, an inline image", "POST", "/email", mail | {"HtmlBody": _HTML, "Attachments": files})
    yield Ask("cc, bcc", "POST", "/email", mail | {"Cc": g.to, "Bcc": g.to})
    yield Ask("tag, metadata, reply-to, tracking", "POST", "/email", mail | more)
    yield Ask("a message stream", "POST", "/email", mail | {"MessageStream": "broadcast"})
    batch = [mail, mail | {"To": "nobody"}]
    yield Ask("a batch", "POST", "/email/batch", batch, fits=lambda a: [i["ErrorCode"] for i in a] == [0, 300])
    unknown = {k: v for k, v in mail.items() if k in ("From", "To")} | {"TemplateAlias": "none", "TemplateModel": {}}
    yield Ask("an unknown template", "POST", "/email/withTemplate", unknown, 422, lambda a: a["ErrorCode"] == 1101)
    yield Ask("an address that is none", "POST", "/email", batch[1], 422, lambda a: a["ErrorCode"] == 300)
    yield Ask("a wrong token", "POST", "/email", mail, 401, lambda a: a["ErrorCode"] == 10, key="nobody")
    yield Ask("the test token", "POST", "/email", mail, key="POSTMARK_API_TEST")
    yield Ask("messages", "GET", "/messages/outbound?count=1&offset=0", fits=lambda a: len(a["Messages"]) == 1)
    yield Ask("bounces", "GET", "/bounces?count=1&offset=0", fits=lambda a: "TotalCount" in a)
    yield Ask("delivery statistics", "GET", "/deliveryStats", fits=lambda a: "InactiveMails" in a)
    yield Ask("suppressions", "GET", "/message-streams/outbound/suppressions/dump", fits=lambda a: "Suppressions" in a)


def _sendgrid(g: Given) -> Iterator[Ask]:
    person = {"to": [{"email": g.to}]}
    mail = {
        "personalizations": [person],
        "from": {"email": g.sender, "name": "Switch"},
        "subject": "Switch check",
        "content": [{"type": "text/plain", "value": "Hello -name-"}],
    }
    files = [
        {"content": _TEXT, "filename": "a.txt", "type": "text/plain"},
        {
            "content": _IMAGE,
            "filename": "logo.png",
            "type": "image/png",
            "disposition": "inline",
            "content_id": "logo.png",
        },
    ]
    send = "/v3/mail/send"
    html = [*mail["content"], {"type": "text/html", "value": _HTML}]
    yield Ask("a text", "POST", send, mail, 202)
    yield Ask("html, files, an inline image", "POST", send, mail | {"content": html, "attachments": files}, 202)
    several = [person | {"substitutions": {"-name-": name}} for name in ("Ann", "Bob")]
    yield Ask("personalizations, substitutions", "POST", send, mail | {"personalizations": several}, 202)
    more = {"categories": ["switch"], "custom_args": {"check": "1"}, "reply_to": {"email": g.sender}}
    yield Ask("categories, custom_args, reply_to", "POST", send, mail | more, 202)
    yield Ask("asm, tracking_settings", "POST", send, mail | {"asm": {"group_id": 1}, "tracking_settings": {}}, 202)
    sandbox = {"mail_settings": {"sandbox_mode": {"enable": True}}}
    yield Ask("sandbox mode", "POST", send, mail | sandbox)
    broken = mail | {"personalizations": [{"to": [{"email": "nobody"}]}]}
    yield Ask("an address that is none", "POST", send, broken, 400, lambda a: a["errors"][0]["field"] is not None)
    yield Ask("an unknown template", "POST", send, mail | {"template_id": "d-none"}, 400)
    yield Ask("a wrong key", "POST", send, mail, 401, lambda a: "errors" in a, key="nobody")
    for name in ("bounces", "blocks", "spam_reports", "unsubscribes"):
        yield Ask(name, "GET", f"/v3/suppression/{name}", fits=lambda a: isinstance(a, list))


def _mailgun(g: Given) -> Iterator[Ask]:
    mail = {"from": g.sender, "to": g.to, "subject": "Switch check", "text": "Hello %recipient.name%"}
    root = f"/v3/{g.domain}"
    send = f"{root}/messages"

    def queued(answer: Any) -> bool:
        return answer["id"].startswith("<") and answer["message"].startswith("Queued")

    yield Ask("a text", "POST", send, Form(mail), fits=queued)
    yield Ask("html, cc, bcc", "POST", send, Form(mail | {"html": "<p>Hello", "cc": g.to, "bcc": g.to}), fits=queued)
    more = {"o:tag": ["a", "b"], "v:check": "1", "h:X-Check": "1", "h:Reply-To": g.sender, "o:tracking": "yes"}
    yield Ask("tags, variables, headers, tracking", "POST", send, Form(mail | more), fits=queued)
    variables = {"recipient-variables": json.dumps({g.to: {"name": "Ann"}})}
    yield Ask("recipient variables", "POST", send, Form(mail | variables), fits=queued)
    yield Ask("test mode", "POST", send, Form(mail | {"o:testmode": "yes"}), fits=queued)
    whole = f"From: {g.sender}\r\nTo: {g.to}\r\nSubject: Switch check\r\n\r\nHello\r\n"
    yield Ask("a whole mail", "POST", f"{root}/messages.mime", Form({"to": g.to, "message": whole}), fits=queued)
    yield Ask("an address that is none", "POST", send, Form(mail | {"to": "nobody"}), 400, lambda a: "message" in a)
    yield Ask("an unknown template", "POST", send, Form(mail | {"template": "none"}), 400)
    yield Ask("another's domain", "POST", "/v3/elsewhere.example/messages", Form(mail), 404)
    yield Ask("a wrong key", "POST", send, Form(mail), 401, key="nobody")
    for name in ("events", "bounces", "complaints", "unsubscribes"):
        yield Ask(name, "GET", f"{root}/{name}", fits=lambda a: isinstance(a["items"], list) and "next" in a["paging"])


def _resend(g: Given) -> Iterator[Ask]:
    mail = {"from": g.sender, "to": [g.to], "subject": "Switch check", "text": "Hello"}
    files = [
        {"filename": "a.txt", "content": _TEXT},
        {"filename": "logo.png", "content": _IMAGE, "content_id": "logo.png"},
    ]
    yield Ask("a text", "POST", "/emails", mail, fits=lambda a: "id" in a)
    yield Ask("html, files, an inline image", "POST", "/emails", mail | {"html": _HTML, "attachments": files})
    more = {"cc": g.to, "bcc": g.to, "reply_to": g.sender, "tags": [{"name": "check", "value": "1"}]}
    yield Ask("cc, bcc, reply_to, tags", "POST", "/emails", mail | more)
    yield Ask("a batch", "POST", "/emails/batch", [mail, mail], fits=lambda a: len(a["data"]) == 2)
    yield Ask("an address that is none", "POST", "/emails", mail | {"to": "nobody"}, 422, lambda a: "name" in a)
    yield Ask("a wrong key", "POST", "/emails", mail, 403, key="re_nobody")
    for name in ("emails", "domains", "suppressions", "webhooks", "templates"):
        yield Ask(name, "GET", f"/{name}", fits=lambda a: isinstance(a["data"], list))


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def _basic(key: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"api:{key}".encode()).decode("ascii")}


_PROVIDERS: dict[str, tuple[Callable[[Given], Iterator[Ask]], str, Callable[[str], dict[str, str]]]] = {
    "postmark": (_postmark, "/compat/postmark", lambda key: {"X-Postmark-Server-Token": key}),
    "sendgrid": (_sendgrid, "/compat/sendgrid", _bearer),
    "mailgun": (_mailgun, "/compat/mailgun", _basic),
    "resend": (_resend, "", _bearer),
}
