"""SendGrid's paths."""

from __future__ import annotations

from django.urls import path, re_path

from mailapi.compat.sendgrid import sending, suppressions
from mailapi.compat.sendgrid.door import Nothing

urlpatterns = [
    path("v3/mail/send", sending.Send.as_view()),
    path("v3/suppression/<str:kind>", suppressions.Listed.as_view()),
    # RFC 5322 §3.2.3: a local part may hold a slash
    path("v3/suppression/<str:kind>/<path:email>", suppressions.One.as_view()),
    path("v3/asm/suppressions/global", suppressions.Global.as_view()),
    path("v3/asm/suppressions/global/<path:email>", suppressions.GlobalOne.as_view()),
    re_path("", Nothing.as_view()),
]
