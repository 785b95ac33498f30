"""Addresses in requests: one, several, recipients."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainValidator, WithJsonSchema

from deliveries.mime.address import Address, parse_address
from mailapi.schemas.faults import fault

#: of to, cc and bcc together
MAX_RECIPIENTS = 50


def read_address(value: Any) -> Address:
    if not isinstance(value, str):
        raise fault("wrong_type", "Must be a string such as name@example.com or Name <name@example.com>.")
    try:
        return parse_address(value)
    except ValueError as error:
        raise fault("invalid_address", str(error)) from None


def _several(value: Any) -> Any:
    """One address or a list of them → a list; counted before any of them is read."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise fault("wrong_type", "Must be an address or a list of addresses.")
    if len(value) > MAX_RECIPIENTS:
        raise fault("too_many_recipients", f"Has {len(value)} addresses; {MAX_RECIPIENTS} are allowed.")
    return value


def _at_least_one(value: tuple[Address, ...]) -> tuple[Address, ...]:
    if not value:
        raise fault("missing_required_field", "Missing `to` field; name at least one recipient.")
    return value


_ONE = {"type": "string", "description": "`name@example.com` or `Name <name@example.com>`", "maxLength": 700}
_SEVERAL = {"oneOf": [_ONE, {"type": "array", "items": _ONE, "maxItems": MAX_RECIPIENTS}]}
_SOME = {"oneOf": [_ONE, {"type": "array", "items": _ONE, "minItems": 1, "maxItems": MAX_RECIPIENTS}]}

OneAddress = Annotated[Address, PlainValidator(read_address), WithJsonSchema(_ONE)]
_Listed = Annotated[Address, PlainValidator(read_address)]
Addresses = Annotated[tuple[_Listed, ...], BeforeValidator(_several), WithJsonSchema(_SEVERAL)]
Recipients = Annotated[
    tuple[_Listed, ...], BeforeValidator(_several), AfterValidator(_at_least_one), WithJsonSchema(_SOME)
]
