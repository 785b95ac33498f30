"""The pump against the mail servers that the world runs: found by MX, spoken to by STARTTLS, read in the mailbox.

What a server says is its own: these tests hold what must come of it. The faults that no real server shows on request
are played in tests/core (dialogues).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deliveries.models import Attempt, Suppression
from deliveries.routing.resolver import Resolver
from deliveries.routing.route import Routed, Router
from deliveries.smtp.hop import Envelope
from deliveries.smtp.outcome import Attempted, Replied, Stage
from deliveries.smtp.pool import Pool
from deliveries.smtp.session import open_gate
from tests.e2e.postbox import Postbox, posting, signed_by_us
from tests.fakes.daemon import MAX_OCTETS, Receiver
from tests.fakes.exim import running_exim
from tests.fakes.opensmtpd import running_opensmtpd
from tests.fakes.postfix import running_postfix

pytestmark = pytest.mark.django_db(transaction=True)

SERVERS: dict[str, Callable[[], contextlib.AbstractContextManager[Receiver]]] = {
    "postfix": running_postfix,
    "exim": running_exim,
    "opensmtpd": running_opensmtpd,
}


@pytest.fixture(scope="module", params=list(SERVERS))
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    with SERVERS[request.param]() as receiver:
        yield receiver


@pytest.fixture
def postbox(receiver: Receiver, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postbox]:
    with posting(receiver, settings, monkeypatch) as postbox:
        yield postbox


def protected_as_offered(attempt: Attempt, receiver: Receiver) -> bool:
    """RFC 7435: encrypted without asking for proof; in clear, on a second connection, where the handshake fails."""
    if receiver.handshakes:
        return attempt.tls.startswith("TLSv1.3 ") and attempt.tls.endswith("not verified")
    return attempt.tls == "" and "STARTTLS" in attempt.transcript and "new connection without TLS" in attempt.transcript


def test_a_mail_finds_its_mx_is_protected_as_offered_and_arrives_as_it_was_signed(
    postbox: Postbox, receiver: Receiver
) -> None:
    text = "Grüße\n.\n..two dots\n.hidden\n" + "a long line " * 200 + "\n\n\nend  \n"
    delivery = postbox.send("anna@mx.test", subject="Ihre Quittung für März ✓", text=text, html="<p>Grüße</p>")
    assert delivery.status == "delivered" and delivery.attempts == 1
    attempt = Attempt.objects.get(delivery=delivery)
    assert (attempt.host, attempt.address, attempt.port) == ("mx.receiver.test", "127.0.0.1", receiver.port)
    assert protected_as_offered(attempt, receiver) and attempt.code == 250
    mail = receiver.mail(delivery.message.message_id)
    assert signed_by_us(mail)
    assert not signed_by_us(mail.replace(b"end", b"END"))
    assert b"\nReturn-Path: <bounce" in b"\n" + mail.replace(b"Return-path:", b"Return-Path:")


def test_an_unknown_user_bounces_and_is_suppressed(postbox: Postbox, receiver: Receiver) -> None:
    delivery = postbox.send("nobody@mx.test")
    assert (delivery.status, delivery.category) == ("bounced", "bad_mailbox")
    attempt = Attempt.objects.get(delivery=delivery)
    assert (attempt.code, attempt.stage) == (550, "rcpt")
    assert attempt.enhanced == ("" if receiver.name == "opensmtpd" else "5.1.1")
    suppression = Suppression.objects.get(tenant=postbox.house.tenant)
    assert (suppression.address, suppression.stream) == ("nobody@mx.test", "*")


def test_a_refused_recipient_harms_nobody_else_on_the_connection(postbox: Postbox, receiver: Receiver) -> None:
    sent = postbox.send_all("anna@mx.test", "nobody@mx.test", "grey@mx.test", "anna@equal.test")
    assert [d.status for d in sent] == ["delivered", "bounced", "delivered", "delivered"]
    later = postbox.send("anna@mx.test")
    assert later.status == "delivered"
    assert "connection reused" in Attempt.objects.get(delivery=later).transcript
    assert len(receiver.mails(sent[0].message.message_id)) == 3


def test_a_mail_above_the_announced_size_fails_before_data(postbox: Postbox) -> None:
    delivery = postbox.send("anna@mx.test", text="0123456789\n" * (MAX_OCTETS // 11))
    attempt = Attempt.objects.get(delivery=delivery)
    assert (delivery.status, delivery.category, attempt.enhanced) == ("bounced", "message_too_large", "5.3.4")
    assert "MAIL FROM" not in attempt.transcript and f"SIZE {MAX_OCTETS}" in attempt.transcript
    assert not Suppression.objects.filter(tenant=postbox.house.tenant).exists()


def test_a_mail_just_below_the_announced_size_is_taken_whole(postbox: Postbox, receiver: Receiver) -> None:
    delivery = postbox.send("anna@mx.test", text="0123456789\n" * (MAX_OCTETS * 9 // 110))
    assert delivery.status == "delivered", delivery.reply
    assert signed_by_us(receiver.mail(delivery.message.message_id))


def test_without_starttls_it_goes_in_clear_text(postbox: Postbox, receiver: Receiver) -> None:
    postbox.point(SMTP_PORT=receiver.clear_port)
    delivery = postbox.send("anna@mx.test")
    attempt = Attempt.objects.get(delivery=delivery)
    assert (delivery.status, attempt.tls) == ("delivered", "") and "STARTTLS" not in attempt.transcript
    assert signed_by_us(receiver.mail(delivery.message.message_id))


def test_a_certificate_for_another_host_is_no_reason_against_encryption(postbox: Postbox, receiver: Receiver) -> None:
    postbox.point(SMTP_PORT=receiver.wrong_port)
    delivery = postbox.send("anna@mx.test")
    assert delivery.status == "delivered"
    assert protected_as_offered(Attempt.objects.get(delivery=delivery), receiver)


def test_greylisting_is_waited_out(postbox: Postbox, receiver: Receiver) -> None:
    delivery = postbox.send("grey@mx.test")
    assert (delivery.status, delivery.attempts) == ("delivered", 2)
    first, second = Attempt.objects.filter(delivery=delivery).order_by("id")
    assert (first.status, first.category, first.enhanced) == ("deferred", "greylisted", "4.2.0") and first.code in (
        450,
        451,
    )
    assert second.status == "delivered"
    assert signed_by_us(receiver.mail(delivery.message.message_id))


def test_a_recipient_beyond_ascii_goes_by_smtputf8_or_bounces(postbox: Postbox, receiver: Receiver) -> None:
    delivery = postbox.send("größe@mx.test")
    if not receiver.smtputf8:
        attempt = Attempt.objects.get(delivery=delivery)
        assert (delivery.status, delivery.category, attempt.enhanced) == ("bounced", "protocol", "5.6.7")
        assert "MAIL FROM" not in attempt.transcript
        assert not Suppression.objects.filter(tenant=postbox.house.tenant).exists()
        return
    assert delivery.status == "delivered", delivery.reply
    transcript = Attempt.objects.get(delivery=delivery).transcript
    assert "RCPT TO:<größe@mx.test>" in transcript and re.search(r"MAIL FROM:<[^>]*>.* SMTPUTF8", transcript)
    assert signed_by_us(receiver.mail(delivery.message.message_id))


def test_a_domain_beyond_ascii_is_asked_for_by_its_a_label(postbox: Postbox, receiver: Receiver) -> None:
    delivery = postbox.send("anna@bücher.test")
    assert delivery.status == "delivered", delivery.reply
    transcript = Attempt.objects.get(delivery=delivery).transcript
    assert "RCPT TO:<anna@xn--bcher-kva.test>" in transcript and "SMTPUTF8" not in transcript.partition("MAIL FROM")[2]


def test_a_null_mx_bounces_without_a_connection(postbox: Postbox) -> None:
    delivery = postbox.send("anna@null.test")
    assert (delivery.status, delivery.category) == ("bounced", "bad_domain")
    assert not Attempt.objects.filter(delivery=delivery).exclude(transcript="").exists()
    assert "null MX" in delivery.reason
    assert postbox.dns.asked == [("null.test", "MX", "udp")]


def test_without_mx_the_domains_own_address_takes_the_mail(postbox: Postbox, receiver: Receiver) -> None:
    delivery = postbox.send("anna@implicit.test")
    assert delivery.status == "delivered", delivery.reply
    assert Attempt.objects.get(delivery=delivery).host == "implicit.test"
    assert signed_by_us(receiver.mail(delivery.message.message_id))


def test_a_dead_first_mx_sends_the_mail_to_the_next(postbox: Postbox) -> None:
    delivery = postbox.send("anna@two.test")
    assert (delivery.status, delivery.attempts) == ("delivered", 1)
    tries = Attempt.objects.filter(delivery=delivery).order_by("id")
    assert [(t.host, t.status) for t in tries] == [
        ("dead.receiver.test", "deferred"),
        ("mx.receiver.test", "delivered"),
    ]


# --- IPv6 -----------------------------------------------------------------------------------------------------------


def test_a_host_with_ipv6_only_waits_until_an_address_of_ours_is_verified(postbox: Postbox) -> None:
    delivery = postbox.once("anna@six.test")
    assert (delivery.status, delivery.category) == ("deferred", "network")
    assert "IPv6 only" in delivery.reason


def test_with_a_verified_address_the_mail_goes_by_ipv6(postbox: Postbox, receiver: Receiver) -> None:
    async def deliver_by_ipv6() -> Attempted:
        resolver = Resolver((postbox.dns.address,))
        router = Router(resolver, smtp_port=receiver.port, allow_private=True, ipv6_ok=True)
        routed = await router.route("six.test")
        assert isinstance(routed, Routed) and [hop.address for hop in routed.hops] == ["::1"]
        pool = Pool(helo_name="mail.sender.test", ca_file=str(receiver.certificates.ca))
        octets = b"From: app@sender.test\r\nMessage-ID: <six@sender.test>\r\n\r\nby IPv6\r\n"
        envelope = Envelope("app@sender.test", "anna@six.test")
        (attempted,) = await pool.deliver(routed.hops, envelope, octets, open_gate)
        await pool.close()
        return attempted

    outcome = asyncio.run(deliver_by_ipv6()).outcome
    assert isinstance(outcome, Replied) and outcome.stage is Stage.DOT and outcome.reply.positive
    assert b"by IPv6" in receiver.mail("<six@sender.test>")
