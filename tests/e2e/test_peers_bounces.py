"""Real servers take a mail of ours, think better of it, and say so by a mail of their own to our own door.

Nothing is played: the mail is accepted, signed and delivered by the pump, the report is what Postfix or Exim writes,
and it comes in through the listener of `manage.py smtpd` to the address that the mail left with.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deliveries import feedback
from deliveries.management.commands import smtpd
from deliveries.models import Event, InboundMessage, Queued, Suppression
from tests.e2e.postbox import Postbox, posting
from tests.fakes.daemon import ARRIVE_S
from tests.fakes.exim import Exim, running_exim
from tests.fakes.postfix import Postfix, running_postfix
from tests.steps.test_smtpd import door

pytestmark = pytest.mark.django_db(transaction=True)

Peer = Postfix | Exim
SERVERS: dict[str, Callable[..., contextlib.AbstractContextManager[Peer]]] = {
    "postfix": running_postfix,
    "exim": running_exim,
}
BOUNCE = "bounce.sender.test"
DNS = """
delay.test  MX  10 mx.receiver.test
next.test   MX  10 mx.receiver.test
"""


@pytest.fixture(params=list(SERVERS))
def peer(request: pytest.FixtureRequest, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    monkeypatch.setattr(smtpd._Bell, "ring", lambda self: None)
    settings.BOUNCE_DOMAIN = BOUNCE
    with door() as where, SERVERS[request.param](returns=(BOUNCE, where[1])) as peer:
        yield peer


@pytest.fixture
def postbox(peer: Peer, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postbox]:
    with posting(peer, settings, monkeypatch) as postbox:
        postbox.dns.add(DNS)
        postbox.point(SMTP_PORT=peer.late_port)
        yield postbox


def came_back(peer: Peer) -> InboundMessage:
    """The first report that the peer brings to our door."""
    end = time.monotonic() + ARRIVE_S
    while (mail := InboundMessage.objects.order_by("id").first()) is None:
        assert time.monotonic() < end, f"no report came\n{peer.log()}"
        time.sleep(0.05)
    assert mail.reverse_path == "" and mail.forward_path.endswith(f"@{BOUNCE}")
    return mail


def told(postbox: Postbox) -> list[str]:
    events = Event.objects.filter(tenant_id=postbox.house.tenant.id).order_by("id")
    return list(events.values_list("type", flat=True))


def test_a_bounce_that_follows_the_250_acts_as_if_it_had_come_at_once(postbox: Postbox, peer: Peer) -> None:
    delivery = postbox.send("nobody@next.test")
    assert delivery.status == "delivered", delivery.reply
    mail = came_back(peer)
    assert feedback.run() == 1
    mail.refresh_from_db()
    delivery.refresh_from_db()
    assert (mail.state, mail.kind, mail.delivery_id) == ("acted", "bounce", delivery.id), bytes(mail.octets).decode()
    assert (delivery.status, delivery.late, delivery.category) == ("bounced", True, "bad_mailbox")
    assert told(postbox) == ["email.sent", "email.delivered", "email.bounced", "suppression.added"]
    suppression = Suppression.objects.get(tenant=postbox.house.tenant)
    assert (suppression.address, suppression.reason) == ("nobody@next.test", "bounce")
    (again,) = postbox.house.send("nobody@next.test")
    assert again.status == "suppressed"


@pytest.mark.parametrize("peer", ["exim"], indirect=True)
def test_an_unknown_user_without_a_code_is_told_and_not_suppressed(postbox: Postbox, peer: Peer) -> None:
    """Exim's word for a mailbox of its own is `Unknown user` and 5.0.0 (docs/decisions/thin-evidence.md)."""
    delivery = postbox.send("nobody@mx.test")
    assert delivery.status == "delivered", delivery.reply
    mail = came_back(peer)
    assert b"Status: 5.0.0" in bytes(mail.octets)
    assert feedback.run() == 1
    delivery.refresh_from_db()
    assert (delivery.status, delivery.late, delivery.category) == ("bounced", True, "bad_mailbox")
    assert told(postbox) == ["email.sent", "email.delivered", "email.bounced"]
    assert not Suppression.objects.filter(tenant=postbox.house.tenant).exists()


def test_a_notice_of_delay_is_read_and_changes_nothing(postbox: Postbox, peer: Peer) -> None:
    delivery = postbox.send("anna@delay.test")
    assert delivery.status == "delivered", delivery.reply
    mail = came_back(peer)
    assert feedback.run() >= 1
    mail.refresh_from_db()
    delivery.refresh_from_db()
    assert (mail.state, mail.kind, mail.delivery_id) == ("read", "delayed", delivery.id), bytes(mail.octets).decode()
    assert (delivery.status, delivery.late) == ("delivered", False)
    assert told(postbox) == ["email.sent", "email.delivered"]
    assert not Suppression.objects.filter(tenant=postbox.house.tenant).exists()
    assert not Queued.objects.exists()
