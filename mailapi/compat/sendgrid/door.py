"""Errors in SendGrid's words: a list, each with the field it is about."""

from __future__ import annotations

import re
from typing import Any

from mailapi.compat.face import Face, NothingHere, Refused

_INDEX = re.compile(r"\[(\d+)\]")
#: native statuses → SendGrid's
_STATUSES = {422: 400, 409: 503}


class SendGrid(Face):
    @staticmethod
    def refusal(refused: Refused) -> tuple[int, dict[str, Any]]:
        if refused.name in ("missing_api_key", "invalid_api_key"):
            message = "The provided authorization grant is invalid, expired, or revoked"
            return 401, {"errors": [{"message": message, "field": None, "help": None}]}
        status = _STATUSES.get(refused.status, refused.status)
        if refused.name == "restricted_api_key":
            status = 403
        told = [{"message": f.message, "field": _field(f.field), "help": None} for f in refused.faults]
        return status, {"errors": told or [{"message": refused.message, "field": None, "help": None}]}


def _field(name: str) -> str | None:
    """`personalizations[0].to[1].email` → `personalizations.0.to.1.email`, as SendGrid counts."""
    return _INDEX.sub(r".\1", name) or None


class Nothing(NothingHere, SendGrid):
    pass
