"""Reads a mail for a person or an application: who wrote to whom, texts, files (RFC 5322, RFC 2045 to 2047, RFC 2231).

`read_letter(octets)` never raises for input. Bounds are those of `bounces.mail`; texts are cut at MAX_BODY_CHARS.
Addresses are given as they stand in the header, decoded: whoever answers to them parses them anew.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from deliveries.bounces.mail import Headers, Part, read_mail
from deliveries.encoded import decode_text, decode_words, split_addresses
from deliveries.smtp.reply import clean

#: of a whole mail; the inbound server takes no larger one
MAX_OCTETS = 26 * 1024 * 1024
MAX_BODY_CHARS = 2_000_000
#: one field of addresses; longer ones are cut between two of them
MAX_ADDRESSES = 200
MAX_NAME_CHARS = 255
#: shown over the API; a mail has a few dozen
MAX_FIELDS = 200
_MAX_VALUE_CHARS = 4_000
_TEXTS = ("text/plain", "text/html")


@dataclass(frozen=True, slots=True)
class File:
    """A part that is no text of the mail itself. `disposition` is `inline` or `attachment`; `content_id` may be ""."""

    filename: str
    content_type: str
    content_id: str
    disposition: str
    octets: bytes


@dataclass(frozen=True, slots=True)
class Letter:
    """`text` and `html` are None where the mail has none. `headers`: names in lower case, the first of each."""

    from_: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    bcc: tuple[str, ...]
    reply_to: tuple[str, ...]
    subject: str
    message_id: str
    text: str | None
    html: str | None
    headers: dict[str, str]
    files: tuple[File, ...]


def read_letter(octets: bytes) -> Letter:
    """The mail taken apart; never raises for input."""
    mail = read_mail(octets, MAX_OCTETS)
    texts: dict[str, list[str]] = {kind: [] for kind in _TEXTS}
    files: list[File] = []
    for part in mail.parts:
        file = _file(part)
        if part.type in texts and file.disposition != "attachment" and not file.filename:
            text = decode_text(part.octets[: MAX_BODY_CHARS * 4], part.params.get("charset", ""))
            texts[part.type].append(text.replace("\0", "")[:MAX_BODY_CHARS])
        elif part.octets or file.filename:
            files.append(file)
    headers = mail.headers
    return Letter(
        from_=next(iter(addresses(headers, "from")), ""),
        to=addresses(headers, "to"),
        cc=addresses(headers, "cc"),
        bcc=addresses(headers, "bcc"),
        reply_to=addresses(headers, "reply-to"),
        subject=_line(headers.decoded("subject")),
        message_id=_line(headers.get("message-id"))[:998],
        text="\n".join(texts["text/plain"]) if texts["text/plain"] else None,
        html="\n".join(texts["text/html"]) if texts["text/html"] else None,
        headers=_fields(headers),
        files=tuple(files),
    )


def addresses(headers: Headers, name: str) -> tuple[str, ...]:
    """The addresses of all fields of that name, `Name <a@b>` each, cut at commas outside of quotes and comments."""
    found: list[str] = []
    for value in headers.all(name):
        for item in split_addresses(value):
            text = _line(decode_words(item)).strip()
            if text and len(found) < MAX_ADDRESSES:
                found.append(text[:_MAX_VALUE_CHARS])
    return tuple(found)


def _file(part: Part) -> File:
    disposition, _, rest = part.headers.get("content-disposition").partition(";")
    word = disposition.strip().lower()
    name = _parameter(rest, "filename") or _parameter(part.headers.get("content-type").partition(";")[2], "name")
    name = _line(name).replace("\\", "/").rpartition("/")[2].strip()
    return File(
        filename=name[:MAX_NAME_CHARS],
        content_type=_line(part.type)[:100],
        content_id=_line(part.headers.get("content-id")).strip("<> ")[:MAX_NAME_CHARS],
        disposition="inline" if word == "inline" or (not word and part.type in _TEXTS) else "attachment",
        octets=part.octets,
    )


_PARAMETER = re.compile(r"([\w.*-]{1,60})[ \t]{0,4}=[ \t]{0,4}(\"(?:[^\"\\]|\\.){0,1000}\"|[^\s;\"]{1,1000})")
#: RFC 2231 §3: pieces of one value
_MAX_PIECES = 20


def _parameter(text: str, name: str) -> str:
    """A parameter's value: RFC 2231 pieces and charsets, plain, or with encoded words as many programs write it."""
    values = {
        found[1].lower(): re.sub(r"\\(.)", r"\1", found[2].strip('"')) for found in _PARAMETER.finditer(text[:8_000])
    }
    if name in values:
        return decode_words(values[name])
    whole = f"{name}*"
    if whole in values:
        return _extended(values[whole])
    pieces = []
    for number in range(_MAX_PIECES):
        plain, encoded = values.get(f"{name}*{number}"), values.get(f"{name}*{number}*")
        if plain is None and encoded is None:
            break
        pieces.append(plain if plain is not None else encoded or "")
    if not pieces:
        return ""
    return _extended("".join(pieces)) if f"{name}*0*" in values else "".join(pieces)


def _extended(value: str) -> str:
    """RFC 2231 §4: charset'language'%41%42."""
    charset, quote, rest = value.partition("'")
    _, second, text = rest.partition("'")
    if not (quote and second):
        return value
    return decode_text(unquote_to_bytes(text), charset)


def _fields(headers: Headers) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in headers.fields:
        if len(fields) < MAX_FIELDS:
            fields.setdefault(name, _line(decode_words(value))[:_MAX_VALUE_CHARS])
    return fields


def _line(text: str) -> str:
    return clean(text.replace("\r", " ").replace("\n", " "))
