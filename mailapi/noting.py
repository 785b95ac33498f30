"""An answered request → the log (deliveries/logbook.py), for callers that have a key."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from deliveries.keys import Caller
from deliveries.logbook import Logbook


@lru_cache(maxsize=1)
def logbook() -> Logbook:
    return Logbook()


def note(request: Request, response: HttpResponse) -> None:
    caller: Any = getattr(request, "_user", None)  # .user would authenticate a second time where that had failed
    if not isinstance(caller, Caller) or not logbook().open_for(response.status_code):
        return
    plain: Any = request._request
    shown = response.content if response.get("Content-Type", "").startswith("application/json") else None
    logbook().note(
        ident=plain.log_id,
        request_id=plain.request_id,
        tenant_id=caller.tenant_id,
        key_id=caller.key_id,
        method=plain.method,
        endpoint=plain.path,
        status=response.status_code,
        took_ms=int((time.monotonic() - plain.begun_s) * 1000),
        user_agent=plain.META.get("HTTP_USER_AGENT", ""),
        request=getattr(plain, "asked", None),
        response=shown,
    )
