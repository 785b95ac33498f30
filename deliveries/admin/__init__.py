"""The panel at /admin: every model admin derives from TenantAdmin, or is the operator's alone.

Importing this package registers them. Read `access` (who), `tenant` (what that means for a model admin),
`keyset` (how a huge table is paged), then one module per subject.
"""

from typing import Any

from django.contrib import admin
from django.core.paginator import InvalidPage
from django.http import Http404, HttpRequest, HttpResponse

from deliveries.admin import (
    accounts,
    brakes,
    doctor,
    domains,
    erasures,
    in_force,
    incoming,
    lists,
    login,
    messages,
    people,
    queue,
    received,
    restored,
    sources,
    suppressions,
    templates,
    webhooks,
)


def search(request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
    """The theme's search of the menu; a page that there is not is the asker's error."""
    try:
        return type(admin.site).search(admin.site, request, extra_context)  # type: ignore[attr-defined]
    except InvalidPage:
        raise Http404 from None


admin.site.search = search  # type: ignore[attr-defined]
admin.site.index_template = "panel/home.html"
admin.site.extra_urls = lambda: [  # type: ignore[attr-defined]
    *doctor.urls(),
    *in_force.urls(),
    *login.urls(),
    *queue.urls(),
    *received.urls(),
    *restored.urls(),
]
admin.site.enable_nav_sidebar = True

__all__ = [
    "accounts",
    "brakes",
    "doctor",
    "domains",
    "erasures",
    "in_force",
    "incoming",
    "lists",
    "login",
    "messages",
    "people",
    "queue",
    "received",
    "restored",
    "sources",
    "suppressions",
    "templates",
    "webhooks",
]
