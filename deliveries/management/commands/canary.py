"""manage.py canary: does a mail that is posted arrive? 0, 1 or 2 as monitoring plugins end, with one line."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError, CommandParser

from deliveries import canary
from deliveries.management.terminal import dumps

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Command(BaseCommand):
    help = (
        "Post a mail by HTTPS and wait for it in a mailbox: an outside view of accept and arrival. The key stands in "
        "CANARY_KEY or the file CANARY_KEY_FILE, the mailbox's password in CANARY_PASSWORD or CANARY_PASSWORD_FILE. "
        "Beside `manage.py up`, all is found in up.json and the receiver lab is the mailbox."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--url", help="of the API, https://…")
        parser.add_argument("--from", dest="sender", metavar="ADDRESS", help="that the key may send from")
        parser.add_argument("--to", metavar="ADDRESS", help="whose mail comes into the mailbox")
        parser.add_argument("--mailbox", metavar="URL", help="imaps://user@host[:port][/folder]; imap, pop3, pop3s")
        parser.add_argument("--ca-file", help="PEM file of authorities, for both")
        parser.add_argument("--accept", type=float, default=2.0, metavar="S", help="a warning from then on (2)")
        parser.add_argument("--arrival", type=float, default=30.0, metavar="S", help="a warning from then on (30)")
        parser.add_argument("--critical", type=float, default=120.0, metavar="S", help="it counts as lost (120)")
        parser.add_argument("--json", action="store_true")
        parser.add_argument("--textfile", type=Path, metavar="PATH", help="for node_exporter, written whole (….prom)")

    def handle(self, *args: Any, **asked: Any) -> None:
        facts = _of_up()
        url = (asked["url"] or facts.get("url") or "").rstrip("/")
        sender, key = asked["sender"] or facts.get("sender"), _secret("CANARY_KEY") or facts.get("api_key")
        if not (url and sender and key):
            raise CommandError("Say --url, --from and CANARY_KEY, or start `manage.py up`.", returncode=3)
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise CommandError("--url: a key goes over https alone.", returncode=3)
        bounds = canary.Bounds(asked["accept"], asked["arrival"], asked["critical"])
        to, arrivals = _mailbox(asked, facts)
        post = canary.poster(url, key, sender, to, asked["ca_file"], bounds.critical_s)
        flight = canary.fly(post, arrivals, bounds)
        if path := asked["textfile"]:
            part = path.with_name(f".{path.name}.part")
            part.write_text(canary.textfile(flight, time.time()))
            part.replace(path)
        if asked["json"]:
            self.stdout.write(dumps({**asdict(flight), "state": flight.state.name}))
        else:
            self.stdout.write(flight.line(bounds))
        sys.exit(flight.state)


def _mailbox(asked: dict[str, Any], facts: dict[str, Any]) -> tuple[str, canary.Arrivals]:
    """Where it is sent, and where it is looked for."""
    if asked["mailbox"]:
        if not asked["to"]:
            raise CommandError("--to: whose mail comes into the mailbox?", returncode=3)
        try:
            box = canary.account(asked["mailbox"], _secret("CANARY_PASSWORD"), asked["ca_file"])
        except ValueError as e:
            raise CommandError(f"--mailbox: {e}", returncode=3) from None
        return asked["to"], canary.of_mailbox(box)
    lab = facts.get("sandbox") or {}
    if not (lab.get("spool") and lab.get("domain")):
        raise CommandError("--mailbox: there is no receiver lab here to look into.", returncode=3)
    return asked["to"] or f"delivered@{lab['domain']}", canary.of_spool(Path(lab["spool"]))


def _secret(name: str) -> str:
    if path := os.environ.get(f"{name}_FILE"):
        try:
            return Path(path).read_text().strip()
        except OSError as e:
            raise CommandError(f"{name}_FILE: {e}", returncode=3) from None
    return os.environ.get(name, "")


def _of_up() -> dict[str, Any]:
    """What `manage.py up` says of itself; nothing where it does not run."""
    var = Path(os.environ.get("MAILAPI_VAR") or Path(__file__).resolve().parents[3] / "var")
    try:
        return dict(json.loads((var / "up.json").read_text()))
    except (OSError, ValueError):
        return {}
