"""A mail taken apart under caps: header fields, and leaf parts in order (RFC 5322, RFC 2045 to 2047).

No recursion, no `email` package: that one recurses on nested parts and is quadratic on some inputs. Here a
work list is walked, every loop has a named bound, and what lies beyond a bound is left out, with a note.
Leniency is meant: bounces come from every program ever written, so a broken boundary or charset is read on.
"""

from __future__ import annotations

import base64
import binascii
import quopri
import re
from dataclasses import dataclass
from functools import cached_property

from deliveries.encoded import decode_text, decode_words

#: a bounce carries at most the returned mail; what it says stands at its head
MAX_OCTETS = 2_000_000
MAX_PARTS = 60
MAX_DEPTH = 8
MAX_HEADER_OCTETS = 128_000
MAX_HEADERS = 500
#: one unfolded field; a Received or DKIM-Signature stays far below
MAX_FIELD_CHARS = 8_000
#: decoded text of one part that is looked at: MTAs put the reason before the returned mail
MAX_TEXT_CHARS = 60_000
#: text before the first part in which its delimiter is looked for
MAX_PREAMBLE_OCTETS = 4_000

_FIELD = re.compile(r"([!-9;-~]{1,76})[ \t]{0,8}:")
_DELIMITER = re.compile(rb"(?:\n|\A)--([^\s-][^\n]{0,99})(?=\n)")
_PARAM = re.compile(r";[ \t\n]{0,8}([\w.*-]{1,40})[ \t]{0,4}=[ \t]{0,4}(\"[^\"\n]{0,300}\"|[^\s;\"]{1,300})")


class Headers:
    """Header fields in order, names folded to lower case; values unfolded, RFC 2047 words still encoded."""

    def __init__(self, fields: tuple[tuple[str, str], ...] = ()) -> None:
        self.fields = fields

    def get(self, name: str) -> str:
        """The first value of `name` (lower case), "" where there is none."""
        return next((value for key, value in self.fields if key == name), "")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]

    def decoded(self, name: str) -> str:
        """The first value with its encoded words read."""
        return decode_words(self.get(name))

    def __contains__(self, name: str) -> bool:
        return any(key == name for key, _ in self.fields)

    def __len__(self) -> int:
        return len(self.fields)


@dataclass(frozen=True)
class Part:
    """A leaf: `type` as `text/plain`, `raw` its octets as they came, `depth` 0 for the mail's own body."""

    headers: Headers
    type: str
    params: dict[str, str]
    raw: bytes
    depth: int

    @cached_property
    def octets(self) -> bytes:
        """`raw` without its transfer encoding."""
        return _untransfer(self.raw, self.headers.get("content-transfer-encoding"))

    @cached_property
    def text(self) -> str:
        """The part as text, at most MAX_TEXT_CHARS; never raises."""
        return decode_text(self.octets[: MAX_TEXT_CHARS * 4], self.params.get("charset", ""))[:MAX_TEXT_CHARS]


@dataclass(frozen=True)
class Mail:
    """`parts` are the leaves in order; message/rfc822 is a leaf. `report_type` is multipart/report's parameter.

    `reverse_path` is the envelope's, None where only Return-Path may tell it.
    """

    headers: Headers
    type: str
    report_type: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()
    reverse_path: str | None = None

    def of_type(self, *types: str) -> list[Part]:
        return [part for part in self.parts if part.type in types]


def read_mail(octets: bytes, max_octets: int | None = None) -> Mail:
    """The mail's header and leaves. Never raises; an unreadable mail has no header fields."""
    notes = []
    max_octets = MAX_OCTETS if max_octets is None else max_octets
    if len(octets) > max_octets:
        octets = octets[:max_octets]
        notes.append("cut at the size cap")
    octets = octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n").lstrip(b"\n")
    head, body = split_head(octets)
    headers = read_headers(head)
    kind, params = content_type(headers)
    report_type = params.get("report-type", "").lower()

    leaves: list[Part] = []
    work = [(headers, kind, params, body, 0)]
    while work:
        fields, leaf_type, leaf_params, raw, depth = work.pop()
        if len(leaves) >= MAX_PARTS:
            notes.append("cut at the part cap")
            break
        if leaf_type.startswith("multipart/") and depth < MAX_DEPTH:
            inner = _split(raw, leaf_params.get("boundary", "")) or _split(raw, _first_delimiter(raw))
            if inner:
                for piece in reversed(inner):
                    sub_head, sub_body = split_head(piece, part=True)
                    sub = read_headers(sub_head)
                    sub_type, sub_params = content_type(sub)
                    work.append((sub, sub_type, sub_params, sub_body, depth + 1))
                continue
            leaf_type = "text/plain"  # no boundary comes: read it as it stands
        leaves.append(Part(fields, leaf_type, leaf_params, raw, depth))
    return Mail(headers, kind, report_type, tuple(leaves), tuple(notes))


def split_head(octets: bytes, part: bool = False) -> tuple[bytes, bytes]:
    """Header octets and body octets. Without an empty line, all of a mail is header, all of a text part body."""
    if octets.startswith((b"From ", b">From ")):  # the envelope line of an mbox
        octets = octets.partition(b"\n")[2]
    if octets.startswith(b"\n"):
        return b"", octets[1:]
    window = octets[:MAX_HEADER_OCTETS]
    end = window.find(b"\n\n")
    if end >= 0:
        return octets[:end], octets[end + 2 :]
    if part and not _FIELD.match(octets[:100].decode("latin-1")):
        return b"", octets
    return window, b""


def read_headers(head: bytes) -> Headers:
    """Fields of a header block, unfolded; lines that are no fields are passed over."""
    text = decode_text(head[:MAX_HEADER_OCTETS], "")
    fields: list[tuple[str, str]] = []
    name, value = "", [""]
    for line in text.split("\n"):
        if line[:1] in (" ", "\t"):
            value.append(line.strip())
            continue
        found = _FIELD.match(line)
        if not found:
            continue
        if name:
            fields.append((name, " ".join(value).strip()[:MAX_FIELD_CHARS]))
            if len(fields) >= MAX_HEADERS:
                return Headers(tuple(fields))
        name, value = found[1].lower(), [line[found.end() :].strip()]
    if name:
        fields.append((name, " ".join(value).strip()[:MAX_FIELD_CHARS]))
    return Headers(tuple(fields))


def content_type(headers: Headers) -> tuple[str, dict[str, str]]:
    """Media type in lower case (`text/plain` where absent or broken) and its parameters."""
    value = headers.get("content-type")
    if not value:
        return "text/plain", {}
    kind = value.partition(";")[0].strip().lower()
    params: dict[str, str] = {}
    for found in list(_PARAM.finditer(value[:2_000]))[:20]:
        params.setdefault(found[1].lower(), found[2].strip('"'))
    return (kind if "/" in kind else "text/plain"), params


def _first_delimiter(body: bytes) -> str:
    """The boundary that a body shows, for headers that lost the parameter or its fold; "" where it shows none."""
    found = _DELIMITER.search(body[:MAX_PREAMBLE_OCTETS])
    name = found[1].rstrip() if found else b""
    # one such line alone may be a person's
    return name.decode("latin-1") if name and body.count(b"\n--" + name) + body.startswith(b"--" + name) > 1 else ""


def _split(body: bytes, boundary: str) -> list[bytes]:
    """The pieces between boundary lines (RFC 2046 §5.1.1); empty where there is none or it never comes."""
    if not boundary:
        return []
    mark = b"\n--" + boundary.encode("latin-1", "replace")
    pieces: list[bytes] = []
    body = b"\n" + body
    start = body.find(mark)
    while start >= 0 and len(pieces) < MAX_PARTS:
        line_end = body.find(b"\n", start + len(mark))
        rest = body[start + len(mark) : line_end if line_end >= 0 else len(body)].strip()
        if rest.startswith(b"--") or line_end < 0:
            break
        if rest:  # another boundary that only begins alike
            start = body.find(mark, start + 1)
            continue
        end = body.find(mark, line_end)
        while end >= 0 and not _closes(body, end + len(mark)):
            end = body.find(mark, end + 1)
        pieces.append(body[line_end + 1 : end if end >= 0 else len(body)])
        start = end
    return pieces


def _closes(body: bytes, at: int) -> bool:
    """Whether what follows a boundary on its line is nothing, or `--`."""
    rest = body[at : at + 200].split(b"\n", 1)[0].strip()
    return rest in (b"", b"--")


def _untransfer(raw: bytes, encoding: str) -> bytes:
    encoding = encoding.strip().lower()
    if encoding == "base64":
        packed = re.sub(rb"[^A-Za-z0-9+/]", b"", raw)
        packed = packed[: len(packed) - (len(packed) % 4 == 1)]  # six bits are no octet
        try:
            return base64.b64decode(packed + b"=" * (-len(packed) % 4))
        except (binascii.Error, ValueError):
            return raw
    if encoding == "quoted-printable":
        return quopri.decodestring(raw)
    return raw
