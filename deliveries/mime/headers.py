"""Header fields as octets: folding (RFC 5322 §2.2.3), encoded words (RFC 2047), parameters (RFC 2231), and the
question which fields a caller may set.

Every function here returns whole fields that end in CRLF. Nothing given as text can start another line: characters
below U+0020 become spaces, all others above `~` are encoded. A continuation line always carries something visible.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence

from deliveries.mime.address import Address, quoted_phrase
from deliveries.mime.verp import TOKEN_HEADER

#: RFC 5322 §2.1.1: lines should have no more octets than this, CRLF apart
PREFERRED_LINE = 78
#: RFC 5322 §2.1.1: … and must have no more than this
MAX_LINE = 998
#: RFC 2047 §2: an encoded word, and a line that holds one
_MAX_WORD, _MAX_WORD_LINE = 75, 76
#: RFC 2045 §4
MIME_VERSION = b"MIME-Version: 1.0\r\n"
#: a word without white space cannot be folded; above this it could push a line over MAX_LINE
_MAX_TOKEN = 900
#: ours: what one field may hold; receivers cap whole headers at some 64 KB
MAX_VALUE_CHARACTERS = 16_000
_MAX_NAME = 76

_FTEXT = re.compile(r"[!-9;-~]+")
_BREAKING = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
_CONTROLS = re.compile("[\x00-\x1f\x7f]+")
_PIECES = re.compile(r"[ \t]*[^ \t]+")
_MSG_ID = re.compile(r"<[!-;=?A-~]+@[!-;=?A-~]+>")
_PLAIN_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+(?: [A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+)*")

_HOST_FIELDS = frozenset({
    "return-path", "received", "received-spf", "delivered-to", "x-original-to", "authentication-results",
    "dkim-signature", "domainkey-signature", "arc-seal", "arc-message-signature", "arc-authentication-results",
    TOKEN_HEADER.lower(),
})  # fmt: skip
_OWN_FIELDS = {
    "from": "from", "to": "to", "cc": "cc", "bcc": "bcc", "reply-to": "reply_to", "subject": "subject",
}  # fmt: skip
#: fields whose value is a structure: ASCII only, never encoded words
_STRUCTURED = frozenset({
    "message-id", "in-reply-to", "references", "list-unsubscribe", "list-unsubscribe-post", "list-id", "list-help",
    "list-post", "list-archive", "list-owner", "list-subscribe", "auto-submitted", "precedence", "importance",
    "disposition-notification-to", "return-receipt-to", "errors-to", "feedback-id", "require-recipient-valid-since",
})  # fmt: skip
#: RFC 5322 §3.6, RFC 8058 §3.1: at most one of each; compose keeps the last one given
UNIQUE_FIELDS = frozenset({
    "message-id", "in-reply-to", "references", "list-unsubscribe", "list-unsubscribe-post", "list-id", "list-help",
    "list-post", "list-archive", "list-owner", "list-subscribe", "auto-submitted", "comments", "keywords",
    "feedback-id", "precedence",
})  # fmt: skip


def refused_header(name: str, value: str) -> str | None:
    """Why a caller's header field is refused, in one sentence with the remedy; None when it may go out as it is.

    Fields that have a field of their own in the API, that describe the MIME structure, or that only a host may write
    are refused. `Message-ID` is allowed (one msg-id: it then replaces ours), `Date` is not: it is the time of
    acceptance, and it is the same in every retry.
    """
    folded = name.lower()
    if not _FTEXT.fullmatch(name) or len(name) > _MAX_NAME:
        return (
            f"The header name {name[:80]!r} is not allowed: use 1 to {_MAX_NAME} printable ASCII characters without "
            "spaces and colons."
        )
    if folded in _OWN_FIELDS:
        return f"{name} is not set through headers; use the field {_OWN_FIELDS[folded]}."
    if folded == "date":
        return "Date is set by the service to the time of acceptance (or scheduled_at); leave it out."
    if folded == "sender" or folded.startswith("resent-"):
        return f"{name} is not supported; the sender is the address in from."
    if folded == "mime-version" or folded.startswith("content-"):
        return f"{name} describes the MIME structure, which the service builds; leave it out."
    if folded in _HOST_FIELDS or folded.startswith("x-mailapi-"):
        return f"{name} may only be written by mail servers; leave it out."
    if _BREAKING.search(value):
        return f"The value of {name} contains a line break or another control character; send it as one line."
    if len(value) > MAX_VALUE_CHARACTERS:
        return f"The value of {name} is longer than {MAX_VALUE_CHARACTERS} characters; shorten it."
    if folded in _STRUCTURED:
        if not value.isascii():
            return f"The value of {name} must be ASCII; percent-encode URLs and write domains as A-labels (xn--…)."
        if any(len(word) > _MAX_TOKEN for word in value.split()):
            return f"A word in {name} is longer than {_MAX_TOKEN} characters and cannot be folded; shorten it."
        if folded == "message-id" and not _MSG_ID.fullmatch(value.strip(" \t")):
            return "Message-ID must be one identifier in angle brackets: <something-unique@your-domain.example>."
    return None


def is_structured(name: str) -> bool:
    """Whether encoded words would break the field's value: identifiers, URLs, MIME fields, what hosts write."""
    folded = name.lower()
    return folded in _STRUCTURED or folded in _HOST_FIELDS or folded.startswith("content-")


def refused_subject(subject: str) -> str | None:
    """Why a subject is refused: line breaks and other control characters, or no end; None when it is fine."""
    if _BREAKING.search(subject):
        return "The subject contains a line break or another control character; send it as one line."
    if len(subject) > MAX_VALUE_CHARACTERS:
        return f"The subject is longer than {MAX_VALUE_CHARACTERS} characters; shorten it."
    return None


def well_formed(text: str) -> str:
    """The same text with UTF-16 surrogates paired, or U+FFFD for those that stand alone: always encodable."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def unstructured(name: str, value: str) -> bytes:
    """A field of free text (RFC 5322 §2.2.1), or of ASCII structure that is folded at its white space."""
    value = value.strip(" \t")
    if value.isascii():
        if not value.isprintable():
            value = _BREAKING.sub(" ", value).strip(" \t")
        # "=?" would be read as an encoded word, and the recipient would not see what was sent
        if "=?" not in value:
            if len(name) + 2 + len(value) <= PREFERRED_LINE:
                return f"{name}: {value}\r\n".encode("ascii") if value else f"{name}:\r\n".encode("ascii")
            pieces = _PIECES.findall(value)
            if max(map(len, pieces)) <= _MAX_TOKEN:
                return _fold(name, pieces)
        elif name.lower() in _STRUCTURED:
            return _fold(name, _PIECES.findall(value))
    value = _BREAKING.sub(" ", well_formed(value)).strip(" \t")
    return _fold(name, [" " + word for word in _encoded_words(value, _MAX_WORD_LINE - len(name) - 2)], _MAX_WORD_LINE)


def addresses(name: str, mailboxes: Sequence[Address]) -> bytes:
    """An address list (RFC 5322 §3.4), folded between and, for long names, within mailboxes."""
    pieces: list[str] = []
    last = len(mailboxes) - 1
    width = PREFERRED_LINE
    for index, mailbox in enumerate(mailboxes):
        comma = "," if index < last else ""
        if not mailbox.display_name:
            pieces.append(f" {mailbox.addr_spec}{comma}")
            continue
        words = _phrase(mailbox.display_name, _MAX_WORD_LINE - len(name) - 2 if not pieces else _MAX_WORD_LINE - 1)
        if words[0].startswith("=?"):
            width = _MAX_WORD_LINE
        pieces += [" " + word for word in words]
        pieces.append(f" <{mailbox.addr_spec}>{comma}")
    return _fold(name, pieces, width)


def parameter(name: str, value: str) -> list[str]:
    """One MIME parameter as pieces for `parameterised`: a quoted-string, or RFC 2231 extended and continued.

    Control characters become `_`: a file name is the one text that a recipient's system acts on.
    """
    value = _CONTROLS.sub("_", well_formed(value))
    if value.isascii() and len(value) <= 60 and '"' not in value and "\\" not in value and "=?" not in value:
        return [f'{name}="{value}"']
    encoded = [_EXTENDED[octet] for octet in value.encode("utf-8")]
    if sum(map(len, encoded)) + len(name) <= 60:
        return [f"{name}*=utf-8''{''.join(encoded)}"]
    segments: list[str] = []
    segment = "utf-8''"
    for character in value:
        # RFC 2231 §4.1: a segment ends between characters, so that readers may decode each by itself
        octets = "".join([_EXTENDED[octet] for octet in character.encode("utf-8")])
        if len(segment) + len(octets) > 60:
            segments.append(segment)
            segment = ""
        segment += octets
    segments.append(segment)
    return [f"{name}*{number}*={text}" for number, text in enumerate(segments)]


def parameterised(name: str, value: str, parameters: Iterable[str]) -> bytes:
    """A MIME field `name: value; parameter; …` with one parameter to a line where they do not fit into one."""
    pieces = [" " + value, *(" " + text for text in parameters)]
    return _fold(name, [piece + ";" for piece in pieces[:-1]] + pieces[-1:])


def _phrase(name: str, room: int) -> list[str]:
    """A display name as words that may be parted by folding (RFC 5322 §3.2.5)."""
    name = _CONTROLS.sub(" ", well_formed(name)).strip(" ")
    if name.isascii() and len(name) <= 60 and "=?" not in name:
        if _PLAIN_ATOMS.fullmatch(name):
            return [name]
        quoted = quoted_phrase(name)
        return [quoted] if quoted.startswith('"') else [f'"{quoted}"']
    return _encoded_words(name, room)


def _fold(name: str, pieces: Sequence[str], width: int = PREFERRED_LINE) -> bytes:
    """`pieces` begin with their white space (the first may lack it) and are never parted. No line of the result
    holds white space alone, because no piece does."""
    if not pieces:
        return f"{name}:\r\n".encode("ascii")
    first = pieces[0]
    line = f"{name}:{first}" if first[0] == " " else f"{name}: {first}"
    lines = []
    if len(line) > width and first.startswith(" =?"):
        lines.append(f"{name}:")
        line = first
    for piece in pieces[1:]:
        if len(line) + len(piece) > width:
            lines.append(line)
            line = piece
        else:
            line += piece
    lines.append(line)
    # RFC 6532: only an address with a non-ASCII local part brings UTF-8 here; compose says so with smtputf8
    return ("\r\n".join(lines) + "\r\n").encode("utf-8")


def _encoded_words(text: str, room: int) -> list[str]:
    """RFC 2047 words that hold `text`, each of whole characters. `room` is what the first line leaves."""
    octets = text.encode("utf-8")
    encoded = [_Q[octet] for octet in octets]
    length = sum(map(len, encoded))
    if room < 24:  # beside a long field name: the words begin on the next line
        room = _MAX_WORD
    if length <= (len(octets) + 2) // 3 * 4:
        return _q_words(octets, encoded, length, room)
    return _b_words(octets, room)


def _q_words(octets: bytes, encoded: list[str], length: int, room: int) -> list[str]:
    limit = min(room, _MAX_WORD) - 12  # 12 = len("=?utf-8?q??=")
    if length <= limit:
        return [f"=?utf-8?q?{''.join(encoded)}?="]
    words: list[str] = []
    start = used = boundary = boundary_used = 0
    for index, text in enumerate(encoded):
        if octets[index] & 0xC0 != 0x80:  # the first octet of a character: a word may end before it
            boundary, boundary_used = index, used
        used += len(text)
        if used > limit:
            words.append(f"=?utf-8?q?{''.join(encoded[start:boundary])}?=")
            start = boundary
            used -= boundary_used
            limit = _MAX_WORD - 12
    words.append(f"=?utf-8?q?{''.join(encoded[start:])}?=")
    return words


def _b_words(octets: bytes, room: int) -> list[str]:
    words: list[str] = []
    start, total = 0, len(octets)
    limit = (min(room, _MAX_WORD) - 12) // 4 * 3
    while start < total:
        end = min(start + limit, total)
        while end < total and octets[end] & 0xC0 == 0x80:
            end -= 1
        words.append(f"=?utf-8?b?{base64.b64encode(octets[start:end]).decode('ascii')}?=")
        start = end
        limit = (_MAX_WORD - 12) // 4 * 3
    return words


def _table(safe: str, escape: str) -> list[str]:
    return [chr(octet) if chr(octet) in safe else f"{escape}{octet:02X}" for octet in range(256)]


_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
#: RFC 2047 §5 (3): the narrowest set, so that one table serves phrases too
_Q = _table(_LETTERS + "!*+-/", "=")
_Q[0x20] = "_"
#: RFC 2231 §7: attribute-char, less what some readers trip over
_EXTENDED = _table(_LETTERS + "-._~!$&+", "%")
