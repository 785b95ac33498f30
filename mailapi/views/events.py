"""The tenant's events by cursor, for those who cannot take webhooks."""

from __future__ import annotations

from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from deliveries.errors import BadInput, Fault
from deliveries.notify import feed
from mailapi.schemas.openapi import describe_event, describe_events
from mailapi.schemas.webhooks import KNOWN, unknown_event
from mailapi.views.base import View, found, page_of, path_id


@describe_events
class Events(View):
    def get(self, request: Request) -> HttpResponse:
        limit, after, before = page_of(request, "types")
        if before is not None:
            raise BadInput([Fault("before", "invalid_parameter", "Events go forward only; use after.")])
        types = [word for part in request.query_params.getlist("types") for word in part.split(",") if word]
        if set(types) - set(KNOWN):
            raise BadInput([unknown_event("types")], "invalid_parameter", 422)
        page = feed.page(self.caller().tenant_id, limit, after, types)
        cursor = str(page.next) if page.next else None
        return JsonResponse({"object": "list", "has_more": page.has_more, "next": cursor, "data": page.data})


@describe_event
class Event(View):
    def get(self, request: Request, event_id: str) -> HttpResponse:
        return found(feed.one(self.caller().tenant_id, path_id(event_id)))
