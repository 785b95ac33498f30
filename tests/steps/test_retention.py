"""What has served its time goes; what is unfinished stays, however old it is."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import psycopg
import pytest
from django.db import connection

from deliveries import prune
from deliveries.mime import compose
from deliveries.models import Attachment, Delivery, Event, InboundMessage, Message, MessageContent, fields
from deliveries.record import operator, retention
from tests.fakes.house import House, build

pytestmark = pytest.mark.django_db(transaction=True)
LATER = datetime.now(UTC) + timedelta(days=400)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    monkeypatch.setattr(retention, "PAUSE_S", 0)
    monkeypatch.setattr(retention, "_ASK_AGAIN_S", 0)


def cancel(house: House, delivery: Delivery) -> None:
    assert operator.cancel([delivery.id], "test") == 1


def left_of(message_id: object) -> dict[str, int]:
    return {
        "message": Message.objects.filter(id=message_id).count(),
        "content": MessageContent.objects.filter(id=message_id).count(),
        "delivery": Delivery.objects.filter(message_id=message_id).count(),
        "attachment": Attachment.objects.filter(message_id=message_id).count(),
    }


def partitions(table: str) -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass",
            [table],
        )
        return {name for (name,) in cursor.fetchall()}


def test_finished_mail_goes_whole_and_unfinished_mail_stays_whole() -> None:
    house = build()
    file = compose.Attachment("a.txt", "text/plain", b"x")
    mails = [house.send(f"n{n}@one.test", attachments=(file,)) for n in range(8)]
    for (delivery,) in mails[::2]:
        cancel(house, delivery)
    prune.retain(LATER)
    for (delivery,) in mails[::2]:
        assert set(left_of(delivery.message_id).values()) == {0}
    for (delivery,) in mails[1::2]:
        assert set(left_of(delivery.message_id).values()) == {1}
    for (delivery,) in mails[1::2]:
        cancel(house, delivery)
    prune.retain(LATER)
    assert not Message.objects.filter(tenant=house.tenant).exists()
    assert not Event.objects.filter(tenant_id=house.tenant.id).exists()  # their month went whole


def test_bodies_go_first_and_the_story_stays(settings) -> None:
    settings.KEEP_CONTENT_DAYS, settings.KEEP_MAIL_DAYS = 1, 0
    house = build()
    (delivery,) = house.send("a@one.test")
    cancel(house, delivery)
    prune.retain(datetime.now(UTC) + timedelta(days=2))
    assert left_of(delivery.message_id) == {"message": 1, "content": 0, "delivery": 1, "attachment": 0}
    assert Event.objects.filter(message_id=delivery.message_id).exists()


def test_a_mail_that_a_host_with_a_slow_clock_accepted_is_as_old_as_postgres_says(monkeypatch) -> None:
    at = time.time_ns() - 400 * 24 * 3600 * 10**9
    monkeypatch.setattr(fields, "_last_ms", 0)
    monkeypatch.setattr(fields, "time", SimpleNamespace(time_ns=lambda: at))
    house = build()
    (delivery,) = house.send("a@one.test", attachments=(compose.Attachment("a.txt", "text/plain", b"x"),))
    cancel(house, delivery)
    prune.retain()
    assert set(left_of(delivery.message_id).values()) == {1}
    assert Event.objects.filter(message_id=delivery.message_id).exists()
    prune.retain(LATER)
    assert set(left_of(delivery.message_id).values()) == {0}


def test_a_message_with_one_recipient_that_waits_keeps_all_of_it() -> None:
    house = build()
    first, second = house.send("a@one.test", "b@one.test")
    cancel(house, first)
    prune.retain(LATER)
    assert left_of(first.message_id)["delivery"] == 2 and left_of(first.message_id)["content"] == 1
    cancel(house, second)


def test_a_month_in_use_is_left_for_the_next_pass_and_nobody_waits_for_it() -> None:
    house = build()
    (delivery,) = house.send("a@one.test")
    cancel(house, delivery)
    with connection.cursor() as cursor:
        cursor.execute("SELECT make_partitions(2)")  # another test's pass dropped them
    old = retention._months("attempt", LATER)[0]
    name = f"attempt_{old - timedelta(days=1):%Y_%m}"
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": psycopg.Cursor}) as other:
        other.execute("SELECT 1 FROM attempt LIMIT 1")  # in a transaction that stays open
        prune.retain(LATER)
        assert name in partitions("attempt")
    prune.retain(LATER)
    assert name not in partitions("attempt")


def test_months_are_made_table_by_table_and_a_table_in_use_keeps_nobody_waiting() -> None:
    retention.make_months(2)
    name = next(iter(sorted(partitions("webhook_try") - {"webhook_try_default"})))
    with connection.cursor() as cursor:
        cursor.execute(f'DROP TABLE "{name}"')
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": psycopg.Cursor}) as other:
        other.execute("SELECT 1 FROM webhook_try LIMIT 1")
        assert retention.make_months(2) == 0
    ends = time.monotonic() + 60  # autovacuum, or a session that is just ending, may have the table as well
    while not (made := retention.make_months(2)) and time.monotonic() < ends:
        time.sleep(0.05)
    assert made == 1 and name in partitions("webhook_try")
    assert retention.make_months(2) == 0


def test_rows_that_no_month_took_go_too() -> None:
    house = build()
    with connection.cursor() as cursor:
        for month in partitions("event") - {"event_default"}:
            cursor.execute(f'DROP TABLE "{month}"')
    (delivery,) = house.send("a@one.test")
    cancel(house, delivery)
    assert Event.objects.filter(tenant_id=house.tenant.id).count() >= 2
    prune.retain(LATER)
    assert not Event.objects.filter(tenant_id=house.tenant.id).exists()


def test_kept_for_ever_means_kept(settings) -> None:
    for name in ("KEEP_CONTENT_DAYS", "KEEP_MAIL_DAYS", "KEEP_WEBHOOKS_DAYS", "KEEP_INBOUND_DAYS"):
        setattr(settings, name, 0)
    house = build()
    (delivery,) = house.send("a@one.test")
    cancel(house, delivery)
    assert prune.retain(LATER) == {}
    assert left_of(delivery.message_id)["content"] == 1


def test_inbound_mail_goes_once_it_was_read() -> None:
    now = datetime.now(UTC)
    common = {"received_at": now, "peer": "127.0.0.1", "forward_path": "postmaster@x.test", "octets": b"x"}
    waits = InboundMessage.objects.create(state="waiting", **common)
    kept = InboundMessage.objects.create(state="kept", **common)
    prune.retain(LATER)
    assert set(InboundMessage.objects.values_list("id", flat=True)) & {waits.id, kept.id} == {waits.id}
