"""What runs beside the service, under mailapi/up/guard.py: nothing survives the run, whatever ends it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GUARD = ROOT / "mailapi" / "up" / "guard.py"
MASTER = Path("/usr/lib/postfix/sbin/master")
#: program → Debian package
NEEDED = {"smtp-sink": "postfix", "smtp-source": "postfix", "postsuper": "postfix", "opendkim": "opendkim"}

#: where each kind of domain's mail goes: the same port on three addresses of loopback
BULK, WIRE = "127.0.0.2", "127.0.0.3"
_TICK_US = 1_000_000 // os.sysconf("SC_CLK_TCK")


def program(name: str) -> str:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""


def missing() -> list[str]:
    """What this machine lacks, in words; empty when the run can begin."""
    said = []
    if os.geteuid() != 0:
        said.append("root: Postfix starts as root only")
    packages = sorted({package for name, package in NEEDED.items() if not program(name)})
    if packages:
        said.append(f"packages: apt-get install --no-install-recommends {' '.join(packages)}")
    return said


def free_port() -> int:
    """A port that is free on every address of loopback."""
    with socket.socket() as s:
        s.bind(("0.0.0.0", 0))
        return s.getsockname()[1]


class Guarded:
    """A process with all that it starts."""

    def __init__(
        self, argv: Sequence[str | Path], log: Path, *, stop: signal.Signals = signal.SIGTERM, pipes: bool = False
    ) -> None:
        pipe = subprocess.PIPE if pipes else subprocess.DEVNULL
        with open(log, "ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(GUARD), str(os.getpid()), str(int(stop)), "5", "-", *map(str, argv)],
                stdin=pipe,
                stdout=pipe,
                stderr=errors,
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )

    def line(self) -> str:
        """The next line that it says; blocks."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline().decode().strip()
        if not text:
            raise RuntimeError(f"{self.process.args[8]}: ended without a word")  # type: ignore[index]
        return text

    def tell(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGUSR2)
            self.process.wait(15)


class Sink:
    """Postfix's smtp-sink. `taken()` is its own running counter of mails."""

    def __init__(self, address: str, port: int, log: Path) -> None:
        argv = [program("smtp-sink"), "-u", "nobody", "-c", "-m", "2000", f"{address}:{port}", "1000"]
        self.part = Guarded(argv, log, pipes=True)
        assert self.part.process.stdout is not None
        self._fd = self.part.process.stdout.fileno()
        os.set_blocking(self._fd, False)
        self._tail = b""
        self._taken = 0
        until(lambda: answers(address, port), "smtp-sink")

    def taken(self) -> int:
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._fd, 1 << 20):
                self._tail = (self._tail + piece)[-400:]
        if found := re.findall(rb"mesg=(\d+)\r", self._tail):
            self._taken = int(found[-1])
        return self._taken

    def wait(self, count: int, seconds: float) -> float:
        """Monotonic time at which the `count`th mail had come."""
        end = time.monotonic() + seconds
        while self.taken() < count:
            if time.monotonic() > end:
                raise RuntimeError(f"the sink has {self._taken} of {count} mails after {seconds:.0f} s")
            time.sleep(0.002)
        return time.monotonic()


def answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), 1):
            return True
    except OSError:
        return False


def until(done: Callable[[], bool], what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.02)


def tree(pid: int) -> list[int]:
    """The process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += tree(int(child))
    return found


def cpu_us(pids: Sequence[int]) -> int:
    """Processor time of these process trees, with the children that ended."""
    total = 0
    for pid in {p for root in pids for p in tree(root)}:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))  # utime, stime, and those of children that were waited for
    return total * _TICK_US
