"""Requests of the API go past the panel's middleware, and lose nothing by it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from io import StringIO

import pytest
from django.conf import settings
from django.contrib.sessions.middleware import SessionMiddleware
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from mailapi import door, logs
from mailapi.past import ROOMS

pytestmark = pytest.mark.django_db


def _views(resolver: URLResolver, before: str = "") -> Iterator[tuple[str, object]]:
    for pattern in resolver.url_patterns:
        path = before + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield path, getattr(pattern.callback, "cls", None)
        else:
            yield from _views(pattern, path)


def test_what_goes_past_is_every_endpoint_of_the_api_and_nothing_else():
    for path, view in _views(get_resolver(settings.ROOT_URLCONF)):
        is_api = isinstance(view, type) and issubclass(view, door.View)
        assert (path.partition("/")[0] in ROOMS) == is_api, path


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of requests that came through the panel's middleware."""
    came: list[str] = []
    whole = SessionMiddleware.process_request

    def told(self, request):
        came.append(request.path)
        return whole(self, request)

    monkeypatch.setattr(SessionMiddleware, "process_request", told)
    return came


def test_the_panel_has_sessions_and_the_api_opens_none(api, sessions):
    assert api.send().status_code == 200
    faces = {"HTTP_X_POSTMARK_SERVER_TOKEN": api.secret}
    assert api.http.get("/messages/outbound?count=1&offset=0", **faces).status_code == 200
    assert sessions == []
    assert api.http.get("/admin/").status_code == 302
    assert sessions == ["/admin/"]


@pytest.mark.parametrize(
    ("path", "status", "host"),
    [
        ("/emails", 401, "127.0.0.1"),
        ("/emails/no/such/path/at/all", 404, "127.0.0.1"),
        ("/compat/postmark/nothing", 401, "127.0.0.1"),
        ("/health/live", 200, "127.0.0.1"),
        ("/emails", 400, "evil.example"),
    ],
)
def test_every_answer_has_an_id_a_length_and_the_headers_that_keep_browsers_away(path, status, host):
    answer = Client().get(path, HTTP_HOST=host)
    assert answer.status_code == status
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["X-Frame-Options"] == "DENY" and answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert "Set-Cookie" not in answer.headers
    told = answer.json()
    if status >= 400 and "/compat/" not in path:
        assert told["statusCode"] == status and told["request_id"] == answer.headers["X-Request-Id"]


def test_what_strangers_ask_for_in_vain_is_a_line_now_and_then(monkeypatch):
    said = StringIO()
    (handler,) = [h for h in logging.getLogger("django.security").handlers if h.filters]
    monkeypatch.setattr(handler, "filters", [logs.Seldom()])
    before = handler.setStream(said)
    try:
        for _ in range(3):
            assert Client().get("/emails", HTTP_HOST="evil.example").status_code == 400
        (line,) = said.getvalue().splitlines()
        assert " WARNING django.security.DisallowedHost: " in line and "evil.example" in line
        monkeypatch.setattr("mailapi.logs._SELDOM_S", 0.0)
        Client().get("/emails", HTTP_HOST="evil.example")
        assert "(and 2 others since the line before)" in said.getvalue().splitlines()[-1]
    finally:
        handler.setStream(before)


def test_our_own_bug_in_an_endpoint_is_a_500_with_an_id(api, monkeypatch):
    from mailapi.views import emails

    def broken(self, request):
        raise RuntimeError("a bug")

    monkeypatch.setattr(emails.Emails, "get", broken)
    api.http.raise_request_exception = False
    answer = api.get("/emails")
    assert answer.status_code == 500 and answer.json()["request_id"] == answer.headers["X-Request-Id"]
    assert answer.headers["X-Frame-Options"] == "DENY"
