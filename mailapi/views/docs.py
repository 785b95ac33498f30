"""The description of the API, for machines at /openapi.json and for people at /docs; both without the Internet."""

from __future__ import annotations

from csp.decorators import csp_update
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_safe
from drf_spectacular.views import SpectacularSwaggerSplitView

from mailapi.schemas.openapi import document


@require_safe
def openapi(request: HttpRequest) -> HttpResponse:
    return JsonResponse(document())


# Swagger UI sets style attributes; scripts stay our own files only (the split view keeps them out of the page)
@method_decorator(csp_update({"style-src": ["'self'", "'unsafe-inline'"]}), name="dispatch")
class Docs(SpectacularSwaggerSplitView):
    url_name = "openapi"
    title = "mailapi"
