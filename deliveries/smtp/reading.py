"""Mail data read from a client (RFC 5321 §4.1.1.4, §4.5.2), in memory that is bounded whatever is sent.

aiosmtpd keeps an object per line, some twenty times the octets of short ones, and the pieces of a line that never ends
without any bound: one connection could take all memory of the host. Here the data grow in one buffer, and what cannot
be stored is read to its end and dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from deliveries.smtp.limits import MAX_INBOUND_LINE_OCTETS

#: a mail as small as this has always room: bounces and notes go on while large mails wait
SMALL_OCTETS = 1024 * 1024

_LINE_END = b"\r\n"
_END = b"\r\n.\r\n"
#: of what the reader holds, which is bounded by its own limit
_ALL = 1 << 30

TOO_LONG = "500 5.6.0 A line of the mail data is too long"
TOO_MUCH = "552 5.3.4 Message too big"
NO_ROOM = "452 4.3.1 Too many large mails at once, try again later"


class Room:
    """Octets of mail data that all conversations of a listener hold together, from the first one to the answer."""

    def __init__(self, most_octets: int) -> None:
        self.most_octets = most_octets
        self.held_octets = 0

    @contextmanager
    def share(self) -> Iterator[Share]:
        share = Share(self)
        try:
            yield share
        finally:
            share.drop()


class Share:
    """What one mail holds of it."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.octets = 0

    def grow(self, octets: int) -> bool:
        """Whether there is room for so many more; a small mail has it always."""
        room = self._room
        if self.octets + octets > SMALL_OCTETS and room.held_octets + octets > room.most_octets:
            return False
        self.octets += octets
        room.held_octets += octets
        return True

    def drop(self) -> None:
        self._room.held_octets -= self.octets
        self.octets = 0


async def read_data(reader: asyncio.StreamReader, share: Share, max_octets: int) -> bytes | str:
    """What stands before CRLF.CRLF, dots unstuffed; or the reply that refuses it, once all of it was read.

    Only CRLF ends a line, so that nobody smuggles a second mail in. `max_octets` of 0 is no limit. What a client sent
    behind the dot (RFC 2920 §3.1) stays in the reader. Never a step per line: there may be millions.
    """
    held = bytearray(_LINE_END)  # as if a line had ended, so that the first one is like all others
    refusal, fits = "", 0
    while True:
        piece = await reader.read(_ALL)
        if not piece:
            raise asyncio.IncompleteReadError(b"", None)
        look = max(len(held) - len(_END) + 1, 0)
        held += piece
        if not refusal and not share.grow(len(piece)):
            refusal = NO_ROOM
        end = held.find(_END, look)
        if end >= 0:
            # nobody came in between: the reader is empty
            if (rest := held[end + len(_END) :]) and not reader.at_eof():
                reader.feed_data(rest)
            del held[end + len(_LINE_END) :]
        if not refusal:
            fits = _lines_fit(held, fits)
            if fits < 0:
                refusal = TOO_LONG
            elif max_octets and len(held) - len(_LINE_END) > max_octets + (0 if end >= 0 else len(_END)):
                refusal = TOO_MUCH
        if end >= 0:
            return refusal or bytes(memoryview(held.replace(_LINE_END + b".", _LINE_END))[len(_LINE_END) :])
        if refusal:
            del held[: 1 - len(_END)]
            share.drop()


def _lines_fit(held: bytearray, start: int) -> int:
    """The start of a line, as far on as needed to know that none before it is too long; -1 where one is."""
    while len(held) - start > MAX_INBOUND_LINE_OCTETS:
        found = held.rfind(_LINE_END, start, start + MAX_INBOUND_LINE_OCTETS)
        if found < 0:
            return -1
        start = found + len(_LINE_END)
    return start
