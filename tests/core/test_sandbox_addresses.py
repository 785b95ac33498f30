"""Each address of the receiver lab ends as it is named, over real sockets and with our own sessions."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deliveries.sandbox import DOMAIN, Accepted, Lab
from deliveries.smtp.hop import Envelope, Hop, Tls
from deliveries.smtp.outcome import Attempted, Broken, Outcome, Replied, Stage, Unanswered
from deliveries.smtp.pool import Pool
from deliveries.smtp.session import open_gate

OCTETS = (
    b"From: a@example.test\r\nTo: b@simulator.test\r\nSubject: hello\r\nMessage-ID: <1@example.test>\r\n\r\n.dot\r\n"
)
VERP = "bounces+abc@bounce.example.test"


async def send(lab: Lab, local_part: str, *, tls: Tls = Tls.MAY, port: int | None = None) -> Attempted:
    pool = Pool(helo_name="sender.example.test")
    host, main_port = lab.address
    hop = Hop("lab.simulator.test", host, port or main_port, tls=tls)
    try:
        return (await pool.deliver([hop], Envelope(VERP, f"{local_part}@{DOMAIN}"), OCTETS, open_gate, 20))[-1]
    finally:
        await pool.close()


async def ends(local_part: str, **options: object) -> Outcome:
    lab = Lab(slow_s=0.05)
    await lab.start()
    try:
        return (await send(lab, local_part, **options)).outcome  # type: ignore[arg-type]
    finally:
        await lab.stop()


@pytest.mark.parametrize(
    ("local_part", "stage", "text"),
    [
        ("delivered", Stage.DOT, "250 2.0.0"),
        ("Delivered+label", Stage.DOT, "250 2.0.0"),
        ("slow", Stage.DOT, "250 2.0.0"),
        ("tls", Stage.DOT, "250 2.0.0"),
        ("badcert", Stage.DOT, "250 2.0.0"),
        ("latedsn", Stage.DOT, "250 2.0.0"),
        ("bounced", Stage.RCPT, "550 5.1.1"),
        ("nobody", Stage.RCPT, "550 5.1.1"),
        ("blocked", Stage.RCPT, "550 5.7.1"),
        ("mailboxfull", Stage.RCPT, "452 4.2.2"),
        ("deferred", Stage.RCPT, "451 4.3.0"),
        ("greylist", Stage.RCPT, "451 4.7.1"),
        ("421", Stage.RCPT, "421 4.3.2"),
    ],
)
def test_an_address_answers_as_it_is_named(local_part: str, stage: Stage, text: str) -> None:
    outcome = asyncio.run(ends(local_part))
    assert isinstance(outcome, Replied)
    assert (outcome.stage, outcome.reply.text[: len(text)]) == (stage, text)


def test_drop_is_lost_before_anything_was_accepted() -> None:
    outcome = asyncio.run(ends("drop"))
    assert isinstance(outcome, Broken)
    assert outcome.stage is Stage.DATA


def test_tls_is_refused_in_clear() -> None:
    outcome = asyncio.run(ends("tls", tls=Tls.NONE))
    assert isinstance(outcome, Replied)
    assert outcome.reply.text.startswith("530 5.7.0")


def test_dropdot_keeps_the_mail_and_gives_no_answer() -> None:
    async def run() -> tuple[Outcome, Lab]:
        lab = Lab()
        await lab.start()
        outcome = (await send(lab, "dropdot")).outcome
        await send(lab, "dropdot")
        await lab.stop()
        return outcome, lab

    outcome, lab = asyncio.run(run())
    assert isinstance(outcome, Unanswered)
    assert [m.copy for m in lab.messages] == [1, 2]
    assert lab.copies("<1@example.test>") == 2
    assert lab.messages[0].octets == OCTETS


def test_greylist_lets_the_second_try_of_the_same_mail_in() -> None:
    async def run() -> list[bool]:
        lab = Lab()
        await lab.start()
        outcomes = [(await send(lab, "greylist")).outcome for _ in range(2)]
        await lab.stop()
        return [isinstance(o, Replied) and o.reply.positive for o in outcomes]

    assert asyncio.run(run()) == [False, True]


def test_a_verifying_route_accepts_the_labs_certificate_only_where_it_is_trusted_and_never_the_bad_one(
    tmp_path: Path,
) -> None:
    async def run() -> list[Outcome]:
        lab = Lab(badcert_listen=("127.0.0.1", 0))
        await lab.start()
        ca = tmp_path / "ca.pem"
        ca.write_bytes(lab.certificate)
        outcomes = [(await send(lab, "delivered", tls=Tls.VERIFY)).outcome]
        for port in (lab.address[1], lab.badcert_address[1]):
            pool = Pool(helo_name="sender.example.test", ca_file=str(ca))
            hop = Hop("lab.simulator.test", "127.0.0.1", port, tls=Tls.VERIFY)
            envelope = Envelope(VERP, f"delivered@{DOMAIN}")
            outcomes.append((await pool.deliver([hop], envelope, OCTETS, open_gate, 20))[-1].outcome)
            await pool.close()
        await lab.stop()
        return outcomes

    untrusted, trusted, bad = asyncio.run(run())
    assert isinstance(untrusted, Broken)
    assert untrusted.stage is Stage.STARTTLS
    assert isinstance(trusted, Replied)
    assert trusted.reply.positive
    assert isinstance(bad, Broken)


@pytest.mark.parametrize(
    ("local_part", "mark"),
    [
        ("latedsn", b"\r\nStatus: 5.1.1\r\n"),
        ("complained", b"\r\nFeedback-Type: abuse\r\n"),
        ("autoreply", b"\r\nAuto-Submitted: auto-replied\r\n"),
    ],
)
def test_a_report_comes_back_to_the_reverse_path(local_part: str, mark: bytes) -> None:
    reports: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    async def inbound(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 inbound.example.test\r\n")
        rcpt = ""
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"RCPT":
                rcpt = line.decode().strip()
            if verb == b"DATA":
                writer.write(b"354 go\r\n")
                await reports.put((rcpt, await reader.readuntil(b"\r\n.\r\n")))
            writer.write(b"250 ok\r\n")
        writer.close()

    async def run() -> tuple[str, bytes]:
        server = await asyncio.start_server(inbound, "127.0.0.1", 0)
        lab = Lab(bounce_to=server.sockets[0].getsockname()[:2], report_after_s=0.01)
        await lab.start()
        await send(lab, local_part)
        found = await asyncio.wait_for(reports.get(), 60)
        await lab.stop()
        server.close()
        return found

    rcpt, octets = asyncio.run(run())
    assert rcpt == f"RCPT TO:<{VERP}>"
    assert mark in octets
    assert b"<1@example.test>" in octets


def test_the_spool_holds_the_newest_mails_for_other_processes_and_the_log_all(tmp_path: Path) -> None:
    async def run() -> tuple[Accepted, ...]:
        lab = Lab(keep=2, spool=tmp_path / "spool", spool_log=tmp_path / "log.jsonl")
        await lab.start()
        for _ in range(3):
            await send(lab, "delivered")
        await lab.stop()
        return tuple(lab.messages)

    kept = asyncio.run(run())
    assert [m.number for m in kept] == [2, 3]
    assert sorted(f.name for f in (tmp_path / "spool").iterdir()) == [
        "000000000002.eml", "000000000002.json", "000000000003.eml", "000000000003.json", "counts.json",
    ]  # fmt: skip
    facts = json.loads((tmp_path / "spool" / "000000000003.json").read_text())
    assert (facts["copy"], facts["reverse_path"], facts["behaviour"]) == (3, VERP, "delivered")
    assert json.loads((tmp_path / "spool" / "counts.json").read_text())["copies"] == {"<1@example.test>": 3}
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3


def test_the_process_says_where_it_listens_and_ends_on_sigterm(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deliveries.sandbox", "--listen", "127.0.0.1:0", "--spool", str(tmp_path)]
    root = Path(__file__).parents[2]
    lab = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root, env=os.environ | {"PYTHONPATH": "."})
    try:
        assert lab.stdout is not None
        assert lab.stdout.readline().startswith("receiver lab for simulator.test on 127.0.0.1:")
        lab.send_signal(signal.SIGTERM)
        assert lab.wait(timeout=60) == 0
    finally:
        lab.kill()
        lab.wait()
