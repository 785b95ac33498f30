"""The one error body, of every answer that is not 2xx:

    {"statusCode": 422, "name": "validation_error", "message": "…",
     "errors": [{"field": "to[3]", "code": "invalid_address", "message": "…", "index": null}], "request_id": "…"}

`statusCode`, `name` and `message` are Resend's; its SDKs build their exceptions from them. `errors` names every fault.
Any answer that is not 2xx means that nothing was stored.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from django.core.exceptions import PermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from django.views.csrf import csrf_failure
from rest_framework import exceptions

from deliveries.errors import BadInput, Conflict, Fault, KeyRefused, OverQuota
from deliveries.models.fields import uuid7
from deliveries.models.sql import drop_broken
from mailapi import logs
from mailapi.bodies import REFUSED

log = logging.getLogger(__name__)

#: how many faults `message` tells in full; `errors` has them all
_TOLD = 3
_AWAY_S = 5
#: an X-Request-Id that is taken over: it stands in headers, logs and the panel
_GIVEN = re.compile(r"[A-Za-z0-9._:@/+=-]{1,64}\Z", re.ASCII)


def answer(
    request: HttpRequest,
    status: int,
    name: str,
    message: str,
    faults: Sequence[Fault] = (),
    headers: dict[str, str] | None = None,
) -> JsonResponse:
    """The error body in its one shape: `name` is a stable word, Resend's where it has one; `message` is for people."""
    body = {
        "statusCode": status,
        "name": name,
        "message": message,
        "errors": [{"field": f.field, "code": f.code, "message": f.message, "index": f.index} for f in faults],
        "request_id": getattr(request, "request_id", None),
    }
    return JsonResponse(body, status=status, headers=headers)


def not_allowed(request: HttpRequest, allowed: str) -> JsonResponse:
    message = f"{request.method} is not possible here; use {allowed}."
    return answer(request, 405, "method_not_allowed", message, headers={"Allow": allowed})


def sentence(faults: Sequence[Fault]) -> str:
    """The first faults in words, each with its place."""
    told = [f"{place}: {f.message}" if (place := _place(f)) else f.message for f in faults[:_TOLD]]
    if len(faults) > _TOLD:
        told.append(f"And {len(faults) - _TOLD} more, see errors.")
    return " ".join(told)


def _place(fault: Fault) -> str:
    if fault.index is None:
        return fault.field
    return f"[{fault.index}].{fault.field}" if fault.field else f"[{fault.index}]"


def handle(exc: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """DRF's exception handler. None lets our own bugs become a 500 with a traceback in the log."""
    request = context["request"]._request
    if isinstance(exc, BadInput):
        headers = {"Retry-After": "1"} if exc.http_status == 429 else None
        return answer(request, exc.http_status, exc.name, sentence(exc.faults), exc.faults, headers)
    if isinstance(exc, KeyRefused):
        # RFC 9110 §15.5.2: a 401 names the scheme
        headers = {"WWW-Authenticate": "Bearer"} if exc.http_status == 401 else None
        return answer(request, exc.http_status, exc.name, str(exc), headers=headers)
    if isinstance(exc, Conflict):
        headers = {"Retry-After": str(exc.retry_after_s)} if exc.retry_after_s is not None else None
        return answer(request, 409, exc.name, str(exc), headers=headers)
    if isinstance(exc, OverQuota):
        return answer(request, 429, exc.name, str(exc))
    if isinstance(exc, Http404 | exceptions.NotFound):
        return answer(request, 404, "not_found", str(exc) or "There is nothing here.")
    if isinstance(exc, exceptions.MethodNotAllowed):
        return not_allowed(request, context["view"].headers["Allow"])
    if isinstance(exc, PermissionDenied | exceptions.PermissionDenied):
        return answer(request, 403, "invalid_access", "This API key may not do that.")
    if isinstance(exc, exceptions.Throttled):
        headers = {"Retry-After": str(int(getattr(exc, "wait", None) or 1))}
        return answer(request, 429, "rate_limit_exceeded", "Too many requests; slow down.", headers=headers)
    if isinstance(exc, exceptions.APIException):
        return answer(request, exc.status_code, "validation_error", str(exc.detail))
    if isinstance(exc, OperationalError | InterfaceError | psycopg.OperationalError | psycopg.InterfaceError):
        # connection lost, statement_timeout, disk full: not the caller's fault, and worth another try
        log.error("the database did not serve %s %s: %s", request.method, request.path, exc)
        drop_broken()
        return answer(
            request,
            503,
            "application_error",
            "The service cannot store anything at this moment; ask again with the same Idempotency-Key.",
            headers={"Retry-After": str(_AWAY_S)},
        )
    return None


class RequestId:
    """Middleware: every answer carries X-Request-Id, every error body, line of the log and logged request the same.

    It is the client's own where that is one word of 64 characters at most, so that a request can be followed through
    the systems of its sender; the id of the logged request is ours in any case.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.log_id = uuid7()  # type: ignore[attr-defined]
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        request.request_id = given if _GIVEN.match(given) else str(request.log_id)  # type: ignore[attr-defined]
        logs.request.set(request)
        request.begun_s = time.monotonic()  # type: ignore[attr-defined]
        if refused := request.META.get(REFUSED):
            response: HttpResponse = _unread(request, *refused)
        else:
            response = self.get_response(request)
        response["X-Request-Id"] = request.request_id  # type: ignore[attr-defined]
        logs.request.set(None)
        return response


def _unread(request: HttpRequest, status: int, code: str, message: str) -> HttpResponse:
    """What mailapi.bodies says of a body that cannot be used."""
    name = {408: "request_timeout", 503: "application_error"}.get(status, "validation_error")
    headers = {"Retry-After": str(_AWAY_S)} if status == 503 else None
    response = answer(request, status, name, message, [Fault("", code, message)], headers)
    response["Content-Length"] = str(len(response.content))  # no middleware comes after this one
    return response


# --- what Django answers before or outside of a view (handler400 … of mailapi.urls) -------------------------


def _wants_page(request: HttpRequest) -> bool:
    return "text/html" in request.headers.get("Accept", "")


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _wants_page(request):
        return defaults.bad_request(request, exception)
    return answer(request, 400, "validation_error", "The request cannot be read; check the Host header and the URL.")


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _wants_page(request):
        return defaults.permission_denied(request, exception)
    return answer(request, 403, "invalid_access", "This is not open to you.")


def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponse:
    """A POST without a token of the panel. What is no page of it and takes POST asks for none: there, it takes none."""
    if not request.path_info.startswith("/admin/"):
        return not_allowed(request, "GET, HEAD")
    if _wants_page(request):
        return csrf_failure(request, reason)
    return answer(request, 403, "invalid_access", "The panel takes forms of its own pages alone; /docs has the API.")


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    if _wants_page(request):
        return defaults.page_not_found(request, exception)
    return answer(request, 404, "not_found", "There is nothing at this path; /docs lists what there is.")


def server_error(request: HttpRequest) -> HttpResponse:
    if _wants_page(request):
        return defaults.server_error(request)
    return answer(request, 500, "application_error", "Something broke on our side; nothing was stored.")
