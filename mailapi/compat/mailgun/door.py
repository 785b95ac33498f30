"""Who asks (Basic, user `api`), for which domain, and errors in Mailgun's words."""

from __future__ import annotations

from typing import Any

from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from deliveries.errors import KeyRefused
from deliveries.read import domains
from mailapi import errors
from mailapi.auth import KeyAuthentication
from mailapi.compat.face import Face, NothingHere, Refused, basic

#: native statuses → Mailgun's
_STATUSES = {422: 400, 409: 503}


class Key(KeyAuthentication):
    def secret_of(self, request: Request) -> str:
        scheme, _, credential = request.META.get("HTTP_AUTHORIZATION", "").strip().partition(" ")
        user, key = basic(credential) if scheme.lower() == "basic" else ("", "")
        if user != "api" or not key:
            raise KeyRefused("missing_api_key", "Send the API key as the password of the user api (Basic).", 401)
        return key

    def authenticate_header(self, request: Request) -> str:
        return 'Basic realm="mailapi"'


class Mailgun(Face):
    authentication_classes = (Key,)

    @staticmethod
    def refusal(refused: Refused) -> tuple[int, dict[str, Any]]:
        if refused.name in ("missing_api_key", "invalid_api_key"):
            return 401, {"message": "Invalid private key"}
        if refused.faults:
            return _STATUSES.get(refused.status, refused.status), {"message": errors.sentence(refused.faults)}
        return _STATUSES.get(refused.status, refused.status), {"message": refused.message}

    def own(self, domain: str) -> str:
        """The path's domain; 404 where the account has none of that name."""
        if not domains.owned(self.caller().tenant_id, domain.lower()):
            raise NotFound(f"Domain not found: {domain[:253]}")
        return domain.lower()


class Nothing(NothingHere, Mailgun):
    pass
