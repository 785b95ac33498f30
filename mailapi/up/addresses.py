"""URLs of parts taken apart, and the cheap questions "does it answer?"."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from .words import Refusal


@dataclass(frozen=True)
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def libpq_environ(url: str) -> dict[str, str]:
    """A DATABASE_URL as libpq's environment variables, so that psql is told nothing in argv. Raises Refusal."""
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError as e:
        raise Refusal(f"DATABASE_URL: {e}") from None
    if parts.scheme not in ("postgres", "postgresql") or not parts.path.strip("/"):
        raise Refusal("DATABASE_URL must read postgres://user:password@host:port/name")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    clean |= {
        "PGHOST": parts.hostname or "",
        "PGPORT": str(port),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": unquote(parts.path[1:]),
        "PGCONNECT_TIMEOUT": "5",
        "PGAPPNAME": "mailapi up",
    }
    for option in parts.query.split("&"):
        name, _, value = option.partition("=")
        if name in ("sslmode", "sslrootcert", "sslcert", "sslkey"):
            clean["PG" + name.upper()] = unquote(value)
    return {k: v for k, v in clean.items() if v or not k.startswith("PG")}


def tcp_answers(host: str, port: int, timeout_s: float = 0.5) -> bool:
    try:
        with socket.create_connection((host, port), timeout_s):
            return True
    except OSError:
        return False


def listens(host: str, port: int) -> Callable[[], bool]:
    """A ready probe: something accepts connections there."""
    return lambda: tcp_answers(host, port)


def greets(host: str, port: int) -> Callable[[], bool]:
    """A ready probe: an SMTP server greets there with 220 (RFC 5321 §3.1)."""

    def probe() -> bool:
        try:
            with socket.create_connection((host, port), 0.5) as s:
                s.settimeout(2)
                greeting = s.recv(512)
                s.sendall(b"QUIT\r\n")
                return greeting.startswith(b"220")
        except OSError:
            return False

    return probe


def http_get(host: str, port: int, path: str, timeout_s: float = 10) -> tuple[int, str]:
    """Status and the beginning of the body; 0 and the reason when nothing answers."""
    link = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        link.request("GET", path)
        answer = link.getresponse()
        return answer.status, answer.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException) as e:
        return 0, str(e)
    finally:
        link.close()
