"""API keys: made, renamed, revoked. The secret stands in the answer that makes one, and nowhere else."""

from __future__ import annotations

from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from deliveries import keys
from deliveries.read import account as read
from mailapi.schemas.api_keys import CreateApiKey, UpdateApiKey, across_fields, describe_api_key, describe_api_keys
from mailapi.schemas.body import json_body
from mailapi.schemas.faults import read_shape
from mailapi.views.base import View, found, listed, page_of, path_id


@describe_api_keys
class ApiKeys(View):
    def get(self, request: Request) -> HttpResponse:
        return listed(*read.api_keys(self.caller().tenant_id, *page_of(request)))

    def post(self, request: Request) -> HttpResponse:
        with json_body(request._request) as body:
            wanted = read_shape(body, CreateApiKey, across_fields)
        made, secret = keys.issue(self.caller(), wanted.name, wanted.permission, **wanted.limits())
        return JsonResponse({"id": str(made.id), "token": secret}, status=201)


@describe_api_key
class ApiKey(View):
    def patch(self, request: Request, key_id: str) -> HttpResponse:
        ident = path_id(key_id)
        with json_body(request._request) as body:
            wanted = read_shape(body, UpdateApiKey)
        known = keys.change(self.caller(), ident, wanted.wishes())
        return found({"object": "api_key", "id": str(ident)} if known else None)

    def delete(self, request: Request, key_id: str) -> HttpResponse:
        caller, ident = self.caller(), path_id(key_id)
        gone = keys.revoke([ident], f"key:{caller.key_id}", caller.tenant_id)
        return found({"object": "api_key", "id": str(ident), "deleted": True} if gone else None)
