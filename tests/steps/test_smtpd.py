"""The door for what comes back, over real sockets: who is let in, and that 250 means stored."""

from __future__ import annotations

import asyncio
import os
import signal
import smtplib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from deliveries import feedback
from deliveries.management.commands import smtpd
from deliveries.mime import verp
from deliveries.models import InboundMessage, SendingDomain, Suppression
from tests.fakes.house import build
from tests.fakes.ports import free_port
from tests.fakes.returned import address, dsn
from tests.steps.test_feedback import delivered

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parents[2]
BOUNCE = "bounce.localhost.localdomain"


@pytest.fixture(autouse=True)
def _no_bell(monkeypatch) -> None:
    monkeypatch.setattr(smtpd._Bell, "ring", lambda self: None)


@contextmanager
def door() -> Iterator[tuple[str, int]]:
    """The listener of the command, on a port of the kernel's, in a thread."""
    ready: list[tuple[str, int]] = []
    up, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with smtpd.inbound("127.0.0.1", 0) as where:
            ready.append(where)
            up.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert up.wait(60)
    try:
        yield ready[0]
    finally:
        stop.set()
        thread.join()


def client(where: tuple[str, int]) -> smtplib.SMTP:
    made = smtplib.SMTP(*where, local_hostname="mx.one.test", timeout=60)
    made.ehlo()
    return made


def asked(where: tuple[str, int], *forward_paths: str) -> list[tuple[int, str]]:
    with client(where) as smtp:
        smtp.command_encoding = "utf-8"
        smtp.mail("", ["SMTPUTF8"])
        replies = [smtp.rcpt(path) for path in forward_paths]
    return [(code, text.decode()) for code, text in replies]


def test_a_bounce_comes_in_is_read_and_the_address_gets_no_more_mail() -> None:
    house = build()
    delivery = delivered(house)
    with door() as where, client(where) as smtp:
        assert smtp.sendmail("", [address(delivery).upper()], dsn("ann@one.test")) == {}
        mail = InboundMessage.objects.get()  # committed before the 250
    assert (mail.state, mail.reverse_path, mail.peer, mail.helo) == ("waiting", "", "127.0.0.1", "mx.one.test")
    assert bytes(mail.octets).startswith(b"Received: from mx.one.test ([127.0.0.1])")
    assert bytes(mail.octets).endswith(dsn("ann@one.test").rstrip(b"\r\n") + b"\r\n")
    feedback.run()
    delivery.refresh_from_db()
    assert (delivery.status, delivery.late) == ("bounced", True)
    assert Suppression.objects.get(tenant=house.tenant).address == "ann@one.test"
    assert house.send("ann@one.test")[0].status == "suppressed"


def test_all_but_bounces_and_role_addresses_are_refused_in_the_session() -> None:
    house = build()
    delivery = delivered(house)
    SendingDomain.objects.create(tenant=house.tenant, name="unverified.test")
    good = address(delivery)
    forged = good.replace(good[20], "a" if good[20] != "a" else "b", 1)
    with door() as where:
        replies = asked(
            where,
            good,
            f"postmaster@{BOUNCE}",
            "Postmaster",
            f"abuse@{house.domain.name.upper()}",
            "postmaster@mail.localhost.localdomain",
            address(delivery, days=-100),  # still good for a complaint
        )
        assert [code for code, _ in replies] == [250] * 6
        replies = asked(
            where,
            forged,
            address(delivery, days=-200),
            f"bounces+aaaa@{BOUNCE}",
            f"someone@{BOUNCE}",
            "someone@mail.localhost.localdomain",
        )
        assert {(code, text.split()[0]) for code, text in replies} == {(550, "5.1.1")}
        replies = asked(
            where,
            "ann@elsewhere.test",
            "postmaster@elsewhere.test",
            "abuse@unverified.test",
            f"info@{house.domain.name}",
            f"bounces+{verp.token_of(good)}@elsewhere.test",
            f"ann%elsewhere.test@{BOUNCE}",
        )
        assert {(code, text.split()[0]) for code, text in replies} == {(550, "5.7.1")}
    assert not InboundMessage.objects.exists()


def test_a_bounce_at_a_tenants_own_return_path_is_taken_also_when_its_label_was_given_up_meanwhile() -> None:
    house = build()
    delivery = delivered(house)
    token, name = verp.token_of(address(delivery)), house.domain.name
    assert token
    forged = ("b" if token[0] == "a" else "a") + token[1:]
    type(house.domain).objects.filter(id=house.domain.id).update(return_path_verified_at=timezone.now())
    with door() as where:
        replies = asked(where, f"bounces+{token}@send.{name}", f"bounces+{token}@old.{name}", f"postmaster@send.{name}")
        assert [code for code, _ in replies] == [250] * 3
        replies = asked(where, f"bounces+{forged}@send.{name}", f"ann@send.{name}", f"ann@x.send.{name}")
        assert [text.split()[0] for _, text in replies] == ["5.1.1", "5.1.1", "5.7.1"]
        with client(where) as smtp:
            smtp.sendmail("", [f"bounces+{token}@send.{name}"], dsn("ann@one.test"))
    feedback.run()
    delivery.refresh_from_db()
    assert (delivery.status, delivery.late) == ("bounced", True)


def test_a_letter_to_postmaster_is_kept_for_a_person() -> None:
    with door() as where, client(where) as smtp:
        smtp.sendmail("ann@one.test", [f"postmaster@{BOUNCE}"], "Subject: hello\r\n\r\nAre you there?\r\n")
    feedback.run()
    assert InboundMessage.objects.get().state == "kept"


def test_one_mail_for_two_bounce_addresses_is_stored_for_each() -> None:
    house = build()
    one, two = delivered(house), delivered(house, "bob@one.test")
    with door() as where, client(where) as smtp:
        smtp.sendmail("", [address(one), address(two)], dsn("ann@one.test"))
    assert set(InboundMessage.objects.values_list("forward_path", flat=True)) == {address(one), address(two)}


def test_the_spellings_of_a_name_and_many_recipients_do_not_multiply_a_mail(monkeypatch) -> None:
    first, second = (delivered(build()) for _ in range(2))
    names = [f"{name}@{BOUNCE}" for name in ("postmaster", "Postmaster", "POSTMASTER", "pOSTMASTER")]
    with door() as where, client(where) as smtp:
        smtp.sendmail("", [*names, address(first), address(first).upper()], dsn("ann@one.test"))
        assert sorted(InboundMessage.objects.values_list("state", flat=True)) == ["kept", "waiting"]
        monkeypatch.setattr(smtpd, "_MOST_COPIES_OCTETS", 600)
        with pytest.raises(smtplib.SMTPDataError) as refused:
            smtp.sendmail("", [address(first), address(second)], dsn("ann@one.test"))
        assert refused.value.smtp_code == 452
        smtp.sendmail("", [address(second)], dsn("ann@one.test"))
    assert InboundMessage.objects.count() == 3


def test_while_the_database_is_away_the_answer_is_451_and_nothing_is_kept(monkeypatch) -> None:
    house = build()
    path = address(delivered(house))

    def away(*args: object, **kwargs: object) -> None:
        raise OperationalError("connection refused")

    with door() as where, client(where) as smtp:
        with monkeypatch.context() as patch:
            patch.setattr(InboundMessage.objects, "bulk_create", away)
            with pytest.raises(smtplib.SMTPDataError) as refused:
                smtp.sendmail("", [path], dsn("ann@one.test"))
            assert refused.value.smtp_code == 451
            patch.setattr(smtpd, "_sends", away)
            smtp.mail("")
            assert smtp.rcpt("postmaster@who-knows.test")[0] == 451
            smtp.rset()
        assert not InboundMessage.objects.exists()
        assert smtp.sendmail("", [path], dsn("ann@one.test")) == {}


def test_a_connection_that_a_restart_of_postgres_killed_costs_no_mail() -> None:
    house = build()
    path = address(delivered(house))
    with door() as where, client(where) as smtp:
        smtp.sendmail("", [path], dsn("ann@one.test"))
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'idle'"
            )
        smtp.sendmail("", [path], dsn("ann@one.test"))
    connection.pool.check()
    assert InboundMessage.objects.count() == 2


def test_the_command_listens_takes_a_mail_and_ends_on_sigterm(settings) -> None:
    house = build()
    path = address(delivered(house))
    port = free_port()
    db = connection.settings_dict
    url = f"postgres://{db['USER']}:{db['PASSWORD']}@{db['HOST']}:{db['PORT']}/{db['NAME']}"
    env = {**os.environ, "DATABASE_URL": url, "SMTPD_INBOUND": f"127.0.0.1:{port}", "MAILAPI_ROLE": "smtpd"}
    env["DJANGO_SETTINGS_MODULE"] = "mailapi.settings"
    process = subprocess.Popen(
        [sys.executable, "-m", "django", "smtpd"], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        smtp = _reached(port, process)
        smtp.sendmail("", [path], dsn("ann@one.test"))
        assert InboundMessage.objects.count() == 1
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0 and out == b""
        assert smtp.sock is not None and smtp.file.readline().startswith(b"421")  # told, not just cut off
        smtp.close()
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def _reached(port: int, process: subprocess.Popen[bytes]) -> smtplib.SMTP:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()[1].decode()
        try:
            return smtplib.SMTP("127.0.0.1", port, local_hostname="mx.one.test", timeout=60)
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise AssertionError("it does not listen")
