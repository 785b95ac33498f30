"""A process with two receivers: SMTP that notes when each final dot came, and HTTP that answers every webhook 200.

python -m benchmarks.sinks ADDRESS:PORT        says the webhook port, then ready; a line on stdin asks:
count → how many mails; times → one JSON object, recipient → monotonic seconds, and forgets them; posts → webhooks
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

import uvloop

times: dict[str, float] = {}
posts = 0


class Smtp(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.inbox = b""
        self.in_data = False
        self.recipient = ""
        self.transport.write(b"220 sink.bench.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self.inbox += data
        while True:
            end = self.inbox.find(b"\r\n.\r\n" if self.in_data else b"\r\n")
            if end < 0:
                return
            if self.in_data:
                times[self.recipient] = time.monotonic()
                self.inbox = self.inbox[end + 5 :]
                self.in_data = False
                self.transport.write(b"250 2.0.0 Ok\r\n")
                continue
            line, self.inbox = self.inbox[:end], self.inbox[end + 2 :]
            self._command(line)

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb == b"EHLO":
            self.transport.write(b"250-sink.bench.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
        elif verb == b"DATA":
            self.in_data = True
            self.transport.write(b"354 End data with <CR><LF>.<CR><LF>\r\n")
        elif verb == b"QUIT":
            self.transport.write(b"221 2.0.0 Bye\r\n")
            self.transport.close()
        else:
            if verb == b"RCPT":
                self.recipient = line.partition(b"<")[2].partition(b">")[0].decode()
            self.transport.write(b"250 2.0.0 Ok\r\n")


class Webhooks(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.inbox = b""

    def data_received(self, data: bytes) -> None:
        global posts
        self.inbox += data
        while (end := self.inbox.find(b"\r\n\r\n")) >= 0:
            length = 0
            for line in self.inbox[:end].lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line[15:])
            if len(self.inbox) < end + 4 + length:
                return
            self.inbox = self.inbox[end + 4 + length :]
            posts += 1
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


async def main(where: str) -> None:
    loop = asyncio.get_running_loop()
    address, _, port = where.rpartition(":")
    await loop.create_server(Smtp, address, int(port), backlog=1000)
    hooks = await loop.create_server(Webhooks, "127.0.0.1", 0, backlog=1000)
    print(hooks.sockets[0].getsockname()[1], flush=True)
    asked = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while word := (await asked.readline()).decode().strip():
        if word == "count":
            print(len(times), flush=True)
        elif word == "times":
            print(json.dumps(times), flush=True)
            times.clear()
        elif word == "posts":
            print(posts, flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
