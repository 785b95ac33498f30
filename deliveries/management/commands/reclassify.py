"""manage.py reclassify: what the rules of today say to the replies of the last days."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from deliveries.read.reclassify import Altered, Reading, altered
from deliveries.record import corrections
from deliveries.states import Category

_Change = tuple[Reading, Reading]


class Command(BaseCommand):
    help = "Read the replies of recent attempts anew; bounces that mean something else now are corrected."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Tell what would change, change nothing")
        parser.add_argument("--days", type=float, default=7.0)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["days"] <= 0:
            raise CommandError("--days must be more than 0")
        counts: Counter[_Change] = Counter()
        examples: dict[_Change, Altered] = {}
        corrected = 0
        for one in altered(timezone.now() - timedelta(days=options["days"])):
            key = (one.before, one.after)
            counts[key] += 1
            examples.setdefault(key, one)
            if one.final and not options["dry_run"]:
                to = one.after
                corrected += corrections.correct(
                    one.delivery_id, Category(to.category), "manage.py reclassify", to.rule, to.suppresses
                )
        for (before, after), count in counts.most_common():
            self.stdout.write(f"{count:8d}  {_words(before)} → {_words(after)}")
            example = examples[before, after]
            self.stdout.write(f"          {example.host}: {example.reply[:200]}")
        told = "nothing was changed" if options["dry_run"] else f"{corrected} bounces corrected"
        self.stdout.write(f"{sum(counts.values())} replies mean something else now; {told}.")


def _words(reading: Reading) -> str:
    return f"{reading.category} by {reading.rule}{', suppressed' if reading.suppresses else ''}"
