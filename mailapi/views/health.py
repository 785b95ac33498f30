"""Is the process there, and does every part of the service answer? Both without a key."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import kombu
from django.conf import settings
from django.db import Error, connection
from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from deliveries import metrics
from mailapi.schemas.openapi import describe_live, describe_ready
from mailapi.views.base import View

#: each part has so long to answer
_PATIENCE_S = 1.0
#: an answer is good for so long, so that questions by anybody cost little
_REMEMBERED_S = 2.0
#: and "not yet" for less, since somebody waits for the change
_WAITING_S = 0.25
_WORKERS = ("deliver", "jobs", "beat")

_lock = threading.Lock()
_last: tuple[float, dict[str, str]] = (-_REMEMBERED_S, {})


@describe_live
class Live(View):
    authentication_classes = []
    permission_classes = []

    def get(self, request: Request) -> HttpResponse:
        if settings.WEB_LEAVING and os.path.exists(settings.WEB_LEAVING):
            return JsonResponse({"status": "leaving"}, status=503)
        return JsonResponse({"status": "ok"})


@describe_ready
class Ready(View):
    authentication_classes = []
    permission_classes = []

    def get(self, request: Request) -> HttpResponse:
        parts = _remembered()
        ready = all(state == "ok" for state in parts.values())
        headers = None if ready else {"Retry-After": "1"}
        body = {"status": "ok" if ready else "waiting", "parts": parts}
        return JsonResponse(body, status=200 if ready else 503, headers=headers)


def _remembered() -> dict[str, str]:
    """The last look, or a new one; while one thread looks, the others answer what is known."""
    global _last
    at, parts = _last
    good_s = _REMEMBERED_S if all(state == "ok" for state in parts.values()) else _WAITING_S
    if parts and (time.monotonic() - at <= good_s or not _lock.acquire(blocking=False)):
        return parts
    if not parts:
        _lock.acquire()
    try:
        parts = look()
        _last = (time.monotonic(), parts)
        return parts
    finally:
        _lock.release()


def look() -> dict[str, str]:
    """Part → `ok`, or why it does not answer. Parts that this installation does not have are left out."""
    parts = {"database": _try(_database), "broker": _try(_broker), **_workers()}
    if smtpd := settings.SMTPD_INBOUND:
        parts["smtpd"] = _try(lambda: _greets(smtpd))
    if settings.SANDBOX and (lab := settings.SANDBOX_SMTP):
        parts["sandbox"] = _try(lambda: _greets(lab))
    return parts


def _try(question: Callable[[], None]) -> str:
    try:
        question()
    except (OSError, Error, kombu.exceptions.OperationalError) as error:
        return f"{type(error).__name__}"
    return "ok"


def _database() -> None:
    with connection.cursor() as cursor:
        # a table of ours: the answer is yes only after the migrations
        cursor.execute("SELECT 1 FROM queued LIMIT 1")


def _broker() -> None:
    limits: dict[str, Any] = {"socket_timeout": _PATIENCE_S, "socket_connect_timeout": _PATIENCE_S}
    with kombu.Connection(settings.BROKER_URL, connect_timeout=_PATIENCE_S, transport_options=limits) as broker:
        broker.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=_PATIENCE_S)
        broker.default_channel.close()


def _workers() -> dict[str, str]:
    alive = metrics.living(_WORKERS)
    return {role: "ok" if role in alive else "no worker of this role gives a sign of life" for role in _WORKERS}


def _greets(address: tuple[str, int]) -> None:
    # RFC 5321 §3.1: the server speaks first
    with socket.create_connection(address, timeout=_PATIENCE_S) as peer:
        peer.settimeout(_PATIENCE_S)
        if not peer.recv(4).startswith(b"220"):
            raise ConnectionError("no greeting")
        peer.sendall(b"QUIT\r\n")
