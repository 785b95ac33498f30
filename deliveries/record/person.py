"""The person whose data is taken away, and how texts that hold the address are found.

An address is found in any case of letters, with the domain in A- or U-labels, as a word of its own (`ann@x` is not
part of `joann@x`), in JSON, in percent-encoded paths, in HTML's references and in quoted-printable lines. What no text
search finds is not: words in base64 or in a file's format.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from deliveries.mime.address import folded

#: stands in the place of the address where the row is somebody else's too
GONE = "(erased)"
#: letters beyond ASCII, which a collation may not know as such
_LETTERS = "\u00c0-\u1fff\u2c00-\u2dff\u3040-\ud7ff\uf900-\ufdff"
#: codes of signs that part an address from what stands before; those of . _ + - end the local part of another's
_SIGN = "(?:[01][[:xdigit:]]|2[0-9acf]|3[a-f]|40|5[b-e]|60|7[b-f])"
#: before an address: nothing of another address, but for what JSON, percent-encoding, quoted-printable and escaped
#: octets end with where they stand for a sign (up to U+007F, U+2000 to U+203F). No lookbehind: it takes a microsecond
#: for each place, and a stranger's letter may have millions
_BEFORE = (
    rf"(^|[^[:alnum:]._+{_LETTERS}-]|\\[nrt]|\\u00{_SIGN}|\\u20[0-3][[:xdigit:]]"
    rf"|%{_SIGN}|=(?!1|0[^9ad]){_SIGN}|%e2%80%[[:xdigit:]]{{2}}|\\342\\200\\[0-7]{{3}})"
)
#: RFC 2045 §6.7: a line that goes on in the next one
_SOFT = r"(?:=\r?\n)?"
#: a line that ends within the local part of somebody else's address, whose rest may look like the person's
_BROKEN = rf"(?:(?:^.?|[^=%].)[[:alnum:]._+{_LETTERS}-]|[=%](?!{_SIGN})[[:xdigit:]]{{2}})=\r\n"
_AFTER = rf"(?!{_SOFT}(?:[[:alnum:]_-]|(?:\.|[%=]2e){_SOFT}[[:alnum:]]))"


@dataclass(frozen=True, slots=True)
class Person:
    """Whose data: `address` is an addr-spec with the domain in A-labels. `tenant_id` None: of every tenant."""

    address: str
    tenant_id: UUID | None
    keep_suppressions: bool = True

    def params(self) -> dict[str, Any]:
        local, _, domain = folded(self.address).rpartition("@")
        domains = {domain, _unicode(domain)}
        names = "|".join(_word(name) for name in sorted(domains))
        word = _word(f"{local}@")
        return {
            "addresses": [f"{local}@{name}" for name in sorted(domains)],
            # looked for behind what was found alone, where a lookbehind costs little
            "like": f"{_BEFORE}{word}(?<!{_BROKEN}{word}){_SOFT}(?:{names}){_AFTER}",
            "put": rf"\1{GONE}",
            "tenant": self.tenant_id,
        }


def _word(text: str) -> str:
    return _SOFT.join(map(_letter, text))


def _letter(c: str) -> str:
    """A character as texts and octets have it: a database's collation may know the case of ASCII alone."""
    if c.isascii() and c.isalnum():
        return c
    forms, parted = set(), set()
    for form in {c, c.upper()}:
        octets = form.encode()
        forms |= {form, json.dumps(form)[1:-1], html.escape(form), "".join(f"%{o:02x}" for o in octets)}
        forms |= {"".join(word.format(ord(one)) for one in form) for word in ("&#{};", "&#x{:x};", "\\u{:04x}")}
        forms.add("".join(f"\\{o:03o}" for o in octets))
        parted.add(_SOFT.join(f"={o:02x}" for o in octets))
    return f"(?:{'|'.join(sorted({*map(re.escape, forms), *parted}))})"


def _unicode(domain: str) -> str:
    try:
        return domain.encode("ascii").decode("idna")
    except UnicodeError:
        return domain
