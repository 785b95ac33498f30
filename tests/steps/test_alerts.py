"""What the installation finds wrong with itself, and how it tells the operator."""

from __future__ import annotations

import json
import threading
from collections import namedtuple
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from deliveries import alerts, metrics
from deliveries.alerts import look
from deliveries.models import Brake, Destination, Message, MessageContent, OperatorAlert, WebhookEndpoint
from tests.fakes.dns import FakeDns
from tests.fakes.house import build
from tests.fakes.labs import running_lab
from tests.fakes.receiver import receiver

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _all_well(monkeypatch):
    monkeypatch.setattr(metrics, "signs", lambda roles: set(roles))
    monkeypatch.setattr(look, "_paths", list)  # whatever room this machine has


def kinds() -> dict[str, str]:
    return {trouble.kind.value: trouble.words for trouble in look.look()}


def test_nothing_is_wrong_with_a_quiet_installation() -> None:
    house = build()
    house.send("a@one.test", scheduled_at=timezone.now() + timedelta(hours=1))
    assert kinds() == {}


def test_mail_that_is_not_attempted_is_found() -> None:
    build().send("a@one.test")
    Destination.objects.update(next_due=timezone.now() - timedelta(seconds=90))
    assert "waits for" in kinds()["mail_waits"]


def test_roles_that_are_gone_are_found_and_without_valkey_nobody_is_accused(monkeypatch) -> None:
    monkeypatch.setattr(metrics, "signs", lambda roles: {"web", "jobs"})
    gone = [t.subject for t in look.look() if t.kind is look.Kind.ROLE_GONE]
    assert gone == ["deliver", "beat"]
    monkeypatch.setattr(metrics, "signs", lambda roles: None)
    assert set(kinds()) == {"valkey_away"}


def test_brakes_broken_domains_and_endpoints_that_were_switched_off_are_found() -> None:
    house = build()
    now = timezone.now()
    Brake.objects.create(site="one.test", category="x", reason="It refuses all.", refused=60, since=now, at=now)
    house.domain.missing_since = now
    house.domain.save()
    for url, reason in (("a", "410"), ("b", "Switched off by ann.")):
        WebhookEndpoint.objects.create(
            tenant=house.tenant, url=f"https://{url}.test/", enabled=False, disabled_reason=reason, secret=b"x"
        )
    found = kinds()
    assert set(found) == {"brake", "domain_broke", "endpoint_off"}
    assert found["brake"] == "Mail is held: It refuses all." and house.domain.name in found["domain_broke"]
    assert len([t for t in look.look() if t.kind is look.Kind.ENDPOINT_OFF]) == 1


def test_a_disk_with_little_room_is_found_once(monkeypatch, tmp_path) -> None:
    use = namedtuple("use", "total used free")
    monkeypatch.setattr(look.shutil, "disk_usage", lambda path: use(100 * 1024**3, 0, 1024**3))
    (trouble,) = look._disks([tmp_path, tmp_path / ".."])
    assert "1024 MB left" in trouble.words
    monkeypatch.setattr(look.shutil, "disk_usage", lambda path: use(4000 * 1024**3, 0, 100 * 1024**3))
    assert look._disks([tmp_path]) == []


def test_partitions_that_are_not_made_are_found() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 'event_' || to_char((now() AT TIME ZONE 'UTC') + interval '1 month', 'YYYY_MM')")
        (name,) = cursor.fetchone()
        cursor.execute(f"DROP TABLE {name}")
    try:
        assert "event" in kinds()["partitions"]
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT make_months('event', 2)")
    assert kinds() == {}


def wrong(house) -> None:
    house.send("a@one.test")
    Destination.objects.update(next_due=timezone.now() - timedelta(seconds=90))


def alert_mails() -> list[Message]:
    return list(Message.objects.filter(stream="alerts").order_by("id"))


def test_a_trouble_is_mailed_through_our_own_queue_once_and_its_end(settings) -> None:
    house = build()
    settings.ALERT_EMAIL, settings.ALERT_FROM = ("ops@example.com",), f"alerts@{house.domain.name}"
    wrong(house)
    assert alerts.run() == 1
    assert alerts.run() == 0
    (mail,) = alert_mails()
    assert mail.subject == "[mailapi] trouble: mail waits"
    assert b"Auto-Submitted: auto-generated" in bytes(MessageContent.objects.get(id=mail.id).raw)
    Destination.objects.update(next_due=timezone.now() + timedelta(hours=1))
    assert alerts.run(timezone.now() + timedelta(minutes=3)) == 1
    assert [m.subject for m in alert_mails()] == ["[mailapi] trouble: mail waits", "[mailapi] over: mail waits"]
    assert not OperatorAlert.objects.filter(open=True).exists()


def test_what_no_way_took_is_told_by_the_next_look(settings) -> None:
    house = build()
    settings.ALERT_EMAIL, settings.ALERT_FROM = ("ops@example.com",), "alerts@not-ours.test"
    wrong(house)
    alerts.run()
    assert alert_mails() == [] and OperatorAlert.objects.get().told_at is None
    settings.ALERT_FROM = f"alerts@{house.domain.name}"
    alerts.run()
    assert len(alert_mails()) == 1


def test_without_a_way_nothing_is_looked_for() -> None:
    wrong(build())
    assert alerts.run() == 0 and not OperatorAlert.objects.exists()


def test_a_look_beside_another_leaves_it_alone(settings) -> None:
    house = build()
    settings.ALERT_EMAIL, settings.ALERT_FROM = ("ops@example.com",), f"alerts@{house.domain.name}"
    wrong(house)
    looked = threading.Event()
    over = threading.Event()

    def other() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [alerts._LOCK])
            looked.set()
            over.wait(60)
            cursor.execute("SELECT pg_advisory_unlock(%s)", [alerts._LOCK])
        connection.close()

    thread = threading.Thread(target=other)
    thread.start()
    try:
        assert looked.wait(60)
        assert alerts.run() == 0
    finally:
        over.set()
        thread.join()
    assert alerts.run() == 1


def test_a_webhook_that_refuses_is_asked_again(settings) -> None:
    wrong(build())
    with receiver() as chat:
        settings.ALERT_WEBHOOK_URL = chat.url()
        chat.answer = lambda came: (500 if len(chat.came) == 1 else 204, {})
        for _ in range(3):
            alerts.run()
    first, second = chat.came
    first_body, second_body = json.loads(first.body), json.loads(second.body)
    assert first_body["id"] == second_body["id"] and second_body["alerts"][0]["kind"] == "mail_waits"


def test_what_the_queue_cannot_take_is_told_through_the_smarthost(settings) -> None:
    with running_lab(tls=False) as lab:
        settings.ALERT_EMAIL, settings.ALERT_FROM = ("delivered@simulator.test",), "alerts@not-ours.test"
        settings.ALERT_SMARTHOST = "smtp://{}:{}".format(*lab.address)
        wrong(build())
        assert alerts.run() == 1 and alerts.run() == 0
        (mail,) = lab.messages
    assert b"Subject: [mailapi] trouble: mail waits" in mail.octets and mail.reverse_path == "alerts@not-ours.test"


@pytest.mark.parametrize("valkey", [True, False])
def test_a_database_that_is_away_is_told_once_without_it_and_so_is_its_end(settings, monkeypatch, valkey) -> None:
    if not valkey:  # both were on the host that died
        monkeypatch.setattr(metrics, "mark", lambda name, ttl_s: None)
        monkeypatch.setattr(metrics, "unmark", lambda name: None)
    alerts._database_is(away=False)
    with receiver() as chat, connection.execute_wrapper(away):
        settings.ALERT_WEBHOOK_URL, settings.ALERT_EMAIL = chat.url(), ("ops@example.com",)
        for gone in (True, True, False, False):
            alerts._database_is(away=gone)
    words = [(a["kind"], a["word"]) for came in chat.came for a in json.loads(came.body)["alerts"]]
    assert words == [("database_away", "begins"), ("database_away", "ends")]


def away(execute, sql, params, many, context):
    raise OperationalError("the database is away")


def test_an_address_on_a_block_list_is_told_and_its_end_only_by_a_list_that_answers(settings) -> None:
    with FakeDns("2.9.9.9.bl.example A 127.0.0.2") as dns, receiver() as chat:
        settings.DNS_NAMESERVERS, settings.SOURCE_IPS = (dns.address,), ("9.9.9.2",)
        settings.DNS_BLOCK_LISTS, settings.ALERT_WEBHOOK_URL = ("bl.example",), chat.url()
        assert alerts.run_listings() == 1 and alerts.run() == 0
        later = timezone.now() + timedelta(minutes=10)
        dns.set("2.9.9.9.bl.example * SERVFAIL")
        assert alerts.run_listings(later) == 0
        dns.set("bl.example A 192.0.2.1")
        assert alerts.run_listings(later) == 1
    told = [json.loads(came.body)["alerts"][0] for came in chat.came]
    assert [t["word"] for t in told] == ["begins", "ends"] and told[0]["subject"] == "9.9.9.2 bl.example"


def test_many_troubles_of_a_kind_are_one_mail(settings) -> None:
    house = build()
    settings.ALERT_EMAIL, settings.ALERT_FROM = ("ops@example.com",), f"alerts@{house.domain.name}"
    for n in range(30):
        WebhookEndpoint.objects.create(
            tenant=house.tenant, url=f"https://{n}.test/", enabled=False, disabled_reason="410", secret=b"x"
        )
    assert alerts.run() == 1
    assert [m.subject for m in alert_mails()] == ["[mailapi] trouble: endpoint off (30)"]
