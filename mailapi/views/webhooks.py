"""Endpoints that hear what became of the mail."""

from __future__ import annotations

from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from deliveries import endpoints
from deliveries.read import account as read
from mailapi.schemas.body import json_body
from mailapi.schemas.faults import read_shape
from mailapi.schemas.openapi import describe_webhook, describe_webhooks
from mailapi.schemas.webhooks import CreateWebhook, across_fields
from mailapi.views.base import View, found, listed, page_of, path_id


@describe_webhooks
class Webhooks(View):
    def get(self, request: Request) -> HttpResponse:
        return listed(*read.webhooks(self.caller().tenant_id, *page_of(request)))

    def post(self, request: Request) -> HttpResponse:
        with json_body(request._request) as body:
            asked = read_shape(body, CreateWebhook, across_fields)
        caller = self.caller()
        url = asked.endpoint or asked.url or ""
        endpoint, secret = endpoints.create(caller.tenant_id, url, asked.events, f"key:{caller.key_id}")
        return JsonResponse({"object": "webhook", "id": str(endpoint.id), "signing_secret": secret}, status=201)


@describe_webhook
class Webhook(View):
    def get(self, request: Request, webhook_id: str) -> HttpResponse:
        return found(read.webhook(self.caller().tenant_id, path_id(webhook_id)))

    def delete(self, request: Request, webhook_id: str) -> HttpResponse:
        caller, endpoint_id = self.caller(), path_id(webhook_id)
        gone = endpoints.remove(caller.tenant_id, endpoint_id, f"key:{caller.key_id}")
        return found({"object": "webhook", "id": str(endpoint_id), "deleted": True} if gone else None)
