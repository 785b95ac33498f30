"""The MIME entities of a mail, as places in its octets (RFC 2045 §2.4, RFC 2046 §5.1), so that parts can be changed
in place and all the rest stays as it came.

`fields` takes a header block apart, `walk` lists the entities. A work list instead of recursion, and bounds on parts,
depth and header fields: `TooComplex` says which one was passed. Lenient about boundaries that never come: such an
entity is a leaf.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

#: ours: no mail program writes more, and each level or part costs a pass over its octets
MAX_PARTS = 1_000
MAX_DEPTH = 30
MAX_HEADER_FIELDS = 1_000
#: of one entity; receivers cap whole headers at some 64 KB, long lists of addresses come near it
MAX_HEADER_OCTETS = 256 * 1024

_NAME = re.compile(rb"[!-9;-~]{1,200}[ \t]*\Z")
_BOUNDARY = re.compile(rb";[ \t\r\n]*boundary[ \t]*=[ \t]*(?:\"([^\"\r\n]{1,200})\"|([^\s;\"]{1,200}))", re.I)
#: RFC 1847: what stands in them is signed or encrypted octet by octet
_SEALED = (b"multipart/signed", b"multipart/encrypted")


class TooComplex(ValueError):
    """More parts, levels or header than any mail program writes; the text says which."""


@dataclass(frozen=True, slots=True)
class Entity:
    """One entity. `start`…`body` is its header (with the empty line), `body`…`end` its body.

    `media_type` is in lower case, b"text/plain" where none is named; `encoding` likewise, b"" for none. `sealed`: a
    signature or encryption covers it. `leaf`: it holds no entities.
    """

    start: int
    body: int
    end: int
    fields: tuple[bytes, ...]
    media_type: bytes
    encoding: bytes
    sealed: bool
    leaf: bool


def fields(head: bytes) -> list[bytes]:
    """The fields of a header block, each with its CRLF and its continuation lines. ValueError names a bad line."""
    found: list[bytes] = []
    for line in head.split(b"\r\n"):
        if not line:
            continue
        if line[:1] in (b" ", b"\t"):
            if not found or not line.strip():
                # RFC 5322 §3.2.2: some readers take a line of white space for the end of the header
                raise ValueError("A line of the header continues no field, or holds white space alone.")
            found[-1] += line + b"\r\n"
            continue
        name, colon, _ = line.partition(b":")
        if not colon or not _NAME.match(name):
            raise ValueError(f"A line of the header is no field: {line[:60].decode('ascii', 'replace')!r}.")
        found.append(line + b"\r\n")
        if len(found) > MAX_HEADER_FIELDS:
            raise TooComplex(f"A header has more than {MAX_HEADER_FIELDS} fields.")
    return found


def name_of(field: bytes) -> bytes:
    """The field's name in lower case."""
    return field.partition(b":")[0].rstrip(b" \t").lower()


def value_of(header: Sequence[bytes], name: bytes) -> bytes:
    """The value of the first field of that name, unfolded, b"" where there is none."""
    for field in header:
        if name_of(field) == name:
            return field.partition(b":")[2].replace(b"\r\n", b"").strip(b" \t")
    return b""


def body_at(octets: bytes, start: int, end: int) -> int:
    """Where the body of the entity at `start` begins: after its first empty line, `end` where there is none."""
    if octets.startswith(b"\r\n", start):
        return start + 2
    found = octets.find(b"\r\n\r\n", start, end)
    body = end if found < 0 else found + 4
    if body - start > MAX_HEADER_OCTETS:
        raise TooComplex(f"A header has more than {MAX_HEADER_OCTETS // 1024} KB.")
    return body


def walk(octets: bytes) -> list[Entity]:
    """The mail itself and all that stands in it, in order. TooComplex; ValueError where the mail's own header is bad.

    `octets` have CRLF line ends only. A part whose header cannot be read is a sealed leaf: nothing of it is touched.
    """
    found: list[Entity] = []
    work = [(0, len(octets), 0, False, b"text/plain")]
    while work:
        start, end, depth, sealed, usual = work.pop()
        if len(found) >= MAX_PARTS:
            raise TooComplex(f"It has more than {MAX_PARTS} parts.")
        if depth > MAX_DEPTH:
            raise TooComplex(f"Its parts are nested more than {MAX_DEPTH} deep.")
        body = body_at(octets, start, end)
        try:
            header = tuple(fields(octets[start:body]))
        except TooComplex:
            raise
        except ValueError:
            if not found:
                raise
            found.append(Entity(start, body, end, (), b"application/octet-stream", b"", True, True))
            continue
        kind = value_of(header, b"content-type")
        media_type = kind.partition(b";")[0].strip().lower() or usual
        inner = _inner(octets, body, end, media_type, kind)
        encoding = value_of(header, b"content-transfer-encoding").lower()
        found.append(Entity(start, body, end, header, media_type, encoding, sealed, not inner))
        sealed = sealed or media_type in _SEALED
        # RFC 2046 §5.1.5: in a digest, parts are messages unless they say otherwise
        usual = b"message/rfc822" if media_type == b"multipart/digest" else b"text/plain"
        work += [(a, b, depth + 1, sealed, usual) for a, b in reversed(inner)]
    return found


def boundary_of(kind: bytes) -> bytes:
    """The boundary that a Content-Type names, b"" for none."""
    match = _BOUNDARY.search(kind)
    return (match[1] or match[2]).rstrip(b" \t") if match else b""


def _inner(octets: bytes, body: int, end: int, media_type: bytes, kind: bytes) -> list[tuple[int, int]]:
    if media_type == b"message/rfc822":
        return [(body, end)] if body < end else []
    if not media_type.startswith(b"multipart/"):
        return []
    boundary = boundary_of(kind)
    return _pieces(octets, body, end, boundary) if boundary else []


def _pieces(octets: bytes, body: int, end: int, boundary: bytes) -> list[tuple[int, int]]:
    """What stands between the delimiter lines; the CRLF before each belongs to the delimiter (RFC 2046 §5.1.1)."""
    delimiter = re.compile(rb"\r\n--" + re.escape(boundary) + rb"(--)?[ \t]*(?=\r\n|\Z)")
    pieces: list[tuple[int, int]] = []
    begun = -1
    # the first delimiter may stand at the very start of the body: then the line end of the header is its own
    at = max(body - 2, 0)
    while match := delimiter.search(octets, at, end):
        if begun >= 0:
            pieces.append((begun, max(match.start(), begun)))
            if len(pieces) > MAX_PARTS:
                raise TooComplex(f"It has more than {MAX_PARTS} parts.")
        if match[1] is not None:
            return pieces
        begun = min(match.end() + 2, end)
        at = match.end()
    if begun >= 0:
        pieces.append((begun, end))
    return pieces
