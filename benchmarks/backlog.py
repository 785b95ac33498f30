"""A backlog behind a suspended provider: what it costs other mail, an OTP, and a claim.

    python -m benchmarks.backlog --rows 1000000

The whole service as real processes with two deliver workers and the receiver lab. ROWS queue rows are due for one
provider that rests; beside them mails are posted, every fourth with priority high, and timed from accepted to
delivered; then the workers stop, and claims are timed that find one due mail each.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parent.parent
_SITE = "resting.bench.test"
_MAILS = 80
_EVERY_S = 0.1
_CLAIMS = 100

_REST = """
INSERT INTO site (name, places, proven, misses, strikes, reason, suspended_until, changed_at, last_reply, paused_by)
VALUES (%s, 20, true, 0, 2, %s, now() + interval '6 hours', now(), '', '')
"""
_FILL = """
INSERT INTO queued (delivery_id, lane, destination, tenant_id, due_at, size)
SELECT gen_random_uuid(), 1, %s, md5((n %% 10)::text)::uuid, now() - make_interval(secs => random() * 3600), 5000
  FROM generate_series(1, %s) AS n
"""
_KNOWN = "INSERT INTO destination (lane, name, next_due, proven) VALUES (1, %s, now(), true)"
_TOOK = """
SELECT q.lane, extract(epoch FROM d.settled_at - d.created_at)::float8
  FROM delivery d JOIN message m ON m.id = d.message_id
 CROSS JOIN LATERAL (SELECT (m.subject = 'otp')::int AS lane) q
 WHERE d.status = 'delivered'
"""


def p95(figures: list[float]) -> float:
    return statistics.quantiles(figures, n=20)[-1]


def main(rows: int) -> None:
    from tests.fakes.town import Town

    town = Town()
    try:
        town.build()
        town.execute(_REST, _SITE, "it asked us to slow down")
        town.execute(_KNOWN, _SITE)
        begun = time.monotonic()
        town.execute(_FILL, _SITE, rows)
        town.execute("ANALYZE queued")
        print(f"{rows} rows due for {_SITE}, which rests (filled in {time.monotonic() - begun:.0f} s)", flush=True)
        for n in range(_MAILS):
            subject, priority = ("otp", "high") if n % 4 == 0 else ("mail", "normal")
            to = f"delivered+{n}@simulator.test"
            mail = {"from": town.sender, "to": to, "subject": subject, "text": "x", "priority": priority}
            town.post(mail, key=f"m{n}")
            time.sleep(_EVERY_S)
        town.until(lambda: len(town.sql(_TOOK)) == _MAILS, "all of it is delivered")
        for lane, name in ((1, "OTP (priority high)"), (0, "other mail")):
            took = [seconds for otp, seconds in town.sql(_TOOK) if otp == lane]
            print(f"{name}: {len(took)} mails, p50 {statistics.median(took):.2f} s, p95 {p95(took):.2f} s, "
                  f"worst {max(took):.2f} s")  # fmt: skip
        for name in ("deliver1", "deliver2"):
            town.stop(name)
        words = [sys.executable, "-m", "benchmarks.backlog", "--claims"]
        subprocess.run(words, env=town.env | {"MAILAPI_ROLE": "command"}, cwd=ROOT, check=True)
        waiting = town.sql("SELECT count(*) FROM queued WHERE destination = %s AND lease_id IS NULL", _SITE)[0][0]
        assert waiting == rows, "mail of a provider that rests was touched"
    finally:
        town.tear_down()


def claims() -> None:
    """Of one due mail each; what else is due rests."""
    import django

    django.setup()
    from django.db import connection, transaction

    from deliveries import queue

    took_ms = []
    with connection.cursor() as cursor:
        cursor.execute("SET plan_cache_mode = force_generic_plan")  # as a deliver process has it
        for n in range(_CLAIMS):
            site, delivery = f"probe{n}.bench.test", uuid4()
            with transaction.atomic():
                cursor.execute(
                    "INSERT INTO queued (delivery_id, lane, destination, tenant_id, due_at, size)"
                    " VALUES (%s, 0, %s, gen_random_uuid(), now(), 1)", [delivery, site],
                )  # fmt: skip
                cursor.execute(
                    "INSERT INTO destination (lane, name, next_due, proven) VALUES (0, %s, now(), true)", [site]
                )
            begun = time.perf_counter()
            rows = queue.claim(uuid4(), 200, queue.MAX_OCTETS, {}).rows
            took_ms.append((time.perf_counter() - begun) * 1000)
            assert [row.delivery_id for row in rows] == [delivery]
    print(f"claim: {_CLAIMS} times, p50 {statistics.median(took_ms):.1f} ms, p95 {p95(took_ms):.1f} ms, "
          f"worst {max(took_ms):.1f} ms")  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mailapi.settings")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="due for the provider that rests (1000000)")
    parser.add_argument("--claims", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    claims() if options.claims else main(options.rows)
