"""An endpoint of a face: the native errors in the face's own shape, its keys, and what it does not honour."""

from __future__ import annotations

import base64
import binascii
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from django.http import HttpResponse, JsonResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from deliveries.errors import BadInput, Fault
from mailapi import errors
from mailapi.door import View

#: names of fields that were accepted and have no effect here
IGNORED_HEADER = "X-Ignored-Fields"


class Face(View, ABC):
    #: kept out of the OpenAPI, which describes the native API
    schema = None

    @staticmethod
    @abstractmethod
    def refusal(refused: Refused) -> tuple[int, dict[str, Any]]:
        """The face's status and body for what the native API would have answered."""

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """None of the three services knows idempotency keys, so none keeps a mail from being sent twice."""
        answer = super().finalize_response(request, response, *args, **kwargs)
        if request.method == "POST" and answer.status_code < 300 and "Idempotency-Key" in request.headers:
            return with_ignored(answer, [*filter(None, [answer.get(IGNORED_HEADER)]), "Idempotency-Key"])
        return answer

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], HttpResponse | None]:
        return self._refuse

    def _refuse(self, exc: Exception, context: dict[str, Any]) -> HttpResponse | None:
        native = errors.handle(exc, context)
        if native is None:
            return None
        said = json.loads(native.content)
        faults = exc.faults if isinstance(exc, BadInput) else []
        status, body = self.refusal(Refused(native.status_code, said["name"], said["message"], faults))
        answer = JsonResponse(body, status=status)
        for name in ("Retry-After", "Allow"):
            if name in native:
                answer[name] = native[name]
        if status == 401:
            answer["WWW-Authenticate"] = self.get_authenticate_header(context["request"])
        return answer


class Refused:
    """What the native API would have said: HTTP status, error word, message in words, faults."""

    def __init__(self, status: int, name: str, message: str, faults: Sequence[Fault]) -> None:
        self.status = status
        self.name = name
        self.message = message
        self.faults = list(faults)


def basic(credential: str) -> tuple[str, str]:
    """RFC 7617 §2: user and password; empty where it is no such credential."""
    try:
        user, _, password = base64.b64decode(credential.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return user, password


def with_ignored(response: HttpResponse, names: Sequence[str]) -> HttpResponse:
    if names:
        response[IGNORED_HEADER] = ", ".join(dict.fromkeys(names))
    return response


class NothingHere(Face):
    """Every other path of a face, so that its 404 has the face's shape."""

    permission_classes = ()

    def _nothing(self, request: Request, **_kwargs: str) -> HttpResponse:
        raise NotFound("There is nothing at this path; docs/migrating.md lists what there is.")

    get = post = put = patch = delete = _nothing
