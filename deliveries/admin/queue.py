"""The page of the queue: what waits where and why, and the orders of an operator about a destination."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse

from deliveries.admin.access import access
from deliveries.admin.home import span
from deliveries.admin.operate import actor, said
from deliveries.models import Site
from deliveries.models.sql import clock
from deliveries.read import home, line, pools
from deliveries.record import operator, sites

#: deliveries that one press of flush makes due
MAX_FLUSHED = 2_000
_TONE = {"paused": "danger", "rests": "warning", "slowed": "warning", "open": "success"}


def page(request: HttpRequest) -> HttpResponse:
    if not access(request).operator:
        raise PermissionDenied
    if request.method == "POST":
        _order(request)
        return HttpResponseRedirect(reverse("admin:queue"))
    now = clock()
    found = line.stops(now)
    link = reverse("admin:deliveries_message_changelist")
    context = {
        **admin.site.each_context(request),
        "title": "Queue",
        "stops": [
            {"row": stop, "tone": _TONE[stop.word], "waiting": _many(stop.waiting),
             "next": _next(stop, now), "until": _until(stop, now)}
            for stop in found
        ],
        "pools": [
            {"row": one, "tone": "danger" if one.word == "waits" else "warning",
             "until": f"looked at again in {span(one.until, now)}" if one.until else ""}
            for one in pools.standing(now) if one.word != "sends"
        ],
        "more": len(found) == line.MAX_DESTINATIONS,
        "waiting": [
            {"word": w.status.value, "count": f"{w.count - 1:,}+" if w.count >= home.WAITING_LIMIT else f"{w.count:,}",
             "url": f"{link}?status={w.status.value}"}
            for w in home.waiting(None)
        ],
        "unknown_url": f"{link}?status=unknown",
    }  # fmt: skip
    return TemplateResponse(request, "panel/queue.html", context)


def _many(n: int) -> str:
    return f"{line.COUNT_LIMIT - 1:,}+" if n >= line.COUNT_LIMIT else f"{n:,}"


def _next(stop: line.Stop, now: Any) -> str:
    if stop.next_due is None:
        return "–"
    return "now" if stop.next_due <= now else f"in {span(stop.next_due, now)}"


def _until(stop: line.Stop, now: Any) -> str:
    if stop.word not in ("rests", "paused"):
        return ""
    return f"goes on in {span(stop.until, now)}" if stop.until else "goes on when a person resumes it"


def _order(request: HttpRequest) -> None:
    """POST verb=…&site=…: pause (with a reason), resume, flush, slow (to so many places; none: as its profile says)."""
    name, who = request.POST.get("site", "").strip(), actor(request)
    if not name or "\0" in name or not _known(name):
        messages.error(request, "No such destination.")
        return
    match request.POST.get("verb"):
        case "pause":
            reason = said(request)
            sites.pause_site(name, f"Paused by {who}: {reason}" if reason else "", who)
            messages.success(request, f"{name} is paused: its mail waits until a person resumes it.")
        case "resume":
            sites.resume_site(name, who)
            messages.success(request, f"{name} is resumed: what waited is due as before.")
        case "flush":
            count = operator.retry_now(line.deferred_at(name, MAX_FLUSHED), who)
            more = " There is more: press again." if count == MAX_FLUSHED else ""
            messages.success(request, f"{count:,} deferred mails for {name} are due now.{more}")
        case "slow":
            _slow(request, name, who)
        case _:
            messages.error(request, "No such order.")


def _known(name: str) -> bool:
    if Site.objects.filter(name=name).exists():
        return True
    return any(stop.waiting or stop.in_flight for stop in line.stops(clock(), name))


def _slow(request: HttpRequest, name: str, who: str) -> None:
    asked = request.POST.get("places", "").strip()
    if not asked:
        sites.slow_site(name, None, who)
        messages.success(request, f"{name} has no bound of yours any more.")
    elif asked.isascii() and asked.isdigit() and 1 <= int(asked[:6]) <= 10_000:
        sites.slow_site(name, int(asked[:6]), who)
        messages.success(request, f"{name} gets at most {int(asked[:6])} mails at a time.")
    else:
        messages.error(request, "Give a number of mails at a time from 1 to 10000, or nothing to lift the bound.")


def urls() -> list[Any]:
    return [path("queue/", admin.site.admin_view(page), name="queue")]
