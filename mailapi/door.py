"""What every endpoint is, native or of a face: JSON without negotiation, and one caller per request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request
from rest_framework.views import APIView

from deliveries.keys import Caller
from mailapi.noting import note
from mailapi.throttle import tell


class _AlwaysJson(BaseContentNegotiation):
    """RFC 9110 §12.5.1 allows to disregard Accept, which is kinder than a 406."""

    def select_parser(self, request: Request, parsers: Iterable[BaseParser]) -> BaseParser | None:
        return next(iter(parsers), None)

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        return next(iter(renderers)), "application/json"


class View(APIView):
    """An endpoint. Bodies are read by mailapi.schemas.body, never by DRF's parsers."""

    content_negotiation_class = _AlwaysJson
    http_method_names = ["get", "head", "post", "put", "patch", "delete"]
    #: methods that a key of scope sending_access may use
    open_to_sending: tuple[str, ...] = ()
    #: methods that take a key of scope owner_access
    for_owners: tuple[str, ...] = ()
    #: whether its requests stand in the log
    noted = True
    #: what it shows is closed to a key of scope read_access
    tells_secrets = False

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        answer = super().finalize_response(request, response, *args, **kwargs)
        tell(self.request, answer)
        if self.noted:
            note(request, answer)
        return answer

    def caller(self) -> Caller:
        caller: Caller = self.request.user  # type: ignore[assignment]
        return caller
