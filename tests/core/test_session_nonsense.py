"""Servers that talk at random: every session ends in an outcome, and in the right kind of it."""

from __future__ import annotations

import asyncio
import dataclasses
import random

import uvloop

from deliveries.smtp.hop import Envelope, Hop, Tls
from deliveries.smtp.outcome import Attempted, Broken, Replied, Stage, Unanswered
from deliveries.smtp.pool import Pool
from deliveries.smtp.session import Timers, open_gate

PIECES = [b"220 mx\r\n", b"250 ok\r\n", b"250-x\r\n250 PIPELINING\r\n", b"250-x\r\n250 STARTTLS\r\n", b"354 go\r\n",
          b"421 bye\r\n", b"451 later\r\n", b"550 no\r\n", b"250-", b"\r\n", b"\n", b"xyz\r\n", b"\x16\x03\x01",
          b"\xff\xfe", b"250 SIZE 5\r\n", b"250 a\r\n250 b\r\n", b"", b"334 x\r\n", b"0", b"2500 x\r\n"]  # fmt: skip
GOOD = [b"220 mx\r\n", b"250-mx\r\n250 PIPELINING\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n", b"250 ok\r\n"]
QUICK = Timers(**{f.name: 0.2 for f in dataclasses.fields(Timers)})


def script(rng: random.Random) -> list[bytes]:
    """A good server's words, spoilt at random from some point on."""
    return GOOD[: rng.randrange(5)] + [rng.choice(PIECES) for _ in range(rng.randrange(6))]


async def talk(words: list[bytes], tls: Tls) -> list[Attempted]:
    dots = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal dots
        try:
            for word in words:
                writer.write(word)
                dots += (await asyncio.wait_for(reader.read(65536), 0.5)).count(b"\r\n.\r\n")
        except (OSError, TimeoutError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    hop = Hop("mx.example.com", *server.sockets[0].getsockname()[:2], tls=tls)
    pool = Pool(helo_name="sender.example.test", timers=QUICK)
    envelope = Envelope("a@example.test", "b@example.test")
    attempts = [a for _ in range(2) for a in await pool.deliver([hop], envelope, b"x: y\r\n\r\n", open_gate)]
    await pool.close()
    server.close()
    if dots == 0:
        assert not any(isinstance(a.outcome, Unanswered) for a in attempts)
        assert not any(isinstance(a.outcome, Replied) and a.outcome.stage is Stage.DOT for a in attempts)
    return attempts


def test_nonsense_never_raises_and_never_passes_for_an_answer(monkeypatch: object) -> None:
    monkeypatch.setattr("deliveries.smtp.session.QUIT_S", 0.2)  # type: ignore[attr-defined]
    rng = random.Random(5321)

    async def all_of_them() -> None:
        jobs = [(script(rng), rng.choice([Tls.NONE, Tls.MAY, Tls.MUST])) for _ in range(300)]
        places = asyncio.Semaphore(50)

        async def one(words: list[bytes], tls: Tls) -> None:
            async with places:
                for attempt in await asyncio.wait_for(talk(words, tls), 30):
                    assert isinstance(attempt.outcome, (Replied, Broken, Unanswered)) or b"SIZE" in b"".join(words)

        await asyncio.gather(*(one(*job) for job in jobs))

    uvloop.run(all_of_them())
