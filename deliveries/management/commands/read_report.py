"""manage.py read_report FILE… --json: what returned mails say, one line each. Needs no database."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from deliveries.bounces.report import Kind, Report, ReportKind, read_report


def line_of(file: str, report: Report) -> dict[str, Any]:
    """The mail's reading as one flat object; kind, status and rule are those of the first recipient it names."""
    bounce = report.kind is ReportKind.BOUNCE
    first = next(iter(report.recipients), None)
    return {
        "file": file,
        "is": report.kind,
        "recipients": [r.address for r in report.recipients if r.address],
        "kind": (first.kind if first else Kind.UNKNOWN) if bounce else "not_a_bounce",
        "status": (first.status or None) if first else None,
        "category": first.category if first else None,
        "rule": first.rule if first else None,
        "diagnostic": first.diagnostic if first else None,
    }


class Command(BaseCommand):
    help = "Reads bounces, complaints and automatic replies from files and says what they mean"
    requires_system_checks = []  # runs before there is a database

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", metavar="FILE")
        parser.add_argument("--json", action="store_true", help="one JSON object a line")
        parser.add_argument("--root", default="", help="folder that the files are relative to")

    def handle(self, *args: Any, **options: Any) -> None:
        for name in options["files"]:
            try:
                octets = (Path(options["root"]) / name).read_bytes()
            except OSError as error:
                raise CommandError(f"{name}: {error.strerror}") from error
            report = read_report(octets)
            if options["json"]:
                self.stdout.write(json.dumps(line_of(name, report), ensure_ascii=False))
                continue
            self.stdout.write(f"{name}: {report.kind}")
            for r in report.recipients:
                self.stdout.write(f"  <{r.address}> {r.kind} {r.status} {r.category} ({r.rule}): {r.diagnostic[:200]}")
