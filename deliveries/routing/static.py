"""Routes that an operator fixed: a smarthost with AUTH, an LMTP host, another relay (the MAIL_ROUTES setting).

MAIL_ROUTES is one JSON object; each key is a recipient domain, `.suffix` (every domain below it, not itself) or
`*` (all others):

    {"example.org": {"host": "smtp.example.net", "port": 587, "username": "u", "password": "p", "tls": "verify",
                     "lmtp": false, "return_path": "verp"},
     ".corp.example": {"host": ["mx1.corp.example", "mx2.corp.example:2525"], "tls": "must"},
     "lists.example": {"mx": true},
     "*": {"host": "smtp.example.net", "port": 465, "username": "u", "password": "p"}}

`{"mx": true}` sends a domain by its own MX, where `*` or a suffix would send it elsewhere; with `"tls"` it sets the
protection that its MX hosts must offer.

    tls           none | may | must | verify | implicit; default: implicit on port 465, verify with AUTH, else may
    port          default: 587 with AUTH, 24 for LMTP (RFC 2033 names no port; 24 is assigned to private mail), else 25
    return_path   verp (a reverse-path of our own per delivery) | fixed (the relay accepts one sender only)
    notify, ret   what is asked of a receiver that offers DSN (RFC 3461): `success`, `failure`, `delay` with commas
                  between, or `never`; `full` or `hdrs`. Notices come to our reverse-path; default: nothing is asked
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deliveries.smtp.hop import Credentials, Dsn, Tls

VERP = "verp"
FIXED = "fixed"
ANY = "*"
#: the site of everything that goes to the receiver lab
SANDBOX_SITE = "sandbox"

_KEYS = frozenset({"name", "host", "port", "mx", "username", "password", "tls", "lmtp", "return_path", "notify", "ret"})
#: DANE comes from DNS, never from a setting
_TLS = {t.value: t for t in (Tls.NONE, Tls.MAY, Tls.MUST, Tls.VERIFY, Tls.IMPLICIT)}
_NOTIFY = frozenset({"SUCCESS", "FAILURE", "DELAY"})
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?\Z")
_HOST_PORT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?\Z")
_DOMAIN = re.compile(r"\*\Z|\.?[a-z0-9_]([a-z0-9_.-]*[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class StaticRoute:
    """One fixed route. `hosts` are (host or IP literal, port), tried in order; empty = by MX, with `tls` as policy."""

    name: str  #: stands as the site of its hops: limits, suspensions and the panel go by it
    hosts: tuple[tuple[str, int], ...]
    lmtp: bool = False
    auth: Credentials | None = None
    tls: Tls = Tls.MAY
    return_path: str = VERP
    dsn: Dsn | None = None


def find(routes: Mapping[str, StaticRoute], domain: str) -> StaticRoute | None:
    """The route of `domain` (lower-case A-label): its own, else that of the longest suffix, else `*`, else None."""
    if domain in routes:
        return routes[domain]
    rest = domain
    while "." in rest:
        rest = rest.partition(".")[2]
        if "." + rest in routes:
            return routes["." + rest]
    return routes.get(ANY)


def home(routes: Mapping[str, StaticRoute], domain: str, sandbox: bool, sandbox_domain: str) -> str | None:
    """The site of a domain whose way is fixed by a setting; None where DNS decides."""
    if sandbox or domain == sandbox_domain:
        return SANDBOX_SITE
    route = find(routes, domain)
    return route.name if route is not None and route.hosts else None


def parse(text: str) -> dict[str, StaticRoute]:
    """MAIL_ROUTES as text → routes by domain; empty text is no routes. ValueError names the key that is wrong."""
    if not text.strip():
        return {}
    try:
        data = json.loads(text, object_pairs_hook=_no_doubles)
    except json.JSONDecodeError as e:
        raise ValueError(f"MAIL_ROUTES is not JSON: {e.msg} at line {e.lineno} column {e.colno}") from None
    if not isinstance(data, dict):
        raise ValueError("MAIL_ROUTES must be a JSON object: domain → route")
    routes: dict[str, StaticRoute] = {}
    for domain, fields in data.items():
        key = _domain(domain)
        if key in routes:
            raise ValueError(f"MAIL_ROUTES: {domain!r} stands there twice")
        if not isinstance(fields, dict):
            raise ValueError(f"MAIL_ROUTES[{domain!r}] must be an object")
        routes[key] = _route(key, fields)
    return routes


def _no_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    seen: dict[str, object] = {}
    for key, value in pairs:
        if key in seen:
            raise ValueError(f"MAIL_ROUTES: {key!r} stands there twice")
        seen[key] = value
    return seen


def _domain(text: str) -> str:
    key = text.strip().rstrip(".").lower()
    if not _DOMAIN.match(key) or ".." in key:
        raise ValueError(f'MAIL_ROUTES: {text!r} is no domain, ".suffix" or "*" (write IDNs as A-labels)')
    return key


def _route(domain: str, fields: dict[str, Any]) -> StaticRoute:
    def wrong(key: str, why: str) -> ValueError:
        return ValueError(f"MAIL_ROUTES[{domain!r}].{key}: {why}")

    def text(key: str, default: str = "") -> str:
        value = fields.get(key, default)
        if not isinstance(value, str):
            raise wrong(key, "must be a string")
        return value

    def flag(key: str) -> bool:
        value = fields.get(key, False)
        if not isinstance(value, bool):
            raise wrong(key, "must be true or false")
        return value

    for key in fields:
        if key not in _KEYS:
            raise wrong(key, f"unknown; known are {', '.join(sorted(_KEYS))}")
    lmtp, by_mx = flag("lmtp"), flag("mx")
    username, password = text("username"), text("password")
    if bool(username) != bool(password):
        raise wrong("password" if username else "username", "username and password come together")
    auth = Credentials(username, password) if username else None
    port = fields.get("port", 24 if lmtp else 587 if auth else 25)
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise wrong("port", "must be a number from 1 to 65535")
    return_path = text("return_path", VERP)
    if return_path not in (VERP, FIXED):
        raise wrong("return_path", f"must be {VERP} or {FIXED}")

    if by_mx:
        for key in ("host", "port", "username", "password", "lmtp"):
            if key in fields:
                raise wrong(key, 'makes no sense beside "mx": true')
        hosts: tuple[tuple[str, int], ...] = ()
    else:
        named = fields.get("host")
        names: list[Any] = named if isinstance(named, list) else [named]
        if not names or not all(isinstance(n, str) and n for n in names):
            raise wrong("host", "must be a host name, an IP address, or a list of them")
        try:
            hosts = tuple(_host(n, port) for n in names)
        except ValueError as e:
            raise wrong("host", str(e)) from None

    default = Tls.IMPLICIT if port == 465 and not by_mx else Tls.VERIFY if auth else Tls.MAY
    word = text("tls", default.value)
    if word not in _TLS:
        raise wrong("tls", f"must be one of {', '.join(_TLS)}")
    tls = _TLS[word]
    if auth and tls in (Tls.NONE, Tls.MAY):
        raise wrong("tls", "a password never goes out in clear text: must, verify or implicit")
    if by_mx and tls is Tls.IMPLICIT:
        raise wrong("tls", "an MX host speaks STARTTLS, not implicit TLS")
    notify, ret = ",".join(word.strip() for word in text("notify").upper().split(",")), text("ret").upper()
    if notify not in ("", "NEVER") and not set(notify.split(",")) <= _NOTIFY:
        raise wrong("notify", "must be never, or some of success, failure, delay with commas between")
    if ret not in ("", "FULL", "HDRS"):
        raise wrong("ret", "must be full or hdrs")
    dsn = Dsn(notify, ret) if notify or ret else None
    return StaticRoute(text("name") or _name(domain, hosts), hosts, lmtp, auth, tls, return_path, dsn)


def _host(text: str, port: int) -> tuple[str, int]:
    """`host`, `host:port`, `192.0.2.1:25`, `[2001:db8::1]:25` or a bare IPv6 address."""
    if text.count(":") > 1 and not text.startswith("["):
        text = f"[{text}]"
    found = _HOST_PORT.match(text)
    host = (found["v6"] or found["name"]) if found else ""
    if not found or (found["name"] and not _HOST.match(host)):
        raise ValueError(f"{text!r} is no host name or IP address")
    number = int(found["port"]) if found["port"] else port
    if not 1 <= number <= 65535:
        raise ValueError(f"{text!r}: port from 1 to 65535")
    return host.lower(), number


def _name(domain: str, hosts: tuple[tuple[str, int], ...]) -> str:
    return hosts[0][0] if hosts else domain
