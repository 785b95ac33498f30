"""A whole mail, accepted and delivered: as it came, signed, and recoded for a hop without 8BITMIME."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import dkim
import pytest
from aiosmtpd.smtp import SMTP
from django.utils import timezone

from deliveries import deliver, keys
from deliveries.accept import accept, of_raw
from deliveries.deliver import jobs
from deliveries.errors import BadInput
from deliveries.mime import raw
from deliveries.mime.address import parse_address
from deliveries.models import Delivery, Message, MessageContent
from deliveries.read import contents, emails, story
from deliveries.retry import Schedule
from tests.fakes.house import House, build, dkim_pair
from tests.fakes.labs import fresh_pump, running_lab

pytestmark = pytest.mark.django_db(transaction=True)

BODY = "Grüße aus Köln\r\n".encode()


@pytest.fixture(autouse=True)
def _pump(settings) -> Iterator[None]:
    settings.RETRY = Schedule(waits_s=(0.05,), max_age_s=3600, unknown_wait_s=0.3, jitter=0)
    with fresh_pump():
        jobs._kept.clear()
        yield


@pytest.fixture
def lab(settings) -> Iterator:
    with running_lab() as lab:
        settings.MAIL_ROUTE, settings.SANDBOX_SMTP = "sandbox", lab.address
        yield lab


@pytest.fixture
def old_host(settings) -> Iterator[list[bytes]]:
    """A receiver that does not offer 8BITMIME; what it took."""
    took: list[bytes] = []

    class Handler:
        async def handle_EHLO(self, server, session, envelope, hostname, responses):
            session.host_name = hostname
            return [r for r in responses if "8BITMIME" not in r]

        async def handle_DATA(self, server, session, envelope):
            took.append(envelope.content)
            return "250 ok"

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: SMTP(Handler(), loop=loop), "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    settings.MAIL_ROUTE, settings.SANDBOX_SMTP = "sandbox", server.sockets[0].getsockname()[:2]
    with fresh_pump():  # which says good-bye while somebody answers
        yield took
    for task in asyncio.all_tasks(loop):
        loop.call_soon_threadsafe(task.cancel)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    server.close()
    loop.close()


def given(house: House, head: str = "", body: bytes = BODY) -> raw.Raw:
    return raw.read(
        f"From: {house.sender}\r\nTo: delivered@simulator.test\r\nSubject: hi\r\n{head}\r\n".encode() + body
    )


def sent(house: House, mail: raw.Raw, *envelope: str) -> Message:
    draft = of_raw(mail, [parse_address(a) for a in envelope])
    return Message.objects.get(id=accept(keys.hash_of(house.secret), [draft]).ids[0])


def verified(octets: bytes) -> bool:
    record = f"v=DKIM1; k=rsa; p={dkim_pair()[1]}".encode()
    return bool(dkim.verify(octets, dnsfunc=lambda name, timeout=5: record))


def test_it_arrives_as_it_came_to_those_whom_the_envelope_names(lab) -> None:
    house = build()
    mail = given(house, "Cc: delivered+cc@simulator.test\r\nBcc: delivered+no@simulator.test\r\n")
    message = sent(house, mail, "delivered@simulator.test", "delivered+blind@simulator.test")
    assert (message.to, message.cc) == (["delivered@simulator.test"], ["delivered+cc@simulator.test"])
    assert message.bcc == ["delivered+blind@simulator.test"]
    assert list(Delivery.objects.filter(message=message).order_by("position").values_list("field", "recipient")) == [
        ("to", "delivered@simulator.test"),
        ("bcc", "delivered+blind@simulator.test"),
    ]
    deliver.run()
    one, two = lab.messages
    assert one.octets.endswith(b"\r\n\r\n" + BODY) and b"Bcc" not in one.octets
    assert verified(one.octets) and verified(two.octets)
    assert f"Message-ID: <{message.message_id}>".encode() in one.octets
    assert bytes(MessageContent.objects.get(id=message.id).raw) == mail.octets


def test_without_an_envelope_the_header_names_the_recipients(lab) -> None:
    message = sent(house := build(), given(house, "Bcc: delivered+b@simulator.test\r\nMessage-ID: <own@x.test>\r\n"))
    assert message.message_id == "own@x.test"
    recipients = Delivery.objects.filter(message=message).order_by("position").values_list("field", "recipient")
    assert list(recipients) == [("to", "delivered@simulator.test"), ("bcc", "delivered+b@simulator.test")]


def test_a_foreign_from_is_refused_and_nothing_is_stored() -> None:
    house, other = build(), build()
    with pytest.raises(BadInput, match="not verified"):
        sent(house, given(other), "delivered@simulator.test")
    assert not Message.objects.filter(tenant=house.tenant).exists()


def test_a_hop_without_8bitmime_gets_it_recoded_and_rightly_signed(old_host: list[bytes]) -> None:
    house = build()
    message = sent(house, given(house, "Content-Type: text/plain; charset=utf-8\r\n"))
    deliver.run()
    (octets,) = old_host
    assert octets.isascii() and b"=C3=BC" in octets and verified(octets)
    (delivery,) = Delivery.objects.filter(message=message)
    assert (delivery.status, delivery.attempts) == ("delivered", 1)


def test_what_a_signature_covers_is_not_recoded_but_told_as_5_6_3(old_host: list[bytes]) -> None:
    house = build()
    head = 'Content-Type: multipart/signed; protocol="application/pgp-signature"; boundary=s\r\n'
    body = b"--s\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + BODY + b"--s\r\n\r\nsig\r\n--s--\r\n"
    message = sent(house, given(house, head, body))
    deliver.run()
    (delivery,) = Delivery.objects.filter(message=message)
    assert delivery.enhanced == "5.6.3" and delivery.status in ("bounced", "failed"), delivery.reason
    assert old_host == []


def test_a_report_leaves_with_the_null_reverse_path(lab) -> None:
    house = build()
    head = "Content-Type: multipart/report; report-type=delivery-status; boundary=r\r\n"
    sent(house, given(house, head, b"--r\r\n\r\nx\r\n--r--\r\n"))
    deliver.run()
    (mail,) = lab.messages
    assert mail.reverse_path == ""


def test_the_panel_and_the_api_show_what_stands_in_it() -> None:
    house = build()
    body = (
        b"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>Gr\xc3\xbc\xc3\x9fe <img src=cid:dot></p>\r\n"
        b"--b\r\nContent-Type: image/png\r\nContent-ID: <dot>\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        b"iVBORw0KGgo=\r\n--b--\r\n"
    )
    message = sent(house, given(house, "X-Order: 17\r\nContent-Type: multipart/related; boundary=b\r\n", body))
    told = story.story(message, timezone.now())
    assert told.has_html and ("x-order", "17") in told.headers and told.content_kept
    shown = contents.body(message)
    assert shown is not None and "Grüße" in shown.html and shown.images["dot"][0] == "image/png"
    found = emails.email(house.tenant.id, message.id)
    assert found is not None and "Grüße" in found["html"]
