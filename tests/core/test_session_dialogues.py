"""Every dialogue of tests/dialogues, played by a fake server against real sessions, ends as its file says."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import ssl
from pathlib import Path

import pytest
import trustme
import uvloop

from deliveries.smtp import pool as pool_module
from deliveries.smtp import session as session_module
from deliveries.smtp.classify import classify
from deliveries.smtp.hop import Credentials, Dsn, Envelope, Hop, Tls
from deliveries.smtp.limits import MAX_TRANSCRIPT_OCTETS
from deliveries.smtp.outcome import Attempted, Broken, Outcome, Replied, Stage, Unable, Unanswered
from deliveries.smtp.pool import Pool
from deliveries.smtp.session import Timers, open_gate
from deliveries.states import Status
from tests.fakes.smtp_player import Dialogue, Player, parse

DIALOGUES = sorted((Path(__file__).parents[1] / "dialogues").glob("*.smtp"))
FAULTS = Path(__file__).parents[3] / "shared/corpora/smtp-faults/faults.jsonl"
QUICK = Timers(**{f.name: 60 for f in dataclasses.fields(Timers)})
HOST = "mx.example.test"

#: faults of a session that need more than one host or no server at all, and the test that plays them
ELSEWHERE = {
    "conn-refused": "test_session_round.test_a_refused_connection_moves_on_to_the_next_address",
    "conn-blackhole": "test_session_round.test_an_address_that_never_answers_costs_one_connect_timer",
    "long-line": "test_session_data.test_data_that_no_receiver_can_be_trusted_with_is_refused",
}
#: faults of routing, played in tests/core/test_routing*
NOT_A_SESSION = {"dns"}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ssl.SSLContext, ssl.SSLContext]:
    """CA file, a server context for HOST, one for another name."""
    ca = trustme.CA()
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    contexts = []
    for name in (HOST, "other.example.test"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(name).configure_cert(context)
        contexts.append(context)
    return str(file), contexts[0], contexts[1]


async def play(
    dialogue: Dialogue, certificates: tuple[str, ssl.SSLContext, ssl.SSLContext]
) -> tuple[list[Attempted], Player]:
    ca_file, good, bad = certificates
    timers = dict(pair.split("=") for pair in dialogue.settings.get("timer", []))
    octets = b"Subject: x\r\nMessage-ID: <1@example.test>\r\n\r\n.secret body\r\n"
    if dialogue.setting("octets"):
        octets += (b"x" * 70 + b"\r\n") * (int(dialogue.setting("octets") or 0) // 72)
    if dialogue.setting("eight_bit"):
        octets += "Grüße\r\n".encode()
    forward_path = "jürgen@bücher.example" if dialogue.setting("utf8") else dialogue.setting("to") or "b@example.com"
    dsn = Dsn("FAILURE,DELAY", "HDRS", "0192+7") if dialogue.setting("dsn") is not None else None
    envelope = Envelope("bounces+1@example.test", forward_path, dsn=dsn)
    async with Player(dialogue.connections, good, bad) as player:
        hop = Hop(
            HOST,
            "127.0.0.1",
            player.port,
            lmtp=bool(dialogue.setting("lmtp")),
            tls=Tls(dialogue.setting("tls") or "none"),
            tlsa=((3, 1, 1, b"\0" * 32),) if dialogue.setting("tls") == "dane" else (),
            auth=Credentials("user", "secret-word") if dialogue.setting("auth") else None,
        )
        pool = Pool(
            helo_name="sender.example.test",
            timers=dataclasses.replace(QUICK, **{name: float(value) for name, value in timers.items()}),
            ca_file=ca_file,
            suspect_loopback=bool(dialogue.setting("own_name")),
        )
        attempts = []
        for _ in range(int(dialogue.setting("mails") or 1)):
            attempts.append((await pool.deliver([hop], envelope, octets, open_gate))[-1])
            await asyncio.sleep(float(dialogue.setting("pause") or 0))
        await pool.close()
        if player._tasks:
            await asyncio.wait(player._tasks, timeout=10)
    return attempts, player


def in_words(outcome: Outcome) -> str:
    match outcome:
        case Replied(stage, reply):
            return f"replied {stage} {reply.code}"
        case Broken(stage, cause, _):
            return f"broken {stage} {cause}"
        case Unable(_, enhanced, _, _):
            return f"unable {enhanced}"
        case Unanswered():
            return "unanswered"


@pytest.mark.parametrize("file", DIALOGUES, ids=lambda f: f.stem)
def test_a_dialogue_ends_as_its_file_says(
    file: Path, certificates: tuple[str, ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "QUIT_S", 0.2)
    monkeypatch.setattr(pool_module, "QUIT_S", 0.2)
    dialogue = parse(file)
    attempts, player = uvloop.run(play(dialogue, certificates))
    assert [in_words(a.outcome) for a in attempts] == dialogue.expected, attempts[-1].transcript
    assert player.faults == [], attempts[-1].transcript
    assert player.played == len(player.connections)
    for attempt in attempts:
        assert len(attempt.transcript.encode()) <= MAX_TRANSCRIPT_OCTETS
        assert "secret" not in attempt.transcript
        assert "c2VjcmV0" not in attempt.transcript  # the password in base64
        assert "AHVzZXIAc2Vj" not in attempt.transcript
        judged_rightly(attempt.outcome)
    for octets in player.contents:
        assert octets.startswith(b"Subject: x\r\nMessage-ID: <1@example.test>\r\n\r\n..secret body\r\n")


def judged_rightly(outcome: Outcome) -> None:
    """No fault of a server becomes a hard bounce or kills an address."""
    verdict = classify(outcome)
    match outcome:
        case Replied(Stage.DOT, reply) if reply.positive:
            assert verdict.status is Status.DELIVERED
        case Replied(Stage.RCPT, reply) if reply.code == 552:
            assert verdict.status is Status.DEFERRED
        case Replied(stage, reply) if reply.permanent and stage not in (Stage.GREETING, Stage.EHLO, Stage.AUTH):
            assert verdict.status is Status.BOUNCED
            assert verdict.suppress == (stage is Stage.RCPT)
        case Replied(_, reply) if reply.permanent:
            assert not verdict.suppress
        case Unable():
            assert verdict.status is Status.BOUNCED
            assert not verdict.suppress
        case Unanswered():
            assert verdict.status is Status.UNKNOWN
        case _:
            assert verdict.status is Status.DEFERRED


@pytest.mark.skipif(not FAULTS.exists(), reason="the shared corpora are not beside this checkout")
def test_every_fault_that_concerns_a_session_is_played() -> None:
    rows = [json.loads(line) for line in FAULTS.read_text().splitlines()]
    names = [file.stem for file in DIALOGUES]
    missing = [
        row["id"]
        for row in rows
        if row["stage"] not in NOT_A_SESSION
        and row["id"] not in ELSEWHERE
        and not any(name == row["id"] or name.startswith(f"{row['id']}-") for name in names)
    ]
    assert missing == []
