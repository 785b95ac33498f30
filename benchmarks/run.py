"""How fast, beside Postfix, in the same run on the same sink.

    python benchmarks/run.py [--mails 2000] [--rounds 5] [--json]

Interleaved rounds, medians. Postfix tuned, Postfix + OpenDKIM, and the service with every guarantee on: fsync, leases,
ledger, DKIM RSA-2048, attempts, transcripts, events, a webhook endpoint. 5 KB mails, one recipient each, to Postfix's
smtp-sink on loopback; the service finds it through a local DNS server, Postfix by its transport. benchmarks/README.md
tells what each figure means. Needs root, and Debian's postfix and opendkim.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import postfix as pf
from benchmarks.ours import DNS_TABLE, SENDER, WIRE_DOMAIN, Service
from benchmarks.parts import BULK, WIRE, Guarded, Sink, answers, cpu_us, free_port, missing, program, until
from tests.fakes.dns import FakeDns

SIZE = 5000
PER_S = 50
#: the longest that one part of a round may take
BOUND_S = 60.0


class Bench:
    def __init__(self, folder: Path, mails: int, said: Callable[[str], None]) -> None:
        self.mails = mails
        self.paced_mails = min(mails, 5 * PER_S)
        self.said = said
        self.figures: dict[str, list[float]] = {}
        self.run = 0
        self.folder = folder
        self.stack = contextlib.ExitStack()

    # --- the parts ------------------------------------------------------------------------------------------------

    def build(self, postfix: bool = True) -> None:
        folder, port = self.folder, free_port()
        dns = self.stack.enter_context(FakeDns(DNS_TABLE))
        self.sink = Sink(BULK, port, folder / "sink.log")
        self.stack.callback(self.sink.part.end)
        self.clock = Guarded(
            [sys.executable, "-m", "benchmarks.sinks", f"{WIRE}:{port}"], folder / "clock.log", pipes=True
        )
        self.stack.callback(self.clock.end)
        webhook_port = int(self.clock.line())
        until(lambda: answers(WIRE, port), "the sink with a clock")
        if postfix:
            self.said("starting Postfix and OpenDKIM")
            self.postfix = pf.Postfix(folder / "postfix", port)
            self.stack.callback(self.postfix.end)
        self.said("starting the service")
        self.service = Service(dns.address, port, webhook_port)
        self.stack.callback(self.service.town.tear_down)
        self.service.build()
        self.sink_port = port

    def close(self) -> None:
        self.stack.close()

    def tell_logs(self) -> None:
        """The last lines of every log: where it broke."""
        logs = sorted(self.folder.glob("**/*log*/*")) + sorted(self.folder.glob("*/*.log"))
        if hasattr(self, "service"):
            logs += sorted(self.service.town.folder.glob("logs/*"))
        for log in logs:
            if log.is_file() and (lines := log.read_text(errors="replace").splitlines()[-15:]):
                print(f"--- {log.name}", *lines, sep="\n", file=sys.stderr)

    def note(self, name: str, value: float) -> None:
        self.figures.setdefault(name, []).append(value)
        self.said(f"  {name:28} {value:10.1f}")

    # --- one round ------------------------------------------------------------------------------------------------

    def parts(self) -> list[Callable[[], None]]:
        return [
            self.ceiling,
            lambda: self.postfix_through("postfix", self.postfix.plain, False),
            lambda: self.postfix_through("postfix_dkim", self.postfix.signed, True),
            self.single,
            self.batch,
            lambda: self.postfix_drain("postfix_drain_per_s", self.postfix.plain_held),
            lambda: self.postfix_drain("postfix_dkim_drain_per_s", self.postfix.signed_held),
            self.accept_and_drain,
            self.postfix_to_wire,
            self.to_wire,
        ]

    def ceiling(self) -> None:
        """smtp-source straight to the sink."""
        base = self.sink.taken()
        begun, source = self._source(f"{BULK}:{self.sink_port}")
        self.note("sink_ceiling_per_s", self.mails / (self.sink.wait(base + self.mails, BOUND_S) - begun))
        source()

    def postfix_through(self, name: str, port: int, signed: bool) -> None:
        base, cpu = self.sink.taken(), cpu_us(self.postfix.pids(signed))
        begun, source = self._source(f"127.0.0.1:{port}")
        ended = self.sink.wait(base + self.mails, BOUND_S)
        source()
        self.note(f"{name}_per_s", self.mails / (ended - begun))
        self._postfix_empty()
        self.note(f"{name}_cpu_us_per_mail", (cpu_us(self.postfix.pids(signed)) - cpu) / self.mails)

    def postfix_drain(self, name: str, port: int) -> None:
        base = self.sink.taken()
        self._source(f"127.0.0.1:{port}")[1]()
        begun = time.monotonic()
        self.postfix.release()
        self.note(name, self.mails / (self.sink.wait(base + self.mails, BOUND_S) - begun))
        self._postfix_empty()

    def single(self) -> None:
        base, cpu = self.sink.taken(), cpu_us(self.service.pids())
        fed = self._feed("single")
        ended = self.sink.wait(base + self.mails, BOUND_S)
        begun = fed()["begun"]
        self.note("single_per_s", self.mails / (ended - begun))
        self.service.settle()
        self.note("cpu_us_per_mail", (cpu_us(self.service.pids()) - cpu) / self.mails)

    def batch(self) -> None:
        base = self.sink.taken()
        fed = self._feed("batch", connections=4)
        ended = self.sink.wait(base + self.mails, BOUND_S)
        self.note("batch_per_s", self.mails / (ended - fed()["begun"]))
        self.service.settle()

    def accept_and_drain(self) -> None:
        base = self.sink.taken()
        with self.service.held():
            told = self._feed("single")()
            self.note("accept_per_s", self.mails / (told["ended"] - told["begun"]))
            time.sleep(0.5)
        begun = time.monotonic()
        self.service.ring()
        self.note("drain_per_s", self.mails / (self.sink.wait(base + self.mails, BOUND_S) - begun))
        self.service.settle()

    def to_wire(self) -> None:
        plan = self.service.plan("paced", self._run(), self.paced_mails) | {"domains": [WIRE_DOMAIN]}
        self._to_wire("", plan)
        self.service.settle()

    def postfix_to_wire(self) -> None:
        plan = {"way": "paced-smtp", "run": self._run(), "mails": self.paced_mails, "per_s": PER_S, "sender": SENDER}
        self._to_wire("postfix_", plan | {"port": self.postfix.signed, "domains": [WIRE_DOMAIN]})
        self._postfix_empty()

    # --- below the round ------------------------------------------------------------------------------------------

    def _run(self) -> str:
        self.run += 1
        return f"r{self.run}"

    def _source(self, where: str) -> tuple[float, Callable[[], None]]:
        """smtp-source with 20 sessions, each kept for all its mails; when it began, and how to wait for its end."""
        argv = [program("smtp-source"), "-d", "-s", "20", "-m", str(self.mails), "-l", str(SIZE)]
        begun = time.monotonic()
        source = subprocess.Popen([*argv, "-f", SENDER, "-t", "anna@bulk.bench.test", where])
        self.stack.callback(lambda: source.poll() is None and source.kill())

        def ended() -> None:
            if code := source.wait(BOUND_S):
                raise RuntimeError(f"smtp-source ended with {code}")

        return begun, ended

    def _feed(self, way: str, connections: int = 16) -> Callable[[], dict[str, Any]]:
        return self._feeder(self.service.plan(way, self._run(), self.mails, connections))

    def _feeder(self, plan: dict[str, Any]) -> Callable[[], dict[str, Any]]:
        """Begins now; the answer waits for its end."""
        feeder = Guarded(
            [sys.executable, "-m", "benchmarks.feeder", json.dumps(plan)], self.folder / "feeder.log", pipes=True
        )
        assert feeder.line() == "ready"
        feeder.tell("go")

        def ended() -> dict[str, Any]:
            told: dict[str, Any] = json.loads(feeder.line())
            feeder.end()
            if told["refused"]:
                raise RuntimeError(f"{len(told['refused'])} refused, the first: {told['refused'][0]}")
            return told

        return ended

    def _to_wire(self, name: str, plan: dict[str, Any]) -> None:
        sent = self._feeder(plan)()["sent"]
        until(lambda: self._asked("count") >= len(sent), "the sink with a clock", 60)
        came = self._asked("times")
        self.last = [(at, came[recipient]) for recipient, at in sent.items()]
        ms = sorted((dot - at) * 1000 for at, dot in self.last)
        self.note(f"{name}to_wire_ms_p50", statistics.median(ms))
        self.note(f"{name}to_wire_ms_p99", ms[min(len(ms) - 1, len(ms) * 99 // 100)])

    def _asked(self, word: str) -> Any:
        self.clock.tell(word)
        return json.loads(self.clock.line())

    def _postfix_empty(self) -> None:
        until(self.postfix.empty, "Postfix's queue is empty", BOUND_S)


def measure(bench: Bench, rounds: int, claims: bool) -> None:
    bench.said("warming up")
    mails, bench.mails = bench.mails, 200
    paced, bench.paced_mails = bench.paced_mails, 50
    for part in bench.parts():
        part()
    bench.mails, bench.paced_mails = mails, paced
    bench.figures.clear()
    for number in range(rounds):
        bench.said(f"round {number + 1} of {rounds}")
        for part in bench.parts() if number % 2 == 0 else reversed(bench.parts()):
            part()
    if claims:
        with bench.service.held():
            for name, rows in (("claim_ms_p95_10k", 10_000), ("claim_ms_p95_1m", 1_000_000)):
                bench.note(name, float(bench.service.inside("claims", str(rows))))
            bench.service.town.sql("WITH t AS (DELETE FROM queued RETURNING 1) SELECT count(*) FROM t")


#: the fields of --json, in order
FIELDS = (
    "rounds mails fsync sink_ceiling_per_s postfix_per_s postfix_dkim_per_s postfix_drain_per_s "
    "postfix_dkim_drain_per_s single_per_s batch_per_s drain_per_s accept_per_s cpu_us_per_mail to_wire_ms_p50 "
    "to_wire_ms_p99 postfix_to_wire_ms_p50 claim_ms_p95_10k claim_ms_p95_1m ratio_single ratio_batch ratio_drain"
).split()


def summary(bench: Bench, rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {name: round(statistics.median(values), 2) for name, values in bench.figures.items()}
    found |= {"rounds": rounds, "mails": bench.mails, "fsync": bench.service.safe()}
    for name, ours, theirs in (
        ("single", "single_per_s", "postfix_dkim_per_s"),
        ("batch", "batch_per_s", "postfix_dkim_per_s"),
        ("drain", "drain_per_s", "postfix_dkim_drain_per_s"),
    ):
        pairs = zip(bench.figures[ours], bench.figures[theirs], strict=True)
        found[f"ratio_{name}"] = round(statistics.median(a / b for a, b in pairs), 2)
    return {name: found.get(name) for name in FIELDS}


ROWS = (
    ("smtp-source straight to the sink", "sink_ceiling_per_s", "mails/s", None),
    ("Postfix, end to end", "postfix_per_s", "mails/s", None),
    ("Postfix + OpenDKIM, end to end", "postfix_dkim_per_s", "mails/s", None),
    ("ours, single posts, end to end", "single_per_s", "mails/s", "ratio_single"),
    ("ours, batches of 100, end to end", "batch_per_s", "mails/s", "ratio_batch"),
    ("Postfix, held queue released", "postfix_drain_per_s", "mails/s", None),
    ("Postfix + OpenDKIM, held queue released", "postfix_dkim_drain_per_s", "mails/s", None),
    ("ours, held backlog released", "drain_per_s", "mails/s", "ratio_drain"),
    ("ours, accept alone", "accept_per_s", "mails/s", None),
    ("processor per mail: Postfix", "postfix_cpu_us_per_mail", "µs", None),
    ("processor per mail: Postfix + OpenDKIM", "postfix_dkim_cpu_us_per_mail", "µs", None),
    ("processor per mail: ours, single posts", "cpu_us_per_mail", "µs", None),
    ("to the wire at 50/s, Postfix + OpenDKIM, p50", "postfix_to_wire_ms_p50", "ms", None),
    ("to the wire at 50/s, Postfix + OpenDKIM, p99", "postfix_to_wire_ms_p99", "ms", None),
    ("to the wire at 50/s, ours, p50", "to_wire_ms_p50", "ms", None),
    ("to the wire at 50/s, ours, p99", "to_wire_ms_p99", "ms", None),
    ("claim of 200 out of 10,000 due, p95", "claim_ms_p95_10k", "ms", None),
    ("claim of 200 out of 1,000,000 due, p95", "claim_ms_p95_1m", "ms", None),
)


def table(bench: Bench, found: dict[str, Any]) -> str:
    lines = [
        f"| {found['rounds']} rounds of {found['mails']} mails, medians | | lowest – highest | × Postfix + OpenDKIM |",
        "|---|---:|---:|---:|",
    ]
    for words, name, unit, ratio in ROWS:
        values = bench.figures.get(name)
        if not values:
            continue
        digits = 0 if unit != "ms" else 1
        low, middle, high = (f"{v:,.{digits}f}" for v in (min(values), statistics.median(values), max(values)))
        span = f"{low} – {high}" if len(values) > 1 else ""
        lines.append(f"| {words} | {middle} {unit} | {span} | {found[ratio] if ratio else ''} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mails", type=int, default=2000, help="of each part of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--json", action="store_true", help="one line of JSON on standard output; the rest on standard error"
    )
    parser.add_argument("--no-claims", action="store_true", help="leave out the claims over 10,000 and 1,000,000 rows")
    options = parser.parse_args()
    if lacks := missing():
        print("The benchmark needs:", *lacks, sep="\n  ", file=sys.stderr)
        return 2
    if options.mails < 100 or options.mails % 100:
        parser.error("--mails must be a multiple of 100")
    folder = Path(tempfile.mkdtemp(prefix="mailapi-bench-"))
    folder.chmod(0o755)  # Postfix' and Postgres' users pass through
    bench = Bench(folder, options.mails, lambda text: print(text, file=sys.stderr, flush=True))
    try:
        bench.build()
        measure(bench, options.rounds, not options.no_claims)
        found = summary(bench, options.rounds)
        print(table(bench, found), file=sys.stderr if options.json else sys.stdout)
        if options.json:
            print(json.dumps(found))
    except (RuntimeError, AssertionError, OSError, psycopg.Error):
        bench.tell_logs()
        raise
    finally:
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
