"""How long the bounce reader takes over mutated mails: PYTHONPATH=. .venv/bin/python benchmarks/bounces.py [count]."""

from __future__ import annotations

import random
import sys
import time

from deliveries.bounces.report import read_report
from tests.core.test_bounces_hostile import mutated, seeds


def main(count: int) -> None:
    rng, pool, times_ms, raised = random.Random(20261123), seeds(), [], 0
    read_report(pool[0])  # rules and wordings are read once per process
    for _ in range(count):
        mail = mutated(rng.choice(pool), pool, rng)
        start = time.perf_counter()
        try:
            read_report(mail)
        except Exception as error:
            raised += 1
            print(f"raised {error!r}")
        times_ms.append((time.perf_counter() - start) * 1e3)
    times_ms.sort()
    print(
        f"{count} mails out of {len(pool)} seeds: {raised} exceptions, median {times_ms[count // 2]:.2f} ms, "
        f"p99 {times_ms[int(count * 0.99)]:.2f} ms, worst {times_ms[-1]:.1f} ms"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
