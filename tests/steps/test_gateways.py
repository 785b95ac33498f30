"""Mail to an X.400 gateway, from the POST to the RCPT line (RFC 2156)."""

from __future__ import annotations

import json

import pytest

from deliveries import deliver
from deliveries.models import Delivery
from tests.fakes.labs import fresh_pump
from tests.fakes.moods import moods

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("to", "forward_path"),
    [
        ("/C=GB/ADMD= /PRMD=x/O=y/S=z/@gateway", '"/C=GB/ADMD= /PRMD=x/O=y/S=z/"@gateway'),
        ("Joe </G=Joe/S=Bloggs/O=y/@gateway>", "/G=Joe/S=Bloggs/O=y/@gateway"),
    ],
)
def test_an_x400_name_reaches_the_gateway_of_its_route_unharmed(api, settings, to: str, forward_path: str) -> None:
    with moods() as gateway, fresh_pump():
        settings.MAIL_ROUTE, settings.MX_ALLOW_PRIVATE = "mx", True
        settings.MAIL_ROUTES = json.dumps({"gateway": {"host": "127.0.0.1", "port": gateway.port}})
        answer = api.send(to=to)
        assert answer.status_code == 200, answer.json()
        assert Delivery.objects.get().recipient == forward_path
        deliver.run()
        assert (gateway.order, Delivery.objects.get().status) == ([forward_path], "delivered")
    shown = api.get(f"/emails/{answer.json()['id']}").json()
    assert shown["last_event"] == "delivered" and forward_path in str(shown["to"])
