"""manage.py deploy_check: is this installation fit to send? Ends with 1 where something is missing."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.core.checks import ERROR, run_checks
from django.core.management.base import BaseCommand, CommandParser

from deliveries import doctor
from deliveries.management.terminal import console, dumps, table
from deliveries.routing.doctor import Check, Tone

_STYLE = {Tone.MISSING: "red", Tone.WARNING: "yellow", Tone.GOOD: "green"}
#: whose findings concern who runs this, by the beginning of their ids; others are for who writes it
_OURS = ("mailapi.", "security.", "axes.")
#: Django's findings for deployment that are somebody else's here: Caddy redirects to HTTPS and says HSTS
_OTHERS = {"security.W004", "security.W008"}


class Command(BaseCommand):
    help = "Look at names, addresses, DNS, port 25, clock, secrets, durability and queue, and say what to do."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reach", default="", metavar="DOMAIN", help="also greet an MX of this domain at port 25")
        parser.add_argument("--json", action="store_true", help="one JSON object a line")

    def handle(self, *args: Any, reach: str, **options: Any) -> None:
        checks = [*_settings(), *doctor.inside()]
        if not settings.SANDBOX:
            checks += doctor.examine(doctor.own_domains(), reach)
        checks.sort(key=lambda check: list(_STYLE).index(check.tone))
        if options["json"]:
            for check in checks:
                self.stdout.write(dumps(asdict(check)))
        else:
            rows = [(c.tone.value, c.subject, c.name, c.found, c.advice) for c in checks]
            headings = ("", "of", "what", "found", "what to do")
            console(self.stdout).print(table(headings, rows, [_STYLE[c.tone] for c in checks]))
        if any(check.tone is Tone.MISSING for check in checks):
            sys.exit(1)


def _settings() -> list[Check]:
    found = run_checks(include_deployment_checks=True)
    return [
        Check("settings", m.id or "check", Tone.MISSING if m.level >= ERROR else Tone.WARNING, m.msg, m.hint or "")
        for m in found
        if (m.id or "").startswith(_OURS) and m.id not in _OTHERS
    ]
