"""The doctor's page: asked by a button, since it asks the Internet."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path

from deliveries import doctor
from deliveries.admin.access import access
from deliveries.routing.doctor import Tone
from deliveries.routing.published import domain_name

_TONE = {"good": "success", "warning": "warning", "missing": "danger"}


def page(request: HttpRequest) -> HttpResponse:
    if not access(request).operator:
        raise PermissionDenied
    asked = {name: request.POST.get(name, "").strip()[:300] for name in ("domain", "probe")}
    context: dict[str, Any] = {
        **admin.site.each_context(request), "title": "Doctor", "addresses": list(doctor.addresses()),
        "helo": settings.HELO_NAME, "lists": settings.DNS_BLOCK_LISTS, "asked": asked, "checks": None, "fault": "",
    }  # fmt: skip
    if request.method == "POST":
        try:
            names = {name: domain_name(text) if text else "" for name, text in asked.items()}
        except ValueError as e:
            context["fault"] = str(e)
        else:
            found = doctor.examine([names["domain"]] if names["domain"] else doctor.own_domains(), names["probe"])
            # one heading per address and domain, in the order in which they were looked at
            subjects = dict.fromkeys(check.subject for check in found)
            context["checks"] = [
                (subject, [(check, _TONE[check.tone]) for check in found if check.subject == subject])
                for subject in subjects
            ]
            context["wrong"] = sum(check.tone is Tone.MISSING for check in found)
            context["doubtful"] = sum(check.tone is Tone.WARNING for check in found)
    return TemplateResponse(request, "panel/doctor.html", context)


def urls() -> list[Any]:
    return [path("doctor/", admin.site.admin_view(page), name="doctor")]
