"""From octets to a JSON value, under caps: length first, then structure, then text.

Every fault is a BadInput; nothing here costs memory that is not bounded by a constant.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.http.request import UnreadablePostError

from deliveries.errors import BadInput, Fault
from mailapi.bodies import CHUNKED

_PIECE = 65_536
#: above it a body is looked over before it is parsed, and waits for its turn
_LARGE = 1024 * 1024
#: octets outside of strings and lists of numbers, and one for each of these: a hundred mails with fifty recipients
#: and their headers need a tenth of it, and each octet of it may cost a hundred in memory
_MOST_STRUCTURE = 256 * 1024
#: objects and lists within each other; a template's values go deepest
_DEEPEST = 50
#: large bodies that one process parses at a time: each may hold some 200 MB while it is worked on
_turns = threading.BoundedSemaphore(2)
_TURN_S = 10

#: a string or a list of numbers. Possessive, and a string needs no end: every octet is looked at once, whatever comes
_BULK = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|\[[\d,\s]*+\]', re.DOTALL)
#: escapes that JSON allows and neither Postgres nor mail does: U+0000 and halves of surrogate pairs
_SUSPECT = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_TOO_LARGE = "The body holds a number that is too large to be one; send it as a string."
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Body:
    """A parsed body. `faults` names strings with NUL or lone surrogates; `value` still holds them."""

    value: Any
    digest: bytes
    faults: tuple[Fault, ...] = ()


@contextmanager
def json_body(request: HttpRequest) -> Iterator[Body]:
    """The request's JSON. Work on it inside the block: large bodies wait for each other."""
    octets = read(request, settings.MAX_BODY_OCTETS)
    if len(octets) <= _LARGE:
        body = body_of(octets)
        request.asked = body.value  # type: ignore[attr-defined]
        yield body
        return
    if not _turns.acquire(timeout=_TURN_S):
        message = "Too many large requests at once; send it again in a moment."
        raise BadInput([Fault("", "busy", message)], "rate_limit_exceeded", 429)
    try:
        body = body_of(octets)
        request.asked = f"[{len(octets)} octets]"  # type: ignore[attr-defined]
        del octets  # its text lives on in the strings of the value
        yield body
    finally:
        _turns.release()


def read(request: HttpRequest, cap: int, ends_itself: bool = True) -> bytes:
    """The octets of the body, at most `cap`, also once inflated.

    A longer one is refused by its Content-Length, unread. One in whose octets no end shows (a mail, a form) has to come
    with a Content-Length: a part of it would be taken for the whole (RFC 9112 §8).
    """
    coding = request.META.get("HTTP_CONTENT_ENCODING", "identity").strip().lower()
    if coding in ("", "identity"):
        if not ends_itself and (request.META.get(CHUNKED) or "HTTP_TRANSFER_ENCODING" in request.META):
            message = "Send it with a Content-Length; without one, a part of it would look like the whole."
            raise _refused("length_required", message, 411)
        return _received(request, cap)
    if coding not in ("gzip", "x-gzip"):  # RFC 9110 §8.4.1.3: the same
        raise _refused("content_encoding", "Send the body with Content-Encoding gzip, or without any.", 415)
    return _inflated(_received(request, cap), cap)


def _inflated(octets: bytes, cap: int) -> bytes:
    """RFC 1952. Never holds more than `cap` octets and one piece, whatever the body would become."""
    inflating = zlib.decompressobj(zlib.MAX_WBITS | 16)
    found = bytearray()
    try:
        rest = octets
        while rest and not inflating.eof:
            found += inflating.decompress(rest, min(_PIECE * 4, cap + 1 - len(found)))
            if len(found) > cap:
                raise _too_large(cap)
            rest = inflating.unconsumed_tail
    except zlib.error:
        raise _refused("invalid_gzip", "The body is not what gzip writes.", 400) from None
    if not inflating.eof:
        raise _refused("incomplete_body", "The compressed body ends too early.", 400)
    if inflating.unused_data:
        raise _refused("invalid_gzip", "Something follows the compressed body.", 400)
    return bytes(found)


def _received(request: HttpRequest, cap: int) -> bytes:
    meta = request.META
    stream: Any = request
    declared: int | None = None
    if raw := meta.get("CONTENT_LENGTH"):
        if not (raw.isascii() and raw.isdigit()):
            raise _refused("content_length", "Content-Length is not a number.", 400)
        if (declared := int(raw[:20])) > cap:
            raise _too_large(cap)
    elif meta.get("wsgi.input_terminated"):  # chunked, or HTTP/2: the server ends the stream
        stream = meta["wsgi.input"]
    elif "chunked" in meta.get("HTTP_TRANSFER_ENCODING", "").lower():
        raise _refused("length_required", "Send a Content-Length.", 411)
    octets = bytearray()
    try:
        while piece := stream.read(_PIECE):
            octets += piece
            if len(octets) > cap:
                raise _too_large(cap)
    except (UnreadablePostError, OSError):
        raise _refused("incomplete_body", "The connection ended before the body did.", 400) from None
    if declared is not None and len(octets) < declared:
        raise _refused("incomplete_body", f"The body ended after {len(octets)} of {declared} octets.", 400)
    return bytes(octets)


def body_of(octets: bytes) -> Body:
    """Also of JSON that stands in a form's field."""
    value, text = parse(octets)
    if text.count("{") + text.count("[") > _DEEPEST and _too_deep(value):
        raise _refused("too_deep", f"The JSON is nested deeper than {_DEEPEST}.", 400)
    faults = tuple(_unusable_text(value)) if _SUSPECT.search(text) else ()
    return Body(value, hashlib.sha256(octets).digest(), faults)


def parse(octets: bytes) -> tuple[Any, str]:
    """(value, text) of a JSON document in UTF-8 (RFC 8259 §8.1); stricter than the RFC: no name twice, no NaN."""
    try:
        text = octets.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise _refused("invalid_utf8", f"The body is not UTF-8 (octet {e.start}).", 400) from None
    if not text.strip():
        raise _refused("empty_body", "The body is empty; send a JSON object.", 400)
    if len(octets) > _LARGE and _is_complex(octets):
        raise _refused("too_complex", "The JSON has too many values; a mail needs only a few.", 413)
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float), text
    except json.JSONDecodeError as e:
        message = f"The body is not JSON: {e.msg} at line {e.lineno}, column {e.colno}."
        raise _refused("invalid_json", message, 400) from None
    except RecursionError:
        raise _refused("too_deep", "The JSON is nested too deeply.", 400) from None
    except ValueError:  # int() of thousands of digits
        raise _refused("invalid_json", _TOO_LARGE, 400) from None


def _too_deep(value: Any) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(_DEEPEST):
        parts = (part for item in level for part in (item.values() if isinstance(item, dict) else item))
        level = [part for part in parts if isinstance(part, dict | list)]
        if not level:
            return False
    return True


def _is_complex(octets: bytes) -> bool:
    """Whether the JSON has too much structure; found in bounded memory, before anything is parsed."""
    structure = end = 0
    for match in _BULK.finditer(octets):
        structure += match.start() - end + 1
        end = match.end()
        if structure > _MOST_STRUCTURE:
            return True
    return structure + len(octets) - end > _MOST_STRUCTURE


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        double = Counter(name for name, _ in pairs).most_common(1)[0][0]
        # parsers disagree about which one counts
        raise _refused("duplicate_field", "The field stands twice in one object; keep one.", 400, double)
    return found


def _constant(word: str) -> Any:
    raise _refused("invalid_json", f"The body is not JSON: {word} is no JSON number.", 400)


def _float(word: str) -> float:
    """1e400 is a number in JSON's grammar, and infinite here: a mail would say `inf`."""
    number = float(word)
    if math.isinf(number):
        raise _refused("invalid_json", _TOO_LARGE, 400)
    return number


def _unusable_text(value: Any) -> Iterator[Fault]:
    stack: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, str):
            if "\0" in item:
                yield Fault(field_name(path), "control_character", "The text contains NUL (U+0000); remove it.")
            elif _SURROGATE.search(item):
                message = "The text contains half of a surrogate pair; send whole characters."
                yield Fault(field_name(path), "invalid_character", message)
        elif isinstance(item, dict):
            stack.extend(((*path, name), part) for name, part in item.items())
            if any("\0" in name or _SURROGATE.search(name) for name in item):
                yield Fault(field_name(path), "control_character", "A field name contains an unusable character.")
        elif isinstance(item, list):
            stack.extend(((*path, i), part) for i, part in enumerate(item) if isinstance(part, str | dict | list))


def field_name(path: tuple[str | int, ...]) -> str:
    """`("attachments", 0, "content")` → `attachments[0].content`; always encodable."""
    name = ""
    for step in path:
        if isinstance(step, int):
            name += f"[{step}]"
        else:
            shown = step if len(step) <= 100 else step[:100] + "…"
            name += f".{shown}" if name else shown
    return _SURROGATE.sub("\ufffd", name)


def _refused(code: str, message: str, status: int, field: str = "") -> BadInput:
    name = "payload_too_large" if status == 413 else "validation_error"
    return BadInput([Fault(field_name((field,)) if field else "", code, message)], name, status)


def _too_large(cap: int) -> BadInput:
    return _refused("too_large", f"The request is larger than {cap // (1024 * 1024)} MB; send less or link to it.", 413)
