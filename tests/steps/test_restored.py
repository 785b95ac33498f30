"""A restore is noticed by itself; nothing leaves until a person answers, and then by his word alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from deliveries import continuity, queue, tasks
from deliveries import deliver as delivering
from deliveries.models import AuditEntry, Delivery, Event, Installation, Message, Queued, WebhookDelivery
from deliveries.models.queue import NEVER
from deliveries.models.sql import execute
from deliveries.record import restored
from deliveries.record.outcomes import record
from deliveries.states import Status
from tests.fakes import mail
from tests.fakes.house import build
from tests.steps.test_record import DELIVERED, result

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def new_process(settings, tmp_path: Path) -> Iterator[None]:
    settings.VAR = tmp_path
    forget()
    yield
    forget()


def forget() -> None:
    """As a process that was just started."""
    continuity.forget()
    continuity._seen.clear()
    continuity._fit = True


def flush(settings) -> None:
    """As far as beats go; other tests have their keys in the same Valkey."""
    valkey = redis.Redis.from_url(settings.REDIS_URL)
    for key in valkey.keys("mailapi:beats:*"):
        valkey.delete(key)


def test_a_database_that_was_not_moved_is_fit_and_counts_on():
    assert continuity.beat() and continuity.beat()
    forget()
    assert continuity.fit() and continuity.question() is None
    assert Installation.objects.get().beats == 2


def test_data_that_lie_elsewhere_are_noticed():
    continuity.beat()
    Installation.objects.update(lies_in="6/00000001/7")  # as a dump brings it along
    forget()
    assert not continuity.fit()
    asked = continuity.question()
    assert asked and "another place" in asked.why and "6/00000001/7" in asked.why
    assert not continuity.beat() and Installation.objects.get().beats == 1
    continuity.go_on()
    forget()
    assert continuity.fit() and continuity.question() is None


@pytest.mark.parametrize("witness", ["valkey", "file", "process"])
def test_a_copy_from_before_is_noticed_by_each_that_has_seen_more(witness: str, settings, tmp_path: Path):
    for _ in range(3):
        continuity.beat()
    Installation.objects.update(beats=1)
    continuity.forget()
    if witness != "process":
        forget()
    if witness != "valkey":
        flush(settings)
    if witness != "file":
        (tmp_path / "beats").unlink()
    assert not continuity.fit()
    asked = continuity.question()
    assert asked and "2 beats further" in asked.why
    continuity.go_on()
    assert continuity.fit() and Installation.objects.get().beats > 3


def test_without_a_witness_and_in_the_same_place_nothing_is_suspected(settings, tmp_path: Path):
    continuity.beat()
    flush(settings)
    (tmp_path / "beats").unlink()
    forget()
    assert continuity.fit()


def test_nothing_is_claimed_told_or_handed_on_while_the_question_is_open(monkeypatch: pytest.MonkeyPatch):
    continuity.ask("test")
    monkeypatch.setattr(queue, "claim", lambda *_, **__: pytest.fail("claimed"))
    assert delivering.Pump(delivering.engine())._lease().rows == ()
    for module in (tasks.notifying, tasks.forwarding, tasks.reporting):
        monkeypatch.setattr(module, "run", lambda: pytest.fail("told"))
    monkeypatch.setattr(tasks.sweeping, "sweep", lambda: pytest.fail("swept"))
    monkeypatch.setattr(tasks, "close_old_connections", lambda: None)
    for task in (tasks.notify, tasks.forward, tasks.dsn, tasks.sweep):
        task()


def waiting(own, who: str, status: Status, due: datetime | None = None, scheduled: datetime | None = None) -> Delivery:
    ident = mail.message(own, f"{who}@example.net", status=status)
    Message.objects.filter(id=ident.id).update(scheduled_at=scheduled)
    delivery = Delivery.objects.get(message=ident)
    Delivery.objects.filter(id=delivery.id).update(created_at=timezone.now() - timedelta(hours=2))
    Queued.objects.filter(delivery_id=delivery.id).update(due_at=due or timezone.now())
    return delivery


def test_what_waited_in_the_backup_is_held_and_what_nobody_can_have_sent_is_not():
    own, soon = mail.tenant("Shop"), timezone.now() + timedelta(hours=3)
    doubtful = {
        "queued": waiting(own, "queued", Status.QUEUED),
        "deferred": waiting(own, "deferred", Status.DEFERRED),
        "unknown": waiting(own, "unknown", Status.UNKNOWN),
        "leased": waiting(own, "leased", Status.QUEUED),
        "overdue": waiting(own, "overdue", Status.SCHEDULED, scheduled=timezone.now() - timedelta(hours=1)),
    }
    Queued.objects.filter(delivery_id=doubtful["leased"].id).update(
        lease_id=uuid4(), leased_until=timezone.now(), started_at=timezone.now()
    )
    held = waiting(own, "held", Status.HELD, due=NEVER)
    Delivery.objects.filter(id=held.id).update(reason="Held by ann.")
    later = waiting(own, "later", Status.SCHEDULED, due=soon, scheduled=soon)
    done = mail.message(own, "done@example.net", status=Status.DELIVERED)
    continuity.ask("a dump was read")
    fresh = waiting(own, "fresh", Status.QUEUED)
    Delivery.objects.filter(id=fresh.id).update(created_at=timezone.now() + timedelta(seconds=5))

    assert restored.hold_all("root") == (6, 0)
    for delivery in (*doubtful.values(), held):
        now = Delivery.objects.get(id=delivery.id)
        assert (now.status, now.rule, now.unknowns) == (Status.HELD, "restored", delivery.unknowns + 1), now.recipient
        assert "may have been sent since" in now.reason
        assert Event.objects.filter(delivery_id=delivery.id, data__rule="restored").count() == 1
        row = Queued.objects.get(delivery_id=delivery.id)
        assert (row.due_at, row.lease_id, row.started_at) == (NEVER, None, None)
    assert Delivery.objects.get(id=held.id).reason.endswith("It was held before: Held by ann.")
    assert Delivery.objects.get(id=later.id).status == Status.SCHEDULED
    assert Delivery.objects.get(id=fresh.id).status == Status.QUEUED
    assert Delivery.objects.get(message=done).status == Status.DELIVERED
    assert continuity.fit() and AuditEntry.objects.filter(action="installation.restored").count() == 1


@pytest.mark.django_db(transaction=True)
def test_what_is_recorded_as_delivered_while_all_is_held_stays_delivered():
    house = build()
    (delivery,) = house.send("ann@one.test")
    lease = uuid4()
    queue.claim(lease, 100, 1 << 26, {})
    continuity.ask("a dump was read")

    def hold() -> None:
        try:
            restored.hold_all("root")
        finally:
            connection.close()

    thread = threading.Thread(target=hold)
    with transaction.atomic():
        record([result(delivery.id, lease, DELIVERED)])
        thread.start()
        while not execute("SELECT pid FROM pg_locks WHERE NOT granted").fetchall() and thread.is_alive():
            time.sleep(0.01)
    thread.join()
    delivery.refresh_from_db()
    assert delivery.status == Status.DELIVERED and not Queued.objects.filter(delivery_id=delivery.id).exists()
    assert restored.hold_all("root") == (0, 0)  # answered


def test_an_answer_that_was_broken_off_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch):
    own = mail.tenant("Shop")
    for n in range(5):
        waiting(own, f"m{n}", Status.QUEUED)
    continuity.ask("test")
    monkeypatch.setattr(restored, "_BATCH", 2)
    real, batches = restored._hold, []

    def twice(params):
        batches.append(1)
        if len(batches) == 3:
            raise KeyboardInterrupt
        return real(params)

    monkeypatch.setattr(restored, "_hold", twice)
    with pytest.raises(KeyboardInterrupt):
        restored.hold_all("root")
    assert Delivery.objects.filter(status=Status.HELD).count() == 4 and not continuity.fit()
    assert restored.hold_all("root") == (1, 0)
    assert set(Delivery.objects.values_list("status", "unknowns")) == {(Status.HELD, 1)}


def test_webhooks_that_waited_are_given_up_with_a_reason_and_can_be_told_again():
    own = mail.tenant("Shop")
    facts = mail.everything(own, "mark")
    row = facts[WebhookDelivery]
    WebhookDelivery.objects.filter(id=row.id).update(state="pending", created_at=timezone.now() - timedelta(hours=1))
    continuity.ask("test")
    assert restored.hold_all("root")[1] == 1
    row.refresh_from_db()
    assert row.state == "failed" and "may have been sent since" in row.log.order_by("-id")[0].error


def test_what_is_held_is_released_and_canceled_by_filter():
    shop, club = mail.tenant("Shop"), mail.tenant("Club")
    ours, theirs = waiting(shop, "a", Status.QUEUED), waiting(club, "b", Status.QUEUED)
    young = waiting(shop, "c", Status.QUEUED)
    Delivery.objects.filter(id=young.id).update(created_at=timezone.now() - timedelta(minutes=1))
    by_hand = waiting(shop, "d", Status.HELD, due=NEVER)
    continuity.ask("test")
    Delivery.objects.filter(id=by_hand.id).update(created_at=timezone.now() + timedelta(minutes=1))
    call("hold")
    assert "Shop" in call("status") and "Club" in call("status")
    assert call(
        "release", "--tenant", "Shop", "--before", f"{timezone.now() - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"
    ) == ("1 deliveries: released.\n")
    assert call("cancel", "--destination", "example.net", "--tenant", "Club") == "1 deliveries: canceled.\n"
    assert [Delivery.objects.get(id=d.id).status for d in (ours, theirs, young, by_hand)] == [
        Status.QUEUED, Status.CANCELED, Status.HELD, Status.HELD,
    ]  # fmt: skip
    assert call("release", "--all") == "1 deliveries: released.\n"  # what a person held stays his


def call(*words: str) -> str:
    out = StringIO()
    call_command("restored", *words, stdout=out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("hold",), "No restore was noticed"),
        (("nothing-lost",), "No restore was noticed"),
        (("release",), "Say which"),
        (("release", "--tenant", "nobody"), "no tenant"),
        (("cancel", "--before", "yesterday"), "is no time"),
        (("cancel", "--before", "2026-99-99"), "is no time"),
    ],
)
def test_an_order_that_makes_no_sense_is_one_clear_line(words: tuple[str, ...], said: str):
    with pytest.raises(CommandError, match=said):
        call(*words)


def test_nothing_lost_goes_on_at_once():
    own = mail.tenant("Shop")
    row = waiting(own, "a", Status.QUEUED)
    call("ask")
    assert not continuity.fit()
    call("nothing-lost")
    assert continuity.fit() and Delivery.objects.get(id=row.id).status == Status.QUEUED


def test_the_operator_answers_and_decides_in_the_panel_and_nobody_else():
    own = mail.tenant("Shop")
    row = waiting(own, "a", Status.QUEUED)
    continuity.ask("A dump <b>was</b> read.")
    root, viewer = Client(), Client()
    root.force_login(mail.person("root", operator=True))
    viewer.force_login(mail.person("vera", own, role="owner"))
    assert viewer.get("/admin/restored/").status_code == 403
    assert viewer.post("/admin/restored/", {"verb": "nothing-lost"}).status_code == 403
    assert "A dump &lt;b&gt;was&lt;/b&gt; read." in root.get("/admin/restored/").content.decode()
    assert "Nothing is sent until you answer" in root.get("/admin/").content.decode()
    root.post("/admin/restored/", {"verb": "hold"})
    assert Delivery.objects.get(id=row.id).status == Status.HELD
    page = root.get("/admin/restored/").content.decode()
    assert "No restore waits" in page and str(own.id) in page
    for form in ({"tenant": "x"}, {"before": "never"}, {"before": "2026-99-99T00:00"}):
        root.post("/admin/restored/", {"verb": "release", **form})
        assert Delivery.objects.get(id=row.id).status == Status.HELD
    root.post("/admin/restored/", {"verb": "release", "tenant": str(own.id), "destination": "example.net"})
    assert Delivery.objects.get(id=row.id).status == Status.QUEUED
