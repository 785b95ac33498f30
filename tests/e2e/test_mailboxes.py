"""Bounce mailboxes of a real Dovecot, by IMAP and POP3: a bounce that lies there acts once, and is taken away after."""

from __future__ import annotations

import imaplib
import os
import signal
import smtplib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.models.functions import Now

from deliveries import feedback, mailboxes
from deliveries.bounces import imap, pop3, wire
from deliveries.errors import MailboxFailed, MailNotFetched
from deliveries.mime import verp
from deliveries.models import BounceMailbox, Event, FetchedMail, InboundMessage, Suppression
from tests.fakes.dovecot import PASSWORD, POLLED, Dovecot, running_dovecot
from tests.fakes.house import build
from tests.fakes.returned import address, dsn, token
from tests.steps.test_feedback import delivered

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).resolve().parents[2]
WAYS = ["imap implicit", "imap starttls", "pop3 implicit", "pop3 starttls"]


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    with running_dovecot(polled=True) as dovecot:
        yield dovecot


@pytest.fixture(autouse=True)
def _trusts(dovecot: Dovecot, settings: Any) -> Iterator[None]:
    settings.SMTP_CA_FILE = str(dovecot.certificates.ca)
    with imaplib.IMAP4("127.0.0.1", dovecot.imap) as imap:
        imap.login(POLLED, PASSWORD)
        if imap.select()[1] != [b"0"]:
            imap.store("1:*", "+FLAGS", "\\Deleted")
            imap.expunge()
    yield
    connection.close()


def account(dovecot: Dovecot, way: str, **fields: Any) -> BounceMailbox:
    protocol, tls = way.split()
    port = getattr(dovecot, protocol + ("s" if tls == "implicit" else ""))
    fields = {"host": "localhost", "password": PASSWORD.encode(), **fields}
    return BounceMailbox.objects.create(protocol=protocol, tls=tls, port=port, username=POLLED, **fields)


def arrives(dovecot: Dovecot, forward_path: str, octets: bytes) -> None:
    """By LMTP, so that the MDA writes the fields that it always writes."""
    before = len(dovecot.left(POLLED))
    with smtplib.LMTP("127.0.0.1", dovecot.port, local_hostname="mx.one.test", timeout=60) as lmtp:
        assert lmtp.sendmail("", [forward_path], octets) == {}
    end = time.monotonic() + 60
    while len(dovecot.left(POLLED)) == before:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate is for the receiver's name, which no resolver of this machine knows."""
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: real("127.0.0.1" if "receiver" in host else host, *a, **k)
    )


@pytest.mark.parametrize("way", WAYS)
def test_a_bounce_in_a_mailbox_ends_in_bounced_and_suppressed_and_is_taken_away(dovecot: Dovecot, way: str) -> None:
    house = build()
    delivery = delivered(house)
    row = account(dovecot, way, host="mx.receiver.test")
    arrives(dovecot, address(delivery), dsn("ann@one.test"))
    assert mailboxes.run() == 1
    row.refresh_from_db()
    assert row.last_error == "" and row.last_polled_at is not None
    assert dovecot.left(POLLED) == []
    assert not FetchedMail.objects.exists()
    mail = InboundMessage.objects.get()
    assert mail.forward_path == address(delivery) and mail.peer == f"{row.protocol}://mx.receiver.test"
    feedback.run()
    delivery.refresh_from_db()
    assert (delivery.status, delivery.late) == ("bounced", True)
    assert Suppression.objects.get(tenant=house.tenant).address == "ann@one.test"
    mailboxes.check_now(BounceMailbox.objects.all())
    assert mailboxes.run() == 0


def events(house: Any) -> list[str]:
    return list(Event.objects.filter(tenant_id=house.tenant.id, type="email.bounced").values_list("type", flat=True))


def polled(row: BounceMailbox) -> BounceMailbox:
    mailboxes.check_now(BounceMailbox.objects.filter(id=row.id))
    mailboxes.run()
    row.refresh_from_db()
    return row


DIES = """
import os, signal, django
django.setup()
from deliveries import mailboxes
mailboxes._acknowledge = lambda box, key: os.kill(os.getpid(), signal.SIGKILL)
mailboxes.run()
"""


@pytest.mark.parametrize("way", ["imap implicit", "pop3 implicit"])
def test_a_worker_killed_between_commit_and_deletion_makes_no_second_effect(dovecot: Dovecot, way: str) -> None:
    house = build()
    delivery = delivered(house)
    row = account(dovecot, way)
    arrives(dovecot, address(delivery), dsn("ann@one.test"))
    BounceMailbox.objects.update(host="127.0.0.1", tls="none", port=getattr(dovecot, row.protocol))
    db = connection.settings_dict
    url = f"postgres://{db['USER']}:{db['PASSWORD']}@{db['HOST']}:{db['PORT']}/{db['NAME']}"
    done = subprocess.run(
        [sys.executable, "-c", DIES], cwd=ROOT, env={**os.environ, "DATABASE_URL": url}, check=False, timeout=120
    )
    assert done.returncode == -signal.SIGKILL
    assert len(dovecot.left(POLLED)) == 1 and InboundMessage.objects.count() == 1
    feedback.run()
    assert events(house) == ["email.bounced"]
    assert polled(row).last_error == ""
    assert dovecot.left(POLLED) == [] and InboundMessage.objects.count() == 1
    feedback.run()
    assert events(house) == ["email.bounced"] and not FetchedMail.objects.exists()


def test_without_uidplus_what_somebody_else_marked_deleted_stays(
    dovecot: Dovecot, monkeypatch: pytest.MonkeyPatch
) -> None:
    able = imap.Imap._ask_capabilities
    monkeypatch.setattr(imap.Imap, "_ask_capabilities", lambda self: able(self) - {"UIDPLUS"})
    row = account(dovecot, "imap implicit", host="mx.receiver.test")
    to = address(delivered(build()))
    with imaplib.IMAP4("127.0.0.1", dovecot.imap) as theirs:
        theirs.login(POLLED, PASSWORD)
        theirs.append("INBOX", "", "", b"Subject: theirs\r\n\r\n")
        theirs.select()
        theirs.store("1", "+FLAGS", "\\Deleted")
        arrives(dovecot, to, dsn("ann@one.test"))
        assert polled(row).last_error == ""
        assert InboundMessage.objects.count() == FetchedMail.objects.count() == 1
        assert len(dovecot.left(POLLED)) == 2
        theirs.store("1", "-FLAGS", "\\Deleted")
        assert polled(row).last_error == "" and not FetchedMail.objects.exists()
        assert InboundMessage.objects.count() == 2 and dovecot.left(POLLED) == []


@pytest.mark.parametrize("way", ["imap implicit", "pop3 implicit"])
def test_what_could_not_be_committed_stays_in_the_mailbox(
    dovecot: Dovecot, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = account(dovecot, way, host="mx.receiver.test")
    arrives(dovecot, address(delivered(build())), dsn("ann@one.test"))

    def away(*args: object, **kwargs: object) -> None:
        raise OperationalError("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr(InboundMessage.objects, "bulk_create", away)
        with pytest.raises(OperationalError):
            polled(row)
    assert len(dovecot.left(POLLED)) == 1 and not InboundMessage.objects.exists()
    assert polled(row).last_error == ""
    assert dovecot.left(POLLED) == [] and InboundMessage.objects.count() == 1


@pytest.mark.parametrize("way", ["imap implicit", "pop3 implicit"])
def test_a_mailbox_whose_mail_is_kept_is_read_once_all_the_same(dovecot: Dovecot, way: str) -> None:
    row = account(dovecot, way, host="mx.receiver.test", delete_after=False)
    delivery = delivered(build())
    for _ in range(2):
        arrives(dovecot, address(delivery), dsn("ann@one.test"))
    polled(row)
    arrives(dovecot, address(delivery), dsn("ann@one.test"))
    polled(row)
    assert polled(row).last_error == ""
    assert InboundMessage.objects.count() == 3 and len(dovecot.left(POLLED)) == 3
    keywords = [p.name for p in (dovecot.home / "mail" / POLLED / "cur").glob("*:2,*S*")]
    assert len(keywords) == 3  # seen: Dovecot says so of what POP3 fetched, too


def test_a_token_that_stands_in_the_returned_header_alone_is_enough(dovecot: Dovecot) -> None:
    house = build()
    delivery = delivered(house)
    row = account(dovecot, "imap implicit", host="mx.receiver.test")
    arrives(dovecot, f"{POLLED}@corp.test", dsn("ann@one.test", head=f"{verp.TOKEN_HEADER}: {token(delivery)}\n"))
    arrives(dovecot, f"{POLLED}@corp.test", dsn("bob@one.test"))
    polled(row)
    feedback.run()
    assert events(house) == ["email.bounced"]
    assert set(InboundMessage.objects.values_list("forward_path", "state")) == {
        (f"{POLLED}@corp.test", "acted"),
        (f"{POLLED}@corp.test", "unmatched"),
    }


@pytest.mark.parametrize("how", [MailNotFetched, MailboxFailed])
@pytest.mark.parametrize("way", ["imap implicit", "pop3 implicit"])
def test_a_mail_that_the_server_refuses_or_dies_on_stands_in_no_others_way(
    dovecot: Dovecot, way: str, how: type[MailboxFailed], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = account(dovecot, way, host="mx.receiver.test")
    delivery = delivered(build())
    session = imap.Imap if way.startswith("imap") else pop3.Pop3
    real = session.fetch

    def fetch(self: Any, key: str) -> bytes:
        octets = real(self, key)
        if b"X-N: broken" in octets:
            raise how("no such thing")
        return octets

    def arrive(mark: object) -> None:
        arrives(dovecot, address(delivery), dsn("ann@one.test", head=f"X-N: {mark}\n"))

    with monkeypatch.context() as patch:
        patch.setattr(session, "fetch", fetch)
        arrive("broken")
        for n in range(2):
            arrive(n)
            polled(row)
        FetchedMail.objects.update(tries=mailboxes.MAX_TRIES - 1)
        for n in range(3):
            arrive(n)
            BounceMailbox.objects.update(next_poll_at=Now())
            mailboxes.run()
        row.refresh_from_db()
        assert InboundMessage.objects.count() == 5 and len(dovecot.left(POLLED)) == 1
        assert row.last_error.startswith("Mails that could not be fetched and stay in the mailbox: 1")
        assert row.failures == 0
    assert polled(row).last_error == "" and InboundMessage.objects.count() == 6


def test_what_is_wrong_is_said_in_words_and_the_next_poll_waits_longer(dovecot: Dovecot, settings: Any) -> None:
    house = build()
    row = account(dovecot, "imap implicit", host="mx.receiver.test", password=b"wrong")
    assert polled(row).last_error.startswith("Login refused: ")
    first = row.next_poll_at - row.last_polled_at
    polled(row)
    assert row.failures == 2 and row.next_poll_at - row.last_polled_at > first
    BounceMailbox.objects.update(password=PASSWORD.encode(), folder="No such")
    assert polled(row).last_error.startswith("The folder No such cannot be opened: ")
    BounceMailbox.objects.update(folder="INBOX", host="other.receiver.test")
    assert polled(row).last_error.startswith("The certificate does not prove the host: ")
    BounceMailbox.objects.update(host="mx.receiver.test", tls="starttls", port=dovecot.port)
    assert polled(row).last_error != ""
    BounceMailbox.objects.update(tls="implicit", port=dovecot.imaps, tenant=house.tenant)
    assert "not a public address" in polled(row).last_error
    BounceMailbox.objects.update(tenant=None)
    settings.SMTP_CA_FILE = ""
    assert polled(row).last_error.startswith("The certificate does not prove the host: ")
    settings.SMTP_CA_FILE = str(dovecot.certificates.ca)
    assert (polled(row).last_error, row.failures) == ("", 0)


def test_a_server_that_never_answers_holds_up_no_other_mailbox(
    dovecot: Dovecot, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (wire, imap, pop3):
        monkeypatch.setattr(module, "READ_S", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dead = account(dovecot, "imap starttls", host="127.0.0.1")
        BounceMailbox.objects.update(port=silent.getsockname()[1])
        good = account(dovecot, "pop3 implicit", host="mx.receiver.test")
        arrives(dovecot, address(delivered(build())), dsn("ann@one.test"))
        assert mailboxes.run() == 1
    dead.refresh_from_db()
    good.refresh_from_db()
    assert dead.last_error == "No answer within 3 s" and good.last_error == ""
