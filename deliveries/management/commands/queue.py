"""manage.py queue: what waits where, and why; like mailq. With --json one object a line."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from deliveries.management.terminal import console, dumps, plain, table
from deliveries.models.sql import clock
from deliveries.read import home, line, pools

_STYLE = {"paused": "red", "rests": "yellow", "slowed": "yellow", "open": "green"}


class Command(BaseCommand):
    help = "Show the queue by destination: waiting, in flight, next attempt, limits, suspensions and their reasons."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("site", nargs="?", default="", help="this destination alone")
        parser.add_argument("--json", action="store_true", help="one JSON object a line")

    def handle(self, *args: Any, site: str, **options: Any) -> None:
        now = clock()
        stops = line.stops(now, site)
        troubled = [] if site else [one for one in pools.standing(now) if one.word != "sends"]
        if options["json"]:
            for stop in stops:
                self.stdout.write(dumps(asdict(stop)))
            for one in troubled:
                self.stdout.write(dumps({"pool": one.name, "word": one.word, "why": one.why, "until": one.until}))
            return
        out = console(self.stdout)
        rows = [
            (s.word, s.name, _many(s.waiting, line.COUNT_LIMIT), s.in_flight, s.next_due, f"{s.places} of {s.most}",
             s.why or s.last_reply)
            for s in stops
        ]  # fmt: skip
        if rows:
            headings = ("state", "destination", "waiting", "in flight", "next attempt (UTC)", "places", "why")
            out.print(table(headings, rows, [_STYLE[s.word] for s in stops]))
        else:
            out.print(plain("Nothing waits, and no receiver rests."))
        for one in troubled:
            out.print(plain(f"The IP pool {one.name} {one.word}: {one.why}"))
        if not site:
            counts = ", ".join(f"{_many(w.count, home.WAITING_LIMIT)} {w.status.value}" for w in home.waiting(None))
            out.print(plain(counts))


def _many(n: int, limit: int) -> str:
    return f"{limit - 1}+" if n >= limit else str(n)
