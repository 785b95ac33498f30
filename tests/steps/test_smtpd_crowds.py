"""The door under those who mean no good: guessers of recipients, and a crowd of slow clients around a good one."""

from __future__ import annotations

import contextlib
import os
import resource
import smtplib
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from deliveries.management.commands import smtpd
from deliveries.models import InboundMessage, Message, Queued
from deliveries.smtp.received import Bounds
from tests.fakes.house import build
from tests.fakes.ports import free_port
from tests.fakes.returned import address, dsn
from tests.steps.test_feedback import delivered
from tests.steps.test_smtpd import BOUNCE, ROOT, client, door

pytestmark = pytest.mark.django_db(transaction=True)

UNKNOWN = 1_000
#: of slow clients; SMTPD_CROWD=2000 for the full size
CROWD = int(os.environ.get("SMTPD_CROWD", "700"))
#: connections from one address of the crowd
PER_PEER = Bounds().max_connections_per_peer
#: a good client that is told 421 comes again, as every mail server does; a bound of a failure
SERVED_S = 60.0

# --- a thousand guesses -------------------------------------------------------------------------------------------


class _Connects:
    """Every connect of this process by Python, while it watches; an audit hook stays for the life of the process."""

    def __init__(self) -> None:
        self.watching = False
        self.to: Counter[Any] = Counter()
        sys.addaudithook(self._heard)

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect" and self.watching:
            self.to[args[1]] += 1


@pytest.fixture(scope="module")
def connects() -> _Connects:
    return _Connects()


def test_a_thousand_mails_to_unknown_recipients_are_refused_in_the_session_and_nothing_is_sent_out(
    connects: _Connects, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtpd._Bell, "ring", lambda self: None)
    house = build()
    good = address(delivered(house))
    before = (Message.objects.count(), Queued.objects.count())
    local, domain = good.split("@")
    shapes = (
        "user{n}@" + BOUNCE,
        local[:-6] + "{n:06d}@" + domain,  # a token that we never made
        "info{n}@" + house.domain.name,
        "user{n}@elsewhere.test",
    )
    refused: Counter[tuple[int, bytes]] = Counter()
    at_a_time = Bounds().max_refused_recipients
    with door() as where:
        connects.watching = True
        for begin in range(0, UNKNOWN, at_a_time):
            with client(where) as smtp:
                for n in range(begin, begin + at_a_time):
                    unknown = shapes[n % len(shapes)].format(n=n)
                    with pytest.raises(smtplib.SMTPRecipientsRefused) as told:
                        smtp.sendmail(f"victim{n}@innocent.test", [unknown], "Subject: backscatter\r\n\r\nx\r\n")
                    code, text = told.value.recipients[unknown]
                    refused[code, text.split()[0]] += 1
        connects.watching = False
        with client(where) as smtp:
            smtp.mail("")
            codes = [smtp.rcpt(f"user{n}@{BOUNCE}")[0] for n in range(at_a_time + 1)]
            assert codes == [550] * at_a_time + [421]  # who guesses more begins anew
            smtp.close()
    assert refused == {(550, b"5.1.1"): UNKNOWN // 2, (550, b"5.7.1"): UNKNOWN // 2}
    assert set(connects.to) == {where}, "somebody else was spoken to"
    assert not InboundMessage.objects.exists()
    assert (Message.objects.count(), Queued.objects.count()) == before


# --- a crowd ------------------------------------------------------------------------------------------------------


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CROWD + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"{wanted} files are not allowed here, {hard} are")
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def command(log: Path) -> Iterator[tuple[str, int]]:
    """`manage.py smtpd` as it is run, on this test's database."""
    port = free_port()
    db = connection.settings_dict
    url = f"postgres://{db['USER']}:{db['PASSWORD']}@{db['HOST']}:{db['PORT']}/{db['NAME']}"
    env = {**os.environ, "DATABASE_URL": url, "SMTPD_INBOUND": f"127.0.0.1:{port}", "MAILAPI_ROLE": "smtpd"}
    with log.open("wb") as out:  # a pipe that nobody reads would stop it
        process = subprocess.Popen([sys.executable, "-m", "django", "smtpd"], cwd=ROOT, env=env, stdout=out, stderr=out)
    try:
        end = time.monotonic() + SERVED_S
        while True:
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.05)
        yield "127.0.0.1", port
        assert process.poll() is None, "it did not live through this"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


#: what a slow client says first; then it waits, or gives one octet now and then
HABITS = (
    b"",
    b"EH",
    b"EHLO slow.test\r\nMAIL FROM:<>\r\n",
    b"EHLO slow.test\r\nMAIL FROM:<>\r\nRCPT TO:<postmaster>\r\nDATA\r\nSubject: ",
)


def gather(where: tuple[str, int], stack: contextlib.ExitStack) -> list[socket.socket]:
    crowd = []
    for n in range(CROWD):
        source = f"127.0.{1 + n // PER_PEER // 250}.{2 + n // PER_PEER % 250}"
        one = stack.enter_context(socket.create_connection(where, 60, (source, 0)))
        with contextlib.suppress(OSError):  # it may be told 421 at once
            one.sendall(HABITS[n % len(HABITS)])
        one.setblocking(False)
        crowd.append(one)
    return crowd


def drip(crowd: list[socket.socket]) -> None:
    for one in crowd:
        with contextlib.suppress(OSError):
            one.send(b"x")


def standing(crowd: list[socket.socket]) -> int:
    """How many the server still bears; reads what it said."""
    alive = 0
    for one in crowd:
        try:
            while one.recv(4096):
                pass
        except BlockingIOError:
            alive += 1
        except OSError:
            pass
    return alive


def test_a_good_client_is_served_within_a_crowd_of_slow_ones(many_files: None, tmp_path: Path) -> None:
    house = build()
    path = address(delivered(house))
    with command(tmp_path / "log") as where, contextlib.ExitStack() as stack:
        crowd = gather(where, stack)
        end = time.monotonic() + SERVED_S
        tries = 0
        while True:
            drip(crowd)
            tries += 1
            try:
                with smtplib.SMTP(*where, local_hostname="mx.one.test", timeout=60) as smtp:
                    smtp.ehlo()
                    drip(crowd)
                    assert smtp.sendmail("", [path], dsn("ann@one.test")) == {}
                break
            except smtplib.SMTPConnectError as told:
                if told.smtp_code != 421 or time.monotonic() > end:
                    pytest.fail(f"refused {tries} times ({told.smtp_code}); {standing(crowd)} slow ones stand")
                time.sleep(0.5)
        assert InboundMessage.objects.get().forward_path == path
        alive = standing(crowd)
        assert alive <= Bounds().max_connections
        print(f"{CROWD} slow clients, {alive} of them still borne; the good one was served at try {tries}")
