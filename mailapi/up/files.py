"""Files that `up` keeps in its var folder: written whole or not at all, readable by their owner only."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import secrets
import socket
from pathlib import Path
from typing import IO, Any

from .words import Refusal

SECRETS = "secrets.json"
PORTS = "ports.json"
UP = "up.json"
LOCK = "up.lock"


def write_private(path: Path, text: str) -> None:
    """Atomically, mode 0600; the content survives a power cut."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
        f.write(text)
        f.flush()
        os.fsync(f.fileno())
    fresh.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Empty when there is no such file. Raises Refusal when it is not a JSON object or cannot be read."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except OSError as e:
        raise Refusal(f"cannot read {path}: {e.strerror}") from None
    except ValueError:
        raise Refusal(f"{path} is not JSON; put it right or move it away") from None
    if not isinstance(value, dict):
        raise Refusal(f"{path} is not a JSON object; put it right or move it away")
    return value


def make_var(var: Path) -> None:
    """The var folder with its log folder. Raises Refusal when it cannot be written to."""
    try:
        if not var.exists():
            var.mkdir(parents=True)
            # as root, the database runs as another user and has to pass through; what is private is 0600 or 0700
            var.chmod(0o711 if os.geteuid() == 0 else 0o700)
        (var / "log").mkdir(exist_ok=True, mode=0o700)
        probe = var / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as e:
        raise Refusal(f"cannot write to {var}: {e.strerror}") from None


def lock_var(var: Path) -> IO[str]:
    """The lock that one `up` holds on its var folder for as long as it lives."""
    lock = open(os.open(var / LOCK, os.O_RDWR | os.O_CREAT, 0o600), "r+")  # noqa: SIM115 – held until we end
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = lock.read().strip() or "?"
        raise Refusal(
            f"another `manage.py up` (pid {holder}) runs on {var}; stop it, or choose another --var"
        ) from None
    lock.seek(0)
    lock.truncate()
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def is_running(var: Path) -> bool:
    """Whether an `up` holds the lock of this var folder."""
    try:
        with open(var / LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def new_secrets() -> dict[str, Any]:
    """What a fresh installation needs, each with 256 bits from the kernel."""

    def octets() -> str:
        return base64.b64encode(secrets.token_bytes(32)).decode()

    return {
        "SECRET_KEY": secrets.token_urlsafe(48),
        "FIELD_KEYS": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),  # a Fernet key
        "VERP_KEYS": f"1:{octets()}",  # id:base64, the first one signs
        "api_key": "re_" + secrets.token_urlsafe(32),
        "admin_password": secrets.token_urlsafe(15),
        "postgres_password": secrets.token_urlsafe(32),
        "valkey_password": secrets.token_urlsafe(32),
    }


def keep_secrets(var: Path) -> dict[str, Any]:
    """The secrets of this var folder; what is missing is made now and kept."""
    path = var / SECRETS
    kept = read_json(path)
    whole = new_secrets() | kept
    if whole != kept:
        write_private(path, json.dumps(whole, indent=1))
    elif path.stat().st_mode & 0o077:
        path.chmod(0o600)
    return whole


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises OSError when the port is taken or not ours to take."""
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT of the last run is no obstacle
        s.bind((host, port))
        s.listen(1)
    except OSError:
        s.close()
        raise
    return s


def _any_port() -> int:
    """Below the range that the kernel gives from; 0, which asks the kernel, where that range leaves no room."""
    lowest = 32_768
    with contextlib.suppress(OSError, ValueError, IndexError):
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return secrets.choice(range(20_000, lowest)) if lowest > 21_000 else 0


def _bind_any() -> socket.socket:
    for _ in range(100):
        with contextlib.suppress(OSError):
            return bind("127.0.0.1", _any_port())
    return bind("127.0.0.1", 0)


def keep_ports(var: Path, names: tuple[str, ...]) -> dict[str, int]:
    """A port on 127.0.0.1 for each name: the same as last time when it is still free, else one that nobody is given
    before its server binds it: the kernel gives from a range above these."""
    path = var / PORTS
    kept = read_json(path)
    with contextlib.ExitStack() as held:  # all at once, so that none is chosen twice
        ports: dict[str, int] = {}
        for name in sorted(names, key=lambda n: n not in kept):
            try:
                s = bind("127.0.0.1", int(kept.get(name, 0)) or _any_port())
            except (OSError, OverflowError, TypeError, ValueError):
                s = _bind_any()
            held.enter_context(s)
            ports[name] = s.getsockname()[1]
    if ports != kept:
        write_private(path, json.dumps(kept | ports, indent=1))
    return ports
