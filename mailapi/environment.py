"""How a setting is read from the environment: checked where it is read, so that nonsense is one line at the start.

Every reader raises ImproperlyConfigured, whose text begins with the setting's name.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from deliveries.mime.address import parse_address

#: where each variable that was read had its value from, for the panel's page of settings
SOURCES: dict[str, str] = {}


@contextmanager
def refusing() -> Iterator[None]:
    """For a part that starts: a setting that cannot be ends it with one line."""
    try:
        yield
    except ImproperlyConfigured as error:
        raise SystemExit(f"mailapi does not start: {error}") from None


def text(name: str, default: str | None = None) -> str:
    """The variable, or the content of the file that NAME_FILE names; without a default it must be set.

    An empty variable counts as unset: compose files and `.env` files write what they leave out that way.
    """
    value = os.environ.get(name) or None
    SOURCES.setdefault(name, "environment" if value else "default")
    if value is None and (path := os.environ.get(f"{name}_FILE")):
        try:
            value = Path(path).read_text().strip()
        except OSError as e:
            raise ImproperlyConfigured(f"{name}_FILE: cannot read {path}: {e.strerror}") from None
        SOURCES[name] = f"file {path}"
    if value is None:
        if default is None:
            raise ImproperlyConfigured(f"{name} is not set; `python3 manage.py up` sets it, or see docs/operations.md")
        value = default
    return value


def number(name: str, default: float, least: float = 0, most: float = 1e9) -> float:
    """`most` is what a date can still be reckoned with, in seconds, where no setting has a bound of its own."""
    raw = text(name, str(default))
    try:
        value = float(raw)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ImproperlyConfigured(f"{name}={raw!r} is not a number")
    if not least <= value <= most:
        raise ImproperlyConfigured(f"{name}={raw} is not between {least:.10g} and {most:.10g}")
    return value


def addr_spec(name: str, raw: str) -> str:
    """An address without a display name; also in files that hold several."""
    try:
        return parse_address(raw).addr_spec
    except ValueError as e:
        raise ImproperlyConfigured(f"{name}={raw!r} is no address: {e}") from None


def port(name: str, default: int) -> int:
    return int(number(name, default, 1, 65535))


def flag(name: str, default: bool = False) -> bool:
    raw = text(name, "1" if default else "0").lower()
    if raw not in ("0", "1", "true", "false", "yes", "no", "on", "off"):
        raise ImproperlyConfigured(f"{name}={raw!r} is neither on nor off")
    return raw in ("1", "true", "yes", "on")


def words(name: str, default: str = "") -> tuple[str, ...]:
    return tuple(w.strip() for w in text(name, default).split(",") if w.strip())


def host_port(name: str) -> tuple[str, int] | None:
    """`host:port`, `[::1]:port`; None when the variable is empty or unset."""
    raw = text(name, "")
    return _host_port(name, raw) if raw else None


def ip_port(name: str, raw: str) -> tuple[str, int]:
    host, number_of_port = _host_port(name, raw)
    return ip(name, host), number_of_port


def ip(name: str, raw: str) -> str:
    try:
        return str(ipaddress.ip_address(raw))
    except ValueError:
        raise ImproperlyConfigured(f"{name}: {raw!r} is not an IP address") from None


def network(name: str, raw: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(raw)
    except ValueError as e:
        raise ImproperlyConfigured(f"{name}: {raw!r} is no network such as 10.0.0.0/8: {e}") from None


def host_name(name: str, default: str) -> str:
    """A name that may stand in EHLO and after an @ (RFC 5321 §4.1.2): letters, digits, hyphens and dots."""
    raw = text(name, default)
    if len(raw) > 253 or not re.fullmatch(
        r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", raw, re.I
    ):
        raise ImproperlyConfigured(f"{name}={raw!r} is not a host name")
    return raw


def url(name: str, schemes: tuple[str, ...], default: str | None = None) -> str:
    """A URL of one of the schemes; an empty default allows an empty value. Never quoted: it may hold a password."""
    raw = text(name, default)
    if not raw and default == "":
        return raw
    try:
        parts = urlsplit(raw)
        _ = parts.port  # urlsplit looks at it only when it is asked for
    except ValueError as e:
        raise ImproperlyConfigured(f"{name} is not a URL: {e}") from None
    if parts.scheme not in schemes:
        raise ImproperlyConfigured(f"{name} must begin with {' or '.join(f'{s}://' for s in schemes)}")
    return raw


def authorities(name: str) -> str:
    """The path of a PEM file that TLS can read, or empty."""
    path = text(name, "")
    if path:
        try:
            ssl.create_default_context(cafile=path)
        except OSError as e:  # ssl.SSLError is one
            raise ImproperlyConfigured(f"{name}={path!r} is no PEM file of certificates: {e.strerror or e}") from None
    return path


def _host_port(name: str, raw: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{raw}")
        if parts.hostname and parts.port:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise ImproperlyConfigured(f"{name}={raw!r} is not host:port")


def log_level(name: str, default: str) -> str:
    level = text(name, default).upper()
    if level not in logging.getLevelNamesMapping():
        raise ImproperlyConfigured(f"{name}={level!r} is none of DEBUG, INFO, WARNING, ERROR, CRITICAL")
    return level
