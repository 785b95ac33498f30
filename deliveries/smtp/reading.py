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

    Only CRLF ends a line, so that nobody smuggles a second mail in. `max_octets` of 0 is no limit.
    """
    content = bytearray()
    refusal, octets, at_start = "", 0, True
    while True:
        try:
            piece = await reader.readuntil(b"\r\n")
            ends = True
        except asyncio.LimitOverrunError as error:
            # what may be the beginning of a CRLF stays in the reader
            piece = await reader.read(error.consumed)
            ends = False
        if at_start and piece == b".\r\n":
            break
        octets += len(piece)
        if not refusal:
            if not ends or len(piece) > MAX_INBOUND_LINE_OCTETS:
                refusal = TOO_LONG
            elif max_octets and octets > max_octets:
                refusal = TOO_MUCH
            elif not share.grow(len(piece)):
                refusal = NO_ROOM
            else:
                content += piece[1:] if at_start and piece.startswith(b".") else piece
            if refusal:
                content = bytearray()
                share.drop()
        at_start = ends
    return refusal or bytes(content)
