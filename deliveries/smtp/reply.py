"""SMTP replies (RFC 5321 §4.2) and enhanced status codes (RFC 3463)."""

from __future__ import annotations

import re
from dataclasses import dataclass

#: RFC 5321 §4.2.3: the server lost count of the commands; it says nothing of the mail
BAD_SEQUENCE = 503

_ENHANCED = re.compile(r"\s*([245])\.(\d{1,3})\.(\d{1,3})(?=[\s:,;)\]-]|$)")


@dataclass(frozen=True, slots=True)
class EnhancedCode:
    """class.subject.detail, RFC 3463 §2."""

    klass: int
    subject: int
    detail: int

    def __str__(self) -> str:
        return f"{self.klass}.{self.subject}.{self.detail}"


def parse_enhanced(text: str) -> EnhancedCode | None:
    """The code at the start of `text`; None where there is none or it is malformed (`5.1`, `5.1.1000`)."""
    found = _ENHANCED.match(text)
    return EnhancedCode(int(found[1]), int(found[2]), int(found[3])) if found else None


def clean(text: str) -> str:
    """Text from a peer made fit for storage: no NUL, no surrogates, no control characters but tab."""
    if text.isprintable():  # neither controls nor surrogates are: nearly every reply ends here
        return text
    text = text.encode("utf-8", "replace").decode("utf-8")
    return "".join(c if c == "\t" or (c >= " " and c != "\x7f") else " " for c in text)


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete reply: its three-digit `code` and `lines` (cleaned text after the code, one per line)."""

    code: int
    lines: tuple[str, ...] = ()

    @property
    def enhanced(self) -> EnhancedCode | None:
        """The enhanced code of the first line, only where its class agrees with the code's first digit."""
        code = parse_enhanced(self.lines[0]) if self.lines else None
        return code if code and code.klass == self.code // 100 else None

    @property
    def text(self) -> str:
        """One line for a person: `550 5.1.1 no such user`."""
        return f"{self.code} {' '.join(line.strip() for line in self.lines)}".strip()

    @property
    def positive(self) -> bool:
        """2xx: RFC 5321 §4.3.2, unknown codes go by their first digit."""
        return self.code // 100 == 2

    @property
    def transient(self) -> bool:
        return self.code // 100 == 4

    @property
    def permanent(self) -> bool:
        return self.code // 100 == 5
