"""Dialogues of fake servers that others wrote: each ends in an outcome, none in an exception or a hang."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import uvloop

from deliveries.smtp.classify import classify
from deliveries.smtp.hop import Envelope, Hop, Tls
from deliveries.smtp.outcome import Attempted, Replied, Stage
from deliveries.smtp.pool import Pool
from deliveries.smtp.session import Timers, open_gate
from deliveries.states import Status

FILE = Path(__file__).parents[3] / "shared/corpora/smtp-faults/exim_server_dialogues.jsonl"
OCTETS = b"Subject: x\r\n\r\nhello\r\n"
QUICK = Timers(**{f.name: 0.4 for f in dataclasses.fields(Timers)})


async def serve(steps: list[list[Any]], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The server's side, not minding what the client says: the scripts expect another client's words."""
    try:
        for step in steps:
            match step[0]:
                case "send":
                    writer.write((step[1] + (step[2] if len(step) > 2 else "\r\n")).encode("utf-8", "surrogateescape"))
                case "expect_data_end":
                    while (await reader.readuntil(b"\r\n")) != b".\r\n":
                        pass
                case "sleep":
                    await writer.drain()
                    await asyncio.sleep(min(float(step[1]), 0.6))
                case "close":
                    break
                case _:
                    await reader.readuntil(b"\r\n")
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def attempt(row: dict[str, Any]) -> tuple[Attempted, ...]:
    server = await asyncio.start_server(lambda r, w: serve(row["steps"], r, w), "127.0.0.1", 0)
    pool = Pool(helo_name="sender.example.test", timers=QUICK)
    hop = Hop("mx.example.com", "127.0.0.1", server.sockets[0].getsockname()[1], tls=Tls.MAY, lmtp="LHLO" in str(row))
    envelope = Envelope("bounces+1@example.test", "b@example.com")
    try:
        return await pool.deliver([hop], envelope, OCTETS, open_gate)
    finally:
        await asyncio.wait_for(pool.close(), 5)
        server.close()


@pytest.mark.skipif(not FILE.exists(), reason="the shared corpora are not beside this checkout")
def test_no_dialogue_of_a_fake_server_raises_or_hangs_or_kills_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deliveries.smtp.session.QUIT_S", 0.2)
    rows = [json.loads(line) for line in FILE.read_text().splitlines()]
    rows = [row for row in rows if row["first_is_smtp_reply"]]

    async def all_of_them() -> list[tuple[Attempted, ...]]:
        places = asyncio.Semaphore(40)

        async def one(row: dict[str, Any]) -> tuple[Attempted, ...]:
            async with places:
                return await asyncio.wait_for(attempt(row), 20)

        return await asyncio.gather(*(one(row) for row in rows))

    for row, [attempted] in zip(rows, uvloop.run(all_of_them()), strict=True):
        outcome = attempted.outcome
        verdict = classify(outcome)
        said = [str(step[1]) for step in row["steps"] if step[0] == "send"]
        if verdict.status is Status.BOUNCED:
            assert isinstance(outcome, Replied), (row, attempted.transcript)
            assert outcome.reply.permanent
        if verdict.suppress:
            assert any(line.startswith("5") for line in said), row
            assert isinstance(outcome, Replied)
            assert outcome.stage in (Stage.RCPT, Stage.DATA, Stage.DOT)
        if verdict.status is Status.DELIVERED:
            assert isinstance(outcome, Replied)
            assert outcome.stage is Stage.DOT
