"""How much more goes out with more worker hosts: each in a network namespace of its own, beside the sink's ceiling.

    python -m benchmarks.hosts [--mails 2000] [--rounds 3] [--hosts 3]

N mails are accepted while no worker runs; then as many hosts as the round says are started, and what is timed is the
way from the sink's tenth part of them to its last mail, so that starting Python is not in it. The ceiling is
smtp-source from a host straight to the same sink. Needs root, `ip` and Debian's postfix (for smtp-sink, smtp-source).
All hosts share this machine's processors: the table tells whether the service itself stands in the way of more hosts,
not what more machines give.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.parts import Sink, program
from tests.fakes.hosts import Hosts
from tests.fakes.town import free_port

DOMAINS = tuple(f"d{n}.bench.test" for n in range(20))
BATCH = 100


class Bench:
    def __init__(self, hosts: int, mails: int) -> None:
        self.mails = mails
        self.port = free_port()
        self.town = Hosts(hosts, DOMAINS, SMTP_PORT=str(self.port), LEASE_S="60", LOG_LEVEL="WARNING")
        self.town.parts = ("web", "beat")
        self.taken = 0

    def build(self) -> None:
        self.town.build()
        self.sink = Sink(self.town.network.address, self.port, self.town.folder / "sink.log")

    def ceiling(self) -> float:
        """Mails a second of smtp-source on a host, ten kept sessions."""
        words = [program("smtp-source"), "-d", "-s", "10", "-m", str(self.mails), "-l", "2000", "-f", "a@bench.test",
                 "-t", "b@d0.bench.test", f"{self.town.network.address}:{self.port}"]  # fmt: skip
        began = time.monotonic()
        # the sink is read meanwhile: it stands still where nobody hears its counter
        with subprocess.Popen(["ip", "netns", "exec", self.town.host(1).name, *words]):
            self.taken += self.mails
            return self.mails / (self.sink.wait(self.taken, 120) - began)

    def drain(self, hosts: int, run: str) -> float:
        """Mails a second from the sink's tenth part to the last one."""
        town = self.town
        for start in range(0, self.mails, BATCH):
            mails = [{"from": town.sender, "to": f"b@{DOMAINS[n % len(DOMAINS)]}", "subject": f"mail {n}",
                      "text": "x" * 2000} for n in range(start, start + BATCH)]  # fmt: skip
            town.post_batch(mails, key=f"{run}-{start}")
        for number in range(1, hosts + 1):
            town.start_host(number)
        first = self.sink.wait(self.taken + self.mails // 10, 300)
        last = self.sink.wait(self.taken + self.mails, 600)
        self.taken += self.mails
        town.until(lambda: town.sql("SELECT count(*) FROM queued")[0][0] == 0, "every outcome is recorded")
        for name in [n for n in town.procs if n.startswith("h")]:
            town.stop(name)
        return self.mails * 0.9 / (last - first)

    def close(self) -> None:
        if hasattr(self, "sink"):
            self.sink.part.end()
        self.town.tear_down()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mails", type=int, default=2000, help="of each part of a round, a multiple of 100 (2000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hosts", type=int, default=3)
    options = parser.parse_args()
    if os.geteuid() != 0 or not program("smtp-sink"):
        print("The benchmark needs root and the package postfix.", file=sys.stderr)
        return 2
    bench = Bench(options.hosts, options.mails)
    found: dict[str, list[float]] = {}
    try:
        bench.build()
        for turn in range(options.rounds):
            found.setdefault("smtp-source straight to the sink", []).append(bench.ceiling())
            numbers = range(1, options.hosts + 1)
            for number in numbers if turn % 2 == 0 else reversed(numbers):
                rate = bench.drain(number, f"{turn}-{number}")
                found.setdefault(f"{number} host{'s' * (number > 1)}", []).append(rate)
                print(
                    f"round {turn + 1}, {number}: {rate:,.0f} mails/s, load {os.getloadavg()[0]:.1f}", file=sys.stderr
                )
    finally:
        bench.close()
    print(f"| {options.rounds} rounds of {options.mails} mails | median | lowest – highest |\n|---|---:|---:|")
    for words, rates in found.items():
        print(f"| {words} | {statistics.median(rates):,.0f} mails/s | {min(rates):,.0f} – {max(rates):,.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
