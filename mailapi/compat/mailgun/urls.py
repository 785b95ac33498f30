"""Mailgun's paths."""

from __future__ import annotations

from django.urls import path, re_path

from mailapi.compat.mailgun import sending
from mailapi.compat.mailgun.door import Nothing

urlpatterns = [
    path("v3/<str:domain>/messages", sending.Messages.as_view()),
    path("v3/<str:domain>/messages.mime", sending.Mime.as_view()),
    re_path("", Nothing.as_view()),
]
