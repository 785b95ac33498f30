"""manage.py restored: the answer after a restore, and what is done with the mail that may have been sent since."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import celery
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.dateparse import parse_date, parse_datetime

from deliveries import continuity
from deliveries.management.commands.tenant import named, whoever
from deliveries.management.terminal import console, dumps, plain, table
from deliveries.record import restored


class Command(BaseCommand):
    help = "Say after a restore what is to become of mail that may have been sent since: status, hold, release, cancel"

    def add_arguments(self, parser: CommandParser) -> None:
        orders = parser.add_subparsers(dest="order")
        status = orders.add_parser("status", help="whether a restore was noticed, and what is held for one (default)")
        status.add_argument("--json", action="store_true", help="one JSON object a line")
        orders.add_parser("ask", help="nothing gave it away, but it was one: send nothing until it is answered")
        orders.add_parser("hold", help="the answer: hold what waited in the backup, empty the broker, and go on")
        orders.add_parser("nothing-lost", help="the other answer: it is the last state, moved while nothing ran")
        for order, words in (("release", "send what is held for a restore"), ("cancel", "never send it")):
            decide = orders.add_parser(order, help=words)
            decide.add_argument("--before", metavar="TIME", help="accepted before: 2026-11-25 or 2026-11-25T10:00Z")
            decide.add_argument("--tenant", help="name or id")
            decide.add_argument("--destination", help="as `manage.py queue` calls it, such as google.com")
            decide.add_argument("--all", action="store_true", help="without any of these: all of it")

    def handle(self, *args: Any, **options: Any) -> None:
        match options["order"]:
            case "ask":
                continuity.ask("A person said so.")
                self.stdout.write("Nothing is sent until it is answered: hold, or nothing-lost.")
            case "hold":
                self._hold()
            case "nothing-lost":
                if not restored.nothing_lost(whoever()):
                    raise CommandError("No restore was noticed, so there is nothing to answer.")
                self.stdout.write("Mail goes on as it stands in the database.")
            case "release" | "cancel" as order:
                self._decide(order, options)
            case _:
                self._status(bool(options.get("json")))

    def _hold(self) -> None:
        if continuity.fit():
            raise CommandError(
                "No restore was noticed. If it was one nevertheless: `manage.py restored ask`, then hold."
            )
        celery.current_app.control.purge()  # bells of another time; Postgres says what there is to do
        held, told = restored.hold_all(whoever())
        self.stdout.write(f"{held} deliveries that may have been sent since are held; {told} webhooks were given up.")
        self.stdout.write(
            "`manage.py restored` shows what is held, release and cancel decide. Everything else goes on."
        )

    def _decide(self, order: str, options: dict[str, Any]) -> None:
        if not (options["all"] or options["before"] or options["tenant"] or options["destination"]):
            raise CommandError(f"Say which: --before, --tenant, --destination, or {order} --all.")
        which = restored.Which(
            before=_moment(options["before"]) if options["before"] else None,
            tenant_id=named(options["tenant"]).id if options["tenant"] else None,
            destination=options["destination"],
        )
        count = restored.decide(which, whoever(), cancel=order == "cancel")
        self.stdout.write(f"{count} deliveries: {'canceled' if order == 'cancel' else 'released'}.")

    def _status(self, as_json: bool) -> None:
        fit, asked, held = continuity.fit(), continuity.question(), restored.waiting()
        if as_json:
            self.stdout.write(
                dumps({"fit": fit, "asked_at": asked and asked.asked_at, "why": asked.why if asked else ""})
            )
            for row in held:
                self.stdout.write(dumps({name: getattr(row, name) for name in row.__slots__}))
            return
        out = console(self.stdout)
        if asked:
            out.print(plain(f"Nothing is sent since {asked.asked_at:%Y-%m-%d %H:%M:%S} UTC. {asked.why}"))
            out.print(plain("`manage.py restored hold`: what may have been sent since is held, the rest goes on."))
            out.print(plain("`manage.py restored nothing-lost`: it was moved while nothing ran; all goes on."))
        else:
            out.print(plain("No restore waits for an answer."))
        if held:
            rows = [(h.tenant, h.destination, h.count, h.oldest, h.newest) for h in held]
            out.print(table(("tenant", "destination", "held", "oldest (UTC)", "newest (UTC)"), rows))


def _moment(text: str) -> datetime:
    try:
        if found := parse_datetime(text):
            return found if found.tzinfo else found.replace(tzinfo=UTC)
        if day := parse_date(text):
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
    except ValueError:
        pass
    raise CommandError(f"{text[:40]!r} is no time: 2026-11-25, or 2026-11-25T10:00:00Z.")
