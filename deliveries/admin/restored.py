"""After a restore: the question, its two answers, and what is held for it, released or canceled by filter."""

from __future__ import annotations

from datetime import UTC
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.dateparse import parse_datetime

from deliveries import continuity
from deliveries.admin.access import access
from deliveries.admin.operate import actor
from deliveries.record import restored


def page(request: HttpRequest) -> HttpResponse:
    if not access(request).operator:
        raise PermissionDenied
    if request.method == "POST":
        try:
            _order(request)
        except ValueError as e:
            messages.error(request, str(e))
        return HttpResponseRedirect(request.path)
    context = {
        **admin.site.each_context(request), "title": "Restored", "question": continuity.question(),
        "held": restored.waiting(),
    }  # fmt: skip
    return TemplateResponse(request, "panel/restored.html", context)


def _order(request: HttpRequest) -> None:
    who = actor(request)
    match request.POST.get("verb"):
        case "hold":
            held, told = restored.hold_all(who)
            messages.success(request, f"{held} deliveries are held, {told} webhooks were given up; the rest goes on.")
        case "nothing-lost":
            restored.nothing_lost(who)
            messages.success(request, "Mail goes on as it stands in the database.")
        case "release" | "cancel" as verb:
            count = restored.decide(_which(request.POST), who, cancel=verb == "cancel")
            messages.success(request, f"{count} deliveries: {'canceled' if verb == 'cancel' else 'released'}.")
        case _:
            messages.error(request, "No such action.")


def _which(form: Any) -> restored.Which:
    """From the form; ValueError for what cannot be read."""
    before = None
    if text := form.get("before", "").strip():
        before = parse_datetime(text[:40])
        if before is None:
            raise ValueError("“Accepted before” is a day and a time.")
        before = before if before.tzinfo else before.replace(tzinfo=UTC)
    try:
        tenant = UUID(form["tenant"]) if form.get("tenant") else None
    except ValueError:
        raise ValueError("There is no such tenant.") from None
    return restored.Which(before, tenant, form.get("destination", "")[:255] or None)


def urls() -> list[Any]:
    return [path("restored/", admin.site.admin_view(page), name="restored")]
