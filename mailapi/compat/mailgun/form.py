"""A form's fields and files: application/x-www-form-urlencoded, or multipart/form-data (RFC 7578).

Everything is bounded before it is parsed: the body by its octets, the parts by their number. Files keep their octets
as they came; of each part only Content-Disposition and Content-Type are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.parser import HeaderParser
from urllib.parse import parse_qsl, unquote

from django.conf import settings
from django.http import HttpRequest

from deliveries.errors import BadInput, Fault
from mailapi.schemas.body import read

#: a thousand recipients, each in a field of its own, and all the others
MAX_PARTS = 4_000
_MAX_HEADER_OCTETS = 4_096
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{1,70}")  # RFC 2046 §5.1.1


@dataclass(frozen=True, slots=True)
class File:
    name: str
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """Values by field name, in their order."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[File]] = field(default_factory=dict)

    def last(self, name: str) -> str | None:
        values = self.fields.get(name)
        return values[-1] if values else None


def read_form(request: HttpRequest) -> Form:
    """The request's form; BadInput where it is none, too large or broken."""
    kind, boundary = _content_type(request)
    octets = read(request, settings.MAX_BODY_OCTETS, ends_itself=kind == "multipart/form-data")
    if kind == "multipart/form-data":
        return _multipart(octets, boundary)
    if kind in ("application/x-www-form-urlencoded", ""):
        return _urlencoded(octets)
    raise _refused("content_type", "Send a form: multipart/form-data or application/x-www-form-urlencoded.")


def _urlencoded(octets: bytes) -> Form:
    try:
        pairs = parse_qsl(octets.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARTS)
    except UnicodeDecodeError:
        raise _refused("invalid_utf8", "The form is not UTF-8.") from None
    except ValueError:
        raise _too_many() from None
    form = Form()
    for name, value in pairs:
        form.fields.setdefault(name, []).append(value)
    return form


def _multipart(octets: bytes, boundary: str) -> Form:
    if not _BOUNDARY.fullmatch(boundary):
        raise _refused("invalid_form", "The Content-Type names no boundary that RFC 2046 allows.")
    form = Form()
    for part in _parts(octets, boundary.encode("ascii")):
        head, _, content = part.partition(b"\r\n\r\n")
        if len(head) > _MAX_HEADER_OCTETS:
            raise _refused("invalid_form", "A part's header is too long.")
        name, filename, kind = _part_header(head)
        if filename is None:
            try:
                form.fields.setdefault(name, []).append(content.decode("utf-8"))
            except UnicodeDecodeError:
                raise _refused("invalid_utf8", f"The field {name[:100]!r} is not UTF-8.") from None
        else:
            form.files.setdefault(name, []).append(File(filename, kind, content))
    return form


def _parts(octets: bytes, boundary: bytes) -> Iterator[bytes]:
    """What stands between the delimiters, without their line ends (RFC 2046 §5.1.1)."""
    delimiter = b"\r\n--" + boundary
    whole = b"\r\n" + octets
    pieces = whole.split(delimiter, MAX_PARTS + 2)
    if len(pieces) > MAX_PARTS + 1:
        raise _too_many()
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise _refused("invalid_form", "The multipart form has no end.")
    for piece in pieces[1:-1]:
        line, ended, part = piece.partition(b"\r\n")
        if not ended or line.strip(b" \t"):
            raise _refused("invalid_form", "A delimiter of the multipart form is followed by text.")
        yield part


def _part_header(head: bytes) -> tuple[str, str | None, str]:
    """(field name, file name or None, media type)."""
    try:
        header = HeaderParser().parsestr(head.decode("utf-8"))
    except UnicodeDecodeError:
        raise _refused("invalid_utf8", "A part's header is not UTF-8.") from None
    disposition = str(header.get("Content-Disposition", ""))
    found = dict(re.findall(r';\s*(name|filename\*?)=("(?:[^"\\]|\\.)*"|[^;]*)', disposition))
    if not disposition.startswith("form-data") or "name" not in found:
        raise _refused("invalid_form", "A part of the form has no name.")
    filename = found.get("filename")
    if (extended := found.get("filename*")) and extended.lower().startswith("utf-8''"):
        filename = unquote(extended[7:])  # RFC 5987, as requests and Node's FormData write names that are not ASCII
    else:
        filename = None if filename is None else _unquoted(filename)
    kind = str(header.get("Content-Type", "")).strip()
    return _unquoted(found["name"]), filename, kind


def _unquoted(text: str) -> str:
    """Browsers and clients write " as %22 and line breaks as %0D%0A (HTML's form submission); quoted pairs too."""
    if text.startswith('"'):
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    return text.strip().replace("%22", '"')


def _content_type(request: HttpRequest) -> tuple[str, str]:
    """(media type in lower case, boundary or empty)."""
    header = request.META.get("CONTENT_TYPE", "")
    found = re.search(r';\s*boundary=("[^"]*"|[^;\s]*)', header, re.IGNORECASE)
    return header.partition(";")[0].strip().lower(), found[1].strip('"') if found else ""


def _refused(code: str, message: str) -> BadInput:
    return BadInput([Fault("", code, message)], "validation_error", 400)


def _too_many() -> BadInput:
    return _refused("too_many", f"The form has too many fields; {MAX_PARTS} are allowed.")
