"""Who asks: a server token is an API key; and the answer that a client gets that posts again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from deliveries.accept import reposts
from deliveries.errors import KeyRefused
from deliveries.keys import Caller
from deliveries.models import ApiKey
from mailapi.auth import KeyAuthentication
from mailapi.compat.face import Face, NothingHere, with_ignored
from mailapi.compat.postmark import errors
from mailapi.schemas.body import Body

#: validates, and sends nothing
TEST_TOKEN = "POSTMARK_API_TEST"
MAX_TEST_OCTETS = 1024 * 1024
_NOBODY = UUID(int=0)


class Token(KeyAuthentication):
    def authenticate(self, request: Request) -> tuple[Caller, None]:
        if self.secret_of(request) == TEST_TOKEN:
            length = request.META.get("CONTENT_LENGTH") or "0"
            if not length.isdigit() or int(length[:20]) > MAX_TEST_OCTETS or "HTTP_TRANSFER_ENCODING" in request.META:
                why = f"The test token, which anybody has, takes bodies of up to {MAX_TEST_OCTETS >> 20} MB."
                raise KeyRefused("restricted_api_key", why, 403)
            return Caller(_NOBODY, _NOBODY, ApiKey.Scope.SENDING, b""), None
        return super().authenticate(request)

    def secret_of(self, request: Request) -> str:
        token: str = request.META.get("HTTP_X_POSTMARK_SERVER_TOKEN", "").strip()
        if not token and "HTTP_X_POSTMARK_ACCOUNT_TOKEN" in request.META:
            why = "There are no account tokens here: /tenants takes an operator key (docs/migrating.md)."
            raise KeyRefused("restricted_api_key", why, 401)
        if not token:
            raise KeyRefused("missing_api_key", "Send the API key in the header X-Postmark-Server-Token.", 401)
        return token


@dataclass
class Said:
    """An answer before it is JSON, so that it can be kept for a client that posts again."""

    body: Any
    status: int = 200
    ignored: Sequence[str] = field(default_factory=tuple)


class Postmark(Face):
    authentication_classes = (Token,)
    refusal = staticmethod(errors.refusal)

    @property
    def testing(self) -> bool:
        return self.caller().key_id == _NOBODY

    def once(self, body: Body, work: Callable[[], Said]) -> HttpResponse:
        """What `work` says, given to a client that posts the same again because the answer came late."""

        def kept() -> dict[str, Any]:
            said = work()
            return {"body": said.body, "status": said.status, "ignored": list(said.ignored)}

        caller = self.caller()
        if self.testing:
            made = kept()
        else:
            path = self.request.path_info.lower().rstrip("/").encode("utf-8", "replace")
            made = reposts.once(caller.tenant_id, caller.key_id, path + b"\0" + body.digest, kept)
        return with_ignored(JsonResponse(made["body"], status=made["status"], safe=False), made["ignored"])


class Nothing(NothingHere, Postmark):
    pass
