"""The suppression list: who gets no mail of this tenant, and why."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from deliveries.errors import BadInput, Fault
from deliveries.read import account as read
from deliveries.record import suppressions
from mailapi.schemas.body import json_body
from mailapi.schemas.faults import read_shape
from mailapi.schemas.openapi import (
    describe_suppression,
    describe_suppressions,
    describe_suppressions_add,
    describe_suppressions_remove,
)
from mailapi.schemas.suppressions import AddSuppression, AddSuppressions, RemoveSuppressions, one_of_both
from mailapi.views.base import View, found, listed, page_of

_ORIGINS = ("bounce", "complaint", "manual")


@describe_suppressions
class Suppressions(View):
    def get(self, request: Request) -> HttpResponse:
        origin = request.query_params.get("origin", "")
        if origin and origin not in _ORIGINS:
            fault = Fault("origin", "invalid_parameter", f"Must be one of {', '.join(_ORIGINS)}.")
            raise BadInput([fault], "invalid_parameter", 422)
        return listed(*read.suppressions(self.caller().tenant_id, *page_of(request, "origin"), origin=origin))

    def post(self, request: Request) -> HttpResponse:
        with json_body(request._request) as body:
            asked = read_shape(body, AddSuppression)
        caller = self.caller()
        row = suppressions.add(
            caller.tenant_id, asked.email, "manual", asked.detail, f"key:{caller.key_id}", asked.stream,
            asked.expires_at,
        )  # fmt: skip
        return JsonResponse({"object": "suppression", "id": str(row.id)}, status=201)


@describe_suppression
class Suppression(View):
    """By id or by address."""

    def get(self, request: Request, suppression_id: str) -> HttpResponse:
        rows = read.suppressed(self.caller().tenant_id, [suppression_id])
        return found({"object": "suppression", **rows[0]} if rows else None)

    def delete(self, request: Request, suppression_id: str) -> HttpResponse:
        caller = self.caller()
        rows = read.suppressed(caller.tenant_id, [suppression_id])
        suppressions.remove([UUID(row["id"]) for row in rows], f"key:{caller.key_id}", caller.tenant_id)
        return found({"object": "suppression", "id": rows[0]["id"], "deleted": True} if rows else None)


@describe_suppressions_add
class AddMany(View):
    def post(self, request: Request) -> HttpResponse:
        with json_body(request._request) as body:
            asked = read_shape(body, AddSuppressions)
        caller = self.caller()
        rows = suppressions.add_many(
            caller.tenant_id, list(dict.fromkeys(asked.emails)), "manual", asked.detail, f"key:{caller.key_id}",
            asked.stream, asked.expires_at,
        )  # fmt: skip
        return JsonResponse({"data": [{"object": "suppression", "id": str(row.id)} for row in rows]}, status=201)


@describe_suppressions_remove
class RemoveMany(View):
    def post(self, request: Request) -> HttpResponse:
        with json_body(request._request) as body:
            asked = read_shape(body, RemoveSuppressions, one_of_both)
        caller = self.caller()
        rows = read.suppressed(caller.tenant_id, asked.emails or [str(i) for i in asked.ids or ()])
        suppressions.remove([UUID(row["id"]) for row in rows], f"key:{caller.key_id}", caller.tenant_id)
        return JsonResponse({"data": [{"object": "suppression", "id": row["id"], "deleted": True} for row in rows]})
