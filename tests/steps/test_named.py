"""Mail that comes alone is taken by the name that its bell gives, where nothing stands before it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.utils import timezone

from deliveries import deliver, queue
from deliveries.deliver import jobs
from deliveries.models import Delivery, Destination, Queued, Site
from deliveries.routing.static import SANDBOX_SITE
from deliveries.sandbox.lab import Lab
from deliveries.states import Lane
from tests.fakes.house import build, known_sites
from tests.fakes.labs import fresh_pump, running_lab

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _by_mx(settings) -> None:
    settings.MAIL_ROUTE = "mx"
    known_sites("one.test", SANDBOX_SITE)


def take(*ids: UUID, octets: int = queue.MAX_OCTETS, used: int = 0, processes: int = 1) -> list[UUID]:
    in_flight = {"one.test": used, "other.test": 50}
    return [one.claimed.delivery_id for one in jobs.take(uuid4(), ids, octets, in_flight, processes)]


def test_it_is_ours_in_one_statement_that_brings_its_content() -> None:
    house = build()
    mine, other = house.send("a@one.test", "b@one.test")
    lease = uuid4()
    jobs._kept.clear()
    (named,) = jobs.take(lease, [mine.id], queue.MAX_OCTETS, {}, 1)
    row = Queued.objects.get(delivery_id=mine.id)
    assert (row.lease_id, row.started_at, named.claimed.destination) == (lease, None, "one.test")
    assert row.leased_until > timezone.now() and named.claimed.tenant_id == house.tenant.id
    (job,), refused = jobs.load([named.claimed], lease, [named.row])
    assert (job.recipient, refused) == ("a@one.test", []) and b"Thank you." in job.prepared.body
    assert named.destination_id == Destination.objects.get(name="one.test").id
    assert take(mine.id, other.id) == [other.id]
    with connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        assert cursor.fetchone() == ("on",)


@pytest.mark.parametrize(
    ("site", "send", "asked"),
    [
        ({"suspended_until": timezone.now() + timedelta(days=1)}, {}, {}),
        ({"proven": False}, {}, {}),
        ({"places": 3}, {}, {"used": 3}),
        ({"places": 1}, {}, {"processes": 2}),
        ({}, {"lane": Lane.BULK}, {}),
        ({}, {"text": "x" * 5000}, {"octets": 5000}),
        ({}, {"scheduled_at": timezone.now() + timedelta(days=1)}, {}),
    ],
    ids=["it rests", "it may be a tar-pit", "its places are taken", "they are another's", "bulk", "octets", "not due"],
)
def test_what_stands_against_a_claim_stands_against_this_one(site: dict, send: dict, asked: dict) -> None:
    (delivery,) = build().send("a@one.test", **send)
    Site.objects.filter(name="one.test").update(**site)
    assert take(delivery.id, **asked) == []
    assert Queued.objects.get(delivery_id=delivery.id).lease_id is None


@pytest.fixture
def lab(settings) -> Iterator[Lab]:
    with running_lab() as lab, fresh_pump():
        settings.MAIL_ROUTE, settings.SANDBOX_SMTP = "sandbox", lab.address
        yield lab


def test_a_pump_that_idles_answers_a_bell_by_name_and_overlooks_nothing_that_none_named(lab: Lab, monkeypatch) -> None:
    by_name: list[UUID] = []

    def spied(*args: Any, take: Callable[..., list[jobs.Named]] = jobs.take) -> list[jobs.Named]:
        taken = take(*args)
        by_name.extend(one.claimed.delivery_id for one in taken)
        return taken

    monkeypatch.setattr(jobs, "take", spied)
    house = build()

    def send() -> UUID:
        return house.send("delivered@simulator.test")[0].id

    def until(done: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not done():
            assert time.monotonic() < end, "it never came to that"
            time.sleep(0.02)

    def arrived(*ids: UUID) -> bool:
        return Delivery.objects.filter(id__in=ids, status="delivered").count() == len(ids)

    first = send()
    pump = threading.Thread(target=lambda: (deliver.run(linger_s=60), connection.close()))
    pump.start()
    try:
        until(lambda: arrived(first))
        for _ in range(50):  # not while it looks by itself
            if by_name:
                break
            unnamed, named = send(), send()
            deliver.look((named,))
            until(lambda ids=(unnamed, named): arrived(*ids))
        assert by_name == [named]
        gone = send()
        deliver.look((uuid4(),))
        until(lambda: arrived(gone))
    finally:
        deliver.stop()
        pump.join(60)
    assert not pump.is_alive()
    assert lab.accepted == Delivery.objects.filter(status="delivered").count()
