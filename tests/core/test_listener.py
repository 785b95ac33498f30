"""The inbound server against raw sockets: what it stores, what it refuses, and what it never does."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import resource
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from deliveries.smtp.hop import Envelope, Hop, Tls
from deliveries.smtp.listener import NO_SUCH_USER, Bounds, Guesses, Listener, Received, Refusal
from deliveries.smtp.outcome import Replied
from deliveries.smtp.pool import Pool
from deliveries.smtp.reading import SMALL_OCTETS, Room, read_data
from deliveries.smtp.session import open_gate

SMUGGLING = Path(__file__).parents[3] / "shared/corpora/vectors/smuggling.jsonl"
HELLO = "EHLO client.test\r\n"
#: the last line of the answer to EHLO, by what stands behind the listener
_LAST_OFFERS = ("250 ENHANCEDSTATUSCODES", "250 STARTTLS", "250 DSN", "250 AUTH PLAIN LOGIN")
TO_DATA = HELLO + "MAIL FROM:<a@sender.test>\r\nRCPT TO:<known@ours.test>\r\nDATA\r\n"


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    return uvloop.run if request.param == "uvloop" else asyncio.run


@pytest.fixture(scope="module")
def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("mx.ours.test").configure_cert(context)
    return context


class House:
    """What stands behind the listener in these tests."""

    def __init__(self) -> None:
        self.mails: list[Received] = []
        self.broken = False
        self.storing = asyncio.Event()
        self.may_store = asyncio.Event()
        self.may_store.set()

    def accept_rcpt(self, addr: str) -> Refusal | None:
        return None if addr.lower() in ("known@ours.test", "postmaster") or addr.startswith("known+") else NO_SUCH_USER

    async def store(self, mail: Received) -> None:
        self.storing.set()
        await self.may_store.wait()
        if self.broken:
            raise RuntimeError("the database is away")
        self.mails.append(mail)


@asynccontextmanager
async def listening(**options: Any) -> AsyncIterator[tuple[House, tuple[str, int], Listener]]:
    house = House()
    listener = Listener(hostname="mx.ours.test", accept_rcpt=house.accept_rcpt, store=house.store, **options)
    address = await listener.start("127.0.0.1", 0)
    try:
        yield house, address, listener
    finally:
        await listener.stop(grace_s=1)


async def say(address: tuple[str, int], octets: str | bytes, *, then_quit: bool = True) -> list[str]:
    """Everything in one write; the reply lines up to the end of the connection, the greeting and EHLO left out."""
    reader, writer = await asyncio.open_connection(*address)
    await reader.readline()
    octets = octets.encode() if isinstance(octets, str) else octets
    writer.write(octets + (b"QUIT\r\n" if then_quit else b""))
    answer = await asyncio.wait_for(reader.read(), 60)
    writer.close()
    lines = answer.decode().splitlines()
    return [line for line in lines if line[3:4] != "-" and line not in _LAST_OFFERS]


def test_a_mail_is_stored_before_its_250_with_a_received_line_on_top(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def work() -> None:
        async with listening() as (house, address, _):
            house.may_store.clear()
            task = asyncio.create_task(say(address, TO_DATA + "Subject: x\r\n\r\n..dot\r\n.\r\n", then_quit=False))
            await house.storing.wait()
            assert not task.done()
            house.may_store.set()
            await asyncio.sleep(0.05)
            task.cancel()
            [mail] = house.mails
            assert (mail.reverse_path, mail.forward_paths) == ("a@sender.test", ("known@ours.test",))
            assert mail.octets.startswith(
                b"Received: from client.test ([127.0.0.1])\r\n\tby mx.ours.test with ESMTP id "
            )
            assert mail.octets.endswith(b"\r\nSubject: x\r\n\r\n.dot\r\n")
            assert mail.tls == ""
            replies = await say(address, TO_DATA + "x\r\n.\r\n")
            assert [r[:9] for r in replies] == ["250 2.1.0", "250 2.1.5", "354 End d", "250 2.6.0", "221 2.0.0"]

    run(work())


def test_a_mail_that_could_not_be_stored_is_answered_451() -> None:
    async def work() -> None:
        async with listening() as (house, address, _):
            house.broken = True
            assert (await say(address, TO_DATA + "x\r\n.\r\n"))[3].startswith("451 4.3.0")
            assert house.mails == []

    asyncio.run(work())


def test_the_null_reverse_path_and_postmaster_are_taken() -> None:
    async def work() -> None:
        async with listening() as (house, address, _):
            talk = HELLO + "MAIL FROM:<> BODY=8BITMIME\r\nRCPT TO:<Postmaster>\r\nDATA\r\nx\r\n.\r\n"
            assert (await say(address, talk))[3].startswith("250 2.6.0")
            assert (house.mails[0].reverse_path, house.mails[0].forward_paths) == ("", ("Postmaster",))

    asyncio.run(work())


@pytest.mark.parametrize(
    "rcpt",
    ["<other@elsewhere.test>", "<a%elsewhere.test@ours.test>", "<@ours.test:a@elsewhere.test>", "<nobody@ours.test>",
     '<"a@elsewhere.test"@ours.test>', "<elsewhere.test!a@ours.test>", "<a@[192.0.2.1]>", "<a@[127.0.0.1]>", "<>",
     "known@ours.test", "<known@ours.test> NOTIFY=NEVER", "<a@elsewhere.test@ours.test>", "<known@ours.test"],
)  # fmt: skip
@pytest.mark.parametrize("reverse_path", ["<>", "<known@ours.test>"])
def test_nothing_is_relayed_in_any_shape(rcpt: str, reverse_path: str) -> None:
    async def work() -> None:
        async with listening() as (house, address, _):
            replies = await say(address, f"{HELLO}MAIL FROM:{reverse_path}\r\nRCPT TO:{rcpt}\r\nDATA\r\nx\r\n.\r\n")
            assert replies[1][0] == "5"
            assert replies[2].startswith("554 5.5.1")
            assert house.mails == []

    asyncio.run(work())


@pytest.mark.parametrize(
    "verb", ["VRFY known@ours.test", "EXPN all", "ETRN ours.test", "HELP", "BDAT 5 LAST", "AUTH PLAIN AA=="]
)
def test_a_verb_that_tells_or_takes_too_much_is_refused(verb: str) -> None:
    async def work() -> None:
        async with listening() as (_, address, _listener):
            assert (await say(address, f"{HELLO}{verb}\r\n"))[0].startswith(("500", "502"))

    asyncio.run(work())


def test_limits_of_size_recipients_mails_commands_and_guesses_hold() -> None:
    async def work() -> None:
        bounds = Bounds(max_size_octets=1000, max_mails=2, max_refused_recipients=3)
        async with listening(bounds=bounds) as (house, address, _):
            mail = f"{HELLO}MAIL FROM:<a@b.test>"
            assert (await say(address, f"{mail} SIZE=1001\r\n"))[0].startswith("552 5.3.4")
            assert (await say(address, TO_DATA + "x" * 70 + ("\r\n" + "x" * 70) * 30 + "\r\n.\r\n"))[3].startswith(
                "552"
            )
            many = "".join(f"RCPT TO:<known+{i}@ours.test>\r\n" for i in range(101))
            replies = await say(address, f"{mail}\r\n{many}")
            assert [r[:3] for r in replies[1:-1]] == ["250"] * 100 + ["452"]
            guesses = "".join(f"RCPT TO:<guess{i}@ours.test>\r\n" for i in range(9))
            assert [r[:3] for r in await say(address, f"{mail}\r\n{guesses}")] == ["250", "550", "550", "550", "421"]
            again = "MAIL FROM:<a@b.test>\r\nRCPT TO:<known@ours.test>\r\nDATA\r\nx\r\n.\r\n"
            replies = await say(address, HELLO + again * 3)
            assert replies[-1].startswith("421 4.7.0")
            assert len(house.mails) == 2
            replies = await say(address, HELLO + "NOOP\r\n" * 200)
            assert (len(replies), replies[-1][:3]) == (101, "421")
            assert (await say(address, "x" * 3000 + "\r\n"))[0].startswith("500")

    asyncio.run(work())


def test_connections_per_peer_and_idle_time_are_bounded() -> None:
    async def work() -> None:
        async with listening(bounds=Bounds(max_connections_per_peer=2, idle_s=1.5)) as (_, address, listener):
            open_ones = [await asyncio.open_connection(*address) for _ in range(2)]
            for reader, _ in open_ones:
                assert (await reader.readline()).startswith(b"220 mx.ours.test")
            reader, writer = await asyncio.open_connection(*address)
            assert (await reader.read()).startswith(b"421 4.7.0")
            writer.close()
            for reader, writer in open_ones:
                assert await asyncio.wait_for(reader.read(), 60) == b""  # idle: closed by the server
                writer.close()
            assert listener.conversations == set()
            assert (await say(address, HELLO))[-1].startswith("221")

    asyncio.run(work())


def test_a_mail_in_circles_is_refused() -> None:
    async def work() -> None:
        async with listening() as (house, address, _):
            head = "Received: from a by b; now\r\n"
            assert (await say(address, TO_DATA + head * 51 + "\r\nx\r\n.\r\n"))[3].startswith("554 5.4.6")
            assert (await say(address, TO_DATA + head * 50 + "\r\n" + head * 9 + ".\r\n"))[3].startswith("250")
            assert len(house.mails) == 1

    asyncio.run(work())


@pytest.mark.skipif(not SMUGGLING.exists(), reason="the shared corpora are not beside this checkout")
def test_the_smuggling_vectors_make_one_mail_at_most() -> None:
    rows = [json.loads(line) for line in SMUGGLING.read_text().splitlines()]
    second = b"MAIL FROM:<evil@x.test>\r\nRCPT TO:<known@ours.test>\r\nDATA\r\nsmuggled\r\n.\r\n"

    async def work() -> None:
        for row in (r for r in rows if r["where"].startswith("inbound")):
            payload = bytes.fromhex(row["payload_hex"])
            talk = TO_DATA.encode() + b"Subject: x\r\n\r\nbody"
            if "raw bytes after 354" in row["where"] or "raw DATA" in row["where"]:
                talk = TO_DATA.encode() + payload
            elif row["where"].startswith("inbound: inside"):
                talk += payload + b"\r\n.\r\n"
            else:
                talk += payload + second
            async with listening() as (house, address, _):
                if "no message" in row["expect"]:
                    reader, writer = await asyncio.open_connection(*address)
                    writer.write(talk)
                    writer.write_eof()
                    await asyncio.wait_for(reader.read(), 10)
                    writer.close()
                    assert house.mails == [], row
                    continue
                replies = await say(address, talk)
                assert len(house.mails) <= 1, row
                assert not any(m.reverse_path == "evil@x.test" for m in house.mails), row
                if row["expect"].startswith("accept"):
                    assert house.mails[0].octets.endswith(b"\r\n.test\r\n"), row
                elif row["expect"].startswith("refuse") or "5xx" in row["expect"]:
                    assert house.mails == []
                    assert any(r.startswith("550 5.6.0") for r in replies), row

    asyncio.run(work())


def test_starttls_is_offered_and_tells_its_version(
    run: Callable[[Coroutine[Any, Any, None]], None], tls: ssl.SSLContext
) -> None:
    async def work() -> None:
        async with listening(tls=tls) as (house, address, listener):
            secure = await listener.start("127.0.0.1", 0, implicit_tls=True)
            pool = Pool(helo_name="client.test")
            octets = b"Subject: x\r\n\r\nhello\r\n"
            hop = Hop("mx.ours.test", *address, tls=Tls.MUST)
            for _ in range(2):
                [attempt] = await pool.deliver([hop], Envelope("", "known@ours.test"), octets, open_gate)
                assert isinstance(attempt.outcome, Replied)
                assert attempt.outcome.reply.code == 250, attempt.transcript
            await pool.close()
            assert [m.tls[:5] for m in house.mails] == ["TLSv1", "TLSv1"]
            assert b"with ESMTPS id" in house.mails[0].octets
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            reader, writer = await asyncio.open_connection(*secure, ssl=context)
            assert (await reader.readline()).startswith(b"220")
            writer.write(HELLO.encode())
            assert b"STARTTLS" not in await reader.readuntil(b"SMTPUTF8\r\n")
            writer.close()

    run(work())


def test_what_came_in_clear_before_the_handshake_is_forgotten_and_tls_is_begun_once(
    tls: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with listening(tls=tls) as (_house, address, listener):

            def talk() -> int:
                with socket.create_connection(address) as plain:
                    plain.recv(1000)
                    plain.sendall(b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nSTARTTLS\r\nRCPT TO:<known@ours.test>\r\n")
                    seen = b""
                    while b"220 " not in seen:
                        seen += plain.recv(1000)
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                    with context.wrap_socket(plain) as secure:
                        secure.sendall(b"RCPT TO:<known@ours.test>\r\n")
                        forgotten = int(secure.recv(1000)[:3])
                        secure.sendall(b"STARTTLS\r\n")  # RFC 3207 §4: not offered any more
                        assert secure.recv(1000).startswith(b"503 5.5.1")
                        return forgotten

            assert await asyncio.to_thread(talk) == 503
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"STARTTLS\r\n")
            await reader.readuntil(b"220 2.0.0 Ready to start TLS\r\n")
            writer.write(b"no handshake\r\n" * 9)
            await asyncio.wait_for(reader.read(), 60)
            writer.close()
            assert listener.conversations == set()

    asyncio.run(work())
    # a stranger's doing is no error of ours
    assert [r.getMessage() for r in caplog.records if r.name.startswith("deliveries") and r.levelname == "ERROR"] == []


def test_submission_needs_tls_or_loopback_and_the_right_password(caplog: pytest.LogCaptureFixture) -> None:
    async def authenticate(username: str, password: str, peer: str) -> str | None:
        return "tenant" if (username, password) == ("user", "right") else None

    async def work() -> None:
        async with listening(authenticate=authenticate) as (_, address, _listener):
            assert (await say(address, HELLO + "AUTH PLAIN AA==\r\n"))[-2].startswith("538 5.7.11")
        async with listening(authenticate=authenticate, clear_auth=True) as (house, address, _):
            assert (await say(address, HELLO + "MAIL FROM:<a@b.test>\r\n"))[-2].startswith("530 5.7.0")

            def talk() -> None:
                for method in ("auth_plain", "auth_login"):
                    with smtplib.SMTP(*address) as client:
                        client.ehlo()
                        client.user, client.password = "user", "right"
                        client.auth(method[5:], getattr(client, method), initial_response_ok=method == "auth_plain")
                        client.sendmail("a@b.test", ["known@ours.test"], b"Subject: x\r\n\r\nhello\r\n")
                with smtplib.SMTP(*address) as client, pytest.raises(smtplib.SMTPAuthenticationError):
                    client.login("user", "wrong")

            await asyncio.to_thread(talk)
            assert [m.principal for m in house.mails] == ["tenant", "tenant"]
            wrong = base64.b64encode(b"\0user\0wrong").decode()
            replies = await say(address, HELLO + f"AUTH PLAIN {wrong}\r\n" * 4)
            assert [r[:3] for r in replies[-3:]] == ["535", "535", "421"]
            assert (await say(address, HELLO + "AUTH PLAIN !!\r\nAUTH PLAIN\r\n*\r\nAUTH X\r\n"))[-4][:3] == "334"
            replies = await say(address, HELLO + "AUTH LOGIN\r\n" + "A" * 100_000 + "\r\n")
            assert [r[:3] for r in replies] == ["334", "500", "221"]
            assert [r[:3] for r in await say(address, HELLO + "\33[2J\r\n")] == ["500", "221"]
            # a stranger's nonsense is no bug of ours, and not to be read in the log
            ours = [r for r in caplog.records if r.name.startswith(("deliveries", "mail.log"))]
            assert not [r.getMessage() for r in ours if r.levelno >= logging.WARNING]

    asyncio.run(work())


def test_stopping_waits_for_a_mail_that_is_being_stored() -> None:
    async def work() -> None:
        async with listening() as (house, address, listener):
            house.may_store.clear()
            idle = asyncio.create_task(say(address, HELLO, then_quit=False))
            task = asyncio.create_task(say(address, TO_DATA + "x\r\n.\r\n", then_quit=False))
            await house.storing.wait()
            stopping = asyncio.create_task(listener.stop())
            assert (await idle)[-1].startswith("421 4.3.2")
            assert not stopping.done()
            house.may_store.set()
            replies = await task
            await stopping
            assert [r[:3] for r in replies[-2:]] == ["250", "421"]
            assert len(house.mails) == 1

    asyncio.run(work())


def _memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024**2


@pytest.mark.parametrize(
    ("block", "reply"), [(b"x" * 65_536, "500 5.6.0"), (b"\r\n" * 32_768, "552 5.3.4")], ids=["no end", "short lines"]
)
def test_data_that_never_end_or_come_in_the_shortest_lines_take_no_memory(block: bytes, reply: str) -> None:
    async def work() -> None:
        async with listening(bounds=Bounds(max_size_octets=4 * 1024**2)) as (house, address, _):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(TO_DATA.encode())
            while not (await reader.readline()).startswith(b"354"):
                pass
            before = most = _memory_mb()
            for _ in range(48 * 1024**2 // len(block) if b"x" in block else 80):
                writer.write(block)
                await writer.drain()
                most = max(most, _memory_mb())
            writer.write(b"\r\n.\r\n" + b"QUIT\r\n")
            assert (await asyncio.wait_for(reader.readline(), 60)).startswith(reply.encode())
            assert most - before < 24
            assert house.mails == []
            writer.close()

    asyncio.run(work())


def test_millions_of_the_shortest_lines_cost_a_step_for_each_block_and_what_follows_the_dot_stays() -> None:
    class Counted(asyncio.StreamReader):
        steps = 0

        async def read(self, n: int = -1) -> bytes:
            self.steps += 1
            return await super().read(n)

        async def readuntil(self, separator: Any = b"\n") -> bytes:
            self.steps += 1
            return await super().readuntil(separator)

    async def work() -> None:
        for line, kept in ((b"\r\n", b"\r\n"), (b"..\r\n", b".\r\n"), (b"a.\r\n", b"a.\r\n")):
            reader, lines = Counted(), 1_000_000
            reader.feed_data(line * lines + b".\r\nQUIT\r\n")
            with Room(1 << 30).share() as share:
                assert await read_data(reader, share, 0) == kept * lines
            assert await reader.readline() == b"QUIT\r\n" and reader.steps < 10

    asyncio.run(work())


def test_when_all_room_is_taken_large_mails_are_put_off_and_small_ones_still_taken() -> None:
    async def work() -> None:
        async with listening(bounds=Bounds(max_held_octets=3 * 1024**2)) as (house, address, listener):
            large = TO_DATA + "x" * 62 + "\r\n" + ("y" * 62 + "\r\n") * (2 * 1024**2 // 64)
            clock = 0
            listener.room.clock = lambda: clock

            async def held() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
                reader, writer = await asyncio.open_connection(*address)
                writer.write(large.encode())  # and no final dot
                async with asyncio.timeout(60):
                    while listener.room.held_octets < 2 * 1024**2:  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                return reader, writer

            _, gone = await held()
            assert (await say(address, large + ".\r\n"))[3].startswith("452 4.3.1")
            assert (await say(address, TO_DATA + "x\r\n.\r\n"))[3].startswith("250 2.6.0")
            gone.close()
            async with asyncio.timeout(60):
                while listener.room.held_octets:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            replies, trickles = await held()
            clock = 100  # the first minute was quick
            assert (await say(address, large + ".\r\n"))[3].startswith("452 4.3.1")
            clock = 200  # and not the next one
            assert (await say(address, large + ".\r\n"))[3].startswith("250 2.6.0")
            assert listener.room.held_octets == 0
            trickles.write(b"z\r\n.\r\nQUIT\r\n")
            assert b"\r\n452 4.3.1" in await asyncio.wait_for(replies.read(), 60)
            trickles.close()
            assert len(house.mails) == 2

    asyncio.run(work())


def test_a_slow_line_keeps_its_room_and_one_that_trickles_does_not() -> None:
    now = 0.0
    room = Room(4 * SMALL_OCTETS, lambda: now)
    with room.share() as whole, room.share() as slow, room.share() as trickles, room.share() as large:
        slow.data, trickles.data, large.data = bytearray(), bytearray(), bytearray()
        assert whole.grow(SMALL_OCTETS + 1) and trickles.grow(SMALL_OCTETS + 1)  # `whole` is being stored
        for second in range(150):
            now += 1
            if second % 60 < 30:  # 10 KB/s in all
                assert slow.grow(20_000)
            trickles.grow(1)
        assert not trickles.grow(SMALL_OCTETS) and not trickles.gave_way  # it makes no room for itself
        assert large.grow(SMALL_OCTETS + 1)
        assert trickles.gave_way and not (slow.gave_way or whole.gave_way) and not large.grow(SMALL_OCTETS)
    assert room.held_octets == 0
    with ExitStack() as crowd:  # of small mails that trickle: they take no room of large ones
        for share in (crowd.enter_context(room.share()) for _ in range(9)):
            assert share.grow(SMALL_OCTETS)
        with room.share() as large:
            assert large.grow(4 * SMALL_OCTETS) and not large.grow(1)
        assert not share.grow(4 * SMALL_OCTETS) and share.grow(3 * SMALL_OCTETS)  # from then on it is a large one
    assert room.held_octets == 0


def test_failed_logins_are_remembered_of_so_many_peers_and_those_with_too_many_are_not_pushed_out_by_one_from_each():
    guesses = Guesses(most=3, window_s=600)
    for _ in range(3):
        assert not guesses.too_many("attacker", 0)
        guesses.wrong("attacker", 0)
    for n in range(25_000):
        guesses.wrong(str(n), 1)
    assert guesses.too_many("attacker", 599) and not guesses.too_many("attacker", 600) and len(guesses) <= 20_000
    guesses.wrong("attacker", 650)
    guesses.wrong("last", 651)
    assert not guesses.too_many("attacker", 651) and len(guesses) == 2  # they end with their time


@pytest.mark.parametrize(
    ("sent", "stored"),
    [("", ""), (".x\r\n", "x\r\n"), ("..\r\n", ".\r\n"), ("...\r\n.a\r\nb.\r\n", "..\r\na\r\nb.\r\n"), ("\r\n", "\r\n"),
     ("y" * 65_000 + "\r\n..z\r\n", "y" * 65_000 + "\r\n.z\r\n")],
)  # fmt: skip
def test_dots_at_the_beginning_of_lines_are_taken_away_once(sent: str, stored: str) -> None:
    async def work() -> None:
        async with listening() as (house, address, _):
            assert (await say(address, f"{TO_DATA}{sent}.\r\n"))[3].startswith("250 2.6.0")
            [mail] = house.mails
            _, _, rest = mail.octets.decode().partition(" id ")
            assert rest.split("\r\n", 2)[2] == stored

    asyncio.run(work())
