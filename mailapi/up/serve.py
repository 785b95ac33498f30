"""The command line of each part, and `manage.py serve ROLE`, which becomes one: what containers and systemd units run.

`manage.py up` starts the same parts with addresses of its own (stack.py). Standard library only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from . import bootstrap
from .addresses import Address
from .words import Refusal, complain

ROLES = ("web", "deliver", "jobs", "beat", "smtpd")
WEB_WORKERS = 2
WEB_THREADS = 8
#: threads of a web process that wait for bodies beside those that work, made when needed (mailapi/bodies.py)
WEB_SPARE = 256
JOBS = 2
#: granian ends a worker that does not stop by itself: `up` soon, `serve` once every request has had its time
KILL_AFTER_S = 5
FINISH_S = 25
#: so long before it stops, web says to its proxy that it will
NOTICE_S = 3
#: docs/operations.md tells them; whoever sees the port reaches it, so that is said by whoever opens it
WEB_LISTEN = "127.0.0.1:8000"
BEAT_SCHEDULE = "/tmp/mailapi-beat-schedule"  # noqa: S108 – when it last rang; without it, it rings at once

_PYTHON = (sys.executable, "-m")
#: quiet: its banner is no line of the log
_CELERY = (*_PYTHON, "celery", "-q", "-A", "mailapi")


def web(
    listen: Address, workers: int = WEB_WORKERS, threads: int = WEB_THREADS, kill_after_s: int = KILL_AFTER_S
) -> tuple[str, ...]:
    """granian: processes with `threads` that work, each with one database connection at most, and spare ones.

    It warns at each start that these are many, and of nothing else of ours: only its errors are told. After SIGTERM it
    takes no further connection, and ends the requests that it has.
    """
    return (
        *(*_PYTHON, "granian", "--interface", "wsgi", "--host", listen.host, "--port", str(listen.port)),
        *("--workers", str(workers), "--blocking-threads", str(threads + WEB_SPARE), "--respawn-failed-workers"),
        *("--workers-kill-timeout", str(kill_after_s), "--no-ws", "--http", "1", "--log-level", "error"),
        *("--log-config", str(bootstrap.ROOT / "mailapi" / "granian.json")),
        "mailapi.wsgi:application",
    )


def worker(role: str, name: str, *words: str) -> tuple[str, ...]:
    """A Celery worker of the queue `role`, known as `name` on this host."""
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "INFO")
    return (*_CELERY, "worker", "-Q", role, "-n", f"{name}@%h", *words, *quiet)


def deliver(name: str) -> tuple[str, ...]:
    """One thread: a prefork child never hears SIGTERM, a thread worker does."""
    return worker("deliver", name, "-P", "threads", "-c", "1")


def jobs(name: str, children: int = JOBS) -> tuple[str, ...]:
    return worker("jobs", name, "-P", "prefork", "-c", str(children))


def beat(schedule: str = BEAT_SCHEDULE) -> tuple[str, ...]:
    return (*_CELERY, "beat", "-l", "WARNING", "--pidfile=", "-s", schedule)


def smtpd() -> tuple[str, ...]:
    return (sys.executable, "manage.py", "smtpd")


def main(argv: Sequence[str]) -> int:
    """Becomes the part; returns only with a refusal: 1, or 2 for words that we do not know."""
    reader = argparse.ArgumentParser(prog="manage.py serve", description="Runs one part in the foreground.")
    reader.add_argument("role", choices=ROLES)
    role = reader.parse_args(argv).role
    bootstrap.enter_if_made()
    try:
        words = _words(role)
    except Refusal as e:
        complain(str(e))
        return 1
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mailapi.settings")
    os.environ["MAILAPI_ROLE"] = role
    os.chdir(bootstrap.ROOT)
    if role == "web" and subprocess.call((*_PYTHON, "mailapi.checks", "--database")):  # noqa: S603
        return 1  # it was said; granian would start its processes again and again, and each would say it
    os.execv(words[0], words)  # noqa: S606 – our own words


def _words(role: str) -> tuple[str, ...]:
    name = os.environ.get("PART_NAME") or f"{role}{os.getpid()}"  # two of a role may run on one host
    match role:
        case "web":
            workers, threads = number("WEB_WORKERS", WEB_WORKERS), number("WEB_THREADS", WEB_THREADS)
            notice = (*_PYTHON, "mailapi.up.leaving", str(number("WEB_NOTICE_S", NOTICE_S)))
            return *notice, *web(_listen(), workers, threads, FINISH_S)
        case "deliver":
            return deliver(name)
        case "jobs":
            return jobs(name, number("JOBS", JOBS))
        case "beat":
            return beat(os.environ.get("BEAT_SCHEDULE") or BEAT_SCHEDULE)
        case _:
            return smtpd()


def _listen() -> Address:
    text = os.environ.get("WEB_LISTEN") or WEB_LISTEN
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise Refusal(f"WEB_LISTEN={text!r} is not host:port, such as {WEB_LISTEN}")
    return Address(host.strip("[]"), int(port))


def number(name: str, usual: int) -> int:
    """A count from the environment; Refusal for nonsense."""
    text = os.environ.get(name) or str(usual)
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 1024):
        raise Refusal(f"{name}={text!r} is not a number from 1 to 1024")
    return int(text)
