"""Wrong passwords at the panel, counted three ways, each closed for AXES_COOLOFF_TIME when its number is reached.

By login and address together, as one person types: few. By address, over all logins: many people share one behind a
proxy or NAT, and who tries one password on many logins sits at one too. By login, over all addresses: whoever has a
thousand addresses guesses no faster for it. The last alone would let anybody lock a person out, so it does not hold
for a browser in which that person has logged in before: it has a cookie that says so (OWASP, device cookies).
"""

from __future__ import annotations

from typing import Any

from axes.attempts import get_cool_off_threshold
from axes.handlers.database import AxesDatabaseHandler
from axes.helpers import get_client_username
from axes.models import AccessAttempt
from django.conf import settings
from django.core import signing
from django.db.models import Q, Sum
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

#: of one address, and of one login; of both together AXES_FAILURE_LIMIT
PER_ADDRESS = 100
PER_LOGIN = 100
COOKIE = "known_device"
_KEPT_S = 180 * 86_400
_SALT = "deliveries.admin.tries"


class Tries(AxesDatabaseHandler):
    """AXES_HANDLER."""

    def get_failures(self, request: HttpRequest, credentials: dict[str, Any] | None = None) -> int:
        """The fullest of the three counts, as a part of AXES_FAILURE_LIMIT."""
        login = get_client_username(request, credentials)
        by_address, by_login = Q(ip_address=request.axes_ip_address), Q(username=login)  # type: ignore[attr-defined]
        recent = AccessAttempt.objects.filter(attempt_time__gte=get_cool_off_threshold(request))
        count = recent.filter(by_address | by_login).aggregate(
            both=Sum("failures_since_start", filter=by_address & by_login, default=0),
            address=Sum("failures_since_start", filter=by_address, default=0),
            login=Sum("failures_since_start", filter=by_login, default=0),
        )
        shares = [count["both"] / settings.AXES_FAILURE_LIMIT, count["address"] / PER_ADDRESS]
        if not is_known(request, login):
            shares.append(count["login"] / PER_LOGIN)
        return int(max(shares) * settings.AXES_FAILURE_LIMIT)


def login_of(request: HttpRequest, credentials: dict[str, Any] | None = None) -> str | None:
    """AXES_USERNAME_CALLABLE: who was tried, no longer than its column; a longer one is nobody's."""
    name = (credentials or request.POST).get("username")
    return name[:255] if name else name


def is_known(request: HttpRequest, login: str | None) -> bool:
    """Whether `login` has logged in by this browser before."""
    try:
        return bool(login) and signing.loads(request.COOKIES.get(COOKIE, ""), salt=_SALT, max_age=_KEPT_S) == login
    except signing.BadSignature:
        return False


def remember(request: HttpRequest, response: HttpResponseBase, login: str) -> None:
    if not is_known(request, login):
        response.set_cookie(
            COOKIE, signing.dumps(login, salt=_SALT), max_age=_KEPT_S, path=reverse("admin:index"),
            secure=settings.SESSION_COOKIE_SECURE, httponly=True, samesite="Strict",
        )  # fmt: skip
