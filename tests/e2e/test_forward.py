"""Received mail handed on: into a mailbox of a real Dovecot by LMTP, to a server by SMTP; what fails is shown."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from deliveries import feedback, forward
from deliveries.management.commands import smtpd
from deliveries.models import Handover, InboundMessage, InboundRoute
from deliveries.retry import Schedule
from deliveries.smtp.listener import Listener, Received
from tests.fakes.dovecot import Dovecot, running_dovecot
from tests.fakes.house import House, build
from tests.fakes.ports import free_port
from tests.steps.test_smtpd import client, door

pytestmark = pytest.mark.django_db(transaction=True)

MAIL = (
    b"From: Ann <ann@one.test>\r\nSubject: Re: order\r\nMessage-ID: <%s@one.test>\r\n\r\n"
    b"Thanks, gr\xc3\xbc\xc3\x9fe\r\n.\r\n..\r\n"
)


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    with running_dovecot() as dovecot:
        yield dovecot


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    monkeypatch.setattr(smtpd._Bell, "ring", lambda self: None)
    settings.RETRY = Schedule(waits_s=(0.01,), max_age_s=3600, jitter=0)
    yield
    connection.close()


def comes_in(house: House, local: str, octets: bytes, reverse_path: str = "ann@one.test") -> Handover:
    """Through the door and its reader."""
    with door() as where, client(where) as smtp:
        assert smtp.sendmail(reverse_path, [f"{local}@{house.domain.name}"], octets, ["BODY=8BITMIME"]) == {}
    feedback.run()
    return Handover.objects.get(tenant=house.tenant, forward_path=f"{local}@{house.domain.name}")


def routed(port: int, how: str = "lmtp", address: str = "*") -> House:
    house = build()
    InboundRoute.objects.create(
        tenant=house.tenant, domain=house.domain, address=address, forward=how, host="localhost", port=port
    )
    return house


def test_a_reply_lands_in_the_mailbox_as_it_came(dovecot: Dovecot) -> None:
    house = routed(dovecot.port)
    order = comes_in(house, "anna", MAIL % b"lands")
    assert forward.run() == 1
    order.refresh_from_db()
    assert order.state == "done" and order.reply.startswith("250 ")
    mail = dovecot.mail("<lands@one.test>")
    assert mail.replace(b"\r\n", b"\n").endswith(b"\n\nThanks, gr\xc3\xbc\xc3\x9fe\n.\n..\n")
    assert b"Return-Path: <ann@one.test>" in mail and b"Received: from mx.one.test" in mail
    assert InboundMessage.objects.get().state == "received"
    assert forward.run() == 0


def test_a_mailbox_that_is_not_there_is_marked_and_nobody_is_written_to(dovecot: Dovecot) -> None:
    house = routed(dovecot.port)
    order = comes_in(house, "nobody", MAIL % b"nobody")
    assert forward.run() == 0
    order.refresh_from_db()
    assert order.state == "failed" and "5.1.1" in order.reply
    assert InboundMessage.objects.get().state == "received"  # it is still here
    assert Handover.objects.count() == 1
    dovecot_knows = [*dovecot.mails("<nobody@one.test>")]
    assert dovecot_knows == []


def test_a_server_that_is_away_is_asked_again(dovecot: Dovecot) -> None:
    house = routed(free_port())
    order = comes_in(house, "anna", MAIL % b"again")
    forward.run()
    order.refresh_from_db()
    assert (order.state, order.tries >= 1) == ("pending", True) and order.reply
    InboundRoute.objects.update(port=dovecot.port)
    Handover.objects.update(due_at=order.created_at)
    assert forward.run() == 1
    assert dovecot.mail("<again@one.test>")


def test_what_is_too_old_is_given_up_and_a_person_may_send_it_again(dovecot: Dovecot, settings: Any) -> None:
    settings.RETRY = Schedule(waits_s=(60,), max_age_s=1, jitter=0)
    house = routed(free_port())
    order = comes_in(house, "anna", MAIL % b"old")
    forward.run()
    order.refresh_from_db()
    assert order.state == "failed" and order.reply.startswith("Given up. ")
    InboundRoute.objects.update(port=dovecot.port)
    assert forward.again([order.id]) == 1
    assert forward.run() == 1


def test_a_mail_that_goes_in_circles_is_not_handed_on(dovecot: Dovecot) -> None:
    house = routed(dovecot.port)
    circles = b"".join(b"Received: from a by b; now\r\n" for _ in range(forward.MAX_RECEIVED))
    order = comes_in(house, "anna", circles + MAIL % b"circles")
    assert forward.run() == 0
    order.refresh_from_db()
    assert order.state == "failed" and "circles" in order.reply
    assert dovecot.mails("<circles@one.test>") == []


def test_by_smtp_the_reverse_path_stays_and_the_null_path_stays_null() -> None:
    took: list[Received] = []
    up, stop = threading.Event(), threading.Event()
    ports: list[int] = []

    async def keep(mail: Received) -> None:
        took.append(mail)

    async def serve() -> None:
        listener = Listener(hostname="mx.else.test", accept_rcpt=lambda path: None, store=keep)
        ports.append((await listener.start("127.0.0.1", 0))[1])
        up.set()
        await asyncio.to_thread(stop.wait)
        await listener.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert up.wait(60)
        house = routed(ports[0], "smtp")
        comes_in(house, "sales", MAIL % b"smtp")
        comes_in(house, "nobody", b"Subject: vacation\r\n\r\nAway.\r\n", reverse_path="")
        assert forward.run() == 2
    finally:
        stop.set()
        thread.join()
    assert sorted((m.reverse_path, m.forward_paths) for m in took) == [
        ("", (f"nobody@{house.domain.name}",)),
        ("ann@one.test", (f"sales@{house.domain.name}",)),
    ]


def test_an_address_without_a_route_to_anybody_makes_no_order() -> None:
    house = build()
    InboundRoute.objects.create(tenant=house.tenant, domain=house.domain, address="*")
    with door() as where, client(where) as smtp:
        smtp.sendmail("ann@one.test", [f"x@{house.domain.name}"], b"Subject: x\r\n\r\nx\r\n")
    feedback.run()
    assert InboundMessage.objects.get().state == "received" and not Handover.objects.exists()
