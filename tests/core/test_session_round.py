"""One round over the hops of a mail, connections kept open, and the gate before the final dot."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from deliveries.errors import ComposeError
from deliveries.sandbox import Lab
from deliveries.smtp.hop import Envelope, Hop, Tls
from deliveries.smtp.outcome import Attempted, Broken, Replied, Stage, Unanswered
from deliveries.smtp.pool import Pool
from deliveries.smtp.session import Timers, open_gate
from tests.fakes.smtp_player import Player

OCTETS = b"Subject: x\r\n\r\nhello\r\n"
ENVELOPE = Envelope("bounces+1@example.test", "b@example.com")
QUICK = Timers(**{f.name: 60 for f in dataclasses.fields(Timers)})

HELLO = [("S:", "220 mx"), ("C:", "EHLO *"), ("S:", "250 mx")]
GOOD = [*HELLO, ("C:", "MAIL *"), ("S:", "250 ok"), ("C:", "RCPT *"), ("S:", "250 ok"), ("C:", "DATA"),
        ("S:", "354 go"), ("C.", ""), ("S:", "250 ok")]  # fmt: skip


def rcpt_says(reply: str) -> list[tuple[str, str]]:
    return [*HELLO, ("C:", "MAIL *"), ("S:", "250 ok"), ("C:", "RCPT *"), ("S:", reply), ("C:", "QUIT")]


def run(work: Awaitable[object]) -> None:
    async def main() -> None:
        await work

    asyncio.run(main())


@asynccontextmanager
async def hosts(
    *scripts: list[tuple[str, str]], sites: tuple[str, ...] = (), timers: Timers = QUICK
) -> AsyncIterator[tuple[list[Hop], list[Player], Pool]]:
    async with AsyncExitStack() as stack:
        players = [await stack.enter_async_context(Player([script])) for script in scripts]
        names = sites or tuple(f"site{i}" for i in range(len(players)))
        hops = [
            Hop(f"mx{i}.example.com", "127.0.0.1", p.port, tls=Tls.NONE, site=names[i]) for i, p in enumerate(players)
        ]
        pool = Pool(helo_name="sender.example.test", timers=timers, slow_down=lambda o: "4.7.28" in str(o))
        yield hops, players, pool
        await pool.close()


def codes(attempts: tuple[Attempted, ...]) -> list[object]:
    return [a.outcome.reply.code if isinstance(a.outcome, Replied) else type(a.outcome) for a in attempts]


def test_a_refused_connection_moves_on_to_the_next_address() -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        async with hosts(GOOD) as (hops, _, pool):
            dead = Hop("mx.example.com", "127.0.0.1", port, tls=Tls.NONE)
            attempts = await pool.deliver([dead, *hops], ENVELOPE, OCTETS, open_gate)
        assert codes(attempts) == [Broken, 250]
        assert isinstance(attempts[0].outcome, Broken)
        assert attempts[0].outcome.stage is Stage.CONNECT

    run(work())


def test_an_address_that_never_answers_costs_one_connect_timer() -> None:
    async def work() -> None:
        # a listener whose backlog is full drops further SYNs
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            address = full.getsockname()
            fillers = []
            for _ in range(4):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(address)
                fillers.append(filler)
            await asyncio.sleep(0.1)
            timers = dataclasses.replace(QUICK, connect_s=1.5)
            async with hosts(GOOD, timers=timers) as (hops, _, pool):
                hole = Hop("mx.example.com", "127.0.0.1", address[1], tls=Tls.NONE)
                attempts = await pool.deliver([hole, *hops], ENVELOPE, OCTETS, open_gate)
            for filler in fillers:
                filler.close()
        assert codes(attempts) == [Broken, 250]
        assert "no connection within 1.5 s" in attempts[0].transcript

    run(work())


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ([("S:", "421 busy"), ("CLOSE", "")], [421, 250]),
        ([("S:", "554 go away"), ("END", "")], [554, 250]),
        ([("CLOSE", "")], [Broken, 250]),
        (rcpt_says("451 4.7.1 greylisted"), [451, 250]),
    ],
)
def test_the_next_host_is_asked_after(first: list[tuple[str, str]], expected: list[object]) -> None:
    async def work() -> None:
        async with hosts(first, GOOD) as (hops, players, pool):
            attempts = await pool.deliver(hops, ENVELOPE, OCTETS, open_gate)
        assert codes(attempts) == expected
        assert not players[1].faults

    run(work())


@pytest.mark.parametrize(
    "first",
    [
        rcpt_says("550 5.1.1 no such user"),
        rcpt_says("552 5.2.2 over quota"),
        [*GOOD[:-1], ("S:", "554 5.7.1 spam")],
        [*GOOD[:-1], ("CLOSE", "")],
    ],
    ids=["550 to RCPT", "552 to RCPT", "554 to the dot", "no reply to the dot"],
)
def test_the_next_host_is_not_asked_after(first: list[tuple[str, str]]) -> None:
    async def work() -> None:
        async with hosts(first, GOOD) as (hops, players, pool):
            assert len(await pool.deliver(hops, ENVELOPE, OCTETS, open_gate)) == 1
        assert players[1].played == 0

    run(work())


def test_a_slow_down_never_moves_on_within_the_provider() -> None:
    async def work() -> None:
        slow = rcpt_says("450 4.7.28 Our system has detected an unusual rate of unsolicited mail")
        async with hosts(slow, GOOD, GOOD, sites=("big", "big", "other")) as (hops, players, pool):
            attempts = await pool.deliver(hops, ENVELOPE, OCTETS, open_gate)
        assert codes(attempts) == [450, 250]
        assert [p.played for p in players] == [1, 0, 1]

    run(work())


def test_a_round_is_bounded_to_five_addresses_and_two_refusals() -> None:
    async def work() -> None:
        async with hosts(*[[("CLOSE", "")]] * 7) as (hops, _, pool):
            assert len(await pool.deliver(hops, ENVELOPE, OCTETS, open_gate)) == 5
        async with hosts(*[rcpt_says("451 4.3.0 later")] * 4) as (hops, _, pool):
            assert codes(await pool.deliver(hops, ENVELOPE, OCTETS, open_gate)) == [451, 451]

    run(work())


def test_the_deadline_ends_a_tarpit() -> None:
    async def work() -> None:
        timers = Timers()
        async with hosts([("WAIT", "20")], GOOD, timers=timers) as (hops, players, pool):
            attempts = await pool.deliver(hops, ENVELOPE, OCTETS, open_gate, deadline_s=0.3)
        assert codes(attempts) == [Broken]
        assert players[1].played == 0

    run(work())


def test_the_deadline_after_the_dot_is_no_answer() -> None:
    async def work() -> None:
        async with hosts([*GOOD[:-1], ("WAIT", "20")]) as (hops, _, pool):
            assert codes(await pool.deliver(hops, ENVELOPE, OCTETS, open_gate, deadline_s=2)) == [Unanswered]

    run(work())


@pytest.mark.parametrize("size", [50, 500_000])
def test_the_final_dot_waits_for_the_gate(size: int) -> None:
    async def work() -> None:
        octets = OCTETS + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * (size // 72)
        gate = asyncio.Event()

        async def wait_for_gate() -> None:
            await gate.wait()

        async with hosts(GOOD) as (hops, players, pool):
            task = asyncio.create_task(pool.deliver(hops, ENVELOPE, octets, wait_for_gate))
            async with asyncio.timeout(60):
                while players[0].heard[-1:] != ["DATA"]:  # noqa: ASYNC110 (the player keeps a list, no event)
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            assert players[0].contents == []
            gate.set()
            assert codes(await task) == [250]
            assert players[0].contents == [octets + b".\r\n"]

    run(work())


def test_a_gate_that_stays_shut_leaves_no_mail_behind_and_the_connection_is_dropped() -> None:
    class Shut(Exception):
        pass

    async def gate() -> None:
        raise Shut

    async def work() -> None:
        lab = Lab()
        await lab.start()
        pool = Pool(helo_name="sender.example.test")
        hop = Hop("lab", *lab.address, tls=Tls.NONE)
        envelope = Envelope("", "delivered@simulator.test")
        with pytest.raises(Shut):
            await pool.deliver([hop], envelope, OCTETS, gate)
        assert pool.idle_connections == 0
        assert codes(await pool.deliver([hop], envelope, OCTETS, open_gate)) == [250]
        await pool.close()
        await lab.stop()
        assert lab.accepted == 1

    run(work())


def test_a_cancelled_delivery_drops_its_connection() -> None:
    async def work() -> None:
        async with hosts([*HELLO, ("C:", "MAIL *"), ("END", "")]) as (hops, players, pool):
            task = asyncio.create_task(pool.deliver(hops, ENVELOPE, OCTETS, open_gate))
            while not players[0].heard[1:]:  # noqa: ASYNC110 (the player keeps a list, no event)
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert pool.idle_connections == 0

    run(work())


def test_connections_are_kept_by_hop_and_given_up_after_their_last_message_or_their_idle_time() -> None:
    async def work() -> None:
        lab = Lab()
        await lab.start()
        hop = Hop("lab", *lab.address, tls=Tls.MAY)
        envelope = Envelope("", "delivered@simulator.test")
        pool = Pool(helo_name="sender.example.test", max_messages_per_connection=3, max_idle_s=0.1)
        reused = []
        for _ in range(4):
            [attempt] = await pool.deliver([hop], envelope, OCTETS, open_gate)
            reused.append(attempt.reused)
            assert attempt.tls is not None
            assert not attempt.tls.verified
        assert reused == [False, True, True, False]
        assert "reused after 3" in attempt.transcript or "connect to lab" in attempt.transcript
        assert pool.idle_connections == 1
        while pool.idle_connections:  # noqa: ASYNC110 (a timer of the pool empties it)
            await asyncio.sleep(0.02)
        [attempt] = await pool.deliver([hop], envelope, OCTETS, open_gate)
        assert not attempt.reused
        await pool.close()
        await lab.stop()

    run(work())


def test_a_hundred_mails_at_once_to_one_host_are_all_delivered_once() -> None:
    async def work() -> None:
        lab = Lab(keep=200)
        await lab.start()
        hop = Hop("lab", *lab.address, tls=Tls.NONE)
        pool = Pool(helo_name="sender.example.test")

        async def one(i: int) -> tuple[Attempted, ...]:
            octets = f"Message-ID: <{i}@x>\r\n\r\n{'.' * (i % 5)}\r\n".encode()
            return await pool.deliver([hop], Envelope(f"b+{i}@x", "delivered@simulator.test"), octets, open_gate)

        results = await asyncio.gather(*(one(i) for i in range(100)))
        assert all(codes(r) == [250] for r in results)
        assert {m.message_id: m.octets[-7:].count(b".") for m in lab.messages} == {
            f"<{i}@x>": i % 5 for i in range(100)
        }
        assert all(m.reverse_path == f"b+{m.message_id[1:-3]}@x" for m in lab.messages)
        await pool.close()
        await lab.stop()

    run(work())


@pytest.mark.parametrize(
    "path",
    ["a b@x.test", "a@x.test>\r\nRCPT TO:<c@y.test", "a@x.test\nDATA", "<a@x.test>", "a@x.test\0", "a", "@x.test", "a@",
     "@a,@b:c@d.test", "a@x..test", "a@-x.test", "\ud800@x.test", "a@[1.2.3]"],
)  # fmt: skip
def test_a_path_that_is_no_mailbox_never_reaches_the_wire(path: str) -> None:
    async def work() -> None:
        async with hosts(GOOD) as (hops, players, pool):
            for envelope in (Envelope(path, "b@example.com"), Envelope("", path)):
                with pytest.raises(ComposeError):
                    await pool.deliver(hops, envelope, OCTETS, open_gate)
        assert players[0].played == 0

    run(work())


def test_close_is_bounded_with_a_server_that_does_not_answer_quit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deliveries.smtp.session.QUIT_S", 0.2)

    async def work() -> None:
        async with hosts([*GOOD, ("HANG", "")]) as (hops, _, pool):
            assert codes(await pool.deliver(hops, ENVELOPE, OCTETS, open_gate)) == [250]
            started = time.monotonic()
            await pool.close()
            assert time.monotonic() - started < 5

    run(work())
