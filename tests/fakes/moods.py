"""A receiver in three moods on one port of three loopback addresses: one is good, one asks to slow down, one says
nothing at all after the connection (a tar-pit). Any domain; it counts what it took and how many came at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator

GOOD, STORM, TARPIT = "127.0.0.1", "127.0.0.2", "127.0.0.3"
SLOWER = "421 4.7.28 Gmail has detected an unusual rate of unsolicited mail"


class Moods:
    """`took` counts mails by recipient's domain, `most` the connections at once by address, `order` the recipients."""

    def __init__(self) -> None:
        self.port = 0
        self.took: Counter[str] = Counter()
        self.order: list[str] = []
        self.came: Counter[str] = Counter()
        self.open: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.calm = False  #: the storm is over: STORM takes mail as GOOD does
        self.let_go = asyncio.Event()
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        sockets = []
        for address in (GOOD, STORM, TARPIT):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, self.port))
            self.port = sock.getsockname()[1]
            sockets.append(sock)
        for sock in sockets:
            self._servers.append(await asyncio.start_server(self._serve, sock=sock, backlog=1024))

    async def stop(self) -> None:
        self.let_go.set()
        for server in self._servers:
            server.close()
        await asyncio.sleep(0.05)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("sockname")[0]
        self.came[address] += 1
        self.open[address] += 1
        self.most[address] = max(self.most[address], self.open[address])
        try:
            if address == TARPIT:
                await self.let_go.wait()
            else:
                await self._converse(address, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open[address] -= 1
            writer.close()

    async def _converse(self, address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(text: str) -> None:
            writer.write(text.encode() + b"\r\n")

        to = ""
        say("220 mx ESMTP")
        while line := await reader.readline():
            word = line[:4].upper()
            if word == b"EHLO":
                say("250-mx\r\n250 PIPELINING")
            elif word == b"MAIL" and address == STORM and not self.calm:
                say(SLOWER)
                return
            elif word == b"RCPT":
                to = line.decode().partition("<")[2].partition(">")[0]
                say("250 2.1.5 ok")
            elif word == b"DATA":
                say("354 go on")
                await reader.readuntil(b"\r\n.\r\n")
                self.took[to.partition("@")[2]] += 1
                self.order.append(to)
                say("250 2.0.0 ok")
            elif word == b"QUIT":
                say("221 2.0.0 bye")
                return
            else:
                say("250 2.0.0 ok")
            await writer.drain()


@contextlib.contextmanager
def moods() -> Iterator[Moods]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    state = Moods()
    try:
        asyncio.run_coroutine_threadsafe(state.start(), loop).result(60)
        yield state
    finally:
        asyncio.run_coroutine_threadsafe(state.stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
