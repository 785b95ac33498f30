"""Plays a server's side of a dialogue file against a real client over a real socket.

A file of tests/dialogues is read line by line:

    # a comment
    @tls may             a setting of the test: tls, timer NAME=S, mails N, utf8, eight_bit, octets N, own_name, lmtp,
                         auth, pause S, dsn, to ADDRESS
    = replied dot 250    what the client must make of it, a line per mail (broken STAGE CAUSE, unanswered, unable CODE)
    S: 220 mx            the server says this line          S! 250 ok    the same without a line end
    C: MAIL FROM:*       the client must say this (shell pattern)
    C.                   the client sends mail data up to the final dot
    WAIT 0.3             a pause        TLS    handshake with the good certificate     BADTLS  with one for another name
    CLOSE                the server closes           RESET   closes with a RST         HANG   reads on, says nothing
    MANY 4000            so many continuation lines     LONG 20000  a line of so many octets without end
    SLOWLY 0.01          reads mail data with such a pause after each 64 KB, up to the final dot
    END                  the client must close now (QUIT is borne)
    NEXT                 the lines below are for the next connection
"""

from __future__ import annotations

import asyncio
import fnmatch
import socket
import ssl
import struct
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Dialogue:
    """A parsed file: `connections` are the steps of each, in order."""

    name: str
    settings: dict[str, list[str]]
    expected: list[str]
    connections: list[list[tuple[str, str]]]

    def setting(self, key: str) -> str | None:
        found = self.settings.get(key)
        return found[-1] if found else None


def parse(path: Path) -> Dialogue:
    settings: dict[str, list[str]] = {}
    expected: list[str] = []
    connections: list[list[tuple[str, str]]] = [[]]
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, rest = line.partition(" ")
        if not line.strip() or word == "#":
            continue
        if word.startswith("@"):
            settings.setdefault(word[1:], []).append(rest)
        elif word == "=":
            expected.append(rest)
        elif word == "NEXT":
            connections.append([])
        else:
            connections[-1].append((word, rest))
    return Dialogue(path.stem, settings, expected, connections)


@dataclass
class Player:
    """A listening fake server. `faults` are the client's departures from the script, `contents` the mail data."""

    connections: list[list[tuple[str, str]]]
    tls: ssl.SSLContext | None = None
    bad_tls: ssl.SSLContext | None = None
    faults: list[str] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    played: int = 0
    port: int = 0

    async def __aenter__(self) -> Player:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 16)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        number = self.played
        self.played += 1
        if number >= len(self.connections):
            self.faults.append(f"connection {number + 1} was not expected")
            writer.close()
            return
        try:
            for word, rest in self.connections[number]:
                if not await self._step(word, rest, reader, writer):
                    break
        except (OSError, asyncio.IncompleteReadError) as error:
            self.faults.append(f"at {word} {rest}: {type(error).__name__}")
        except asyncio.CancelledError:
            pass  # the test is over; asyncio's streams would log it
        finally:
            writer.close()

    async def _step(self, word: str, rest: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        match word:
            case "S:":
                writer.write(rest.encode() + b"\r\n")
            case "S!":
                writer.write(rest.replace("\\r", "\r").replace("\\n", "\n").encode())
            case "MANY":
                writer.write(b"250-EXTENSION\r\n" * int(rest))
            case "LONG":
                writer.write(b"250-" + b"x" * int(rest))
            case "SLOWLY":
                octets = b""
                while not octets.endswith(b"\r\n.\r\n"):
                    octets = octets[-5:] + await reader.read(65536)
                    await asyncio.sleep(float(rest))
            case "C:":
                line = (await reader.readuntil(b"\r\n")).decode().removesuffix("\r\n")
                self.heard.append(line)
                if not fnmatch.fnmatchcase(line, rest.replace("[", "[[]")):
                    self.faults.append(f"expected {rest!r}, heard {line!r}")
                    return False
            case "C.":
                octets = b""
                while octets != b".\r\n" and not octets.endswith(b"\r\n.\r\n"):
                    octets += await reader.readuntil(b"\r\n")
                self.contents.append(octets)
            case "WAIT":
                await writer.drain()
                await asyncio.sleep(float(rest))
            case "TLS" | "BADTLS":
                context = self.tls if word == "TLS" else self.bad_tls
                assert context
                try:
                    await writer.start_tls(context, ssl_handshake_timeout=60)
                except OSError:
                    if rest != "refused":
                        raise
                    return False
            case "CLOSE":
                writer.close()
                return False
            case "RESET":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
                return False
            case "HANG":
                while await reader.read(65536):
                    pass
            case "END":
                said = await reader.read()
                if said not in (b"", b"QUIT\r\n"):
                    self.faults.append(f"expected the end, heard {said[:80]!r}")
            case _:
                raise ValueError(f"unknown step {word}")
        return True
