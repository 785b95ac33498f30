"""The house that posts and the names it asks: what the tests against real mail servers share."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dkim
import pytest

from deliveries import deliver, queue
from deliveries.deliver import jobs
from deliveries.models import Delivery
from deliveries.retry import Schedule
from deliveries.states import Status
from tests.fakes.daemon import Receiver
from tests.fakes.dns import FakeDns
from tests.fakes.house import House, build, dkim_pair
from tests.fakes.labs import fresh_pump

DNS = """
mx.test               MX    10 mx.receiver.test
equal.test            MX    10 mx.receiver.test
xn--bcher-kva.test    MX    10 mx.receiver.test
mx.receiver.test      A     127.0.0.1
smtp.receiver.test    A     127.0.0.1
lmtp.receiver.test    A     127.0.0.1
implicit.test         A     127.0.0.1
null.test             MX    0 .
two.test              MX    10 dead.receiver.test
two.test              MX    20 mx.receiver.test
dead.receiver.test    A     127.0.0.2      # nobody listens there
six.test              MX    10 six.receiver.test
six.receiver.test     AAAA  ::1
"""

#: a mail settles within this or a test fails; none of it is waited for when all goes well
SETTLE_S = 60.0


@dataclass
class Postbox:
    """A tenant that can send, the DNS that its mail asks, and the settings of the pump."""

    house: House
    dns: FakeDns
    settings: Any

    def point(self, **values: Any) -> None:
        """Other settings, before the first mail of a test or after a restart."""
        for name, value in values.items():
            setattr(self.settings, name, value)

    def restart(self, **values: Any) -> None:
        """The pump of another process: it remembers nothing, and the settings may be others."""
        if deliver._engine is not None:
            deliver._engine.close()
        deliver._engine = None
        self.point(**values)

    def send(self, to: str, **fields: Any) -> Delivery:
        """Accept one mail to one recipient and pump until it is settled."""
        (delivery,) = self.house.send(to, **fields)
        return self.settled(delivery)

    def send_all(self, *to: str, **fields: Any) -> list[Delivery]:
        return [self.settled(delivery) for delivery in self.house.send(*to, **fields)]

    def settled(self, delivery: Delivery) -> Delivery:
        return self._pump(delivery, lambda: delivery.settled_at is not None)

    def once(self, to: str, **fields: Any) -> Delivery:
        """Accept one mail and pump until it has had its round, however that ends; a second one is far away."""
        self.point(RETRY=Schedule(waits_s=(600,), max_age_s=3600))
        (delivery,) = self.house.send(to, **fields)
        return self._pump(delivery, lambda: delivery.status != Status.QUEUED)

    def _pump(self, delivery: Delivery, done: Callable[[], bool]) -> Delivery:
        end = time.monotonic() + SETTLE_S
        while True:
            deliver.run()
            delivery.refresh_from_db()
            if done():
                return delivery
            assert time.monotonic() < end, f"{delivery.status}: {delivery.reason}"
            time.sleep(0.02)


@contextlib.contextmanager
def posting(receiver: Receiver, settings: Any, monkeypatch: pytest.MonkeyPatch, table: str = DNS) -> Iterator[Postbox]:
    """The pump pointed at a receiver by DNS; each test has a pump, a DNS and a tenant of its own."""
    monkeypatch.setattr(queue.bell, "ring", lambda ids=(): None)
    jobs._kept.clear()
    with FakeDns(table) as dns, fresh_pump():
        postbox = Postbox(build(), dns, settings)
        postbox.point(
            MAIL_ROUTE="mx",
            MAIL_ROUTES="",
            DNS_NAMESERVERS=(dns.address,),
            DNS_TRUST_AD=False,
            SMTP_PORT=receiver.port,
            SMTP_CA_FILE=str(receiver.certificates.ca),
            MX_ALLOW_PRIVATE=True,
            HELO_NAME="mail.sender.test",
            BOUNCE_DOMAIN="bounce.sender.test",
            RETRY=Schedule(waits_s=(0.05,), max_age_s=3600, jitter=0),
        )
        yield postbox


def signed_by_us(mail: bytes) -> bool:
    """Whether dkimpy finds our signature good on what lies in a mailbox."""
    record = f"v=DKIM1; k=rsa; p={dkim_pair()[1]}".encode()
    return dkim.verify(mail, dnsfunc=lambda name, timeout=5: record)
