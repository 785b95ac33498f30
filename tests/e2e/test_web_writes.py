"""What a web process notes while it answers, and writes a moment later by threads of its own."""

import time
from urllib.request import Request, urlopen

import pytest
from django.conf import settings
from django.utils import timezone

from deliveries.mime import links, verp
from deliveries.models import Delivery, Event, RequestLog

pytestmark = pytest.mark.django_db(transaction=True)


def _soon(rows):
    end = time.monotonic() + 60
    while not (found := rows.first()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def test_an_open_and_a_request_are_written_though_nobody_waits_for_them(server, account):
    ident = account.send(html="<p>Hi</p>").json()["id"]
    delivery = Delivery.objects.get(message_id=ident)
    Delivery.objects.filter(id=delivery.id).update(status="delivered", settled_at=timezone.now())
    token = links.mint(verp.keys_of(settings.VERP_KEYS), links.Kind.OPEN, delivery.id)
    with urlopen(Request(f"{server}/o/{token}", headers={"User-Agent": "Mozilla/5.0"}), timeout=60) as answer:
        assert answer.headers["Content-Type"] == "image/gif"
    assert (
        _soon(Event.objects.filter(tenant_id=account.tenant.id, type="email.opened")).message_id == delivery.message_id
    )
    asked = Request(f"{server}/emails/{ident}", headers={"Authorization": f"Bearer {account.secret}"})
    with urlopen(asked, timeout=60) as answer:
        known = answer.headers["X-Request-Id"]
    assert str(_soon(RequestLog.objects.filter(tenant_id=account.tenant.id)).id) == known
