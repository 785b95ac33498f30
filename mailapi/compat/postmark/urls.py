"""Postmark's paths, in any case and with or without a slash at the end, as its clients write them."""

from __future__ import annotations

import re
from typing import Any

from django.urls import URLPattern, re_path

from mailapi.compat.postmark import bulk, reading, sending, suppressions
from mailapi.compat.postmark.door import Nothing


def _path(words: str, view: Any) -> URLPattern:
    """`messages/<id>` in any case of its letters; what stands in <> keeps its own. Django reverses no (?i)."""
    pattern = "".join(
        f"(?P{part}[^/]+)" if part.startswith("<") else re.sub("[a-z]", lambda m: f"[{m[0]}{m[0].upper()}]", part)
        for part in re.split(r"(<\w+>)", words)
    )
    return re_path(f"^{pattern}/?$", view.as_view())


urlpatterns = [
    _path("email", sending.Email),
    _path("email/batch", sending.Batch),
    _path("email/bulk", bulk.Bulk),
    _path("email/bulk/<bulk_id>", bulk.BulkStatus),
    _path("email/withtemplate", sending.WithTemplate),
    _path("email/batchwithtemplates", sending.BatchWithTemplates),
    _path("messages/outbound", reading.Messages),
    _path("messages/outbound/<message_id>/details", reading.Details),
    _path("messages/outbound/<message_id>/dump", reading.Dump),
    _path("bounces", reading.Bounces),
    _path("bounces/<bounce_id>", reading.Bounce),
    _path("bounces/<bounce_id>/dump", reading.BounceDump),
    _path("bounces/<bounce_id>/activate", reading.Activate),
    _path("deliverystats", reading.Stats),
    _path("message-streams/<stream>/suppressions", suppressions.Suppressions),
    _path("message-streams/<stream>/suppressions/dump", suppressions.Dump),
    _path("message-streams/<stream>/suppressions/delete", suppressions.Remove),
    re_path("", Nothing.as_view()),
]
