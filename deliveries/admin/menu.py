"""Which entries of the menu a person sees (UNFOLD's permission callbacks)."""

from __future__ import annotations

from django.http import HttpRequest

from deliveries.admin.access import access


def member(request: HttpRequest) -> bool:
    own = access(request)
    return own.operator or bool(own.roles)


def operator(request: HttpRequest) -> bool:
    return access(request).operator
