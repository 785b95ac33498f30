"""A mail's parts in another transfer encoding, everything else as it came (RFC 2045 §6, RFC 6152 §3).

Three needs: lines of more than 998 octets, which no SMTP hop has to take (RFC 5321 §4.5.3.1.6), at accept; tracked
links in HTML, and 8-bit content for a hop without 8BITMIME, at the attempt. All before DKIM signing. What a signature
or encryption covers (RFC 1847) is never touched.
"""

from __future__ import annotations

import base64
import binascii
import quopri
import re
from collections.abc import Callable

from deliveries.encoded import safe_codec
from deliveries.mime.entities import Entity, name_of, value_of, walk
from deliveries.mime.headers import MAX_LINE, MIME_VERSION

_IDENTITY = frozenset({b"", b"7bit", b"8bit", b"binary"})
_KNOWN = _IDENTITY | {b"quoted-printable", b"base64"}
_CHARSET = re.compile(rb";[ \t]*charset[ \t]*=[ \t]*\"?([A-Za-z0-9._:-]{1,40})", re.I)
_BLOCK = 57 * 8192  # 57 octets make a line of 76


def recode(octets: bytes, *, seven_bit: bool) -> bytes | None:
    """The mail with lines of at most 998 octets and, with `seven_bit`, ASCII only. None where that cannot be had.

    Unchanged octets come back where nothing had to be done. CRLF line ends are a condition.
    """
    if _fits(octets, seven_bit):
        return octets
    try:
        entities = walk(octets)
    except ValueError:
        return None
    pieces: list[bytes] = []
    at = 0
    for entity in entities:
        head, body = octets[entity.start : entity.body], octets[entity.body : entity.end]
        wrong_body = entity.leaf and not _fits(body, seven_bit)
        says_more = not entity.leaf and seven_bit and entity.encoding in (b"8bit", b"binary")
        if not wrong_body and not says_more:
            continue
        if entity.sealed or entity.encoding not in _KNOWN or not _fits(head, seven_bit):
            return None
        if says_more:
            pieces += (octets[at : entity.start], _header(entity, b"7bit"))
            at = entity.body
        else:
            encoding, encoded = _encoded(entity, body)
            pieces += (octets[at : entity.start], _header(entity, encoding), encoded)
            at = entity.end
    pieces.append(octets[at:])
    changed = b"".join(pieces)
    # what stands between the parts, or in a header, is not ours to change
    return changed if _fits(changed, seven_bit) else None


def change_html(octets: bytes, change: Callable[[str], str]) -> bytes:
    """The mail with `change` done to its HTML: the first text/html part that is no attachment and that no signature
    covers. Unchanged octets come back where there is none, or where its encoding or charset is unknown."""
    for entity in walk(octets):
        disposition = value_of(entity.fields, b"content-disposition").lower()
        if entity.media_type != b"text/html" or not entity.leaf or disposition.startswith(b"attachment"):
            continue
        if entity.sealed or entity.encoding not in _KNOWN:
            return octets
        body = octets[entity.body : entity.end]
        if entity.encoding not in _IDENTITY:
            body = _decoded(body, entity.encoding)
        charset = _CHARSET.search(value_of(entity.fields, b"content-type"))
        name = safe_codec(charset[1].decode("ascii")) if charset else "ascii"
        try:
            changed = change(body.decode(name)).encode(name, "xmlcharrefreplace")
        except (LookupError, UnicodeError):
            return octets
        if changed == body or b"\0" in changed:  # UTF-16 has no line ends that quoted-printable could keep
            return octets
        encoded = binascii.b2a_qp(changed + b"\r\n")[:-2]
        header = _header(entity, b"quoted-printable")
        return octets[: entity.start] + header + encoded + octets[entity.end :]
    return octets


def long_lines(octets: bytes) -> bool:
    return max(map(len, octets.split(b"\r\n"))) > MAX_LINE


def _fits(octets: bytes, seven_bit: bool) -> bool:
    return (not seven_bit or octets.isascii()) and not long_lines(octets)


def _encoded(entity: Entity, body: bytes) -> tuple[bytes, bytes]:
    if entity.encoding not in _IDENTITY:
        # said to be encoded, and yet 8-bit or in long lines: read as far as it can be, and written rightly
        body = _decoded(body, entity.encoding)
    if entity.media_type.startswith(b"text/") and entity.encoding != b"base64":
        # b2a_qp's soft line breaks follow the first line end, so one is always there
        return b"quoted-printable", binascii.b2a_qp(body + b"\r\n")[:-2]
    return b"base64", b"\r\n".join(
        base64.encodebytes(body[start : start + _BLOCK]).rstrip(b"\n").replace(b"\n", b"\r\n")
        for start in range(0, len(body), _BLOCK)
    )


def _decoded(body: bytes, encoding: bytes) -> bytes:
    if encoding == b"quoted-printable":
        return quopri.decodestring(body)
    try:
        return base64.b64decode(body)
    except binascii.Error:
        return body


def _header(entity: Entity, encoding: bytes) -> bytes:
    """The entity's header with another Content-Transfer-Encoding; what MIME needs beside it where it was missing."""
    kept = [field for field in entity.fields if name_of(field) != b"content-transfer-encoding"]
    names = {name_of(field) for field in kept}
    if entity.start == 0 and b"mime-version" not in names:
        kept.append(MIME_VERSION)
    if b"content-type" not in names and entity.media_type == b"text/plain":
        # RFC 2045 §5.2 would have it US-ASCII, which it is not
        kept.append(b"Content-Type: text/plain; charset=utf-8\r\n")
    kept.append(b"Content-Transfer-Encoding: %s\r\n" % encoding)
    return b"".join(kept) + b"\r\n"
