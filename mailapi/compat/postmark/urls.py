"""Postmark's paths, in any case and with or without a slash at the end, as its clients write them."""

from __future__ import annotations

import re
from typing import Any

from django.urls import URLPattern, re_path

from mailapi.compat.postmark import sending
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
    re_path("", Nothing.as_view()),
]
