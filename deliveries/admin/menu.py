"""Which entries of the menu a person sees (UNFOLD's permission callbacks)."""

from __future__ import annotations

from django.http import HttpRequest

from deliveries import continuity
from deliveries.admin.access import access
from deliveries.record import restored as restores


def member(request: HttpRequest) -> bool:
    own = access(request)
    return own.operator or bool(own.roles)


def restored(request: HttpRequest) -> bool:
    """Only while there is something to decide: most installations never see it."""
    return access(request).operator and (continuity.question() is not None or restores.any_waiting())


def operator(request: HttpRequest) -> bool:
    return access(request).operator
