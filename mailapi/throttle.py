"""The rate of each API key (deliveries/rates.py), as DRF's throttle, and the headers that tell it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from deliveries.keys import Caller
from deliveries.operators import Operator
from deliveries.rates import Grant, Rates


@lru_cache(maxsize=1)
def rates() -> Rates:
    return Rates()


class PerKey(BaseThrottle):
    """429 `rate_limit_exceeded` beyond RATE_LIMIT requests a second, or the key's own number. 0 switches it off."""

    def allow_request(self, request: Request, view: Any) -> bool:
        caller: Any = request.user
        if not isinstance(caller, Caller | Operator):
            return True
        limit = (caller.rate_limit if isinstance(caller, Caller) else None) or settings.RATE_LIMIT
        if not limit:
            return True
        self._grant = rates().take(caller.key_id, limit)
        request.rate_grant = self._grant  # type: ignore[attr-defined]
        return self._grant.allowed

    def wait(self) -> float:
        return self._grant.retry_after_s


def tell(request: Request, response: HttpResponse) -> None:
    """RFC-less, Resend's: `ratelimit-limit` requests, `-remaining` of them now, all again in `-reset` seconds."""
    grant: Grant | None = getattr(request, "rate_grant", None)
    if grant is not None:
        response["ratelimit-limit"] = str(grant.limit)
        response["ratelimit-remaining"] = str(grant.remaining)
        response["ratelimit-reset"] = str(grant.reset_s)
