"""Every path of the service."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from mailapi.views import (
    api_keys,
    check,
    docs,
    domains,
    emails,
    erasures,
    events,
    health,
    links,
    logs,
    metrics,
    mime,
    receiving,
    sent,
    suppressions,
    templates,
    webhooks,
)

urlpatterns = [
    path("admin/", admin.site.urls),
    path("emails", emails.Emails.as_view()),
    path("emails/check", check.Check.as_view()),
    path("emails/mime", mime.Mime.as_view()),
    path("emails/batch", emails.Batch.as_view()),
    path("emails/receiving", receiving.Receiving.as_view()),
    path("emails/receiving/<str:email_id>", receiving.Received.as_view()),
    path("emails/receiving/<str:email_id>/attachments", receiving.Attachments.as_view()),
    path("emails/receiving/<str:email_id>/attachments/<str:attachment_id>", receiving.Attachment.as_view()),
    path("emails/receiving/<str:email_id>/files/<str:file_id>", receiving.Download.as_view()),
    path("emails/metrics", sent.Metrics.as_view()),
    path("emails/<str:email_id>", emails.Email.as_view()),
    path("emails/<str:email_id>/cancel", emails.Cancel.as_view()),
    path("emails/<str:email_id>/attachments", sent.Attachments.as_view()),
    path("emails/<str:email_id>/attachments/<str:attachment_id>", sent.Attachment.as_view()),
    path("emails/<str:email_id>/files/<str:file_id>", sent.Download.as_view()),
    path("webhooks", webhooks.Webhooks.as_view()),
    path("webhooks/<str:webhook_id>", webhooks.Webhook.as_view()),
    path("webhooks/<str:webhook_id>/signing-secret/rotate", webhooks.Rotate.as_view()),
    path("webhooks/<str:webhook_id>/test", webhooks.Test.as_view()),
    path("webhooks/<str:webhook_id>/replay", webhooks.Replay.as_view()),
    path("webhooks/<str:webhook_id>/events", webhooks.Events.as_view()),
    path("webhooks/<str:webhook_id>/events/<str:event_id>", webhooks.Event.as_view()),
    path("webhooks/<str:webhook_id>/events/<str:event_id>/attempts", webhooks.Attempts.as_view()),
    path("webhooks/<str:webhook_id>/events/<str:event_id>/replay", webhooks.EventReplay.as_view()),
    path("events", events.Events.as_view()),
    path("events/<str:event_id>", events.Event.as_view()),
    path("domains", domains.Domains.as_view()),
    path("domains/claim", domains.Claims.as_view()),
    path("domains/<str:domain_id>/claim", domains.Claim.as_view()),
    path("domains/<str:domain_id>/claim/verify", domains.ClaimVerify.as_view()),
    path("domains/<str:domain_id>", domains.Domain.as_view()),
    path("domains/<str:domain_id>/verify", domains.Verify.as_view()),
    path("domains/<str:domain_id>/dkim/rotate", domains.Rotate.as_view()),
    path("api-keys", api_keys.ApiKeys.as_view()),
    path("api-keys/<str:key_id>", api_keys.ApiKey.as_view()),
    path("erasures", erasures.Erasures.as_view()),
    path("erasures/<str:erasure_id>", erasures.Erasure.as_view()),
    path("suppressions", suppressions.Suppressions.as_view()),
    path("suppressions/batch/add", suppressions.AddMany.as_view()),
    path("suppressions/batch/remove", suppressions.RemoveMany.as_view()),
    # RFC 5322 §3.2.3: a local part may hold a slash
    path("suppressions/<path:suppression_id>", suppressions.Suppression.as_view()),
    path("compat/", include("mailapi.compat.urls")),
    path("templates", templates.Templates.as_view()),
    path("templates/<str:template_id>", templates.Template.as_view()),
    path("templates/<str:template_id>/publish", templates.Publish.as_view()),
    path("templates/<str:template_id>/duplicate", templates.Duplicate.as_view()),
    path("templates/<str:template_id>/preview", templates.Preview.as_view()),
    path("tls/ask", links.served),
    path("o/<str:token>", links.opened),
    path("c/<str:token>", links.clicked),
    path("u/<str:token>", links.leave),
    path("logs", logs.Logs.as_view()),
    path("logs/<str:log_id>", logs.Log.as_view()),
    path("health/live", health.Live.as_view()),
    path("health/ready", health.Ready.as_view()),
    path("metrics", metrics.scrape),
    path("openapi.json", docs.OpenApi.as_view(), name="openapi"),
    path("docs", docs.Docs.as_view(), name="docs"),
    # what people type, and what `up` prints; the API's own paths stay exact
    path("docs/", RedirectView.as_view(url="/docs")),
    path("admin", RedirectView.as_view(url="/admin/")),
    path("", RedirectView.as_view(url="/docs")),
]

handler400 = "mailapi.errors.bad_request"
handler403 = "mailapi.errors.forbidden"
handler404 = "mailapi.errors.not_found"
handler500 = "mailapi.errors.server_error"
