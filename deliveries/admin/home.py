"""The first page: what happened, what waits, how the receivers are, and what wants a person. Each tile leads on."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from urllib.parse import quote

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from deliveries import continuity, metrics
from deliveries.admin.access import access
from deliveries.admin.messages import GIVEN_UP, TONE
from deliveries.models import Brake
from deliveries.read import home, pools
from deliveries.read.searching import HELP
from deliveries.states import Status

#: what happened in the last 24 hours: word, what it means, colour, the filter of the list; what is given up today was
#: accepted days ago
_HAPPENED = (
    ("accepted", "by us, for a recipient each", "info", "period=day"),
    ("delivered", "accepted by the receivers", "success", "status=delivered&period=day"),
    ("bounced", "refused or returned", "danger", "status=bounced&period=day"),
    ("complained", "reported as spam", "danger", "status=complained&period=day"),
    ("failed", "given up, or could not be sent", "danger", f"status={GIVEN_UP}"),
    ("suppressed", "kept from suppressed addresses", "default", "status=suppressed&period=day"),
)
#: left out while there are none
_RARE = {"failed", "suppressed"}
_WAITS = {
    Status.QUEUED: "waiting for their turn",
    Status.DEFERRED: "to be tried again",
    Status.SCHEDULED: "to be sent later",
    Status.HELD: "waiting for a person",
}
#: the chart: what is counted, its name, its colour in light and dark
_SERIES = (
    ("delivered", "delivered", "#22c55e"),
    ("deferred", "deferred", "#f59e0b"),
    ("bounced", "bounced", "#ef4444"),
    ("failed", "failed", "#991b1b"),
    ("complained", "reported as spam", "#a855f7"),
)
_WEATHER_TONE = {
    "paused": "danger", "rests": "danger", "worse": "danger", "slowed": "warning", "slow": "warning", "well": "success",
    "quiet": "default",
}  # fmt: skip
ROLES = ("deliver", "jobs", "beat")
#: a tally that is later than that is said to be late
_LATE_S = 120


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """UNFOLD's DASHBOARD_CALLBACK."""
    own, now = access(request), timezone.now()
    unit = "day" if request.GET.get("span") == "month" else "hour"
    messages_url = reverse("admin:deliveries_message_changelist")
    told = home.figures(own.tenants, now, unit)
    waiting = home.waiting(own.tenants)
    context |= {
        "title": "Home",
        "happened": [
            {"word": word, "count": f"{told.day[word]:,}", "meaning": meaning, "tone": tone,
             "url": f"{messages_url}?{query}"}
            for word, meaning, tone, query in _HAPPENED if told.day[word] or word not in _RARE
        ],
        "rates": _rates(told, messages_url),
        "chart": _chart(told, unit),
        "chart_options": json.dumps(_CHART_OPTIONS),
        "unit": unit,
        "waiting": [
            {"word": w.status.value, "count": _many(w, own.operator), "meaning": _WAITS[w.status],
             "tone": TONE[w.status], "url": f"{messages_url}?status={w.status.value}",
             # what the sender put off is not late
             "oldest": f"the oldest for {span(now, w.oldest)}" if w.oldest and w.status != Status.SCHEDULED else ""}
            for w in waiting if w.count or w.status in (Status.QUEUED, Status.DEFERRED)
        ],
        "look": _look(request, now, told),
        "messages_url": messages_url,
        "help": HELP,
    }  # fmt: skip
    if own.operator:
        context["brakes"] = list(Brake.objects.filter(state=Brake.State.OPEN).select_related("tenant")[:20])
        context["brakes_url"] = reverse("admin:deliveries_brake_changelist")
        context["weather"] = [_site(w, now) for w in home.weather(now)]
    return context


def _rates(told: home.Figures, url: str) -> list[dict[str, str]]:
    today, week = home.rate(told.day), home.rate(told.week)
    tiles = [
        {
            "word": "delivery rate",
            "count": percent(today),
            "meaning": "nothing has ended yet" if week is None else f"{percent(week)} in the last 7 days",
            "tone": "default" if today is None else "success" if today >= (week or 0) - 0.05 else "warning",
            "url": f"{url}?status=bounced&period=day",
        }
    ]
    half, most = home.took(told.day, 0.5), home.took(told.day, 0.95)
    tiles.append(
        {
            "word": "time to delivery",
            "count": seconds(half),
            "meaning": "nothing was delivered" if half is None else f"half of them; 95 % within {seconds(most)}",
            "tone": "default",
            "url": f"{url}?status=delivered&period=day",
        }
    )
    return tiles


def _chart(told: home.Figures, unit: str) -> str:
    form = "%H:00" if unit == "hour" else "%d %b"
    bars = told.bars
    return json.dumps(
        {
            "labels": [at.strftime(form) for at, _ in bars],
            "datasets": [
                {"label": name, "data": [counts[what] for _, counts in bars], "backgroundColor": colour, "stack": "a"}
                for what, name, colour in _SERIES
                if what in ("delivered", "deferred", "bounced") or any(counts[what] for _, counts in bars)
            ]
            + [
                {
                    "label": "accepted", "type": "line", "data": [counts["accepted"] for _, counts in bars],
                    "borderColor": "#3b82f6", "backgroundColor": "#3b82f6", "pointRadius": 1, "borderWidth": 2,
                    "order": -1,
                }
            ],
        }
    )  # fmt: skip


_CHART_OPTIONS = {
    "animation": False,
    "maintainAspectRatio": False,
    "interaction": {"mode": "index", "intersect": False},
    "plugins": {"legend": {"display": True, "position": "bottom",
                           "labels": {"boxWidth": 12, "boxHeight": 12, "color": "#9ca3af"}}},
    "scales": {
        "x": {"stacked": True, "grid": {"display": False}, "ticks": {"color": "#9ca3af", "maxRotation": 0,
                                                                     "autoSkipPadding": 12}},
        "y": {"stacked": True, "beginAtZero": True, "grid": {"color": "#9ca3af"}, "ticks": {"color": "#9ca3af",
                                                                                            "precision": 0}},
    },
}  # fmt: skip


def _many(w: home.Waiting, operator: bool) -> str:
    if w.count < home.WAITING_LIMIT:
        return f"{w.count:,}"
    if operator and w.status == Status.QUEUED and (about := home.queue_estimate()) > w.count:
        return f"≈ {about:,}"
    return f"{w.count - 1:,}+"


def _site(w: home.Weather, now: datetime) -> dict[str, Any]:
    why = w.why
    if w.word in ("rests", "paused"):
        end = f"goes on in {span(w.until, now)}" if w.until else "goes on when a person resumes it"
        why = f"{why.rstrip('.')}; {end}." if why else f"{end.capitalize()}."
    elif w.word == "worse":
        why = f"{percent(w.now.success)} taken, {percent(w.normal.success)} in the week before."
    elif w.word == "slow":
        why = f"A mail takes {seconds(w.now.latency_s)}, {seconds(w.normal.latency_s)} in the week before."
    return {
        "name": w.site,
        "word": w.word,
        "tone": _WEATHER_TONE[w.word],
        "why": why,
        "answers": f"{w.now.all:,}",
        "success": percent(w.now.success),
        "success_normal": percent(w.normal.success),
        "deferral": percent(w.now.deferral),
        "deferral_normal": percent(w.normal.deferral),
        "latency": seconds(w.now.latency_s),
        "latency_normal": seconds(w.normal.latency_s),
        "url": f"{reverse('admin:deliveries_site_changelist')}?q={quote(w.site)}",
    }


def _look(request: HttpRequest, now: datetime, told: home.Figures) -> list[dict[str, Any]]:
    """What wants a person; one line each, with where to go."""
    own = access(request)
    found = home.broken(own.tenants)
    lines = [
        {"tone": "danger", "word": "webhook", "text": f"{url} fails or is off",
         "url": reverse("admin:deliveries_webhookendpoint_change", args=[pk])}
        for pk, url in found.endpoints
    ]  # fmt: skip
    lines += [
        {"tone": "danger" if gone else "warning", "word": "domain",
         "text": f"{name}: its DKIM record went missing; mail stops when it is not back within three days" if gone
         else f"{name} is not verified: nothing may be sent from it",
         "url": reverse("admin:deliveries_sendingdomain_change", args=[pk])}
        for pk, name, gone in found.domains
    ] + [
        {"tone": "danger", "word": "mailbox", "text": f"{name} cannot be read: its bounces are not seen",
         "url": reverse("admin:deliveries_bouncemailbox_change", args=[pk])}
        for pk, name in found.mailboxes
    ]  # fmt: skip
    if own.operator:
        if asked := continuity.question():
            lines.insert(0, {"tone": "danger", "word": "restored", "url": reverse("admin:restored"),
                             "text": f"Nothing is sent until you answer: {asked.why}"})  # fmt: skip
        lines += [
            {"tone": "danger", "word": "IP pool", "text": f"{one.name} sends nothing, and mail waits for it: {one.why}",
             "url": reverse("admin:queue")}
            for one in pools.stuck(now)
        ]  # fmt: skip
        living = metrics.living(ROLES)
        lines += [
            {"tone": "danger", "word": "worker", "text": f"No {role} process gave a sign for {metrics.TTL_S} s",
             "url": ""}
            for role in ROLES if role not in living
        ]  # fmt: skip
        until = told.counted_until
        if until is not None and (now - until).total_seconds() > _LATE_S:
            lines.append({"tone": "warning", "word": "figures", "url": "",
                          "text": f"The figures end {span(now, until)} ago: the jobs worker is behind"})  # fmt: skip
    return lines


def percent(part: float | None) -> str:
    """`99.3 %`; 100 only where it is all of them."""
    if part is None:
        return "–"
    return "100 %" if part == 1 else f"{min(part * 100, 99.9):.1f} %"


def seconds(s: float | None) -> str:
    if s is None:
        return "–"
    if s < 1:
        return f"{s * 1000:.0f} ms"
    return f"{s:.1f} s" if s < 60 else f"{s / 60:.0f} min" if s < 5400 else f"{s / 3600:.1f} h"


def span(later: datetime, earlier: datetime) -> str:
    """`40 s`, `12 min`, `3 h`, `2 d` between the two."""
    s = max((later - earlier).total_seconds(), 0)
    return f"{s:.0f} s" if s < 90 else f"{s / 60:.0f} min" if s < 5400 else f"{s / 3600:.0f} h" if s < 129_600 else (
        f"{s / 86_400:.0f} d"
    )  # fmt: skip
