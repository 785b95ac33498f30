"""The pump, end to end: real Postgres, real sockets, the lab as receiver."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import dkim
import pytest
from cryptography.fernet import Fernet
from django.db import OperationalError, connection
from django.test import override_settings
from django.utils import timezone

from deliveries import deliver, domains, queue
from deliveries.accept.repeat import send_again
from deliveries.deliver import jobs
from deliveries.deliver.sweep import sweep
from deliveries.errors import BadInput
from deliveries.mime import verp
from deliveries.mime.address import parse_address
from deliveries.models import (
    ApiKey,
    Attempt,
    Delivery,
    Destination,
    DkimKey,
    Message,
    MessageContent,
    Queued,
    Suppression,
)
from deliveries.retry import Schedule
from deliveries.sandbox.lab import Lab
from tests.fakes.house import build, dkim_pair
from tests.fakes.labs import fresh_pump, running_lab

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def lab(settings) -> Iterator[Lab]:
    with running_lab() as lab, fresh_pump():
        settings.MAIL_ROUTE, settings.SANDBOX_SMTP = "sandbox", lab.address
        settings.RETRY = Schedule(waits_s=(0.05,), max_age_s=3600, unknown_wait_s=0.3, jitter=0)
        jobs._kept.clear()
        yield lab


def pump_until(done: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never came to that"
        deliver.run()
        time.sleep(0.02)


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def status(delivery: Delivery) -> str:
    return Delivery.objects.get(id=delivery.id).status


def test_what_was_claimed_when_the_database_went_away_is_given_back_and_sent(lab: Lab, monkeypatch) -> None:
    load, failures = jobs.load, [OperationalError("the connection was lost")]

    def once(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return load(*args)

    monkeypatch.setattr(jobs, "load", once)
    (delivery,) = build().send("delivered@simulator.test")
    pump_until(lambda: status(delivery) == "delivered")
    assert not failures and lab.accepted == 1


def test_a_claim_whose_answer_was_lost_is_given_back_however_busy_its_pump_is(lab: Lab, monkeypatch, settings) -> None:
    settings.LEASE_S = 2
    claim, lost = queue.claim, []

    def once(*args: Any, **options: Any) -> queue.Claim:
        claimed = claim(*args, **options)
        if claimed.rows and not lost:
            lost.extend(claimed.rows)
            raise OperationalError("the connection was lost")
        return claimed

    monkeypatch.setattr(queue, "claim", once)
    house = build()
    (delivery,) = house.send("delivered@simulator.test")
    pump = threading.Thread(target=lambda: (deliver.run(linger_s=60), connection.close()))
    pump.start()
    try:
        end = time.monotonic() + 60
        while status(delivery) != "delivered":
            assert time.monotonic() < end, "it is held for ever"
            house.send("delivered+next@simulator.test")
            deliver.look()
            sweep()
            time.sleep(0.2)
    finally:
        deliver.stop()
        pump.join(60)
    assert delivery.id in {row.delivery_id for row in lost}


def test_a_mail_arrives_signed_with_our_reverse_path_and_the_conversation_is_kept(lab: Lab, settings) -> None:
    house = build()
    (delivery,) = house.send("delivered@simulator.test", subject="Grüße", html="<p>hi</p>")
    deliver.run()
    delivery.refresh_from_db()
    assert delivery.status == "delivered" and delivery.attempts == 1
    (mail,) = lab.messages
    token = verp.token_of(mail.reverse_path)
    keys = verp.Keys.parse(settings.VERP_KEYS)
    assert token and verp.read(keys, token, timezone.now()) == delivery.id
    record = f"v=DKIM1; k=rsa; p={dkim_pair()[1]}".encode()
    assert dkim.verify(mail.octets, dnsfunc=lambda name, timeout=5: record)
    attempt = Attempt.objects.get(delivery=delivery)
    assert attempt.status == "delivered" and "TLSv1" in attempt.tls
    assert f"RCPT TO:<{delivery.recipient}>" in attempt.transcript and "Thank you" not in attempt.transcript


def test_bounces_of_a_domain_go_to_its_own_return_path_once_that_is_verified(lab: Lab) -> None:
    house = build()
    type(house.domain).objects.filter(id=house.domain.id).update(return_path_verified_at=timezone.now())
    house.send("delivered@simulator.test")
    deliver.run()
    (mail,) = lab.messages
    assert mail.reverse_path.endswith(f"@send.{house.domain.name}") and verp.token_of(mail.reverse_path)


def test_a_domain_that_asks_for_a_checked_certificate_gets_nothing_out_without_one(lab: Lab) -> None:
    house = build()
    type(house.domain).objects.filter(id=house.domain.id).update(tls="verify")
    (delivery,) = house.send("delivered@simulator.test")
    deliver.run()
    delivery.refresh_from_db()
    assert (delivery.status, delivery.category) == ("deferred", "tls") and not lab.messages


def test_mail_of_a_domain_that_was_removed_ends_with_the_reason(lab: Lab) -> None:
    house = build()
    (delivery,) = house.send("delivered@simulator.test")
    assert domains.remove(house.tenant.id, house.domain.id, "test")
    deliver.run()
    delivery.refresh_from_db()
    assert delivery.status == "failed" and "was removed" in delivery.reason and not lab.messages


def test_recipients_of_one_mail_each_get_their_own_copy_and_end(lab: Lab) -> None:
    house = build()
    good, bad = house.send("delivered@simulator.test", "bounced@simulator.test")
    deliver.run()
    assert (status(good), status(bad)) == ("delivered", "bounced")
    assert Suppression.objects.get(tenant=house.tenant).address == "bounced@simulator.test"
    assert not Queued.objects.filter(tenant_id=house.tenant.id).exists()


def test_greylisting_is_waited_out(lab: Lab) -> None:
    (delivery,) = build().send("greylist@simulator.test")
    pump_until(lambda: status(delivery) == "delivered")
    assert Delivery.objects.get(id=delivery.id).attempts == 2
    assert sorted(Attempt.objects.filter(delivery=delivery).values_list("status", flat=True)) == [
        "deferred",
        "delivered",
    ]


def test_no_reply_after_the_dot_is_unknown_and_makes_at_most_two_copies(lab: Lab, settings) -> None:
    settings.RETRY = Schedule(waits_s=(600,), max_age_s=3600, unknown_wait_s=600, jitter=0)
    (delivery,) = build().send("dropdot@simulator.test")
    deliver.run()
    assert status(delivery) == "unknown" and Queued.objects.filter(delivery_id=delivery.id).exists()
    Queued.objects.update(due_at=timezone.now())
    Destination.objects.update(next_due=timezone.now())
    pump_until(lambda: Delivery.objects.get(id=delivery.id).settled_at is not None)
    delivery.refresh_from_db()
    assert (delivery.status, delivery.unknowns, delivery.duplicate_possible) == ("unknown", 2, True)
    assert not Queued.objects.filter(delivery_id=delivery.id).exists()
    assert max(lab.copies(m.message_id) for m in lab.messages) == 2
    assert len({m.octets.split(b"\r\n\r\n", 1)[1] for m in lab.messages}) == 1  # the same mail


def test_what_grew_too_old_expires_without_another_attempt(lab: Lab) -> None:
    (delivery,) = build().send("delivered@simulator.test")
    past = timezone.now() - timedelta(seconds=1)
    Delivery.objects.filter(id=delivery.id).update(expires_at=past, reply="451 4.3.0 later", host="mx.one.test")
    deliver.run()
    delivery.refresh_from_db()
    assert delivery.status == "expired" and not lab.messages
    assert (delivery.reply, delivery.host) == ("451 4.3.0 later", "mx.one.test")  # the peer's last words, not ours
    assert delivery.reason == "It could not be delivered in time; the last answer was: 451 4.3.0 later"


def test_an_address_suppressed_after_accept_is_not_sent_to(lab: Lab) -> None:
    house = build()
    (delivery,) = house.send("delivered@simulator.test")
    Suppression.objects.create(
        tenant=house.tenant, address="delivered@simulator.test", reason="manual", created_at=timezone.now()
    )
    deliver.run()
    assert status(delivery) == "suppressed" and not lab.messages


def test_mail_of_a_suspended_tenant_is_held_and_says_why(lab: Lab) -> None:
    house = build()
    (delivery,) = house.send("delivered@simulator.test")
    type(house.tenant).objects.filter(id=house.tenant.id).update(suspended_at=timezone.now())
    deliver.run()
    delivery.refresh_from_db()
    assert delivery.status == "held" and "suspended" in delivery.reason and not lab.messages
    assert Queued.objects.get(delivery_id=delivery.id).lease_id is None


def test_content_that_is_gone_fails_the_delivery_and_no_other(lab: Lab) -> None:
    house = build()
    (gone,) = house.send("delivered@simulator.test")
    (good,) = house.send("delivered@simulator.test")
    MessageContent.objects.filter(id=gone.message_id).delete()
    deliver.run()
    assert (status(gone), status(good)) == ("failed", "delivered")


def test_a_dkim_key_that_cannot_be_read_keeps_the_mail_of_its_domain_and_no_other(lab: Lab, settings) -> None:
    ill, well, keys = build(), build(), settings.FIELD_KEYS
    settings.FIELD_KEYS = Fernet.generate_key().decode()
    DkimKey.objects.filter(domain=ill.domain).update(private_key=b"as it was")
    settings.FIELD_KEYS = keys
    (waits,), (good,) = ill.send("delivered@simulator.test"), well.send("delivered@simulator.test")
    pump_until(lambda: status(good) == "delivered")
    pump_until(lambda: status(waits) == "deferred")
    assert "DKIM key" in Delivery.objects.get(id=waits.id).reason
    DkimKey.objects.filter(domain=ill.domain).update(private_key=dkim_pair()[0])
    jobs._sender_cache.clear()
    pump_until(lambda: status(waits) == "delivered")


def test_without_the_ledgers_word_no_final_dot_is_written(lab: Lab, monkeypatch) -> None:
    (delivery,) = build().send("delivered@simulator.test")
    monkeypatch.setattr(queue, "start", lambda lease_id, ids: set())  # another worker has it
    pump = threading.Thread(target=lambda: (deliver.run(), connection.close()))
    pump.start()
    time.sleep(0.5)
    deliver.stop()
    pump.join(60)
    assert not pump.is_alive() and not lab.messages and status(delivery) == "queued"


def test_two_pumps_share_the_work_and_send_each_mail_once(lab: Lab) -> None:
    house = build()
    deliveries = [house.send("delivered@simulator.test")[0] for _ in range(60)]
    from deliveries.deliver.engine import Engine

    other = Engine()
    threads = [
        threading.Thread(target=lambda e=e: (deliver.Pump(e).run(), connection.close()))
        for e in (deliver.engine(), other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    other.close()
    assert {status(d) for d in deliveries} == {"delivered"}
    assert lab.accepted == 60


def begun() -> bool:
    return Queued.objects.filter(started_at__isnull=False).exists()


def test_stopping_gives_back_what_has_not_begun_and_waits_for_what_has(lab: Lab, settings) -> None:
    settings.DRAIN_S = 60
    lab._desks[0].slow_s = 1
    house = build()
    slow = [house.send("slow@simulator.test")[0] for _ in range(3)]
    pump = threading.Thread(target=lambda: (deliver.run(), connection.close()))
    pump.start()
    until(begun)
    late = [house.send("slow@simulator.test")[0] for _ in range(2)]
    time.sleep(0.3)
    deliver.stop()
    pump.join(60)
    assert not pump.is_alive()
    assert not Queued.objects.exclude(lease_id=None).exists()
    for delivery in slow + late:
        assert status(delivery) in ("delivered", "queued")
    assert sum(status(d) == "delivered" for d in slow) == lab.accepted


def test_what_is_stopped_before_its_first_step_is_given_back_too(lab: Lab) -> None:
    house = build()
    deliveries = [house.send("delivered@simulator.test")[0] for _ in range(20)]
    engine = deliver.engine()
    rows = queue.claim(engine.lease_id, 20, 1 << 26, {}).rows
    loaded, _ = jobs.load(rows, engine.lease_id)
    engine._loop.call_soon_threadsafe(time.sleep, 0.2)  # begin and cancel come in one turn of the loop
    engine.submit(loaded)
    engine.cancel_unstarted()
    ended = []
    while len(ended) < len(rows):
        ended += engine.collect(100, 5, 0.1) or pytest.fail(f"{len(rows) - len(ended)} never ended")
    assert engine.in_flight == 0 and not lab.messages
    assert {e.delivery_id for e in ended} == {d.id for d in deliveries}


def test_a_drain_that_runs_out_ends_as_unknown_and_never_as_a_silent_retry(lab: Lab, settings, monkeypatch) -> None:
    settings.DRAIN_S = 0.2
    start = queue.start

    def last_step(*args: Any) -> set[UUID]:
        lab._desks[0].slow_s = 600  # the final dot finds nobody who answers in time
        return start(*args)

    monkeypatch.setattr(queue, "start", last_step)
    (delivery,) = build().send("slow@simulator.test")
    pump = threading.Thread(target=lambda: (deliver.run(), connection.close()))
    pump.start()
    until(begun)
    deliver.stop()
    pump.join(60)
    assert status(delivery) == "unknown"
    assert Queued.objects.get(delivery_id=delivery.id).lease_id is None


def test_the_sweeper_gives_back_the_unstarted_and_tells_the_started_as_unknown(settings, monkeypatch) -> None:
    house = build()
    started, unstarted = house.send("a@one.test", "b@one.test")
    lease = uuid4()
    settings.LEASE_S = 0.01
    assert len(queue.claim(lease, 10, 1 << 26, {}).rows) == 2
    queue.start(lease, [started.id])
    time.sleep(0.05)
    with monkeypatch.context() as broken, pytest.raises(OperationalError):  # what else it does keeps no lease
        gone = "SELECT pg_terminate_backend(pg_backend_pid())"
        broken.setattr("deliveries.sources.wake", lambda: queue.execute(gone))
        sweep()
    connection.close()
    assert sweep() == (0, 0)
    assert (status(started), status(unstarted)) == ("unknown", "queued")
    assert "may have arrived" in Delivery.objects.get(id=started.id).reason
    assert queue.claim(uuid4(), 10, 1 << 26, {}).rows[0].delivery_id == unstarted.id
    assert not Queued.objects.filter(lease_id=lease).exists()


def test_a_ring_ends_the_wait_for_results(lab: Lab) -> None:
    engine = deliver.engine()
    engine.wake()
    assert engine.collect(10, wait_s=3600, company_s=3600) == []


def test_a_pump_goes_on_while_no_bell_can_be_heard(lab: Lab, settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    pump = threading.Thread(target=lambda: (deliver.run(linger_s=0.1), connection.close()))
    pump.start()
    try:
        pump.join(1)
        (delivery,) = build().send("delivered@simulator.test")
        end = time.monotonic() + 60
        while status(delivery) != "delivered":
            assert time.monotonic() < end, "nobody looks for it"
            time.sleep(0.05)
    finally:
        deliver.stop()
        pump.join(60)
    assert not pump.is_alive()


def test_a_bell_that_nobody_pumps_for_leaves_nothing_behind(lab: Lab) -> None:
    engine = deliver.engine()
    assert not deliver.look()
    assert not engine.rung


def test_mail_of_a_test_key_ends_by_the_labs_rules_where_all_other_mail_goes_out(lab: Lab, settings) -> None:
    settings.MAIL_ROUTE, settings.DNS_NAMESERVERS = "mx", (("127.0.0.1", 9),)  # nothing else could be found
    house = build()
    ApiKey.objects.filter(id=house.key.id).update(test=True)
    (delivery,) = house.send("ann@somebody.example")
    house.key.delete()
    with pytest.raises(BadInput, match="test key"):
        send_again(Message.objects.get(id=delivery.message_id), [parse_address("ann@somebody.example")], "test")
    with fresh_pump():
        deliver.run()
    delivery.refresh_from_db()
    # the lab answers for its own domain alone
    assert (delivery.status, delivery.host, delivery.category) == ("bounced", "127.0.0.1", "relay_denied")
    assert not Suppression.objects.filter(tenant=house.tenant).exists()


def test_a_mail_whose_end_comes_during_the_conversation_never_leaves() -> None:
    """A one-time password: the receiver takes its time, and what would arrive late must not arrive."""
    with (
        running_lab(slow_s=3) as lab,
        fresh_pump(),
        override_settings(MAIL_ROUTE="sandbox", SANDBOX_SMTP=lab.address),
    ):
        ends = timezone.now() + timedelta(seconds=2)
        (delivery,) = build().send("slow@simulator.test", deliver_before=ends)
        pump_until(lambda: status(delivery) not in ("queued", "deferred"))
        assert status(delivery) == "expired", Delivery.objects.filter(id=delivery.id).values()
        assert not lab.messages
    assert Queued.objects.filter(delivery_id=delivery.id).count() == 0
