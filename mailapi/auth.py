"""Who asks: `Authorization: Bearer <key>` → Caller (at /tenants: Operator), and whether its scope opens this door.

Callers are remembered for five seconds per process, so that a revoked key is refused within five; the
statement of accept looks again, so that it never stores a mail for one.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from deliveries import keys, operators
from deliveries.errors import KeyRefused
from deliveries.keys import Caller
from deliveries.models import ApiKey, OperatorKey
from deliveries.operators import Operator

REMEMBERED_S = 5.0
#: a key's last use is written at most once in so many seconds, and by each process
TOUCHED_S = 60.0
#: callers that one process remembers; above it all are forgotten, which costs one query each
_MOST = 10_000
#: no key of ours is longer, and no header field may cost a hash of megabytes
_LONGEST = 512

_callers: dict[bytes, tuple[Caller, float]] = {}
_touched: dict[Any, float] = {}


def caller_of(secret: str) -> Caller:
    """The caller behind a key's plain text; KeyRefused when it is unknown, revoked or past its end."""
    if not secret or len(secret) > _LONGEST:
        raise _unknown()
    if secret.startswith(operators.PREFIX):
        raise KeyRefused("restricted_api_key", "An operator key opens /tenants alone; use the tenant's API key.", 403)
    now = time.monotonic()
    digest = keys.hash_of(secret)
    if (held := _callers.get(digest)) and held[1] > now and not _ended(held[0]):
        return held[0]
    caller = keys.find(secret)
    if caller is None:
        _callers.pop(digest, None)
        raise _unknown()
    if len(_callers) >= _MOST:
        _callers.clear()
        _touched.clear()
    _callers[digest] = (caller, now + REMEMBERED_S)
    if _touched.get(caller.key_id, -TOUCHED_S) + TOUCHED_S <= now:
        _touched[caller.key_id] = now
        keys.touch(caller.key_id)
    return caller


def forget() -> None:
    """Empty the memory of this process (tests)."""
    _callers.clear()
    _touched.clear()


def _ended(caller: Caller) -> bool:
    return caller.expires_at is not None and caller.expires_at <= datetime.now(UTC)


def _unknown() -> KeyRefused:
    words = "This API key is unknown, expired or was revoked; make a new one in the panel."
    return KeyRefused("invalid_api_key", words, 403)


class KeyAuthentication(BaseAuthentication):
    """RFC 6750 §2.1. Raises KeyRefused, so that a missing and a wrong key are told apart."""

    #: what to do about an address that the key may not be used from
    elsewhere = "add it to ip_allow"

    def authenticate(self, request: Request) -> tuple[Any, None]:
        caller = self.bearer_of(self.secret_of(request))
        if not caller.admits(address := keys.address_of(request.META)):
            # whoever holds the secret may know from where we saw it: it tells what to put on the list
            words = f"This API key may not be used from {address or 'an unknown address'}; {self.elsewhere}."
            raise KeyRefused("restricted_api_key", words, 403)
        return caller, None

    def bearer_of(self, secret: str) -> Caller | Operator:
        return caller_of(secret)

    def secret_of(self, request: Request) -> str:
        """The key's plain text, where this door expects it."""
        header = request.META.get("HTTP_AUTHORIZATION", "")
        scheme, _, secret = header.strip().partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise KeyRefused("missing_api_key", "Send the API key in the header `Authorization: Bearer re_…`.", 401)
        return secret.strip()

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class OperatorAuthentication(KeyAuthentication):
    """`Authorization: Bearer op_…`: an operator key, which opens /tenants alone."""

    elsewhere = "an operator makes one that may"

    def bearer_of(self, secret: str) -> Operator:
        if not secret.startswith(operators.PREFIX):
            words = "Tenants take an operator key (op_…), which an operator makes in the panel."
            raise KeyRefused("restricted_api_key", words, 403)
        operator = operators.find(secret) if len(secret) <= _LONGEST else None
        if operator is None:
            words = "This operator key is unknown, expired or was revoked; an operator makes a new one in the panel."
            raise KeyRefused("invalid_api_key", words, 403)
        return operator


class HasOperatorKey(BasePermission):
    """A key for reading changes nothing; what a view names in `hands_out` takes one that may."""

    def has_permission(self, request: Request, view: Any) -> bool:
        operator: Operator = request.user  # type: ignore[assignment]
        if operator.scope == OperatorKey.Scope.FULL or request.method in SAFE_METHODS:
            return True
        if operator.scope == OperatorKey.Scope.READING:
            raise KeyRefused("restricted_api_key", "This operator key may only read; use one with full_access.", 401)
        if request.method in getattr(view, "hands_out", ()):
            words = "This hands out access to the tenant's mail, and takes an operator key with full_access."
            raise KeyRefused("restricted_api_key", words, 401)
        return True


class HasKey(BasePermission):
    """A key for sending opens only what a view names in `open_to_sending`; one for reading all that changes nothing
    and tells no secret. What a view names in `for_owners` takes a key of owners, as the panel has it."""

    def has_permission(self, request: Request, view: Any) -> bool:
        caller: Caller = request.user  # type: ignore[assignment]
        if caller.scope == ApiKey.Scope.OWNER:
            return True
        if request.method in getattr(view, "for_owners", ()):
            words = "This takes an API key with owner_access, which an owner of the account makes in the panel."
            raise KeyRefused("restricted_api_key", words, 401)
        if caller.scope == ApiKey.Scope.FULL:
            return True
        if caller.scope == ApiKey.Scope.SENDING:
            if request.method in getattr(view, "open_to_sending", ()):
                return True
            raise KeyRefused("restricted_api_key", "This API key may only send; use one with full access.", 401)
        if request.method in SAFE_METHODS and not getattr(view, "tells_secrets", False):
            return True
        raise KeyRefused("restricted_api_key", "This API key may only read; use one with full access.", 401)
