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
#: enhanced code anywhere in a text, not a piece of an IP address or version number
ENHANCED = re.compile(r"(?<![\d.\[])([245]\.\d{1,2}\.\d{1,3})(?![\d.\]]\d|\d|\])")
#: reply code at the start of a text or after a host's words; never inside a longer number
REPLY_CODE = re.compile(r"(?<![\w.#/<-])([245][0-5]\d)(?=[\s\-:]|$)")


@dataclass(frozen=True, slots=True)
class Finding:
    """One address and what was said about it. `status` and `action` are "" where the format has none.

    `stage` is the command that the relay had reached, where its words tell.
    """

    address: str
    diagnostic: str = ""
    status: str = ""
    action: str = ""
    stage: Stage | None = None
    #: the format itself says that delivery was given up for age
    expired: bool = False


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


def tidy(address: str) -> str:
    """An address without the brackets, quotes and dots that prose puts around it; "" where none is left."""
    address = address.strip().strip("<>()[]\"';,:`").rstrip(".")
    for prefix in ("mailto:", "smtp:", "smtp=", "rfc822:", "rfc822="):  # X.400 writes dda:SMTP=a@b
        if address.lower().startswith(prefix):
            address = address[len(prefix) :]
    local, at, domain = address.rpartition("@")
    return address if at and local and domain else ""


def enhanced_codes(text: str) -> list[str]:
    """Enhanced status codes in a text in order (RFC 3463), first 4,000 characters."""
    return [found[1] for found in ENHANCED.finditer(text[:MAX_DIAGNOSTIC_CHARS])]


def reply_codes(text: str) -> list[int]:
    return [int(found[1]) for found in REPLY_CODE.finditer(text[:MAX_DIAGNOSTIC_CHARS])]


#: words by which MTAs tell the stage of a remote refusal, longest first
_STAGES = (
    ("after end of data", Stage.DOT),
    ("in reply to end of data", Stage.DOT),
    ("end of data", Stage.DOT),
    ("after i sent the message", Stage.DOT),
    ("in reply to data", Stage.DATA),
    ("after data", Stage.DATA),
    (">>> data", Stage.DATA),
    ("following data command", Stage.DATA),
    ("in reply to rcpt", Stage.RCPT),
    ("after rcpt", Stage.RCPT),
    ("does not like recipient", Stage.RCPT),
    ("did not like our rcpt", Stage.RCPT),
    ("following rcpt command", Stage.RCPT),
    ("in reply to mail", Stage.MAIL),
    ("after mail from", Stage.MAIL),
    ("did not like our mail", Stage.MAIL),
    ("does not like my sender", Stage.MAIL),
    ("following mail", Stage.MAIL),
    ("after initial connection", Stage.GREETING),
    ("refused to talk to me", Stage.GREETING),
    ("in reply to ehlo", Stage.EHLO),
    ("in reply to helo", Stage.EHLO),
    ("after helo", Stage.EHLO),
    ("after ehlo", Stage.EHLO),
)


def stage_of(text: str) -> Stage | None:
    """The stage that a relay's own words name; None where they name none."""
    flat = " ".join(text[:MAX_DIAGNOSTIC_CHARS].lower().split())
    return next((stage for words, stage in _STAGES if words in flat), None)
