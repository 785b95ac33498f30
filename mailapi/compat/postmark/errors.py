"""Faults in Postmark's words. Its clients read the texts: addresses stand in them where they look for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deliveries.errors import Fault
from mailapi.compat.face import Refused

OK = 0
BAD_TOKEN = 10
MAINTENANCE = 100
INVALID_EMAIL = 300
NO_SENDER = 400
INVALID_JSON = 402
INCOMPATIBLE_JSON = 403
NOT_ALLOWED = 405
INACTIVE = 406
NO_BOUNCE = 407
TOO_MANY = 410
RATE_LIMIT = 429
NO_MESSAGE = 701
NO_TEMPLATE = 1101

#: native code of a fault → ErrorCode; all others are 300
_CODES = {
    "domain_not_verified": NO_SENDER,
    "unknown_template": NO_TEMPLATE,
    "not_published": NO_TEMPLATE,
    "invalid_json": INVALID_JSON,
    "invalid_utf8": INVALID_JSON,
    "empty_body": INVALID_JSON,
    "duplicate_field": INVALID_JSON,
    "too_deep": INVALID_JSON,
    "wrong_type": INCOMPATIBLE_JSON,
}
_RECIPIENTS = frozenset({"To", "Cc", "Bcc", "From", "ReplyTo"})


def code_of(faults: Sequence[Fault]) -> int:
    """The one code that stands for all: 300, unless every fault has the same other one."""
    codes = {_CODES.get(f.code, INVALID_EMAIL) for f in faults}
    return codes.pop() if len(codes) == 1 else INVALID_EMAIL


def sentence(faults: Sequence[Fault]) -> str:
    """`Invalid 'To' address: 'x'. …`: django-anymail finds the address between its quotes."""
    return " ".join(_words(f) for f in faults[:5]) + (f" And {len(faults) - 5} more." if len(faults) > 5 else "")


def _words(fault: Fault) -> str:
    if fault.code == "invalid_address" and fault.field in _RECIPIENTS:
        text, _, why = fault.message.partition(": ")
        return f"Invalid '{fault.field}' address: '{_unquoted(text[1:-1])}'. {_unquoted(why)}"
    field = "From" if fault.field == "from" else fault.field  # as accept calls it
    return f"{field}: {fault.message}" if field else fault.message


def _unquoted(text: str) -> str:
    return text.replace("'", "’")


def body(code: int, message: str) -> dict[str, Any]:
    return {"ErrorCode": code, "Message": message}


def refusal(refused: Refused) -> tuple[int, dict[str, Any]]:
    """422 for all that a caller can mend; the rest as Postmark's clients tell it apart."""
    if refused.faults:
        status = refused.status if refused.status in (413, 429) else 422
        return status, body(code_of(refused.faults), sentence(refused.faults))
    match refused.status, refused.name:
        case _, "missing_api_key" | "invalid_api_key":
            return 401, body(BAD_TOKEN, "The server token is missing, unknown or revoked; make a new API key.")
        case _, "account_suspended" | "restricted_api_key" | "invalid_access":
            return 422, body(NOT_ALLOWED, refused.message)
        case 404, _:
            return 404, body(NO_MESSAGE, refused.message)
        case 429, _:
            return 429, body(RATE_LIMIT, refused.message)
        case 503 | 409, _:
            return 503, body(MAINTENANCE, refused.message)
        case _:
            return refused.status, body(INVALID_EMAIL, refused.message)


def inactive(addresses: Sequence[str], partly: bool = False) -> str:
    """Spaces, not line breaks: the clients' patterns do not cross lines."""
    listed = ", ".join(addresses)
    ones = "Inactive recipients are ones that have generated a hard bounce, a spam complaint, or a manual suppression."
    if partly:
        return f"Message OK, but will not deliver to these inactive addresses: {listed}. {ones}"
    marked = "You tried to send to recipient(s) that have been marked as inactive."
    return f"{marked} Found inactive addresses: {listed}. {ones}"
