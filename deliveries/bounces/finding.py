"""What a reader of one mail format finds about one address, and the small readings all formats share."""

from __future__ import annotations

import re
from dataclasses import dataclass

from deliveries.smtp.outcome import Stage

#: a DSN of ours names one recipient; list servers' bounces name some dozens
MAX_RECIPIENTS = 100
MAX_DIAGNOSTIC_CHARS = 4_000

_ATOM = r"[^\s<>()\[\]\",;:@\\\x00-\x1f]"
#: bounded on both sides (RFC 5321 §4.5.3.1), so that a search is linear
ADDRESS = re.compile(
    rf"(?<![^\s<>()\[\]\",;:'=`])(\"[^\"\n]{{1,64}}\"|{_ATOM}{{1,120}})@((?:[\w-]{{1,63}}\.){{0,10}}[\w-]{{1,63}}|\[[\d.:a-fA-F]{{3,45}}\])",
)
#: enhanced code anywhere in a text, not a piece of an IP address or version number; qmail and others write `[#5.1.1]`
ENHANCED = re.compile(r"(?<=#)[245]\.\d{1,3}\.\d{1,3}(?!\d)|(?<![\d.\[])[245]\.\d{1,3}\.\d{1,3}(?![\d.\]]\d|\d|\])")
#: reply code at the start of a text or after a host's words; never inside a longer number
REPLY_CODE = re.compile(r"(?<![\w.#/<-])([245][0-5]\d)(?=[\s\-:]|$)")


@dataclass(frozen=True, slots=True)
class Finding:
    """One address and what was said about it. `status` and `action` are "" where the format has none.

    `stage` is the command that the relay had reached, where its words tell. `letter`: the diagnostic is a whole letter.
    """

    address: str
    diagnostic: str = ""
    status: str = ""
    action: str = ""
    stage: Stage | None = None
    letter: bool = False


def addresses(text: str, limit: int = MAX_RECIPIENTS) -> list[str]:
    """Addresses in a text in order, each once, at most `limit`."""
    seen: dict[str, str] = {}
    for found in ADDRESS.finditer(text):
        address = tidy(found[0])
        if address:
            seen.setdefault(address.lower(), address)
        if len(seen) >= limit:
            break
    return list(seen.values())


#: words of a script without spaces that run into an ASCII address: 收件人：kim@example.net的邮件
_RUNS_IN = re.compile(r"^[^\x00-\x7f]+(?=[!-~]{1,64}@)")
_RUNS_ON = re.compile(r"(\.[a-zA-Z]{2,24})[^\x00-\x7f].*")


def tidy(address: str) -> str:
    """An address without what prose puts around it: brackets, quotes, dots, words; "" where none is left."""
    if not address.isascii():
        local, at, domain = address.rpartition("@")
        address = _RUNS_IN.sub("", local + at) + _RUNS_ON.sub(r"\1", domain)
    quoted = address.strip("<> ").startswith('"') and '"@' in address
    address = address.strip().strip("<>;, " if quoted else "<>()[]\"';,:`").rstrip(".")
    for prefix in ("mailto:", "smtp:", "smtp=", "rfc822:", "rfc822="):  # X.400 writes dda:SMTP=a@b
        if address.lower().startswith(prefix):
            address = address[len(prefix) :]
    local, at, domain = address.rpartition("@")
    return address if at and local and domain else ""


def enhanced_codes(text: str) -> list[str]:
    """Enhanced status codes in a text in order (RFC 3463), first 4,000 characters."""
    return [found[0] for found in ENHANCED.finditer(text[:MAX_DIAGNOSTIC_CHARS])]


def reply_codes(text: str) -> list[int]:
    return [int(found[1]) for found in REPLY_CODE.finditer(text[:MAX_DIAGNOSTIC_CHARS])]
