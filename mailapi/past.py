"""Middleware: requests of the API go past what only the panel needs (sessions, CSRF, messages, the second factor,
lockouts, files), which had cost a fifth of a web process. Whatever a person's browser shows keeps all of it.

It stands below RequestId and ByCredential, and above all that is the panel's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import resolve

#: what a path of the API begins with: everything there is a mailapi.door.View, and nothing else is one
ROOMS = frozenset(
    (
        "api-keys compat domains emails erasures events health logs openapi.json suppressions templates tenants "
        "webhooks"
    ).split()
)
#: a browser that is led to an answer of the API shows, runs and frames nothing of it
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class PastThePanel:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        # errors become answers before the headers are written
        self._ask: Callable[[HttpRequest], Any] = convert_exception_to_response(_ask)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info[1:].partition("/")[0] not in ROOMS:
            return self.get_response(request)
        response: HttpResponseBase = self._ask(request)
        headers = response.headers
        for name, value in _HEADERS.items():
            if name not in headers:
                headers[name] = value
        if isinstance(response, HttpResponse) and "Content-Length" not in headers:
            headers["Content-Length"] = str(len(response.content))
        return response


def _ask(request: HttpRequest) -> HttpResponseBase:
    request.get_host()  # DisallowedHost: a 400
    match = request.resolver_match = resolve(request.path_info)
    response: HttpResponseBase = match.func(request, *match.args, **match.kwargs)
    return response
