"""manage.py send: one mail from the terminal, accepted like any other, and what became of it."""

from __future__ import annotations

import sys
import time
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from deliveries.accept import Draft, accept
from deliveries.accept.repeat import key_of
from deliveries.errors import BadInput, KeyRefused, OverQuota
from deliveries.management.terminal import console, dumps, plain
from deliveries.mime.address import Address, parse_address
from deliveries.models import Delivery, Message, SendingDomain
from deliveries.read.story import story
from deliveries.states import STREAM

_LOOK_S = 0.2


class Command(BaseCommand):
    help = "Send one mail from a verified domain; the text comes from --text or from standard input."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("to", nargs="+", metavar="ADDRESS")
        parser.add_argument("--from", dest="sender", required=True, metavar="ADDRESS", help="`Name <a@b>` or `a@b`")
        parser.add_argument("--subject", default="")
        parser.add_argument("--text", help="the text part; without it, what stands on standard input")
        parser.add_argument("--html", help="the HTML part")
        parser.add_argument("--stream", default="transactional")
        parser.add_argument(
            "--wait", type=float, default=0.0, metavar="S", help="for the end; 1 where one did not arrive"
        )
        parser.add_argument("--json", action="store_true")

    def handle(self, *args: Any, to: list[str], sender: str, wait: float, **options: Any) -> None:
        text = options["text"]
        if text is None and not options["html"]:
            text = sys.stdin.read()
        from_ = _address("--from", sender)
        domain = SendingDomain.objects.filter(name=from_.domain, verified_at__isnull=False).first()
        if domain is None:
            raise CommandError(f"--from: {from_.domain} is no verified domain of this installation.")
        if not STREAM.fullmatch(options["stream"]):
            raise CommandError("--stream: 1 to 64 lower-case ASCII letters, digits, - and _.")
        draft = Draft(
            from_, tuple(_address("to", a) for a in to), subject=options["subject"], text=text, html=options["html"],
            stream=options["stream"],
        )  # fmt: skip
        try:
            (ident,) = accept(key_of(domain.tenant_id, domain.id), [draft]).ids
        except (BadInput, KeyRefused, OverQuota) as refused:
            raise CommandError(str(refused)) from None
        statuses = _await(ident, wait)
        told = story(Message.objects.get(id=ident), timezone.now())
        if options["json"]:
            sentences = {r.row.recipient: r.sentence for r in told.recipients}
            self.stdout.write(dumps({"id": ident, "statuses": statuses, "sentences": sentences}))
        else:
            out = console(self.stdout)
            out.print(plain(f"Accepted as {ident}"))
            for r in told.recipients:
                out.print(plain(f"{r.row.status}  {r.row.recipient}: {r.sentence}"))
        if wait and any(status != "delivered" for status in statuses.values()):
            raise SystemExit(1)


def _address(what: str, text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as e:
        raise CommandError(f"{what}: {e}") from None


def _await(ident: UUID, wait_s: float) -> dict[str, str]:
    """Recipient → status, once all have ended or the time is over."""
    end = time.monotonic() + wait_s
    while True:
        rows = list(Delivery.objects.filter(message_id=ident).order_by("position"))
        if all(row.final for row in rows) or time.monotonic() >= end:
            return {row.recipient: row.status for row in rows}
        time.sleep(_LOOK_S)
