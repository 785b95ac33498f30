"""A client in a process of its own: as many mails as asked, prepared before the clock starts.

    python -m benchmarks.feeder '{"way": "single" | "batch" | "paced" | "paced-smtp", "port": …, …}'

Says "ready", waits for a line, sends everything, and says one JSON line: begun, ended (monotonic seconds), refused,
and when paced the recipient → the moment at which the last octet of its POST (or of its mail) was written; "took" then
holds (moment at which it was due, seconds from then to the answer) of every POST.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, cast

import uvloop

#: 5 KB of mail: a text of 1.6 KB and an HTML part of 3.4 KB
_TEXT = "Thank you for your order. It was packed this morning and leaves our house today.\n" * 20
_HTML = "<html><body>" + "<p>Thank you for your order. It was <b>packed</b> this morning.</p>\n" * 50 + "</body></html>"


def mail(number: int, run: str, domain: str, sender: str) -> tuple[str, dict[str, Any]]:
    recipient = f"{run}-{number}@{domain}"
    subject = f"Your order {run}-{number}"
    text, html = f"Order {run}-{number}\n{_TEXT}", _HTML
    return recipient, {"from": f"Shop <{sender}>", "to": recipient, "subject": subject, "html": html, "text": text}


def request(path: str, body: Any, key: str) -> bytes:
    octets = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(octets)}\r\n\r\n"
    )
    return head.encode() + octets


def requests(plan: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """(recipient, octets) of each POST; "" for a batch."""
    domains = plan["domains"]
    mails = [mail(n, plan["run"], domains[n % len(domains)], plan["sender"]) for n in range(plan["mails"])]
    if plan["way"] == "batch":
        for start in range(0, len(mails), 100):
            yield "", request("/emails/batch", [m for _, m in mails[start : start + 100]], plan["key"])
    else:
        for recipient, body in mails:
            yield recipient, request("/emails", body, plan["key"])


class Client(asyncio.Protocol):
    """One kept-open connection: the next request after the answer to the last."""

    def __init__(self, work: deque[tuple[str, bytes]], closed: bool = True) -> None:
        self.work = work
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.idle: asyncio.Event = asyncio.Event()
        self.inbox = b""
        self.refused: list[str] = []
        self.closed_loop = closed
        self.due = 0.0
        self.took: list[tuple[float, float]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.idle.set()

    def next(self) -> None:
        if not self.work:
            if not self.ended.done():
                self.ended.set_result(None)
            return
        self.transport.write(self.work.popleft()[1])

    def data_received(self, data: bytes) -> None:
        self.inbox += data
        end = self.inbox.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self.inbox[:end].lower().find(b"content-length:")
        length = int(self.inbox[at + 15 : end].split(b"\r\n")[0])
        if len(self.inbox) < end + 4 + length:
            return
        if not self.inbox.startswith(b"HTTP/1.1 2"):
            self.refused.append(self.inbox[:500].decode(errors="replace"))
        self.inbox = b""
        self.took.append((self.due, time.monotonic() - self.due))
        self.idle.set()
        if self.closed_loop:
            self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(ConnectionError(f"the server closed the connection: {exc}"))


async def flat_out(plan: dict[str, Any]) -> dict[str, Any]:
    work = deque(requests(plan))
    loop = asyncio.get_running_loop()
    await _start()
    begun = time.monotonic()
    clients = [
        (await loop.create_connection(lambda: Client(work), "127.0.0.1", plan["port"]))[1]
        for _ in range(plan["connections"])
    ]
    for client in clients:
        client.next()
    await asyncio.gather(*(c.ended for c in clients))
    return {"begun": begun, "ended": time.monotonic(), "refused": [r for c in clients for r in c.refused]}


async def paced(plan: dict[str, Any]) -> dict[str, Any]:
    """So many a second, whatever the answers do; a connection of its own for each POST under way."""
    work = list(requests(plan))
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    sent: dict[str, float] = {}
    await _start()
    begun = time.monotonic()
    for number, (recipient, octets) in enumerate(work):
        due = begun + number / plan["per_s"]
        await _until(due)
        client = next((c for c in clients if c.idle.is_set()), None)
        if client is None:
            client = (await loop.create_connection(lambda: Client(deque(), closed=False), "127.0.0.1", plan["port"]))[1]
            clients.append(client)
        client.idle.clear()
        client.due = due
        client.transport.write(octets)
        sent[recipient] = time.monotonic()
    await asyncio.wait_for(asyncio.gather(*(c.idle.wait() for c in clients)), 60)
    refused, took = [r for c in clients for r in c.refused], sorted(t for c in clients for t in c.took)
    return {"begun": begun, "ended": time.monotonic(), "refused": refused, "sent": sent, "took": took}


async def paced_smtp(plan: dict[str, Any]) -> dict[str, Any]:
    """The same by SMTP, a kept-open session for each mail under way."""
    octets = b"X" * 70 + b"\r\n"
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    sent: dict[str, float] = {}
    tasks = []

    async def one(number: int) -> None:
        recipient = f"{plan['run']}-{number}@{plan['domains'][number % len(plan['domains'])]}"
        if idle:
            reader, writer = idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", plan["port"])
            await reader.readline()
            await _say(reader, writer, b"EHLO feeder.bench.test")
        await _say(reader, writer, f"MAIL FROM:<{plan['sender']}>".encode())
        await _say(reader, writer, f"RCPT TO:<{recipient}>".encode())
        await _say(reader, writer, b"DATA")
        head = f"From: {plan['sender']}\r\nTo: {recipient}\r\nSubject: {number}\r\nMessage-ID: <{recipient}>\r\n\r\n"
        writer.write(head.encode() + octets * 70 + b".\r\n")
        sent[recipient] = time.monotonic()
        await _answer(reader)
        idle.append((reader, writer))

    await _start()
    begun = time.monotonic()
    for number in range(plan["mails"]):
        await _until(begun + number / plan["per_s"])
        tasks.append(asyncio.create_task(one(number)))
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    return {"begun": begun, "ended": time.monotonic(), "refused": [], "sent": sent}


async def _say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> None:
    writer.write(line + b"\r\n")
    await _answer(reader)


async def _answer(reader: asyncio.StreamReader) -> None:
    while True:
        line = await reader.readline()
        if line[:1] not in b"23" or not line:
            raise RuntimeError(f"refused: {line!r}")
        if line[3:4] != b"-":
            return


async def _until(moment: float) -> None:
    if (left := moment - time.monotonic()) > 0:
        await asyncio.sleep(left)


async def _start() -> None:
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    plan = json.loads(sys.argv[1])
    ways = {"single": flat_out, "batch": flat_out, "paced": paced, "paced-smtp": paced_smtp}
    print(json.dumps(uvloop.run(ways[plan["way"]](plan))), flush=True)
