"""The settings as they are in force, for the operator: value, where it came from, what it does; no secret.

What each does is read from the table of docs/operations.md, so that there is one list; values are this process' own.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path

from deliveries.admin.access import access
from deliveries.read import installation
from deliveries.routing import static

_ROW = re.compile(r"^\| `([A-Z][A-Z0-9_]*)` \| (.*?) \| (.*) \|$", re.MULTILINE)
#: by their last word, so that a secret that is added later is one from its first day
_SECRET = re.compile(r"(KEY|KEYS|SECRET|SECRETS|TOKEN|TOKENS|PASSWORD|CREDENTIALS)\Z")
#: several of them, with commas between
_KEYS = re.compile(r"KEYS\Z")
#: addresses of parts of ours; in the path of any other URL a secret may stand
_PARTS = ("DATABASE_URL", "BROKER_URL", "REDIS_URL", "BASE_URL")
#: settings that go by another name inside, or are put together with others
_INSIDE: dict[str, Callable[[], Any]] = {
    "MAILAPI_ROLE": lambda: settings.ROLE,
    "MAILAPI_VAR": lambda: settings.VAR,
    "LOG_LEVEL": lambda: settings.LOGGING["root"]["level"],  # type: ignore[index]
    "RETRY_SCHEDULE": lambda: settings.RETRY.waits_s,
    "MAX_AGE": lambda: settings.RETRY.max_age_s,
    "UNKNOWN_WAIT_S": lambda: settings.RETRY.unknown_wait_s,
}


@dataclass(frozen=True, slots=True)
class InForce:
    """`default` and `what` are empty for a setting that the table of the docs does not know."""

    name: str
    value: str
    source: str
    default: str
    what: str


def page(request: HttpRequest) -> HttpResponse:
    if not access(request).operator:
        raise PermissionDenied
    told = in_force()
    version, parameters = installation.postgres()
    context = {
        **admin.site.each_context(request), "title": "Settings", "host": socket.gethostname(), "role": settings.ROLE,
        "chosen": [s for s in told if s.source != "default"], "left": [s for s in told if s.source == "default"],
        "sandbox": settings.SANDBOX, "routes": _routes(), "version": version, "parameters": parameters,
        "kept": _kept(),
    }  # fmt: skip
    return TemplateResponse(request, "panel/settings.html", context)


def in_force() -> list[InForce]:
    """Each setting of the table, then what was read and is missing there."""
    table = documented()
    more = {name: ("", "") for name in settings.SETTING_SOURCES if name not in table}
    return [
        InForce(
            name,
            shown(name) or (_plain(default) if _is_elsewhere(name) else "–"),
            _source(name),
            _plain(default),
            _plain(what),
        )
        for name, (default, what) in (table | more).items()
    ]


@cache
def documented() -> dict[str, tuple[str, str]]:
    """name → (default, what it does); empty where the docs were not installed."""
    try:
        text = (Path(settings.BASE_DIR) / "docs" / "operations.md").read_text()
    except OSError:
        return {}
    return {name: (default, what) for name, default, what in _ROW.findall(text)}


def shown(name: str) -> str:
    """The value as it may stand on a page: of a secret that it is set, of a URL neither password nor options."""
    if name in _INSIDE:
        return _words(_INSIDE[name]())
    if name == "MAIL_ROUTES":
        return ", ".join(static.parse(settings.MAIL_ROUTES))
    if name == "DATABASE_URL":
        # in the settings it stands taken apart
        db = settings.DATABASES["default"]
        return f"{db['USER']}@{db['HOST'] or 'socket'}:{db['PORT']}/{db['NAME']}"
    value = os.environ.get(name, "") if _is_elsewhere(name) else getattr(settings, name, None)
    if _SECRET.search(name):
        return _secret(name, str(value or ""))
    text = _words(value)
    return ", ".join(_url(name, word) if "://" in word else word for word in text.split(", "))


def _is_elsewhere(name: str) -> bool:
    """Read by `up` and `serve` alone, which have the default of the table."""
    return name not in _INSIDE and not hasattr(settings, name)


def _secret(name: str, value: str) -> str:
    if not value:
        return "not set"
    if not _KEYS.search(name):
        return "set"
    count = len([word for word in value.split(",") if word.strip()])
    return f"{count} key{'' if count == 1 else 's'}"


def _url(name: str, text: str) -> str:
    try:
        parts = urlsplit(text)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "set"
    user = f"{parts.username}@" if parts.username else ""
    way = parts.path if name in _PARTS else "/…" if parts.path.strip("/") else ""
    return f"{parts.scheme}://{user}{parts.hostname or ''}{port}{way}"


def _words(value: Any) -> str:
    match value:
        case None | "":
            return ""
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:.15g}"
        case (str() as host, int() as port):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case tuple() | list():
            return ", ".join(_words(v) for v in value)
    return str(value)


def _source(name: str) -> str:
    known: str | None = settings.SETTING_SOURCES.get(name)
    if known is None:  # read before, or elsewhere
        known = "environment" if os.environ.get(name) else "default"
    return known.replace("`", "")


def _plain(markdown: str) -> str:
    return markdown.replace("`", "").replace(r"\|", "|")


def _routes() -> list[tuple[str, str]]:
    """(recipient domains, where their mail goes); no credentials."""
    if settings.SANDBOX:
        return [("all", f"the receiver lab at {_words(settings.SANDBOX_SMTP)}; nothing leaves this machine")]
    routes = [(domain, _way(route)) for domain, route in static.parse(settings.MAIL_ROUTES).items()]
    if not any(domain == static.ANY for domain, _ in routes):
        routes.append(("all others" if routes else "all", "the MX of the recipient's domain"))
    return [("all others" if domain == static.ANY else domain, way) for domain, way in routes]


def _way(route: static.StaticRoute) -> str:
    hosts = ", ".join(_words(h) for h in route.hosts) or "by its MX"
    parts = ["LMTP to" if route.lmtp else "", hosts, f"(TLS: {route.tls.value})", "with a login" if route.auth else ""]
    return " ".join(p for p in parts if p)


def _kept() -> list[tuple[str, str]]:
    """What retention leaves; 0 days is for ever."""
    rows = (("bodies and files", settings.KEEP_CONTENT_DAYS), ("mail and its story", settings.KEEP_MAIL_DAYS),
            ("webhook posts", settings.KEEP_WEBHOOKS_DAYS), ("mail that came in", settings.KEEP_INBOUND_DAYS),
            ("the log of requests", settings.LOG_DAYS))  # fmt: skip
    return [(what, f"{days:g} days" if days else "for ever") for what, days in rows]


def urls() -> list[Any]:
    return [path("settings/", admin.site.admin_view(page), name="settings")]
