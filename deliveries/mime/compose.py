"""RFC 5322 mail from frozen content, as octets.

`compose` is a pure function of a `Mail`: boundaries come from the message's id, Date and Message-ID are given, so that
every retry and every delivery is the same mail. The structure is the smallest that holds the content:

    mixed( alternative( text, related( html, inline… ) ), attachment… )

All of it is 7-bit ASCII in lines of at most 998 octets (RFC 5321 §4.5.3.1.6), CRLF throughout, so it passes hops
without 8BITMIME as it is. Only an address whose local part is not ASCII brings UTF-8, into the header, and sets
`Composed.smtputf8`. Bcc is never written. Dot-stuffing is the session's.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from deliveries.errors import ComposeError
from deliveries.mime.address import Address, parse_address
from deliveries.mime.headers import (
    MIME_VERSION,
    PREFERRED_LINE,
    UNIQUE_FIELDS,
    addresses,
    parameter,
    parameterised,
    refused_header,
    refused_subject,
    unstructured,
    well_formed,
)
from deliveries.mime.recode import recode

__all__ = ["Attachment", "Composed", "Mail", "compose", "refused_header", "refused_subject"]

#: 57 octets make a line of 76; by blocks, so that a large file is not held as a million lines at once
_BASE64_BLOCK = 57 * 8192

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ASCII = bytes(range(128))
#: ours: above it stands no media type, and a parameter could not be folded
_MAX_MEDIA_TYPE = 400
_TOKEN = r"[A-Za-z0-9!#$%&'*+\-.^_`{|}~]+"
_MEDIA_TYPE = re.compile(rf"({_TOKEN})/({_TOKEN})((?:\s*;\s*{_TOKEN}=(?:{_TOKEN}|\"[ !#-\[\]-~]*\"))*)\s*;?\s*")
_MEDIA_PARAMETER = re.compile(rf";\s*({_TOKEN})=({_TOKEN}|\"[ !#-\[\]-~]*\")")
#: group 1 is set where the line has no room for the two octets that =46 needs more (RFC 2045 §6.7 (5): 76)
_FROM = re.compile(rb"(?m)^From (?=([^\r\n]{70})?)")
_BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
#: a mail begins with a field (RFC 5322 §2.2)
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_NOT_IN_ID = re.compile(r"[^A-Za-z0-9!#$&'*+\-/=?^_`{|}~.@]")


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file. With a `content_id` (without <>) and an html part that can show it, it is inline (multipart/related)."""

    filename: str
    content_type: str
    content: bytes
    content_id: str | None = None


@dataclass(frozen=True, slots=True)
class Mail:
    """What was accepted. `id` is the message's; `message_id` stands without <>; `date` is aware; addresses are as
    `parse_address` reads them; an absent part is None."""

    id: uuid.UUID
    message_id: str
    date: datetime
    from_header: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    reply_to: tuple[str, ...]
    subject: str
    html: str | None
    text: str | None
    headers: tuple[tuple[str, str], ...]
    attachments: tuple[Attachment, ...]


@dataclass(frozen=True, slots=True)
class Composed:
    """A mail as octets. Each header field is folded and ends in CRLF; the empty line between is in neither.

    `null_return`: it is a report, which itself must never be answered by one (RFC 3464 §2).
    """

    header_fields: tuple[bytes, ...]
    body: bytes
    smtputf8: bool = False
    null_return: bool = False

    @property
    def size_octets(self) -> int:
        """Header, empty line and body, without what each delivery adds (its token and signature, some 700 octets)."""
        return sum(map(len, self.header_fields)) + 2 + len(self.body)

    @property
    def octets(self) -> bytes:
        """The mail without token and signature, as the panel shows it."""
        return b"".join((*self.header_fields, b"\r\n", self.body))


def compose(mail: Mail) -> Composed:
    """The mail's header fields and body; ComposeError where accept let in what cannot be rendered."""
    sender, to, cc, reply_to = _read_addresses(mail)
    fields, message_id = _own_fields(mail.headers) if mail.headers else ([], None)
    header = [_from_field(sender)]
    if to:
        header.append(addresses("To", to))
    elif not cc:
        # RFC 5322 §3.6.3 needs no To, but mail without any is distrusted; an empty group says: all of them are Bcc
        header.append(b"To: undisclosed-recipients:;\r\n")
    if cc:
        header.append(addresses("Cc", cc))
    if reply_to:
        header.append(addresses("Reply-To", reply_to))
    header.append(unstructured("Subject", mail.subject))
    header.append(date_field(mail.date))
    header.append(f"Message-ID: {message_id}\r\n".encode("ascii") if message_id else message_id_field(mail.message_id))
    header += fields
    header.append(MIME_VERSION)
    part = _structure(mail)
    return Composed(
        header_fields=(*header, *part.fields),
        body=part.body if part.body.endswith(b"\r\n") else part.body + b"\r\n",
        smtputf8=any(mailbox.smtputf8 for mailbox in (sender, *to, *cc, *reply_to)),
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """One MIME entity (RFC 2045 §2.4); `body` without the CRLF that belongs to the next boundary."""

    fields: tuple[bytes, ...]
    body: bytes


def _read_addresses(mail: Mail) -> tuple[Address, list[Address], list[Address], list[Address]]:
    try:
        return (
            _sender(mail.from_header),
            [parse_address(text) for text in mail.to],
            [parse_address(text) for text in mail.cc],
            [parse_address(text) for text in mail.reply_to],
        )
    except ValueError as error:
        raise ComposeError(f"message {mail.id}: {error}") from error


# one sender's mails follow one another
_sender = lru_cache(maxsize=256)(parse_address)


@lru_cache(maxsize=256)
def _from_field(sender: Address) -> bytes:
    return addresses("From", [sender])


def _own_fields(headers: Sequence[tuple[str, str]]) -> tuple[list[bytes], str | None]:
    """The caller's fields, and the caller's Message-ID where one is given. Of a unique field the last one counts."""
    fields: dict[str | int, bytes] = {}
    message_id = None
    for index, (name, value) in enumerate(headers):
        reason = refused_header(name, value)
        if reason is not None:
            raise ComposeError(reason)
        folded = name.lower()
        if folded == "message-id":
            message_id = value.strip(" \t")
        else:
            fields[folded if folded in UNIQUE_FIELDS else index] = unstructured(name, value)
    return list(fields.values()), message_id


def _structure(mail: Mail) -> _Part:
    boundary = _Boundaries(mail.id)
    # without html there is nothing that could show an inline file: it goes as an ordinary attachment
    inline = [item for item in mail.attachments if item.content_id and mail.html is not None]
    apart = [item for item in mail.attachments if not item.content_id or mail.html is None]
    parts: list[_Part] = []
    if mail.text is not None or mail.html is None:
        parts.append(_text_part("plain", mail.text or "", boundary))
    if mail.html is not None:
        html = _text_part("html", mail.html, boundary)
        if inline:
            related = [html, *(_file_part(item, boundary, "inline") for item in inline)]
            html = _multipart("related", related, boundary, 'type="text/html"')
        parts.append(html)
    body = parts[0] if len(parts) == 1 else _multipart("alternative", parts, boundary)
    if not apart:
        return body
    return _multipart("mixed", [body, *(_file_part(item, boundary, "attachment") for item in apart)], boundary)


class _Boundaries:
    """Boundaries of one mail, numbered in the order of use. `=_` occurs in no quoted-printable or base64 text
    (RFC 2045 §6.7 (5)), and 7-bit parts are searched for `stem`."""

    def __init__(self, message: uuid.UUID) -> None:
        self.stem = f"=_{message.hex}_"
        self.octets = self.stem.encode("ascii")
        self._count = 0

    def next(self) -> str:
        self._count += 1
        return f"{self.stem}{self._count}"


def _multipart(subtype: str, parts: Iterable[_Part], boundaries: _Boundaries, *extra: str) -> _Part:
    boundary = boundaries.next()
    delimiter = f"--{boundary}".encode("ascii")
    chunks: list[bytes] = []
    for part in parts:
        chunks += (delimiter, b"\r\n", *part.fields, b"\r\n", part.body, b"\r\n")
    chunks += (delimiter, b"--")
    field = parameterised("Content-Type", f"multipart/{subtype}", (*extra, f'boundary="{boundary}"'))
    return _Part((field,), b"".join(chunks))


def _text_part(subtype: str, text: str, boundaries: _Boundaries) -> _Part:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    octets = well_formed(text).encode("utf-8").replace(b"\n", b"\r\n")
    ascii_only = text.isascii()
    if ascii_only and _is_plain(octets, boundaries):
        encoding, body = b"7bit", octets
    else:
        encoding, body = _encode_text(octets)
    charset = b"us-ascii" if ascii_only else b"utf-8"
    return _Part(
        (
            b"Content-Type: text/%s; charset=%s\r\n" % (subtype.encode("ascii"), charset),
            b"Content-Transfer-Encoding: %s\r\n" % encoding,
        ),
        body,
    )


def _is_plain(octets: bytes, boundaries: _Boundaries) -> bool:
    """Whether ASCII text may go as it is: short lines, and nothing that relays are known to change (white space at
    the end of a line, `From ` at its start) or that would end the part early."""
    return not (
        octets.find(b"\n", 0, PREFERRED_LINE + 2) < 0 <= len(octets) - PREFERRED_LINE - 2  # its first line is too long
        or b" \r\n" in octets
        or b"\t\r\n" in octets
        or b"\nFrom " in octets
        or octets.startswith(b"From ")
        or b"\0" in octets
        or octets[-1:] in (b" ", b"\t")
        or _longest_line(octets) > PREFERRED_LINE
        or boundaries.octets in octets
    )


def _longest_line(octets: bytes) -> int:
    return len(max(octets.split(b"\r\n"), key=len))


def _encode_text(octets: bytes) -> tuple[bytes, bytes]:
    """Quoted-printable or base64 of text in CRLF lines, whichever is shorter (RFC 2045 §6.7, §6.8)."""
    escaped = len(octets.translate(None, _ASCII)) + octets.count(b"=")
    if escaped * 2 * 100 > len(octets) * 37:  # base64 grows by 37 %, its line ends counted
        return b"base64", _base64_lines(octets)
    # b2a_qp's soft line breaks follow the first line end, so one is always there
    body = binascii.b2a_qp(octets + b"\r\n")[:-2]
    if b"From " in body:
        # RFC 2049 §3: relays put ">" before it, which breaks the signature
        body = _FROM.sub(lambda found: b"=46rom=\r\n " if found[1] else b"=46rom ", body)
    return b"quoted-printable", body


def _base64_lines(octets: bytes) -> bytes:
    if len(octets) > _BASE64_BLOCK:
        blocks = range(0, len(octets), _BASE64_BLOCK)
        return b"\r\n".join([_base64_lines(octets[start : start + _BASE64_BLOCK]) for start in blocks])
    encoded = base64.b64encode(octets)
    return b"\r\n".join([encoded[start : start + 76] for start in range(0, len(encoded), 76)])


def _file_part(item: Attachment, boundaries: _Boundaries, disposition: str) -> _Part:
    media_type, parameters = _media_type(item, boundaries)
    name = item.filename or "attachment"
    fields = [
        parameterised("Content-Type", media_type, [*parameters, *parameter("name", name)]),
        parameterised("Content-Disposition", disposition, parameter("filename", name)),
    ]
    if item.content_id:
        fields.append(b"Content-ID: <%s>\r\n" % _content_id(item.content_id).encode("ascii"))
    if media_type.startswith("message/"):
        return _Part((*fields, b"Content-Transfer-Encoding: 7bit\r\n"), attached_mail(item.content) or b"")
    return _Part((*fields, b"Content-Transfer-Encoding: base64\r\n"), _base64_lines(item.content))


def _media_type(item: Attachment, boundaries: _Boundaries) -> tuple[str, list[str]]:
    """The media type and its parameters; application/octet-stream where the given one is none or cannot be used."""
    match = None
    if item.content_type.isascii() and len(item.content_type) <= _MAX_MEDIA_TYPE:
        match = _MEDIA_TYPE.fullmatch(item.content_type.strip())
    if match is None:
        return "application/octet-stream", []
    kind, media_type = match[1].lower(), f"{match[1]}/{match[2]}".lower()
    given = {name.lower(): f"{name}={value}" for name, value in _MEDIA_PARAMETER.findall(match[3])}
    given.pop("name", None)
    if kind == "multipart" or (kind == "message" and not _is_sendable(media_type, item.content, boundaries)):
        # RFC 2045 §6.4: base64 is not for composite types; the file name still tells what it is
        return "application/octet-stream", []
    if kind == "text" and "charset" not in given and not item.content.isascii() and _is_utf8(item.content):
        given["charset"] = "charset=utf-8"
    return media_type, list(given.values())


def attached_mail(content: bytes) -> bytes | None:
    """A mail as it may stand in a part of message/rfc822: 7-bit, CRLF, short lines, no encoding around it (RFC 2046
    §5.2.1). Line ends of a file and 8-bit parts are recoded; None where that cannot be had, or it is no mail."""
    lines = _BARE.sub(b"\r\n", content)
    if b"\0" in lines or not _FIELD.match(lines):
        return None
    return recode(lines, seven_bit=True)


def _is_sendable(media_type: str, content: bytes, boundaries: _Boundaries) -> bool:
    mail = attached_mail(content) if media_type == "message/rfc822" else None
    return mail is not None and boundaries.octets not in mail


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _content_id(text: str) -> str:
    """RFC 2392: `cid:` URLs are percent-encoded, so what an msg-id cannot hold may stand so too."""
    bare = text.strip("<> ")
    return _NOT_IN_ID.sub(lambda found: "".join(f"%{octet:02X}" for octet in well_formed(found[0]).encode()), bare)[
        :200
    ]


def message_id_field(text: str) -> bytes:
    """The field for an identifier with or without angle brackets."""
    bare = text.strip("<> ")
    if refused_header("Message-ID", f"<{bare}>") is not None:
        raise ComposeError(f"Message-ID {text!r} is not an identifier with an @.")
    return f"Message-ID: <{bare}>\r\n".encode("ascii")


def date_field(moment: datetime) -> bytes:
    """RFC 5322 §3.3, in the zone of `moment`; never by locale."""
    offset = moment.utcoffset()
    if offset is None:
        raise ComposeError("The date of a mail must be aware of its zone.")
    minutes = int(offset.total_seconds()) // 60
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return (
        f"Date: {_DAYS[moment.weekday()]}, {moment.day:02d} {_MONTHS[moment.month - 1]} {moment.year:04d} "
        f"{moment.hour:02d}:{moment.minute:02d}:{moment.second:02d} {sign}{minutes // 60:02d}{minutes % 60:02d}\r\n"
    ).encode("ascii")
