"""manage.py classify_reply: reply texts in as JSON lines, their category out, in order. Needs no database."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from deliveries.smtp.classify import classify_text


class Command(BaseCommand):
    help = 'Reads {"text": …} (and perhaps "code", "enhanced") lines from stdin and writes their category'
    requires_system_checks = []  # runs before there is a database

    def handle(self, *args: Any, **options: Any) -> None:
        for number, line in enumerate(sys.stdin, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                text = str(row["text"])
                code = int(row["code"]) if row.get("code") else None
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CommandError(f"line {number}: {error!r}") from error
            said = classify_text(text, code, row.get("enhanced") or None)
            answer = {"text": text, "category": said.category, "suppress": said.suppress, "rule": said.rule}
            self.stdout.write(json.dumps(answer, ensure_ascii=False))
