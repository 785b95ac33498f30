"""What header fields of others say: charsets, RFC 2047 words, lists of addresses. Nothing here raises for input."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from email.errors import HeaderParseError
from email.header import decode_header

#: only codecs that are linear and never raise with errors="replace" (punycode, idna, unicode_escape are not)
_CHARSET = re.compile(
    r"(ascii|utf-?(7|8|16|32)([-_](le|be|sig))?|iso8859-\d{1,2}|latin\d|cp\d{3,4}|koi8-[rut]|mac-\w{1,12}"
    r"|gb2312|gbk|gb18030|hz|big5(hkscs)?|shift_jis\w{0,5}|euc_\w{2,8}|iso2022_\w{2,6}|johab|tis-620)$"
)


def decode_text(octets: bytes, charset: str) -> str:
    """Octets as text: the named charset where it is a safe one, else UTF-8, else Latin-1."""
    name = safe_codec(charset)
    if name and name != "ascii":
        try:
            return octets.decode(name, "replace")
        except (UnicodeError, ValueError):
            return octets.decode("latin-1")
    if b"\x1b$" in octets[:4_000]:  # Japanese mails that name no charset
        return octets.decode("iso2022_jp", "replace")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def safe_codec(charset: str) -> str:
    """Python's name of a charset that may be used on octets of anybody's; "" for all others."""
    try:
        name = codecs.lookup(charset.strip("\"' ").lower()[:40]).name
    except (LookupError, ValueError):
        return ""
    return name if _CHARSET.match(name) else ""


def decode_words(value: str) -> str:
    """RFC 2047 words of a header value read; a broken one stays as it is."""
    value = value[:2_000]
    if "=?" not in value:
        return value
    try:
        chunks = decode_header(value)
    except (HeaderParseError, ValueError):
        return value
    return "".join(c if isinstance(c, str) else decode_text(c, cs or "") for c, cs in chunks)


def split_addresses(value: str) -> Iterator[str]:
    """The items of an address list (RFC 5322 §3.4): commas separate, groups (`Name: a, b;`) are opened."""
    item, quoted, depth, angle, escaped = "", False, 0, False, False
    for char in value:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == '"' and not depth:
            quoted = not quoted
        elif not quoted and char == "(":
            depth += 1
        elif not quoted and char == ")" and depth:
            depth -= 1
        elif not quoted and not depth:
            angle = (angle or char == "<") and char != ">"
            if char in ",;" and not angle:
                yield item
                item = ""
                continue
            if char == ":" and not angle:
                item = ""
                continue
        item += char
    yield item
