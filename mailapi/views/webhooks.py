"""Endpoints that hear what became of the mail: made, changed, tested; what they were told, and told again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from deliveries import endpoints
from deliveries.errors import BadInput
from deliveries.notify import ask, log
from deliveries.read import account as read
from deliveries.read.emails import iso
from mailapi.schemas import webhooks as shapes
from mailapi.schemas.body import json_body
from mailapi.schemas.faults import Shape, read_shape
from mailapi.schemas.openapi import (
    describe_webhook,
    describe_webhook_attempts,
    describe_webhook_event,
    describe_webhook_event_replay,
    describe_webhook_events,
    describe_webhook_replay,
    describe_webhook_rotate,
    describe_webhook_test,
    describe_webhooks,
)
from mailapi.views.base import View, found, listed, page_of, path_id, shape_of


@contextmanager
def _in_their_word(asked: shapes.CreateWebhook | shapes.UpdateWebhook) -> Iterator[None]:
    """A fault of the URL names the field that the caller wrote."""
    try:
        yield
    except BadInput as e:
        if asked.url is not None:
            e.faults = [replace(f, field="url") if f.field == "endpoint" else f for f in e.faults]
        raise


@describe_webhooks
class Webhooks(View):
    def get(self, request: Request) -> HttpResponse:
        return listed(*read.webhooks(self.caller().tenant_id, *page_of(request)))

    def post(self, request: Request) -> HttpResponse:
        with json_body(request._request) as body:
            asked = read_shape(body, shapes.CreateWebhook, shapes.across_fields)
        caller = self.caller()
        url, actor = asked.endpoint or asked.url or "", f"key:{caller.key_id}"
        with _in_their_word(asked):
            endpoint, secret = endpoints.create(caller.tenant_id, url, asked.events, actor, asked.format)
        return JsonResponse({"object": "webhook", "id": str(endpoint.id), "signing_secret": secret}, status=201)


@describe_webhook
class Webhook(View):
    tells_secrets = True  # its signing secret

    def get(self, request: Request, webhook_id: str) -> HttpResponse:
        return found(read.webhook(self.caller().tenant_id, path_id(webhook_id)))

    def patch(self, request: Request, webhook_id: str) -> HttpResponse:
        caller, endpoint_id = self.caller(), path_id(webhook_id)
        with json_body(request._request) as body:
            # the SDK repeats the path's id in the body
            if isinstance(body.value, dict):
                body.value.pop("webhook_id", None)
            asked = read_shape(body, shapes.UpdateWebhook, shapes.one_url)
        with _in_their_word(asked):
            known = endpoints.update(
                caller.tenant_id,
                endpoint_id,
                f"key:{caller.key_id}",
                url=asked.endpoint or asked.url,
                events=asked.events,
                enabled=None if asked.status is None else asked.status == "enabled",
            )
        return found({"object": "webhook", "id": str(endpoint_id)} if known else None)

    def delete(self, request: Request, webhook_id: str) -> HttpResponse:
        caller, endpoint_id = self.caller(), path_id(webhook_id)
        gone = endpoints.remove(caller.tenant_id, endpoint_id, f"key:{caller.key_id}")
        return found({"object": "webhook", "id": str(endpoint_id), "deleted": True} if gone else None)


@describe_webhook_rotate
class Rotate(View):
    def post(self, request: Request, webhook_id: str) -> HttpResponse:
        caller, endpoint_id = self.caller(), path_id(webhook_id)
        overlap = timedelta(hours=shape_of(request, shapes.RotateSecret).overlap_hours)
        secret = endpoints.rotate(caller.tenant_id, endpoint_id, f"key:{caller.key_id}", overlap)
        return found(secret and {"object": "webhook", "id": str(endpoint_id), "signing_secret": secret})


@describe_webhook_test
class Test(View):
    def post(self, request: Request, webhook_id: str) -> HttpResponse:
        caller, endpoint_id = self.caller(), path_id(webhook_id)
        shape_of(request, Shape)
        event_id = ask.test(caller.tenant_id, endpoint_id, f"key:{caller.key_id}")
        return found(event_id and _event(event_id))


@describe_webhook_replay
class Replay(View):
    def post(self, request: Request, webhook_id: str) -> HttpResponse:
        caller, endpoint_id = self.caller(), path_id(webhook_id)
        with json_body(request._request) as body:
            asked = read_shape(body, shapes.ReplayWebhook, shapes.one_kind)
        whose, actor = (caller.tenant_id, endpoint_id), f"key:{caller.key_id}"
        done: ask.Replayed | None
        if asked.event_id:
            one = ask.replay_event(*whose, asked.event_id, actor)
            done = None if one is None else ask.Replayed(int(one))
        elif asked.from_:
            done = ask.replay_window(*whose, asked.from_, asked.to or datetime.now(UTC), actor)
        else:
            done = ask.replay_failed(*whose, actor)
        return found(
            done
            and {
                "object": "webhook_replay",
                "replayed": done.count,
                "has_more": done.more,
                "next_from": iso(done.next_from),
            }
        )


@describe_webhook_events
class Events(View):
    def get(self, request: Request, webhook_id: str) -> HttpResponse:
        return _page(log.events(self.caller().tenant_id, path_id(webhook_id), *page_of(request)))


@describe_webhook_event
class Event(View):
    def get(self, request: Request, webhook_id: str, event_id: str) -> HttpResponse:
        return found(log.event(self.caller().tenant_id, path_id(webhook_id), path_id(event_id)))


@describe_webhook_attempts
class Attempts(View):
    def get(self, request: Request, webhook_id: str, event_id: str) -> HttpResponse:
        whose = self.caller().tenant_id, path_id(webhook_id), path_id(event_id)
        return _page(log.attempts(*whose, *page_of(request)))


@describe_webhook_event_replay
class EventReplay(View):
    def post(self, request: Request, webhook_id: str, event_id: str) -> HttpResponse:
        caller, event = self.caller(), path_id(event_id)
        shape_of(request, Shape)
        known = ask.replay_event(caller.tenant_id, path_id(webhook_id), event, f"key:{caller.key_id}")
        return found(None if known is None else _event(event))


def _event(event_id: UUID) -> dict[str, Any]:
    return {"object": "webhook_event", "id": str(event_id)}


def _page(page: tuple[list[dict[str, Any]], bool] | None) -> HttpResponse:
    return found(None) if page is None else listed(*page)
