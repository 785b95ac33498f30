"""One person's data taken away: the order, and how far it is. Ordered by a key of owners; the address is never told."""

from __future__ import annotations

from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from deliveries import erase
from deliveries.read import erasures as read
from mailapi.schemas.body import json_body
from mailapi.schemas.erasures import Erase, describe_erasure, describe_erasures
from mailapi.schemas.faults import read_shape
from mailapi.views.base import View, found, listed, page_of, path_id, refuse_unknown


@describe_erasures
class Erasures(View):
    #: the log of requests would keep the address that is to be forgotten
    noted = False
    for_owners = ("POST",)

    def get(self, request: Request) -> HttpResponse:
        return listed(*read.page(self.caller().tenant_id, *page_of(request)))

    def post(self, request: Request) -> HttpResponse:
        with json_body(request._request) as body:
            asked = read_shape(body, Erase)
        caller = self.caller()
        row = erase.order(caller.tenant_id, asked.email, f"key:{caller.key_id}", asked.suppressions == "keep")
        return JsonResponse({"object": "erasure", **read.shown(row)}, status=202)


@describe_erasure
class Erasure(View):
    def get(self, request: Request, erasure_id: str) -> HttpResponse:
        refuse_unknown(request)
        return found(read.one(self.caller().tenant_id, path_id(erasure_id)))
