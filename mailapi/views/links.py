"""What the links in a mail lead to: counted opens and clicks, and leaving a stream with one click (RFC 8058).

Without keys, cookies and sessions. Whatever is not a link of ours is 404, never a redirect.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_safe

from deliveries import keys
from deliveries.errors import TokenError
from deliveries.mime import links, verp
from deliveries.mime.links import Kind
from deliveries.read.domains import serves
from deliveries.read.leaving import sender_of
from deliveries.record.visits import Visit, left
from deliveries.states import EventType
from deliveries.visits import book

_DOT = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")


@require_safe
def served(request: HttpRequest) -> HttpResponse:
    """Caddy asks before it asks an authority for a certificate (on_demand_tls): only for tracking hosts that lead here,
    so that nobody can have it ask for any name. No key: whoever wants to know can ask DNS as well."""
    host = request.GET.get("domain", "").lower().rstrip(".")
    return HttpResponse(status=200 if len(host) <= 253 and "\0" not in host and serves(host) else 404)


@require_safe
def opened(request: HttpRequest, token: str) -> HttpResponse:
    found = _read(Kind.OPEN, token.removesuffix(".gif"))
    if found is None:
        return _not_ours()
    _note(request, EventType.OPENED, found[0])
    return _private(HttpResponse(_DOT, content_type="image/gif"))


@require_safe
def clicked(request: HttpRequest, token: str) -> HttpResponse:
    found = _read(Kind.CLICK, token)
    # the token is ours, and its target was checked when it was made; twice is better where a browser is sent away
    if found is None or links.target_of(found[1]) is None:
        return _not_ours()
    _note(request, EventType.CLICKED, *found)
    response = _private(HttpResponse(status=302))
    response["Location"] = found[1]
    response["Referrer-Policy"] = "no-referrer"
    return response


@csrf_exempt  # RFC 8058 §3.2: mail programs POST without having asked for a page; the token is the proof
@require_http_methods(["GET", "HEAD", "POST"])
def leave(request: HttpRequest, token: str) -> HttpResponse:
    """GET shows a page with a button and changes nothing: programs look at every link of a mail. POST acts."""
    found = _read(Kind.UNSUBSCRIBE, token)
    if found is None:
        return _not_ours()
    done = request.method == "POST"
    if done and not left(found[0]):
        return _not_ours()
    sender = sender_of(found[0])
    if sender is None:
        return _not_ours()
    return _private(render(request, "links/leave.html", {"sender": sender, "done": done}))


def _read(kind: Kind, token: str) -> tuple[UUID, str] | None:
    try:
        return links.read(verp.keys_of(settings.VERP_KEYS), kind, token)
    except TokenError:
        return None


def _note(request: HttpRequest, kind: EventType, delivery_id: UUID, link: str = "") -> None:
    agent = request.headers.get("user-agent", "")
    headers = {name.lower(): value for name, value in request.headers.items()}
    why = links.automatic(request.method or "", headers)
    book.note(Visit(delivery_id, kind, datetime.now(UTC), keys.address_of(request.META), agent, link, why))


def _not_ours() -> HttpResponse:
    return HttpResponse("This link leads nowhere: it was altered, or is no longer kept.\n", "text/plain", status=404)


def _private(response: HttpResponse) -> HttpResponse:
    response["Cache-Control"] = "no-store, private"
    response["X-Robots-Tag"] = "noindex, nofollow"
    return response
