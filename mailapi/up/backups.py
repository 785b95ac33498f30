"""Backups: a dump with what is needed to trust it, read into a scratch database before anybody needs it.

    back_up     pg_dump into FOLDER, whole or not at all
    rehearse    the newest dump into a database of its own beside the real one, looked at, and dropped
    restore     a dump into an empty database

pg_dump and pg_restore are the wheel's (18), which read every Postgres from 9.2 on. Standard library only; the password
goes by the environment.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from .addresses import libpq_environ
from .postgres import ask, wheel_binaries
from .words import Refusal

_ANY_TABLE = "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' LIMIT 1"
#: lines of settings before the first statement
_HEAD = 60
_SLOW_S = 300
_NAME = re.compile(r"mailapi-\d{8}T\d{6}Z\.dump")
SCRATCH = "mailapi_rehearsal"


def back_up(url: str, folder: Path, keep: int) -> Path:
    """A dump as of now, named by its time (UTC); the oldest beyond `keep` go. Raises Refusal with the reason."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = folder / f"mailapi-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.dump"
    half = made.with_suffix(".half")
    try:
        words = ("--format=custom", "--no-owner", "--no-privileges", "--lock-wait-timeout=60s", f"--file={half}")
        _run(url, "pg_dump", *words)
        with half.open("rb") as f:
            os.fsync(f.fileno())
        half.replace(made)
    finally:
        half.unlink(missing_ok=True)
    for old in dumps(folder)[:-keep]:
        old.unlink()
    return made


def dumps(folder: Path) -> list[Path]:
    """Whole ones, the newest last."""
    return sorted(p for p in folder.glob("mailapi-*.dump") if _NAME.fullmatch(p.name)) if folder.is_dir() else []


def newest(folder: Path) -> Path:
    if not (found := dumps(folder)):
        raise Refusal(f"There is no backup in {folder}.")
    return found[-1]


def restore(url: str, dump: Path) -> None:
    """Into a database that is empty, in one transaction: all of it, or none.

    By way of psql, since pg_restore 18 begins with a setting that Postgres before 17 does not know.
    """
    if ask(url, _ANY_TABLE):
        raise Refusal("The database is not empty. Make another one (createdb), and let DATABASE_URL name it.")
    env = libpq_environ(url)
    read = subprocess.Popen(  # noqa: S603 – our own words
        [_program("pg_restore"), "--no-owner", "--no-privileges", "--file=-", str(dump)],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    words = ["-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "--single-transaction", "-o", os.devnull]
    write = subprocess.Popen(  # noqa: S603
        [_program("psql"), *words], env=env, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert read.stdout and read.stderr and write.stdin
    with contextlib.suppress(BrokenPipeError), write.stdin:
        for _ in range(_HEAD):
            if not (line := read.stdout.readline()).startswith(b"SET transaction_timeout"):
                write.stdin.write(line)
        shutil.copyfileobj(read.stdout, write.stdin, 1 << 20)
    read.stdout.close()
    assert write.stderr
    why = write.stderr.read().splitlines() + read.stderr.read().splitlines()
    if read.wait() | write.wait():
        raise Refusal(f"{dump.name} could not be read: {why[0].decode(errors='replace') if why else 'no reason given'}")


def rehearse(url: str, dump: Path, look: Callable[[str], str]) -> tuple[str, float]:
    """`dump` in a scratch database, `look` at it by its URL; what it said, and how many seconds all took."""
    begun = time.monotonic()
    address, mark, options = url.partition("?")
    scratch = f"{address.rpartition('/')[0]}/{SCRATCH}{mark}{options}"
    ask(url, f"DROP DATABASE IF EXISTS {SCRATCH} WITH (FORCE)", _SLOW_S)
    ask(url, f"CREATE DATABASE {SCRATCH} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'", _SLOW_S)
    try:
        restore(scratch, dump)
        return look(scratch), time.monotonic() - begun
    finally:
        ask(url, f"DROP DATABASE IF EXISTS {SCRATCH} WITH (FORCE)", _SLOW_S)


def _program(name: str) -> str:
    return str(wheel_binaries() / "bin" / name)


def _run(url: str, program: str, *words: str) -> None:
    done = subprocess.run(  # noqa: S603 – our own words
        [_program(program), *words], env=libpq_environ(url), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise Refusal(f"{program}: {said[-1]}")
