"""The panel's Content-Security-Policy: the site's, relaxed by what its interface library needs.

Alpine evaluates expressions in attributes ('unsafe-eval') and themes set inline styles. Nothing of another
host and no inline script is allowed. The HTML preview of a mail has a policy of its own (messages.preview).
"""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

RELAXED = {
    "script-src": ["'self'", "'unsafe-eval'"],
    "style-src": ["'self'", "'unsafe-inline'"],
}


class PanelPolicy:
    """Middleware below CSPMiddleware, which writes the header from what is noted here."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        match = request.resolver_match
        if match is not None and "admin" in match.app_names:
            response._csp_update = RELAXED  # type: ignore[attr-defined]
            # what a panel shows is nobody else's: no cache, no referrer
            response.headers.setdefault("Cache-Control", "no-store")
        return response
