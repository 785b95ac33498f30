"""Where the time goes between a POST's last octet and the final dot at the sink, beside Postfix in the same run.

    python benchmarks/wire.py [--rounds 20] [--mails 50] [--per-s 50] [--timeline] [--no-postfix] [--beside CHECKOUT]

The part "to the wire" of run.py alone, in short interleaved rounds: on a shared machine the quicker quarter says more.
`--timeline` stamps the steps of the way in every process (stamps.py) and tells of each how long after the last octet it
came: medians over the mails that were over before the next one came. `--beside` runs the service of another checkout in
turns with this one.
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.parts import cpu_us
from benchmarks.run import Bench


class Wire(Bench):
    """Keeps what each mail took."""

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.sent: list[tuple[float, float]] = []  # POST's last octet, final dot
        self.took: dict[str, list[list[float]]] = {}  # ms, by round
        self.per_s = 50

    def _to_wire(self, name: str, plan: dict[str, Any]) -> None:
        super()._to_wire(name, plan | {"per_s": self.per_s})
        self.took.setdefault(name or "ours", []).append([(dot - at) * 1000 for at, dot in self.last])
        if not name:
            self.sent += self.last


def timeline(folder: Path, mails: list[tuple[float, float]]) -> None:
    stamps: list[tuple[float, str]] = []
    for path in folder.iterdir():
        for line in path.read_text().splitlines():
            at, _, step = line.partition(" ")
            stamps.append((float(at), step))
    stamps.sort()
    times = [at for at, _ in stamps]
    mails = sorted(mails)
    steps: dict[str, list[float]] = {}
    alone = 0
    for (posted, dotted), (following, _) in zip(mails, [*mails[1:], (float("inf"), 0.0)], strict=True):
        if dotted >= following:
            continue
        alone += 1
        mine = stamps[bisect.bisect_left(times, posted - 0.001) : bisect.bisect_right(times, dotted + 0.02)]
        seen = set()
        for at, step in mine:
            if step not in seen and at < following:
                seen.add(step)
                steps.setdefault(step, []).append((at - posted) * 1000)
        steps.setdefault("sink: final dot came", []).append((dotted - posted) * 1000)
    print(f"{alone} of {len(mails)} mails were over before the next one came; ms after the POST's last octet")
    print(f"{'':45} {'p50':>7} {'+':>7} {'p10':>7} {'p90':>7}  seen")
    before = 0.0
    for step, found in sorted(steps.items(), key=lambda item: statistics.median(item[1])):
        if len(found) < alone / 3:
            continue
        middle, (low, *_, high) = statistics.median(found), statistics.quantiles(found, n=10)
        print(f"{step:45} {middle:7.2f} {middle - before:7.2f} {low:7.2f} {high:7.2f} {len(found):5}")
        before = middle


class Other:
    """The same from another checkout, a round whenever it is told."""

    def __init__(self, checkout: str, mails: int, per_s: int) -> None:
        words = [sys.executable, f"{checkout}/benchmarks/wire.py", "--turns"]
        words += ["--mails", str(mails), "--per-s", str(per_s)]
        self.process = subprocess.Popen(words, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._line()

    def turn(self) -> list[float]:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        took: list[float] = json.loads(self._line())
        return took

    def end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(60)

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


def turns(bench: Wire) -> None:
    bench.to_wire()
    print("ready", flush=True)
    for _ in sys.stdin:
        bench.to_wire()
        print(json.dumps(bench.took["ours"][-1]), flush=True)


def rounds(bench: Wire, number: int, postfix: bool, other: Other | None) -> None:
    parts = [bench.to_wire, *([bench.postfix_to_wire] if postfix else [])]
    if other:
        parts.append(lambda: bench.took.setdefault("other", []).append(other.turn()))
    for part in parts:
        part()
    for kept in (bench.took, bench.sent):
        kept.clear()
    cpu = 0.0
    for turn in range(number):
        for part in parts if turn % 2 == 0 else reversed(parts):
            before = cpu_us(bench.service.pids())
            part()
            cpu += cpu_us(bench.service.pids()) - before if part == bench.to_wire else 0
    print(f"{'ms':10} {'p10':>7} {'p25':>7} {'p50':>7} {'p90':>7} {'p99':>7}   ours to it, by round (p25, p50)")
    for name, took in bench.took.items():
        cuts = statistics.quantiles([one for each in took for one in each], n=100)
        told = " ".join(f"{cuts[p - 1]:7.2f}" for p in (10, 25, 50, 90, 99))
        pairs = [
            statistics.median(
                statistics.quantiles(ours, n=4)[q] / statistics.quantiles(theirs, n=4)[q]
                for ours, theirs in zip(bench.took["ours"], took, strict=True)
            )
            for q in (0, 1)
        ]
        print(f"{name.strip('_'):10} {told}   {pairs[0]:.2f} {pairs[1]:.2f}")
    mails = sum(map(len, bench.took["ours"]))
    print(f"processor a mail: {cpu / mails:.0f} µs; load {os.getloadavg()[0]:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--mails", type=int, default=50, help="of a round")
    parser.add_argument("--per-s", type=int, default=50)
    parser.add_argument("--timeline", action="store_true")
    parser.add_argument("--no-postfix", action="store_true")
    parser.add_argument("--beside", metavar="CHECKOUT")
    parser.add_argument("--turns", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mailapi-wire-"))
    folder.chmod(0o755)
    stamps = folder / "stamps"
    stamps.mkdir()
    if options.timeline:
        os.environ["BENCH_STAMPS"] = str(stamps)
    bench = Wire(folder, options.mails, lambda text: None)
    bench.paced_mails, bench.per_s = options.mails, options.per_s
    postfix = not (options.no_postfix or options.turns)
    other = Other(options.beside, options.mails, options.per_s) if options.beside else None
    try:
        bench.build(postfix)
        if options.turns:
            turns(bench)
            return
        rounds(bench, options.rounds, postfix, other)
        if options.timeline:
            timeline(stamps, bench.sent)
    except BaseException:
        bench.tell_logs()
        raise
    finally:
        bench.close()
        if other:
            other.end()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
