"""Orders of a person about mail that is not finished."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from deliveries import queue
from deliveries.models import AuditEntry, Delivery, Destination, Event, Queued, WebhookDelivery, WebhookEndpoint
from deliveries.models.queue import NEVER
from deliveries.record import operator
from deliveries.record.outcomes import record
from tests.fakes.house import House, build
from tests.steps.test_record import DEFERRED, DELIVERED, result

pytestmark = pytest.mark.django_db(transaction=True)


def deferred(house: House, to: str = "ann@one.test") -> Delivery:
    (delivery,) = house.send(to)
    lease = uuid4()
    queue.claim(lease, 100, 1 << 26, {})
    record([result(delivery.id, lease, DEFERRED)])
    delivery.refresh_from_db()
    return delivery


def types(delivery: Delivery) -> list[str]:
    return list(Event.objects.filter(delivery_id=delivery.id).order_by("id").values_list("type", flat=True))


def claimable() -> set:
    return {row.delivery_id for row in queue.claim(uuid4(), 100, 1 << 26, {}).rows}


def audit(house: House) -> list[tuple[str, str]]:
    return list(AuditEntry.objects.filter(tenant=house.tenant).order_by("id").values_list("actor", "action"))


def test_a_deferred_mail_retried_now_is_claimed_at_once_though_its_destination_slept(monkeypatch) -> None:
    rung = []
    monkeypatch.setattr(queue, "wake", lambda *_: rung.append(1))
    house = build()
    delivery = deferred(house)
    assert claimable() == set()
    assert operator.retry_now([delivery.id, uuid4()], "eve") == 1
    assert rung and claimable() == {delivery.id}
    assert audit(house) == [("eve", "delivery.retried")]
    assert types(delivery) == ["email.sent", "email.delivery_delayed"]


def test_a_scheduled_mail_retried_now_is_queued() -> None:
    house = build()
    (delivery,) = house.send("ann@one.test", scheduled_at=timezone.now() + timedelta(days=1))
    assert operator.retry_now([delivery.id], "eve") == 1
    assert Delivery.objects.get(id=delivery.id).status == "queued" and claimable() == {delivery.id}


def test_a_canceled_mail_never_leaves_and_is_told_to_those_who_ask() -> None:
    house = build()
    WebhookEndpoint.objects.create(tenant=house.tenant, url="https://x.test/", secret=b"s", events=["email.canceled"])
    delivery = deferred(house)
    assert operator.cancel([delivery.id], "eve") == 1
    assert operator.cancel([delivery.id], "eve") == 0
    delivery.refresh_from_db()
    assert (delivery.status, delivery.reason, delivery.next_attempt_at) == ("canceled", "Canceled by eve.", None)
    assert delivery.settled_at is not None and not Queued.objects.filter(delivery_id=delivery.id).exists()
    assert types(delivery)[-1] == "email.canceled"
    assert WebhookDelivery.objects.filter(tenant_id=house.tenant.id).count() == 1


def test_what_a_worker_holds_is_left_to_it() -> None:
    house = build()
    (delivery,) = house.send("ann@one.test")
    queue.claim(uuid4(), 100, 1 << 26, {})
    for verb in (operator.retry_now, operator.cancel, operator.hold):
        assert verb([delivery.id], "eve") == 0
    assert Delivery.objects.get(id=delivery.id).status == "queued" and audit(house) == []


def test_a_held_mail_waits_for_a_person_and_leaves_when_released() -> None:
    house = build()
    (delivery,) = house.send("ann@one.test")
    assert operator.hold([delivery.id], "eve", "Looks odd.") == 1
    delivery.refresh_from_db()
    assert (delivery.status, delivery.reason, delivery.next_attempt_at) == ("held", "Looks odd.", None)
    assert Queued.objects.get(delivery_id=delivery.id).due_at == NEVER and claimable() == set()
    assert Destination.objects.get(name="sandbox").next_due == NEVER
    assert operator.retry_now([delivery.id], "eve") == 0
    assert operator.release([delivery.id], "eve") == 1
    assert Delivery.objects.get(id=delivery.id).status == "queued" and claimable() == {delivery.id}
    assert types(delivery) == ["email.sent", "email.delivery_delayed", "email.queued"]
    assert audit(house) == [("eve", "delivery.held"), ("eve", "delivery.released")]


def test_a_scheduled_mail_held_and_released_still_waits_for_its_time() -> None:
    house = build()
    later = timezone.now() + timedelta(days=1)
    (delivery,) = house.send("ann@one.test", scheduled_at=later)
    operator.hold([delivery.id], "eve")
    operator.release([delivery.id], "eve")
    delivery.refresh_from_db()
    assert (delivery.status, delivery.next_attempt_at) == ("scheduled", later) and claimable() == set()


def test_finished_mail_is_not_touched() -> None:
    house = build()
    (delivery,) = house.send("ann@one.test")
    lease = uuid4()
    queue.claim(lease, 100, 1 << 26, {})
    record([result(delivery.id, lease, DELIVERED)])
    for verb in (operator.retry_now, operator.cancel, operator.hold, operator.release):
        assert verb([delivery.id], "eve") == 0


def test_a_tenants_order_reaches_its_own_mail_only() -> None:
    mine, other = build(), build()
    one, two = deferred(mine), deferred(other, "bob@two.test")
    assert operator.cancel([one.id, two.id], "key:re_abc", tenant_id=mine.tenant.id) == 1
    assert Delivery.objects.get(id=two.id).status == "deferred"
