"""The door of the panel: who asks (behind a proxy), how often, and the second factor.

Passwords are Django's, tries are counted by django-axes (admin.tries), the second factor is deliveries.logins'. The
middleware is the one place that demands it, so that no view of the panel can forget to.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import django_otp
import segno
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth import authenticate
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme, urlencode
from django.views.decorators.cache import never_cache

from deliveries import keys, logins
from deliveries.admin import tries
from deliveries.models import User

#: addresses of the panel that a person reaches without the second factor
_OPEN = {"login", "logout", "jsi18n", "second_factor", "second_factor_new"}


def client_ip(request: HttpRequest) -> str:
    """Who is counted: the address that the outermost of our own PROXIES saw; of IPv6 its /64, which one host has."""
    try:
        address = ipaddress.ip_address(keys.address_of(request.META))
    except ValueError:
        return "0.0.0.0"  # noqa: S104  a name for "nobody knows", which is counted like any other
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False).network_address)
    return str(address)


def locked(request: HttpRequest, response: Any = None, credentials: Any = None) -> HttpResponse:
    """AXES_LOCKOUT_CALLABLE: too many wrong passwords."""
    minutes = int(settings.AXES_COOLOFF_TIME.total_seconds() // 60)
    context = {**admin.site.each_context(request), "title": "Log in later", "minutes": minutes}
    answer = render(request, "panel/locked.html", context, status=429)
    answer.headers["Retry-After"] = str(minutes * 60)
    return answer


class SecondFactor:
    """Middleware below OTPMiddleware: a login that has a second factor, or must have one, sees nothing without it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        match = request.resolver_match
        if match is not None and "admin" in match.app_names and request.user.is_authenticated:
            tries.remember(request, response, request.user.get_username())
        return response

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        match = request.resolver_match
        if match is None or "admin" not in match.app_names or match.url_name in _OPEN:
            return None
        user = request.user
        if not user.is_authenticated or user.is_verified():  # type: ignore[attr-defined]
            return None
        has = logins.authenticator(user) is not None
        if not has and not logins.needed(user):
            return None
        name = "admin:second_factor" if has else "admin:second_factor_new"
        return HttpResponseRedirect(f"{reverse(name)}?{urlencode({'next': request.get_full_path()})}")


def _person(request: HttpRequest) -> User | None:
    user = request.user
    return user if user.is_authenticated and user.is_active else None


def _onward(request: HttpRequest) -> str:
    asked = request.POST.get("next") or request.GET.get("next") or ""
    if url_has_allowed_host_and_scheme(asked, allowed_hosts={request.get_host()}, require_https=request.is_secure()):
        return asked
    return reverse("admin:index")


def _page(request: HttpRequest, template: str, title: str, **more: Any) -> HttpResponse:
    context = {**admin.site.each_context(request), "title": title, "next": _onward(request), **more}
    return TemplateResponse(request, template, context)


def _why(proof: logins.Proof) -> str:
    if proof.wait_until is not None:
        seconds = max(1, round((proof.wait_until - timezone.now()).total_seconds()))
        return f"Too many wrong codes. Wait {seconds} s, then try the newest code."
    return "That is not the code. Take the newest one, and look whether the phone's clock is right."


def _is_password(request: HttpRequest, user: User) -> bool:
    """Counted as a try to log in (admin.tries), so that it cannot be guessed here either."""
    typed = request.POST.get("password", "")[:1000]
    return authenticate(request, username=user.get_username(), password=typed) is not None


def _enter(request: HttpRequest, proof: logins.Proof) -> None:
    """This session has proved it; a session id that was known before is worth nothing."""
    request.session.cycle_key()
    django_otp.login(request, proof.device)


@never_cache
def ask(request: HttpRequest) -> HttpResponse:
    """The code of the app, or a recovery code, after the password."""
    user = _person(request)
    if user is None:
        return HttpResponseRedirect(reverse("admin:login"))
    if user.is_verified() or logins.authenticator(user) is None:  # type: ignore[attr-defined]
        return HttpResponseRedirect(_onward(request))
    fault = ""
    if request.method == "POST":
        proof = logins.verify(user, request.POST.get("code", "")[:100])
        if proof.device is not None:
            _enter(request, proof)
            return HttpResponseRedirect(_onward(request))
        fault = _why(proof)
    return _page(request, "panel/second_factor.html", "Second factor", fault=fault)


@never_cache
def new(request: HttpRequest) -> HttpResponse:
    """The QR code, the password once more, the first code of the app, and then the recovery codes, once.

    Without the password whoever finds a session open could lock its owner out.
    """
    user = _person(request)
    if user is None:
        return HttpResponseRedirect(reverse("admin:login"))
    if logins.authenticator(user) is not None:
        return HttpResponseRedirect(reverse("admin:second_factor_manage"))
    fault = ""
    if request.method == "POST" and not _is_password(request, user):
        fault = "That is not your password."
    elif request.method == "POST":
        proof, codes = logins.confirm(user, request.POST.get("code", "")[:100])
        if proof.device is not None:
            _enter(request, proof)
            return _page(request, "panel/second_factor_codes.html", "Recovery codes", codes=codes)
        fault = _why(proof)
    device = logins.begin(user)
    issuer = f"mailapi {request.get_host()}"
    # as data: an image needs no markup of a library's in our page
    picture = segno.make(device.address(issuer), error="m").svg_data_uri(scale=5, border=4, light="#fff")
    return _page(
        request, "panel/second_factor_new.html", "Set up the second factor", fault=fault, picture=picture,
        key=" ".join(device.key_text[i : i + 4] for i in range(0, 32, 4)), demanded=logins.needed(user),
    )  # fmt: skip


@never_cache
def manage(request: HttpRequest) -> HttpResponse:
    """What stands, with new recovery codes and removal; both ask for a code once more."""
    user = _person(request)
    assert user is not None  # admin_view has seen to it
    if logins.authenticator(user) is None:
        return HttpResponseRedirect(reverse("admin:second_factor_new"))
    demanded = logins.needed(user)
    if request.method == "POST":
        proof = logins.verify(user, request.POST.get("code", "")[:100])
        if proof.device is None:
            messages.error(request, _why(proof))
        elif request.POST.get("verb") == "renew":
            return _page(request, "panel/second_factor_codes.html", "Recovery codes", codes=logins.renew(user))
        elif request.POST.get("verb") == "remove" and not demanded:
            logins.remove(user, user.get_username())
            messages.success(request, "The second factor is gone: the password alone opens this login.")
            return HttpResponseRedirect(reverse("admin:index"))
    return _page(
        request, "panel/second_factor_manage.html", "Second factor", left=logins.codes_left(user), demanded=demanded
    )


def urls() -> list[Any]:
    return [
        path("second-factor/", ask, name="second_factor"),
        path("second-factor/new/", new, name="second_factor_new"),
        path("second-factor/manage/", admin.site.admin_view(manage), name="second_factor_manage"),
    ]
