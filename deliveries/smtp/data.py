"""Mail data on the wire (RFC 5321 §4.5.2): CRLF line ends only, leading dots doubled.

`check` refuses what no receiver can be trusted with; `stuffed` is what is written before the final dot.
"""

from __future__ import annotations

from deliveries.errors import ComposeError
from deliveries.smtp.limits import MAX_LINE_OCTETS

FINAL_DOT = b".\r\n"


def check(octets: bytes) -> None:
    """Raise ComposeError for NUL, a bare CR or LF (RFC 5321 §2.3.8), or a line above 998 octets.

    Bare line ends are never mended here: the signature is made already, and a receiver that reads them as line
    ends would see another mail than the one we signed (SMTP smuggling).
    """
    if b"\x00" in octets:
        raise ComposeError("NUL in the mail data")
    ends = octets.count(b"\r\n")
    if octets.count(b"\n") != ends or octets.count(b"\r") != ends:
        raise ComposeError("bare CR or LF in the mail data")
    # from line end to line end in the longest lawful steps: few look-ups for thousands of octets
    start, last = 0, len(octets)
    while last - start > MAX_LINE_OCTETS:
        end = octets.rfind(b"\n", start, start + MAX_LINE_OCTETS + 2)
        if end < 0:
            raise ComposeError(f"a line of more than {MAX_LINE_OCTETS} octets in the mail data")
        start = end + 1


def stuffed(octets: bytes) -> bytes:
    """`octets` with leading dots doubled and a line end at the end, ready for the final dot; b"" stays b""."""
    if not octets:
        return b""
    if not octets.endswith(b"\r\n"):
        octets += b"\r\n"
    if octets.startswith(b"."):
        octets = b"." + octets
    return octets.replace(b"\r\n.", b"\r\n..") if b"\r\n." in octets else octets
