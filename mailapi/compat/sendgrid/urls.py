"""SendGrid's paths."""

from __future__ import annotations

from django.urls import path, re_path

from mailapi.compat.sendgrid import sending
from mailapi.compat.sendgrid.door import Nothing

urlpatterns = [
    path("v3/mail/send", sending.Send.as_view()),
    re_path("", Nothing.as_view()),
]
