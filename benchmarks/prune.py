"""What pruning costs those who post: accept's p50 and p99 without and with a prune beside it, and their ratio.

    python -m benchmarks.prune --messages 1000000 --rate 200

The whole service as real processes with the receiver lab. MESSAGES finished mails of months ago are loaded by COPY,
with contents, attempts and events in the partitions of their months. Mails are posted at RATE a second whatever the
answers do (an open loop: a POST counts from the moment at which it was due), for --seconds alone, then for as long as
the retention of this release (`deliveries.prune.retain`) takes to remove all of them, then alone once more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
#: older than any KEEP_…_DAYS by default
_AGE_DAYS = 200
_MONTHS = ("event", "attempt", "message_content")
_LOST = "SELECT count(*) FROM delivery WHERE status <> 'delivered' AND recipient LIKE 'delivered+r%@simulator.test'"
_LONGEST_S = 1800


def load(messages: int) -> None:
    import django

    django.setup()
    from django.db import connection

    from benchmarks import seed
    from deliveries.models.fields import uuid7_floor

    first = (datetime.now(UTC) - timedelta(days=_AGE_DAYS + seed.DAYS)).replace(day=1, hour=0, minute=0, second=0)
    month = first.replace(microsecond=0)
    with connection.cursor() as cursor:
        while month < datetime.now(UTC) - timedelta(days=_AGE_DAYS):
            end = (month + timedelta(days=32)).replace(day=1)
            bounds = [uuid7_floor(int(m.timestamp() * 1000)) for m in (month, end)]
            for table in _MONTHS:
                name = f"{table}_{month:%Y_%m}"
                cursor.execute(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM (%s) TO (%s)", bounds)
            month = end
    seed.OUTCOMES = tuple(o for o in seed.OUTCOMES if o[0] != "deferred")  # what waits is never pruned
    seed.load(messages, _AGE_DAYS)


def prune() -> None:
    import django

    django.setup()
    from deliveries import prune
    from deliveries.models import Message

    began = time.monotonic()
    old = Message.objects.filter(created_at__lt=datetime.now(UTC) - timedelta(days=_AGE_DAYS - 1))
    passes: list[dict[str, int]] = []
    while not passes or (old.exists() and time.monotonic() - began < _LONGEST_S):
        passes.append(prune.retain())
    print(json.dumps({"began": began, "ended": time.monotonic(), "passes": passes}))


def figures(took: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(took, n=100)
    return {"p50_ms": cuts[49] * 1000, "p99_ms": cuts[98] * 1000, "worst_ms": max(took) * 1000, "mails": len(took)}


class Run:
    def __init__(self, rate: int, seconds: float) -> None:
        from tests.fakes.town import Town

        self.rate, self.seconds, self.rounds = rate, seconds, 0
        self.town = Town(lease_s=60, KEEP_CONTENT_DAYS="45", KEEP_MAIL_DAYS="180", LOG_LEVEL="WARNING", RATE_LIMIT="0")

    def inside(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "benchmarks.prune", *words]
        return subprocess.Popen(command, env=self.town.env, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def feed(self, seconds: float) -> subprocess.Popen[str]:
        self.rounds += 1
        domain, count = self.town.sender.rpartition("@")[2], max(int(self.rate * seconds), 100)
        plan = {
            "way": "paced", "run": f"delivered+r{self.rounds}", "mails": count, "per_s": self.rate,
            "port": self.town.web_port, "key": self.town.key, "sender": f"bench@{domain}",
            "domains": ["simulator.test"],
        }  # fmt: skip
        feeder = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.feeder", json.dumps(plan)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert feeder.stdout and feeder.stdin and feeder.stdout.readline().strip() == "ready"
        feeder.stdin.write("go\n")
        feeder.stdin.flush()
        return feeder

    @staticmethod
    def took(feeder: subprocess.Popen[str]) -> list[tuple[float, float]]:
        said = json.loads(feeder.communicate(timeout=_LONGEST_S)[0])
        if said["refused"]:
            raise SystemExit(f"{len(said['refused'])} refused: {said['refused'][0]}")
        return [(due, took) for due, took in said["took"]]

    def alone(self) -> dict[str, float]:
        return figures([took for _, took in self.took(self.feed(self.seconds))])

    def beside(self) -> tuple[dict[str, float], dict[str, Any]]:
        """Rounds of posts for as long as the prune takes; those that were due meanwhile count."""
        pruning = self.inside("--prune")
        rounds: list[tuple[float, float]] = []
        while pruning.poll() is None:
            rounds += self.took(self.feed(min(self.seconds, 10)))
        assert pruning.stdout
        done = json.loads(pruning.stdout.read())
        during = [took for due, took in rounds if done["began"] <= due <= done["ended"]]
        return figures(during), {"took_s": done["ended"] - done["began"], "passes": done["passes"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rate", type=int, default=50, help="mails a second")
    parser.add_argument("--seconds", type=float, default=10, help="how long the posts alone are measured, twice")
    parser.add_argument("--load", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--prune", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        return load(options.messages)
    if options.prune:
        return prune()
    run = Run(options.rate, options.seconds)
    try:
        run.town.build()
        loading = run.inside("--load", "--messages", str(options.messages))
        if loading.wait(_LONGEST_S * 2):
            raise SystemExit("the old mails could not be loaded")
        run.town.execute("CHECKPOINT")
        run.took(run.feed(3))  # connections made, statements prepared
        before = run.alone()
        during, done = run.beside()
        after = run.alone()
        run.town.until(lambda: run.town.sql("SELECT count(*) FROM queued")[0][0] == 0, "the posts are delivered", 600)
        lost = run.town.sql(_LOST)[0][0]
    finally:
        run.town.tear_down()
    for name, line in (("alone", before), ("with prune", during), ("alone again", after)):
        print(f"{name:12} p50 {line['p50_ms']:7.1f} ms  p99 {line['p99_ms']:7.1f} ms  worst {line['worst_ms']:7.1f} ms"
              f"  {line['mails']:.0f} mails")  # fmt: skip
    gone = sum(p.get("mails", 0) for p in done["passes"])
    base = statistics.mean([before["p99_ms"], after["p99_ms"]])
    print(f"{gone} rows pruned in {done['took_s']:.0f} s, {len(done['passes'])} passes; posts not delivered: {lost}")
    print(f"load {os.getloadavg()[0]:.1f}; p99 with / without: {during['p99_ms'] / base:.2f}")


if __name__ == "__main__":
    main()
