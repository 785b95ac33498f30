"""The faces, each under its name."""

from __future__ import annotations

from django.urls import include, path

urlpatterns = [
    path("postmark/", include("mailapi.compat.postmark.urls")),
    path("sendgrid/", include("mailapi.compat.sendgrid.urls")),
    path("mailgun/", include("mailapi.compat.mailgun.urls")),
]
