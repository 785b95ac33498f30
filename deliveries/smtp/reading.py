"""Mail data read from a client (RFC 5321 §4.1.1.4, §4.5.2), in memory that is bounded whatever is sent.

aiosmtpd keeps an object per line, some twenty times the octets of short ones, and the pieces of a line that never ends
without any bound: one connection could take all memory of the host. Here the data grow in one buffer, and what cannot
be stored is read to its end and dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deliveries.smtp.limits import MAX_INBOUND_LINE_OCTETS

#: a mail as small as this has always room: bounces and notes go on while large mails wait
SMALL_OCTETS = 1024 * 1024
#: with all room taken, a large mail of which less than this came for a minute gives way: a few that trickle would hold
#: all of it for as long as a connection may live. A slow line brings more, and is told to come again at worst
SLOW_OCTETS_PER_S = 4_096
SLOW_S = 60.0

_LINE_END = b"\r\n"
_END = b"\r\n.\r\n"
#: of what the reader holds, which is bounded by its own limit
_ALL = 1 << 30

TOO_LONG = "500 5.6.0 A line of the mail data is too long"
TOO_MUCH = "552 5.3.4 Message too big"
NO_ROOM = "452 4.3.1 Too many large mails at once, try again later"


class Room:
    """Octets of large mails that all conversations of a listener hold together, from the first one to the answer.

    Small ones are bounded by the number of connections, and take no room: a crowd of them keeps no large mail out.
    """

    def __init__(self, most_octets: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most_octets = most_octets
        self.held_octets = 0
        self.clock = clock
        self._shares: set[Share] = set()

    @contextmanager
    def share(self) -> Iterator[Share]:
        share = Share(self)
        self._shares.add(share)
        try:
            yield share
        finally:
            self._shares.discard(share)
            share.drop()

    def has(self, octets: int, asks: Share) -> bool:
        """Whether there is room for so many more of `asks`; slow ones beside it give way, the largest first."""
        while self.held_octets + octets > self.most_octets:
            others = [share for share in self._shares if share is not asks and share.is_slow()]
            if not others:
                return False
            max(others, key=lambda share: share.octets).give_way()
        return True


class Share:
    """What one mail holds of it."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.octets = 0
        self._held = 0  #: of the room: none while the mail is small
        self.data: bytearray | None = None  #: while it is read
        self.gave_way = False
        self._since, self._before = room.clock(), 0  #: of the minute that is looked at

    def grow(self, octets: int) -> bool:
        """Whether there is room for so many more; a small mail has it always."""
        whole = self.octets + octets
        if whole > SMALL_OCTETS:
            wanted = whole - self._held
            if not self._room.has(wanted, self):
                return False
            self._held += wanted
            self._room.held_octets += wanted
        self.octets = whole
        self.is_slow()  # minutes begin as it comes
        return True

    def is_slow(self) -> bool:
        """Whether too little of a large mail came for a minute or more; after a good one the next begins."""
        now = self._room.clock()
        if now - self._since < SLOW_S or self.data is None or self.octets <= SMALL_OCTETS:
            return False
        if self.octets - self._before < SLOW_OCTETS_PER_S * (now - self._since):
            return True
        self._since, self._before = now, self.octets
        return False

    def give_way(self) -> None:
        """What has come is dropped, and what comes will be: its room is needed."""
        assert self.data is not None
        self.gave_way = True
        del self.data[: 1 - len(_END)]
        self.drop()

    def drop(self) -> None:
        self._room.held_octets -= self._held
        self.octets = self._held = 0


async def read_data(reader: asyncio.StreamReader, share: Share, max_octets: int) -> bytes | str:
    """What stands before CRLF.CRLF, dots unstuffed; or the reply that refuses it, once all of it was read.

    Only CRLF ends a line, so that nobody smuggles a second mail in. `max_octets` of 0 is no limit. What a client sent
    behind the dot (RFC 2920 §3.1) stays in the reader. Never a step per line: there may be millions.
    """
    held = share.data = bytearray(_LINE_END)  # as if a line had ended, so that the first one is like all others
    refusal, fits = "", 0
    while True:
        piece = await reader.read(_ALL)
        if not piece:
            raise asyncio.IncompleteReadError(b"", None)
        if share.gave_way:
            refusal = refusal or NO_ROOM
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
            share.data = None  # it is whole, and keeps its room until it is stored
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
