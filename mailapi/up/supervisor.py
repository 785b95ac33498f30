"""Starts the parts, watches them, and stops them in order.

Order of use: `Supervisor(logs)`, `listen()` for signals, `start(child)` for each, `wait_ready(...)`, `run_once(...)`
for commands that end by themselves, `watch()` until a signal or a death, `stop()` in a finally.

Everything runs in the main thread: PR_SET_PDEATHSIG, with which the guards are told of our death, fires when the
*thread* that forked them ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from .words import Refusal, Stopped, complain

GUARD = Path(__file__).with_name("guard.py")
LOG_MAX_OCTETS = 10 * 1024 * 1024  # a log that is longer at the start is put aside as NAME.log.1
LIVED_S = 10.0  # whoever ends sooner may end again at once
AGAIN_S = (0.5, 1.0, 2.0, 5.0, 10.0)  # pauses before the next start after so many short lives in a row; then it is over
POLL_S = 0.03
POLL_MOST_S = 0.25  # a part that is starting has better things to do than to answer us


@dataclass(frozen=True)
class Child:
    """One part as a process."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]  # the whole environment
    cwd: Path
    stage: int = 0  # stages are stopped from the lowest up; within one, at the same time
    stop_signal: signal.Signals = signal.SIGTERM
    stop_s: float = 5.0  # seconds between stop_signal and SIGKILL
    grace_s: float = 3.0  # the same, when the supervisor itself has died
    owner: tuple[int, int] | None = None  # uid, gid; None = as we are
    ready: Callable[[], bool] | None = None  # cheap, asked again until True
    lacks: Callable[[], str] | None = None  # what it says is missing, asked when it is not ready in time
    again: bool = False  # started again where it dies while it is watched; before that, its settings may be no good


class ChildDied(Refusal):
    """A part ended that should not have."""

    def __init__(self, name: str, code: int, last_lines: list[str]) -> None:
        self.name, self.code, self.last_lines = name, code, last_lines
        if code == 128 + signal.SIGKILL:
            # its last words were about something else; nobody hears this signal come
            super().__init__(
                f"{name} was killed by signal 9 (SIGKILL): somebody's kill, or the kernel's want of memory"
            )
            self.last_lines = []
            return
        if 128 < code < 128 + 65:
            how = f"was ended by signal {code - 128} ({signal.Signals(code - 128).name})"
        else:
            how = f"exited with {code}"
        super().__init__(f"{name} {how}" + (f": {last_lines[-1]}" if last_lines else ""))


@dataclass
class _Running:
    child: Child
    guard: subprocess.Popen[bytes]
    log: Path
    log_from: int  # octets that were in the log before this start
    since: float
    is_ready: bool = False
    short_lives: int = 0  # in a row, before this one
    again_at: float | None = None  # it has ended, and starts again then


@dataclass
class Supervisor:
    logs: Path
    running: dict[str, _Running] = field(default_factory=dict)
    watching: bool = False
    asked: int = 0  # how many times a signal asked us to stop
    _wake: tuple[int, int] | None = None

    # -- signals ---------------------------------------------------------------------------------------------
    def listen(self) -> None:
        """From now on SIGINT, SIGTERM and SIGHUP ask for an orderly stop; a second one hurries it."""
        read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake = (read_end, write_end)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # so that a death wakes watch()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.asked += 1

    def _sleep(self, seconds: float | None) -> None:
        if self._wake is None:
            time.sleep(POLL_S if seconds is None else seconds)
            return
        with contextlib.suppress(InterruptedError):
            select.select([self._wake[0]], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake[0], 4096)

    # -- starting --------------------------------------------------------------------------------------------
    def start(self, child: Child) -> None:
        log = self.logs / f"{child.name}.log"
        if log.exists() and log.stat().st_size > LOG_MAX_OCTETS:
            log.replace(log.with_name(log.name + ".1"))
        with open(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as out:
            log_from = out.seek(0, os.SEEK_END)
            guard = self._guard(child, out.fileno(), out.fileno())
        self.running[child.name] = _Running(child, guard, log, log_from, time.monotonic(), child.ready is None)

    def _guard(self, child: Child, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
        owner = "-" if child.owner is None else f"{child.owner[0]}:{child.owner[1]}"
        return subprocess.Popen(  # noqa: S603 – our own words
            [
                *(sys.executable, "-I", "-S", str(GUARD), str(os.getpid())),
                *(str(int(child.stop_signal)), str(child.grace_s), owner, *child.argv),
            ],
            env=dict(child.env),
            cwd=child.cwd,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )

    def wait_ready(self, names: Iterable[str], timeout_s: float) -> None:
        """Until each of the named parts answers. Raises ChildDied, Stopped, or Refusal after timeout_s."""
        waiting = [self.running[name] for name in names]
        deadline = time.monotonic() + timeout_s
        pause_s = POLL_S
        while True:
            self.check()
            waiting = [r for r in waiting if not r.is_ready]
            for r in waiting:
                r.is_ready = r.child.ready is None or r.child.ready()
            if all(r.is_ready for r in waiting):
                return
            if time.monotonic() > deadline:
                slow = [r.child for r in waiting if not r.is_ready]
                names = ", ".join(c.name for c in slow)
                said = "".join(f" ({c.lacks()})" for c in slow if c.lacks)
                raise Refusal(f"{names} did not answer within {timeout_s:.0f} s{said}; see {self.logs}")
            self._sleep(pause_s)
            pause_s = min(pause_s * 1.2, POLL_MOST_S)

    def check(self) -> None:
        """Starts again who may. Raises Stopped when a signal came, ChildDied when a part is gone that may not."""
        if self.asked:
            raise Stopped
        for r in list(self.running.values()):
            if r.again_at is not None:
                if time.monotonic() >= r.again_at:
                    self.start(r.child)
                    self.running[r.child.name].short_lives = r.short_lives
            elif (code := r.guard.poll()) is not None:
                self._after(r, code)

    def _after(self, r: _Running, code: int) -> None:
        """What follows a death: a new start, now or after a pause; ChildDied where that would help nobody."""
        death = ChildDied(r.child.name, code, last_lines(r.log, r.log_from))
        r.short_lives = 0 if time.monotonic() - r.since >= LIVED_S else r.short_lives + 1
        if not (r.child.again and self.watching) or r.short_lives > len(AGAIN_S):
            raise death
        pause_s = AGAIN_S[r.short_lives - 1] if r.short_lives else 0.0
        r.again_at = time.monotonic() + pause_s
        complain(f"{death}; started again{f' in {pause_s:g} s' if pause_s else ''}, see {r.log}")

    def run_once(self, command: Child, timeout_s: float) -> str:
        """Runs a command to its end and returns its standard output; its standard error goes to NAME.log.

        Raises Refusal with the command's own last line, or its first failed check, when it fails; Stopped.
        """
        log = self.logs / f"{command.name}.log"
        answer = self.logs / f".{command.name}.out"
        flags = os.O_CREAT | os.O_TRUNC | os.O_RDWR
        with open(os.open(log, flags, 0o600), "wb") as err, open(os.open(answer, flags, 0o600), "wb") as out:
            guard = self._guard(command, out.fileno(), err.fileno())
        deadline = time.monotonic() + timeout_s
        try:
            while guard.poll() is None:
                if self.asked:
                    raise Stopped
                if time.monotonic() > deadline:
                    raise Refusal(f"{command.name} took more than {timeout_s:.0f} s; see {log}")
                self._sleep(POLL_S)
            text = answer.read_text(errors="replace")
        finally:
            if guard.poll() is None:
                guard.send_signal(signal.SIGUSR2)
                guard.wait()
            answer.unlink(missing_ok=True)
        if guard.returncode:
            said = last_lines(log, 0) or text.splitlines()[-3:] or [f"exit {guard.returncode}"]
            # Django's system checks write a hint, and how many they were, below what is wrong
            wrong = next((line.removeprefix("?: ") for line in said if line.startswith("?: (")), said[-1])
            raise Refusal(f"{command.name}: {wrong.removeprefix('manage.py: ')}")
        return text

    # -- watching and stopping -------------------------------------------------------------------------------
    def watch(self) -> None:
        """Sleeps until a signal (Stopped) or a death that no new start mends (ChildDied)."""
        self.watching = True
        while True:
            self.check()
            due = [r.again_at for r in self.running.values() if r.again_at is not None]
            idle_s = None if self._wake else 0.2
            self._sleep(max(0.0, min(due) - time.monotonic()) if due else idle_s)

    def stop(self) -> None:
        """Every part, stage by stage. Never raises; says whom it had to kill."""
        hurry_after = self.asked
        for stage in sorted({r.child.stage for r in self.running.values()}):
            alive = [r for r in self.running.values() if r.child.stage == stage]
            for r in alive:
                _tell(r.guard, signal.SIGTERM)
            begun = time.monotonic()
            while alive := [r for r in alive if r.guard.poll() is None]:
                for r in alive:
                    if time.monotonic() - begun > r.child.stop_s or self.asked > max(1, hurry_after):
                        complain(f"{r.child.name} did not stop within {time.monotonic() - begun:.0f} s, killed")
                        _tell(r.guard, signal.SIGUSR2)
                        r.guard.wait()
                self._sleep(POLL_S)
        self.running.clear()


def _tell(guard: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        guard.send_signal(number)


def last_lines(log: Path, log_from: int, count: int = 12) -> list[str]:
    """The last non-empty lines that a part wrote since its start; empty when it wrote none."""
    try:
        with log.open("rb") as f:
            end = f.seek(0, os.SEEK_END)
            f.seek(max(log_from, end - 16384))
            lines = f.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()][-count:]
