"""Record: attempts, statuses, queue rows, events, suppressions and the outbox change together or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from django.db import connection

from deliveries import queue
from deliveries.models import (
    Attempt,
    Delivery,
    Destination,
    Event,
    Queued,
    Suppression,
    WebhookDelivery,
    WebhookEndpoint,
)
from deliveries.record import outcomes
from deliveries.record.outcomes import PARKED, record
from deliveries.record.settle import Result, Tried
from deliveries.smtp.hop import Hop
from deliveries.smtp.outcome import Attempted, Replied, Stage, TlsFacts, Verdict
from deliveries.smtp.reply import Reply
from deliveries.states import Category, Status
from tests.fakes.house import build, known_sites

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _known_sites(settings) -> None:
    settings.MAIL_ROUTE = "mx"
    known_sites("one.test")


DELIVERED = Verdict(Status.DELIVERED, "2xx", code=250, text="250 2.0.0 ok")
DEFERRED = Verdict(Status.DEFERRED, "greylisting", Category.GREYLISTED, code=451, text="451 4.7.1 later")
BOUNCED = Verdict(
    Status.BOUNCED, "user-unknown", Category.BAD_MAILBOX, True, "5.1.1", 550, "550 5.1.1 no such user"
)  # fmt: skip


def result(delivery_id: UUID, lease: UUID, verdict: Verdict, transcript: str = "C: EHLO x\nS: 250 y") -> Result:
    now = datetime.now(UTC)
    hop = Hop("mx.one.test", "192.0.2.1")
    tls = TlsFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", verified=False)
    done = Attempted(hop, Replied(Stage.DOT, Reply(verdict.code or 250)), now, now, transcript, tls)
    return Result(delivery_id, lease, verdict, (Tried(uuid4(), done, verdict),), hop.host)


def claimed(house, *to: str) -> tuple[UUID, list[Delivery]]:
    deliveries = house.send(*to)
    lease = uuid4()
    assert len(queue.claim(lease, 100, 1 << 26, {}).rows) == len(deliveries)
    return lease, deliveries


def test_a_delivered_mail_leaves_the_queue_and_tells_its_story() -> None:
    house = build()
    lease, (delivery,) = claimed(house, "a@one.test")
    assert record([result(delivery.id, lease, DELIVERED)]) == {Status.DELIVERED: 1}
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempts, delivery.host) == ("delivered", 1, "mx.one.test")
    assert delivery.settled_at is not None and delivery.next_attempt_at is None
    assert not Queued.objects.filter(delivery_id=delivery.id).exists()
    attempt = Attempt.objects.get(delivery=delivery)
    assert attempt.tls == "TLSv1.3 TLS_AES_256_GCM_SHA384, not verified"
    assert attempt.transcript == "C: EHLO x\nS: 250 y"
    types = list(Event.objects.filter(delivery_id=delivery.id).order_by("id").values_list("type", flat=True))
    assert types == ["email.sent", "email.delivered"]


def test_a_deferred_mail_is_due_again_and_its_destination_knows() -> None:
    house = build()
    lease, (delivery,) = claimed(house, "a@one.test")
    queue.claim(uuid4(), 10, 1, {})  # empty: the destination goes to sleep
    record([result(delivery.id, lease, DEFERRED)])
    delivery.refresh_from_db()
    row = Queued.objects.get(delivery_id=delivery.id)
    assert delivery.status == "deferred" and row.lease_id is None and row.due_at == delivery.next_attempt_at
    assert Destination.objects.get(name="one.test").next_due == row.due_at


def test_a_hard_bounce_suppresses_the_address_and_tells_both() -> None:
    house = build()
    WebhookEndpoint.objects.create(tenant=house.tenant, url="https://x.test/", secret=b"s")
    lease, (delivery,) = claimed(house, "Gone@one.test")
    record([result(delivery.id, lease, BOUNCED)])
    suppression = Suppression.objects.get(tenant=house.tenant)
    assert (suppression.address, suppression.stream, suppression.reason) == ("gone@one.test", "*", "bounce")
    assert "5.1.1" in suppression.detail
    told = set(WebhookDelivery.objects.filter(tenant_id=house.tenant.id).values_list("type", flat=True))
    assert told == {"email.sent", "email.bounced", "suppression.added"}
    assert house.send("gone@one.test")[0].status == "suppressed"


def test_the_same_results_written_again_after_a_lost_answer_change_nothing() -> None:
    house = build()
    lease, (one, two) = claimed(house, "a@one.test", "b@one.test")
    results = [result(one.id, lease, DELIVERED), result(two.id, lease, DEFERRED)]
    record(results)
    assert record(results, again=True) == {}
    assert Attempt.objects.filter(tenant_id=house.tenant.id).count() == 2
    assert not Delivery.objects.get(id=one.id).duplicate_possible
    assert Event.objects.filter(tenant_id=house.tenant.id).count() == 4


def test_a_result_whose_lease_was_lost_keeps_its_attempt_and_changes_no_status() -> None:
    house = build()
    lease, (delivery,) = claimed(house, "a@one.test")
    Queued.objects.filter(delivery_id=delivery.id).update(lease_id=uuid4())
    assert record([result(delivery.id, lease, BOUNCED)]) == {}
    assert Delivery.objects.get(id=delivery.id).status == "queued"
    assert Attempt.objects.filter(delivery=delivery).count() == 1
    assert not Suppression.objects.filter(tenant=house.tenant).exists()


def test_peers_text_that_postgres_refuses_is_cleaned() -> None:
    house = build()
    lease, (delivery,) = claimed(house, "a@one.test")
    record([result(delivery.id, lease, DELIVERED, "S: 250 a\x00b\udcff")])
    assert Attempt.objects.get(delivery=delivery).transcript == "S: 250 a b?"


def test_one_result_that_cannot_be_stored_parks_its_transcript_and_harms_no_other(monkeypatch) -> None:
    house = build()
    lease, deliveries = claimed(house, *[f"u{n}@one.test" for n in range(5)])
    monkeypatch.setattr(outcomes, "clean", lambda text: text)  # a hole in the cleaning
    results = [result(d.id, lease, DELIVERED) for d in deliveries]
    results[2] = result(deliveries[2].id, lease, DELIVERED, "S: \x00")
    assert record(results) == {Status.DELIVERED: 5}
    transcripts = dict(Attempt.objects.filter(tenant_id=house.tenant.id).values_list("delivery_id", "transcript"))
    assert transcripts[deliveries[2].id] == PARKED
    assert transcripts[deliveries[1].id] != PARKED


def test_a_mistake_in_what_is_learned_of_receivers_costs_no_outcome(monkeypatch) -> None:
    def learn(*_: object) -> None:
        raise KeyError("one.test")

    monkeypatch.setattr(outcomes.rests, "learn", learn)
    lease, (delivery,) = claimed(build(), "a@one.test")
    assert record([result(delivery.id, lease, DELIVERED)]) == {Status.DELIVERED: 1}
    assert not Queued.objects.exists()


def test_no_index_that_a_mail_pays_for_repeats_the_beginning_of_another() -> None:
    tables = ["attempt", "delivery", "event", "message", "message_content", "queued", "webhook_delivery", "webhook_try"]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT a.indexrelid::regclass::text, b.indexrelid::regclass::text
              FROM pg_index a JOIN pg_index b ON b.indrelid = a.indrelid AND b.indexrelid <> a.indexrelid
             WHERE a.indrelid = ANY (%s::regclass[]) AND NOT a.indisunique AND a.indexprs IS NULL
               AND a.indpred IS NULL AND b.indpred IS NULL
               AND (string_to_array(b.indkey::text, ' '))[:a.indnatts] = string_to_array(a.indkey::text, ' ')
               AND (string_to_array(b.indclass::text, ' '))[:a.indnatts] = string_to_array(a.indclass::text, ' ')
            """,
            [tables],
        )
        assert cursor.fetchall() == []
