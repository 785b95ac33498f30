"""What the receiver lab took (sandbox only): its newest mails, read from the files that it keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path

from deliveries.admin.access import access
from deliveries.read.searching import message_ident

#: newest mails in the list
MAX_MAILS = 100
#: octets of a mail's source on its page
MAX_SOURCE = 256 * 1024


def offered(request: HttpRequest) -> bool:
    """The menu's entry: for the operator, where a lab keeps files. Its mails are of every tenant."""
    return access(request).operator and bool(settings.SANDBOX_SPOOL)


def _folder(request: HttpRequest) -> Path:
    if not access(request).operator:
        raise PermissionDenied
    if not settings.SANDBOX_SPOOL:
        raise Http404
    return Path(settings.SANDBOX_SPOOL)


def newest(folder: Path) -> list[dict[str, Any]]:
    """The facts of the newest mails; those that the lab removes meanwhile are left out."""
    numbers = sorted((int(f.stem) for f in folder.glob("*.eml") if f.stem.isdigit()), reverse=True)
    mails = []
    for number in numbers[:MAX_MAILS]:
        try:
            facts = json.loads((folder / f"{number:012d}.json").read_text())
        except (OSError, ValueError):
            continue
        facts["ident"] = message_ident(str(facts.get("message_id", "")))
        mails.append(facts)
    return mails


def listing(request: HttpRequest) -> HttpResponse:
    mails = newest(_folder(request))
    context = {**admin.site.each_context(request), "title": "Received by the lab", "mails": mails}
    return TemplateResponse(request, "panel/received.html", context)


def one(request: HttpRequest, number: int) -> HttpResponse:
    try:
        with (_folder(request) / f"{number:012d}.eml").open("rb") as file:
            octets = file.read(MAX_SOURCE + 1)
    except FileNotFoundError:
        raise Http404 from None
    source = octets[:MAX_SOURCE].decode("utf-8", "replace").replace("\r\n", "\n")
    context = {
        **admin.site.each_context(request),
        "title": f"Received by the lab: no. {number}",
        "source": source,
        "cut": len(octets) > MAX_SOURCE,
    }
    return TemplateResponse(request, "panel/received_one.html", context)


def urls() -> list[Any]:
    """UNFOLD's hook for addresses of the site itself."""
    view = admin.site.admin_view
    return [
        path("received/", view(listing), name="received"),
        path("received/<int:number>/", view(one), name="received_one"),
    ]
