"""Where the processor time goes: µs per mail by process, and commits per mail, without Postfix beside it.

    python benchmarks/cpu.py [--mails 1000] [--rounds 1] [--parts drain,single,batch,wire] [--spy FOLDER]

For comparing two states of the service back to back: processor time bears a shared machine better than rates do.
`--spy` writes py-spy's samples of a deliver, a web and a jobs process (pip install py-spy). Needs Debian's postfix for
its smtp-sink.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.parts import cpu_us, tree
from benchmarks.run import Bench

PROCESSES = ("postgres", "web", "deliver1", "deliver2", "jobs", "valkey", "beat")

_LAG = """
SELECT count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY behind), max(behind)
  FROM (SELECT extract(epoch FROM t.at - e.created_at)::float8 AS behind
          FROM webhook_try t JOIN webhook_delivery d ON d.id = t.delivery_id JOIN event e ON e.id = d.event_id
         WHERE t.at > %s) tries
"""

_ACCEPTED = "SELECT count(*), count(DISTINCT created_at) FROM message WHERE created_at > %s"


class Shares(Bench):
    """The benchmark's own parts, each with the processor time of every process."""

    def part(self, name: str, run: Callable[[], None], spy: Path | None) -> None:
        procs = self.service.town.procs
        before = {p: cpu_us([procs[p].pid]) for p in PROCESSES}
        commits = self._commits()
        began = self.service.town.sql("SELECT clock_timestamp()")[0][0]
        self.figures.clear()
        with self._spied(name, spy):
            run()
        commits = self._commits() - commits
        used = {p: (cpu_us([procs[p].pid]) - before[p]) / self.mails_of(name) for p in PROCESSES}
        told = "  ".join(f"{p} {v:.0f}" for p, v in used.items())
        rates = "  ".join(f"{n} {statistics.median(v):.1f}" for n, v in self.figures.items())
        load = os.getloadavg()[0]
        print(f"{name:7} sum {sum(used.values()):6.0f} µs  {told}  commits/mail {commits / self.mails_of(name):.2f}  "
              f"{rates}  load {load:.1f}\n{'':7} {self._told(began)}", flush=True)  # fmt: skip

    def _told(self, began: datetime) -> str:
        """How far the webhooks kept up (what is not told by the end of a part is taken from the outbox), and how many
        posts shared a statement."""
        told, middle, most = self.service.town.sql(_LAG, began)[0]
        mails, statements = self.service.town.sql(_ACCEPTED, began)[0]
        return (
            f"webhooks told {told}, behind their events p50 {middle or 0:.2f} s, at most {most or 0:.2f} s; "
            f"{mails} mails accepted by {statements} statements"
        )

    def mails_of(self, name: str) -> int:
        return self.paced_mails if name == "wire" else self.mails

    def _commits(self) -> int:
        time.sleep(1.1)  # backends report their statistics at most once a second
        statement = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        return int(self.service.town.sql(statement)[0][0])

    def hold(self) -> None:
        """A backlog that nobody looks at yet, so that a drain's own time is counted alone."""
        self._base = self.sink.taken()
        self._held = contextlib.ExitStack()
        self._held.enter_context(self.service.held())
        self._feed("batch", connections=4)()

    def drain(self) -> None:
        self._held.close()
        begun = time.monotonic()
        self.service.ring()
        self.note("drain_per_s", self.mails / (self.sink.wait(self._base + self.mails, 120) - begun))
        self.service.settle()

    @contextlib.contextmanager
    def _spied(self, name: str, folder: Path | None) -> Iterator[None]:
        if folder is None:
            yield
            return
        spies = []
        for process in ("deliver1", "web", "jobs"):
            pid = str(tree(self.service.town.procs[process].pid)[-1])
            out = str(folder / f"{name}-{process}.txt")
            argv = ["py-spy", "record", "-p", pid, "-o", out, "-f", "raw", "-r", "200", "-d", "60", "--gil"]
            spies.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        time.sleep(1)
        try:
            yield
        finally:
            for spy in spies:
                spy.send_signal(2)
                spy.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mails", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--parts", default="drain,single,batch,wire")
    parser.add_argument("--spy", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mailapi-cpu-"))
    folder.chmod(0o755)
    bench = Shares(folder, options.mails, lambda text: None)
    try:
        bench.build(postfix=False)
        mails, bench.mails = bench.mails, 200
        bench.batch()
        bench.single()
        bench.mails = mails
        for _ in range(options.rounds):
            for name in options.parts.split(","):
                run = {"drain": bench.drain, "single": bench.single, "batch": bench.batch, "wire": bench.to_wire}[name]
                if name == "drain":
                    bench.hold()
                bench.part(name, run, options.spy)
    except BaseException:
        bench.tell_logs()
        raise
    finally:
        bench.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
