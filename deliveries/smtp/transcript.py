"""The conversation of one transaction, as a person reads it: `12 C: EHLO …`, milliseconds since its start.

No body octets and no credentials are ever given to it; text of the peer arrives cleaned (`reply.clean`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from deliveries.smtp.limits import MAX_TRANSCRIPT_ENTRY, MAX_TRANSCRIPT_OCTETS
from deliveries.smtp.reply import Reply, clean

_CUT = "\n… (shortened)\n"


class Transcript:
    """Lines `<ms> <who>: <text>`; who is C (we), S (the server) or `*` (what happened beside the words)."""

    __slots__ = ("_clock", "_lines", "_started")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._lines: list[str] = []

    def note(self, text: str) -> None:
        self._add("*", clean(text))

    def said(self, command: str) -> None:
        """A command of ours; the caller masks secrets."""
        self._add("C", clean(command))

    def heard(self, reply: Reply) -> None:
        lines = reply.lines or ("",)
        last = len(lines) - 1
        text = "\n".join(f"{reply.code}{' ' if i == last else '-'}{line}" for i, line in enumerate(lines))
        self._add("S", text)

    def _add(self, who: str, text: str) -> None:
        if len(text) > MAX_TRANSCRIPT_ENTRY:
            text = text[:MAX_TRANSCRIPT_ENTRY] + "…"
        ms = int((self._clock() - self._started) * 1000)
        self._lines.append(f"{ms} {who}: {text}")

    def render(self) -> str:
        """≤ MAX_TRANSCRIPT_OCTETS of UTF-8: beginning and end are kept, since the end holds the decision."""
        text = "\n".join(self._lines)
        octets = text.encode()
        if len(octets) <= MAX_TRANSCRIPT_OCTETS:
            return text
        room = MAX_TRANSCRIPT_OCTETS - len(_CUT.encode())
        head, tail = octets[: room // 2], octets[-(room - room // 2) :]
        return head.decode("utf-8", "ignore") + _CUT + tail.decode("utf-8", "ignore")
