"""Lists → Postgres arrays as octets, in the type that the statement names.

psycopg asks every element for its type, and chooses the array's by what it finds: numbers make int2, int4 or int8, and
a list of None makes none of them, so that one statement is prepared anew for each. Here the cast says it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

_NULL = b"\xff\xff\xff\xff"
_HEAD = struct.Struct(">iiIii")  # dimensions, whether a NULL is among them, the element's type, length, lower bound
_LENGTH = struct.Struct(">i").pack
_SHORT = struct.Struct(">ih").pack
_INT = struct.Struct(">ii").pack
_LONG = struct.Struct(">iq").pack
_TRUE, _FALSE = b"\0\0\0\x01\x01", b"\0\0\0\x01\0"
_UUID_LENGTH = _LENGTH(16)
#: Postgres counts microseconds from here
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _text(value: str) -> bytes:
    octets = value.encode()
    return _LENGTH(len(octets)) + octets


def _bytea(value: bytes) -> bytes:
    return _LENGTH(len(value)) + value


def _time(value: datetime) -> bytes:
    return _LONG(8, (value - _EPOCH) // _MICROSECOND)


#: name in a cast → the array's type, the element's, an element as length and octets
_TYPES: dict[str, tuple[int, int, Callable[[Any], bytes]]] = {
    "bool": (1000, 16, lambda value: _TRUE if value else _FALSE),
    "bytea": (1001, 17, _bytea),
    "smallint": (1005, 21, lambda value: _SHORT(2, value)),
    "bigint": (1016, 20, lambda value: _LONG(8, value)),
    "int": (1007, 23, lambda value: _INT(4, value)),
    "text": (1009, 25, _text),
    "timestamptz": (1185, 1184, _time),
    "uuid": (2951, 2950, lambda value: _UUID_LENGTH + value.bytes),
}


class _Octets(bytes):
    """An array, ready for the wire."""


def packer(name: str) -> Callable[[Any], Any] | None:
    """Turns a list into an array of `name`, and leaves what it cannot read to psycopg; None for an unknown name."""
    return _PACKERS.get(name)


def _packer(array: int, element: int, packed: Callable[[Any], bytes]) -> Callable[[Any], Any]:
    kind = type(f"_Octets{array}", (_Octets,), {})
    # half of the arrays of a single mail
    empty, one_null = (kind(_array(values, element, packed)) for values in ([], [None]))
    psycopg.adapters.register_dumper(kind, type("_Dumper", (_Dump,), {"oid": array}))

    def pack(values: Any) -> Any:
        if type(values) is not list:
            return values
        if not values or values == [None]:
            return one_null if values else empty
        try:
            return kind(_array(values, element, packed))
        except (AttributeError, TypeError, struct.error):
            return values

    return pack


def _array(values: Sequence[Any], element: int, packed: Callable[[Any], bytes]) -> bytes:
    if not values:
        return _HEAD.pack(0, 0, element, 0, 0)[:12]
    head = _HEAD.pack(1, 0, element, len(values), 1)
    if None not in values:
        return b"".join([head, *map(packed, values)])
    head = _HEAD.pack(1, 1, element, len(values), 1)
    return b"".join([head, *[_NULL if value is None else packed(value) for value in values]])


class _Dump(Dumper):
    format = Format.BINARY

    def dump(self, obj: Any) -> Any:
        return obj


_PACKERS = {name: _packer(*facts) for name, facts in _TYPES.items()}
