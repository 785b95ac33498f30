"""Middleware: a client that can be given a host but no path is known by its credential.

X-Postmark-Server-Token, -Account-   Postmark
Authorization: Basic of api:<key>    Mailgun
Authorization: Bearer and /v3/…      SendGrid
"""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from mailapi.compat.face import basic

_ROOT = "/compat/"


class ByCredential:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if not request.path_info.startswith(_ROOT) and (face := _face(request)):
            request.path_info = f"{_ROOT}{face}{request.path_info}"
        return self.get_response(request)


def _face(request: HttpRequest) -> str:
    if "HTTP_X_POSTMARK_SERVER_TOKEN" in request.META or "HTTP_X_POSTMARK_ACCOUNT_TOKEN" in request.META:
        return "postmark"
    scheme, _, credential = request.META.get("HTTP_AUTHORIZATION", "").strip().partition(" ")
    if scheme.lower() == "bearer" and request.path_info.startswith("/v3/"):
        return "sendgrid"
    if scheme.lower() == "basic" and basic(credential)[0] == "api":
        return "mailgun"
    return ""
