"""Templates: drafts, published versions, previews."""

from __future__ import annotations

from uuid import UUID

from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from deliveries import templating
from deliveries.models import Template as Row
from deliveries.read import templates as read
from mailapi.schemas import templates as shapes
from mailapi.schemas.body import json_body
from mailapi.schemas.faults import read_shape
from mailapi.schemas.openapi import (
    describe_template,
    describe_template_duplicate,
    describe_template_preview,
    describe_template_publish,
    describe_templates,
)
from mailapi.views.base import View, found, listed, page_of, refuse_unknown


@describe_templates
class Templates(View):
    def get(self, request: Request) -> HttpResponse:
        return listed(*read.page(self.caller().tenant_id, *page_of(request)))

    def post(self, request: Request) -> HttpResponse:
        with json_body(request._request) as body:
            asked = read_shape(body, shapes.CreateTemplate)
        caller = self.caller()
        row = templating.create(caller.tenant_id, asked.name, asked.alias, asked.parts(), f"key:{caller.key_id}")
        return JsonResponse({"object": "template", "id": str(row.id)}, status=201)


@describe_template
class Template(View):
    def get(self, request: Request, template_id: str) -> HttpResponse:
        refuse_unknown(request)
        return found(read.one(self.caller().tenant_id, template_id))

    def patch(self, request: Request, template_id: str) -> HttpResponse:
        caller = self.caller()
        with json_body(request._request) as body:
            asked = read_shape(body, shapes.UpdateTemplate)
        return _id_of(templating.update(caller.tenant_id, template_id, f"key:{caller.key_id}", asked.changes()))

    def delete(self, request: Request, template_id: str) -> HttpResponse:
        caller = self.caller()
        gone = templating.remove(caller.tenant_id, template_id, f"key:{caller.key_id}")
        return found(gone and {"object": "template", "id": str(gone), "deleted": True})


@describe_template_publish
class Publish(View):
    def post(self, request: Request, template_id: str) -> HttpResponse:
        caller = self.caller()
        return _id_of(templating.publish(caller.tenant_id, template_id, f"key:{caller.key_id}"))


@describe_template_duplicate
class Duplicate(View):
    def post(self, request: Request, template_id: str) -> HttpResponse:
        caller = self.caller()
        return _id_of(templating.duplicate(caller.tenant_id, template_id, f"key:{caller.key_id}"), 201)


@describe_template_preview
class Preview(View):
    def post(self, request: Request, template_id: str) -> HttpResponse:
        with json_body(request._request) as body:
            asked = read_shape(body, shapes.PreviewTemplate)
        shown = templating.preview(self.caller().tenant_id, template_id, asked.variables)
        if shown is None:
            return found(None)
        row, rendered, missing = shown
        return found(
            {
                "object": "template_preview",
                "id": str(row.id),
                "subject": rendered.subject,
                "html": rendered.html,
                "text": rendered.text,
                "missing_variables": missing,
            }
        )


def _id_of(row: Row | None, status: int = 200) -> HttpResponse:
    if row is None:
        return found(None)
    ident: UUID = row.id
    return JsonResponse({"object": "template", "id": str(ident)}, status=status)
