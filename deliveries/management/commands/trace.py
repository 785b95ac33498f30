"""manage.py trace ID|ADDRESS: where is my mail? The page of a message, or the newest ones of a recipient, as text."""

from __future__ import annotations

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from deliveries.management.terminal import console, dumps, plain, table
from deliveries.models import Message
from deliveries.read import panel
from deliveries.read.searching import found, parse
from deliveries.read.story import Story, story

_STYLE = {"delivered": "green", "bounced": "red", "failed": "red", "expired": "red"}


class Command(BaseCommand):
    help = (
        "Tell what became of a mail, by its id, its Message-ID or a recipient's address (or any search of the panel)."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("what", nargs="+", metavar="ID|ADDRESS", help="also subject words, from: tag: stream:")
        parser.add_argument("--limit", type=int, default=20, help="messages listed at most (default 20)")
        parser.add_argument("--talk", action="store_true", help="with the SMTP conversations")
        parser.add_argument("--json", action="store_true", help="one JSON object a message, a line each")

    def handle(self, *args: Any, what: list[str], limit: int, **options: Any) -> None:
        if not 1 <= limit <= 1000:
            raise CommandError("--limit must be from 1 to 1000")
        now_ms = int(time.time() * 1000)
        page = found(parse(" ".join(what), panel.Search(None)), now_ms, limit)
        by_id = {m.id: m for m in Message.objects.filter(id__in=page.ids)}
        rows = [by_id[i] for i in page.ids if i in by_id]
        if not rows:
            raise CommandError(f"No message is found for {' '.join(what)!r}.")
        now = timezone.now()
        if options["json"]:
            for row in rows:
                self.stdout.write(dumps(_facts(story(row, now))))
        elif len(rows) == 1:
            self._one(story(rows[0], now), options["talk"])
        else:
            self._several(rows, page.older is not None)

    def _several(self, rows: list[Message], more: bool) -> None:
        summaries = panel.summaries([row.id for row in rows])
        shown = []
        for row in rows:
            summary = summaries.get(row.id)
            to = (
                f"{summary.recipient}{f' +{summary.recipients - 1}' if summary.recipients > 1 else ''}"
                if summary
                else ""
            )
            shown.append((summary.status.value if summary else "-", row.created_at, to, row.subject, row.id))
        out = console(self.stdout)
        tones = [_STYLE.get(row[0], "yellow") for row in shown]
        out.print(table(("status", "accepted (UTC)", "to", "subject", "id"), shown, tones))
        if more:
            out.print(plain("There are older ones: raise --limit, or say more."))

    def _one(self, told: Story, talk: bool) -> None:
        out, m = console(self.stdout), told.message
        out.print(table(("", ""), [
            ("subject", m.subject), ("from", m.from_header), ("accepted", m.created_at), ("id", m.id),
            ("Message-ID", f"<{m.message_id}>"), *([("redacted", m.redacted_at)] if m.redacted_at else []),
        ]))  # fmt: skip
        for r in told.recipients:
            out.print()
            out.print(table(("", ""), [(r.row.status, r.row.recipient)], [_STYLE.get(r.row.status, "yellow")]))
            out.print(plain(r.sentence))
            for a in r.attempts:
                facts = f"attempt {a.row.number}, {a.elapsed_ms} ms, {a.row.host} [{a.row.address}] {a.row.tls}"
                out.print(plain(f"  {a.row.started_at:%Y-%m-%d %H:%M:%S}  {facts}"))
                out.print(plain(f"    {a.reply}"))
                for line in a.lines if talk else ():
                    out.print(plain(f"      {line.ms:>6} {line.who} {line.text}"))
        for s in told.suppressed:
            out.print(plain(f"{s.address} is on the suppression list since {s.created_at:%Y-%m-%d}: {s.reason}"))
        out.print()
        out.print(table(("when (UTC)", "what", "recipient", "detail"),
                        [(x.at, x.what, x.recipient, x.detail) for x in told.timeline]))  # fmt: skip


def _facts(told: Story) -> dict[str, Any]:
    m = told.message
    return {
        "id": m.id,
        "message_id": f"<{m.message_id}>",
        "from": m.from_header,
        "subject": m.subject,
        "created_at": m.created_at,
        "redacted_at": m.redacted_at,
        "recipients": [
            {
                "recipient": r.row.recipient,
                "status": r.row.status,
                "sentence": r.sentence,
                "category": r.row.category,
                "rule": r.row.rule,
                "next_attempt_at": r.row.next_attempt_at,
                "attempts": [
                    {"at": a.row.started_at, "ms": a.elapsed_ms, "host": a.row.host, "address": a.row.address,
                     "tls": a.row.tls, "reply": a.reply, "status": a.row.status}
                    for a in r.attempts
                ],
            }
            for r in told.recipients
        ],
        "timeline": [{"at": x.at, "what": x.what, "recipient": x.recipient, "detail": x.detail} for x in told.timeline],
        "suppressed": [{"address": s.address, "reason": s.reason, "stream": s.stream} for s in told.suppressed],
    }  # fmt: skip
