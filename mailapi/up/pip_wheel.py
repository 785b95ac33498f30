"""pip's own wheel, pinned by hash, for Pythons without ensurepip (Debian without python3-venv).

It is looked for where pip itself would look: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL and PIP_FIND_LINKS, pip's
configuration files. What comes is used only when its hash is the pinned one.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import html
import os
import re
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from .words import Refusal

WHEEL = "pip-25.3-py3-none-any.whl"
SHA256 = "9655943313a94722b7774661c21049070f6bbb0a1516bf02f7c8d5d9201514cd"
TIMEOUT_S = 30


def configured() -> dict[str, str]:
    """pip's settings as its own files and environment give them; the nearer one wins."""
    home = Path(os.path.expanduser("~"))
    files = [Path("/etc/pip.conf"), Path("/etc/xdg/pip/pip.conf"), home / ".pip" / "pip.conf"]
    files.append(Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf")
    if named := os.environ.get("PIP_CONFIG_FILE"):
        files = [] if named == os.devnull else [*files, Path(named)]
    found: dict[str, str] = {}
    for file in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read(file)
        except (OSError, configparser.Error):
            continue
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    for name in ("index-url", "extra-index-url", "find-links", "cert"):
        if value := os.environ.get("PIP_" + name.upper().replace("-", "_")):
            found[name] = value
    return found


def candidates(settings: dict[str, str]) -> list[str]:
    """Addresses of pages or folders that may name the wheel."""
    pages = []
    for link in settings.get("find-links", "").split():
        pages.append(link if "://" in link else Path(link).resolve().as_uri() + "/")
    for index in f"{settings.get('index-url', '')} {settings.get('extra-index-url', '')}".split():
        pages.append(index.rstrip("/") + "/pip/")
    return pages


def read(url: str, context: ssl.SSLContext) -> bytes:
    parts = urlsplit(url)
    if parts.scheme == "file":
        there = Path(unquote(parts.path))
        if there.is_dir():
            page = there / "index.html"
            return page.read_bytes() if page.exists() else f'<a href="{WHEEL}">'.encode()
        return there.read_bytes()
    headers = {"Accept": "application/vnd.pypi.simple.v1+html, text/html;q=0.5"}
    if parts.username:  # an index with a password: urllib wants it as a header
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(credentials.encode()).decode()
        url = urlunsplit(parts._replace(netloc=parts.netloc.rsplit("@", 1)[1]))
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 – the user's own index
    with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as answer:  # noqa: S310
        content: bytes = answer.read()
        return content


def link_to_wheel(page: str, page_url: str) -> str | None:
    """The address of the wheel on an index page (PEP 503), None when the page does not name it."""
    for href in re.findall(r'href\s*=\s*["\']([^"\']+)["\']', page):
        target = urljoin(page_url, html.unescape(href)).split("#")[0]
        if unquote(urlsplit(target).path).rsplit("/", 1)[-1] == WHEEL:
            return target
    return None


def fetch(folder: Path) -> Path:
    """The wheel in `folder`. Raises Refusal when no configured index has it with the pinned hash."""
    settings = configured()
    context = ssl.create_default_context(cafile=settings.get("cert"))
    why = "no index is configured" if not candidates(settings) else "no index names it"
    for page_url in candidates(settings):
        try:
            link = link_to_wheel(read(page_url, context).decode(errors="replace"), page_url)
            content = read(link, context) if link else b""
        except (OSError, ValueError) as e:  # URLError is an OSError
            why = str(getattr(e, "reason", e))
            continue
        if hashlib.sha256(content).hexdigest() == SHA256:
            (folder / WHEEL).write_bytes(content)
            return folder / WHEEL
    raise Refusal(
        f"this Python has no ensurepip and pip could not be fetched ({why}); install python3-venv, or set "
        "PIP_INDEX_URL to a package index, and start again"
    )
