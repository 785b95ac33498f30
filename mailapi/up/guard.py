"""A small process between the supervisor and one part; thanks to it nothing of the part outlives the supervisor.

PR_SET_PDEATHSIG reaches only direct children, and the parts have children of their own (granian's and celery's
workers, Postgres' backends). So each part gets a guard: it is told by the kernel when the supervisor dies, even by
SIGKILL; it adopts the part's orphans (PR_SET_CHILD_SUBREAPER); and it ends only after the last of them.

    guard.py PARENT_PID STOP_SIGNAL GRACE_S UID:GID|- PROGRAM [ARGUMENT ...]

    SIGTERM, SIGINT  → STOP_SIGNAL to the part, once; the supervisor decides how long to wait
    SIGUSR1          → the supervisor died: STOP_SIGNAL, and SIGKILL after GRACE_S
    SIGUSR2          → SIGKILL at once

Exits with the part's code, or 128 + signal. Standard library only, run with -I -S: it starts in 20 ms.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1  # prctl(2)
PR_SET_CHILD_SUBREAPER = 36
HEARD = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def run_part(guard_pid: int, owner: tuple[int, int] | None, argv: list[str]) -> None:
    """In the fork: become the part. Never returns."""
    try:
        os.setsid()
        for heard in (*HEARD, signal.SIGQUIT, signal.SIGPIPE):
            signal.signal(heard, signal.SIG_DFL)  # a shell starts background jobs with SIGINT ignored
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if owner is not None:
            os.setgroups([])
            os.setgid(owner[1])
            os.setuid(owner[0])
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after setuid, which would clear it
        if os.getppid() == guard_pid:
            os.execvp(argv[0], argv)  # noqa: S606 – that is its trade
    except OSError as e:
        print(f"{argv[0]}: {e.strerror}", file=sys.stderr, flush=True)
    os._exit(127)


def children() -> list[int]:
    with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as f:
        return [int(pid) for pid in f.read().split()]
    return []


def kill_all(part: int) -> None:
    """SIGKILL to the part's group and to whatever it left, until nothing is ours any more."""
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(part, signal.SIGKILL)
        for pid in children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def reap(part: int) -> int | None:
    """The part's exit code once it has ended; adopted orphans are buried on the way."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == part:
                ended = os.waitstatus_to_exitcode(status)
                code = ended if ended >= 0 else 128 - ended
    return code


def main(argv: list[str]) -> int:
    parent, stop_signal, grace_s = int(argv[0]), int(argv[1]), float(argv[2])
    owner = None if argv[3] == "-" else (int(argv[3].split(":")[0]), int(argv[3].split(":")[1]))
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)
    if os.getppid() != parent:
        return 1  # it died before we asked to be told
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    me = os.getpid()
    part = os.fork()
    if part == 0:
        run_part(me, owner, argv[4:])
    kill_at: float | None = None
    while True:
        left = 3600.0 if kill_at is None else max(0.0, kill_at - time.monotonic())
        told = signal.sigtimedwait(HEARD, left)
        if told is None and kill_at is not None:
            kill_all(part)
            return 128 + signal.SIGKILL
        heard = signal.SIGCHLD if told is None else told.si_signo
        code = reap(part)
        if code is not None:
            kill_all(part)
            return code
        if heard == signal.SIGUSR2:
            kill_all(part)
            return 128 + signal.SIGKILL
        if heard == signal.SIGUSR1:
            kill_at = time.monotonic() + grace_s
        if heard in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            with contextlib.suppress(ProcessLookupError):
                os.kill(part, stop_signal)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
