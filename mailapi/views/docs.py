"""The description of the API, for machines at /openapi.json and for people at /docs; both without the Internet."""

from __future__ import annotations

from typing import Any

from csp.decorators import csp_update
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.decorators import method_decorator
from django.views.generic import RedirectView
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.request import Request

from mailapi.errors import not_allowed
from mailapi.schemas.openapi import document
from mailapi.views.base import View


class OpenApi(View):
    authentication_classes = []
    permission_classes = []
    noted = False

    @extend_schema(exclude=True)
    def get(self, request: Request) -> HttpResponse:
        return JsonResponse(document())


class Elsewhere(RedirectView):
    """What people type leads to the page that is meant; nothing else is asked of it."""

    http_method_names = ["get", "head"]

    def http_method_not_allowed(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        return not_allowed(request, "GET, HEAD")


# Swagger UI sets style attributes; scripts stay our own files only (the split view keeps them out of the page)
@method_decorator(csp_update({"style-src": ["'self'", "'unsafe-inline'"]}), name="dispatch")
class Docs(SpectacularSwaggerSplitView):
    # OPTIONS would be answered by a template that there is not
    http_method_names = ["get", "head"]
    template_name_js = "docs.js"
    url_name = "openapi"
    title = "mailapi"
