"""Routes that an operator fixed, against real servers: Dovecot by LMTP, smarthosts with AUTH over STARTTLS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from deliveries.models import Attempt, Suppression
from deliveries.smtp.outcome import Stage
from tests.e2e.postbox import Postbox, posting, signed_by_us
from tests.fakes import dovecot as dovecot_
from tests.fakes import exim as exim_
from tests.fakes.daemon import Receiver
from tests.fakes.dovecot import Dovecot, running_dovecot
from tests.fakes.exim import Exim, running_exim
from tests.fakes.postfix import Postfix, running_postfix

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def dovecot() -> Iterator[Dovecot]:
    with running_dovecot() as dovecot:
        yield dovecot


@pytest.fixture(scope="module")
def postfix(dovecot: Dovecot) -> Iterator[Postfix]:
    with running_postfix(sasl=dovecot.sasl) as postfix:
        yield postfix


@pytest.fixture(scope="module")
def exim() -> Iterator[Exim]:
    with running_exim() as exim:
        yield exim


# --- LMTP ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def to_dovecot(dovecot: Dovecot, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postbox]:
    with posting(dovecot, settings, monkeypatch) as postbox:
        route = {"name": "mailboxes", "host": "lmtp.receiver.test", "port": dovecot.port, "lmtp": True}
        postbox.point(MAIL_ROUTES=json.dumps({"corp.test": route}))
        yield postbox


def test_an_lmtp_route_lays_the_mail_into_the_mailbox(to_dovecot: Postbox, dovecot: Dovecot) -> None:
    delivery = to_dovecot.send("anna@corp.test", text="Grüße\n.\n..\n")
    assert delivery.status == "delivered", delivery.reply
    attempt = Attempt.objects.get(delivery=delivery)
    assert "LHLO mail.sender.test" in attempt.transcript and attempt.tls.startswith("TLSv1.3")
    assert signed_by_us(dovecot.mail(delivery.message.message_id))
    assert not any(rdtype == "MX" for _, rdtype, _ in to_dovecot.dns.asked)


def test_lmtp_connections_are_used_again(to_dovecot: Postbox) -> None:
    first, second = to_dovecot.send("anna@corp.test"), to_dovecot.send("grey@corp.test")
    assert (first.status, second.status) == ("delivered", "delivered")
    assert "connection reused" in Attempt.objects.get(delivery=second).transcript


def test_a_mailbox_that_lmtp_does_not_know_bounces(to_dovecot: Postbox) -> None:
    delivery = to_dovecot.send("nobody@corp.test")
    attempt = Attempt.objects.get(delivery=delivery)
    assert (delivery.status, delivery.category, attempt.enhanced) == ("bounced", "bad_mailbox", "5.1.1")
    assert Suppression.objects.filter(tenant=to_dovecot.house.tenant, address="nobody@corp.test").exists()


def test_a_full_mailbox_bounces_after_the_dot_and_suppresses_nobody(to_dovecot: Postbox) -> None:
    delivery = to_dovecot.send(f"{dovecot_.FULL}@corp.test")
    attempt = Attempt.objects.get(delivery=delivery)
    assert (delivery.status, delivery.category, attempt.enhanced) == ("bounced", "mailbox_full", "5.2.2")
    assert attempt.stage == Stage.DOT
    assert not Suppression.objects.filter(tenant=to_dovecot.house.tenant).exists()


# --- smarthosts ---------------------------------------------------------------------------------------------------


def smarthost(postbox: Postbox, port: int, username: str, password: str, **more: Any) -> None:
    route = {"host": "smtp.receiver.test", "port": port, "username": username, "password": password, **more}
    postbox.point(MAIL_ROUTES=json.dumps({"*": route}))


@pytest.fixture(params=["postfix and dovecot, LOGIN", "exim, PLAIN"])
def host(request: pytest.FixtureRequest) -> tuple[Receiver, int, str, str, str]:
    """A submission server: itself, its port, a user name with its password, and the mechanism that it offers."""
    if request.param.startswith("exim"):
        exim: Exim = request.getfixturevalue("exim")
        return exim, exim.submission_port, exim_.USERNAME, exim_.PASSWORD, "PLAIN"
    postfix: Postfix = request.getfixturevalue("postfix")
    return postfix, postfix.submission_port, dovecot_.USERNAME, dovecot_.PASSWORD, "LOGIN"


@pytest.fixture
def postbox(
    host: tuple[Receiver, int, str, str, str], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Postbox]:
    with posting(host[0], settings, monkeypatch) as postbox:
        yield postbox


def test_a_smarthost_takes_the_mail_after_auth_on_a_verified_connection(
    postbox: Postbox, host: tuple[Receiver, int, str, str, str]
) -> None:
    receiver, port, username, password, mechanism = host
    smarthost(postbox, port, username, password)
    delivery = postbox.send("anna@elsewhere.test")
    assert delivery.status == "delivered", delivery.reply
    attempt = Attempt.objects.get(delivery=delivery)
    assert attempt.tls.startswith("TLSv1.3") and attempt.tls.endswith(", verified")
    assert f"AUTH {mechanism}" in attempt.transcript and password not in attempt.transcript
    assert signed_by_us(receiver.mail(delivery.message.message_id))


def test_a_smarthost_that_refuses_our_password_keeps_the_mail_waiting(
    postbox: Postbox, host: tuple[Receiver, int, str, str, str]
) -> None:
    _, port, username, _, _ = host
    smarthost(postbox, port, username, "wrong")
    delivery = postbox.once("anna@elsewhere.test")
    attempt = Attempt.objects.filter(delivery=delivery).first()
    assert attempt is not None and (attempt.stage, attempt.code) == ("auth", 535)
    assert (delivery.status, delivery.category) == ("deferred", "policy_auth")
    assert not Suppression.objects.filter(tenant=postbox.house.tenant).exists()


def test_a_smarthost_with_a_certificate_that_we_do_not_trust_never_hears_the_password(
    postbox: Postbox, host: tuple[Receiver, int, str, str, str]
) -> None:
    _, port, username, password, _ = host
    smarthost(postbox, port, username, password)
    postbox.point(SMTP_CA_FILE="")
    delivery = postbox.once("anna@elsewhere.test")
    attempt = Attempt.objects.filter(delivery=delivery).first()
    assert attempt is not None and (delivery.status, delivery.category) == ("deferred", "tls")
    assert "AUTH" not in attempt.transcript.rpartition("STARTTLS")[2]


def test_a_relay_that_knows_one_sender_only_gets_the_fixed_return_path(
    postbox: Postbox, host: tuple[Receiver, int, str, str, str]
) -> None:
    receiver, port, username, password, _ = host
    smarthost(postbox, port, username, password, return_path="fixed")
    delivery = postbox.send("anna@elsewhere.test")
    assert delivery.status == "delivered", delivery.reply
    mail = receiver.mail(delivery.message.message_id)
    assert mail.lower().startswith(b"return-path: <bounces@bounce.sender.test>\n")
