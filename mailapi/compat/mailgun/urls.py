"""Mailgun's paths."""

from __future__ import annotations

from django.urls import path, re_path

from mailapi.compat.mailgun import events, lists, sending
from mailapi.compat.mailgun.door import Nothing

urlpatterns = [
    path("v3/<str:domain>/messages", sending.Messages.as_view()),
    path("v3/<str:domain>/messages.mime", sending.Mime.as_view()),
    path("v3/<str:domain>/events", events.Events.as_view()),
    path("v3/<str:domain>/events/<str:page>", events.Events.as_view()),
    *(
        path(f"v3/<str:domain>/{kind}{rest}", view.as_view(**lists.of(kind)))
        for kind in ("bounces", "complaints", "unsubscribes")
        # RFC 5322 §3.2.3: a local part may hold a slash
        for rest, view in (("", lists.List), ("/<path:address>", lists.Entry))
    ),
    re_path("", Nothing.as_view()),
]
