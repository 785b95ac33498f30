"""SendGrid's paths."""

from __future__ import annotations

from django.urls import path, re_path

from mailapi.compat.sendgrid import sending, suppressions, unsubscribes
from mailapi.compat.sendgrid.door import Nothing

urlpatterns = [
    path("v3/mail/send", sending.Send.as_view()),
    path("v3/suppression/<str:kind>", suppressions.Listed.as_view()),
    # RFC 5322 §3.2.3: a local part may hold a slash
    path("v3/suppression/<str:kind>/<path:email>", suppressions.One.as_view()),
    path("v3/asm/suppressions/global", unsubscribes.Global.as_view()),
    path("v3/asm/suppressions/global/<path:email>", unsubscribes.GlobalOne.as_view()),
    path("v3/asm/groups/<int:group>/suppressions", unsubscribes.Group.as_view()),
    path("v3/asm/groups/<int:group>/suppressions/search", unsubscribes.GroupSearch.as_view()),
    path("v3/asm/groups/<int:group>/suppressions/<path:email>", unsubscribes.GroupOne.as_view()),
    re_path("", Nothing.as_view()),
]
