"""The queue by destination, in the panel and in the terminal: the same answers, and an operator's orders."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from deliveries.models import AuditEntry, Delivery, Destination, Queued, Site
from deliveries.models.queue import NEVER
from deliveries.read import line
from deliveries.states import Status
from tests.fakes import house as houses
from tests.fakes import mail
from tests.fakes.person import login

pytestmark = pytest.mark.django_db

PAGE = "/admin/queue/"


@pytest.fixture
def root():
    return login(mail.person("root", operator=True))


@pytest.fixture
def shop():
    """Two deferred and one queued for example.net, one in flight, one held."""
    own = mail.tenant("Shop")
    mail.message(own, "a@example.net", "b@example.net", status=Status.DEFERRED)
    mail.message(own, "c@example.net", status=Status.QUEUED)
    flying = mail.message(own, "d@example.net", status=Status.QUEUED)
    Queued.objects.filter(delivery_id=Delivery.objects.get(message=flying).id).update(
        lease_id=uuid4(), leased_until=datetime.now(UTC) + timedelta(minutes=1)
    )
    held = mail.message(own, "e@example.net", status=Status.HELD)
    Queued.objects.filter(delivery_id=Delivery.objects.get(message=held).id).update(due_at=NEVER)
    mail.destination()
    return own


def test_a_destination_says_what_waits_what_flies_and_when_it_goes_on(root, shop):
    mail.site(strikes=2, reason="example.net asked for less: <421>.", last_reply="421 4.7.0 slow down <b>", places=3)
    (stop,) = line.stops(datetime.now(UTC))
    assert (stop.name, stop.waiting, stop.in_flight, stop.word, stop.places) == ("example.net", 3, 1, "slowed", 3)
    text = root.get(PAGE).content.decode()
    assert "example.net asked for less: &lt;421&gt;." in text and "421 4.7.0 slow down &lt;b&gt;" in text
    assert "?status=held" in text and "?status=unknown" in text


def test_what_rests_or_is_paused_stands_there_with_reason_and_end(root, shop):
    now = datetime.now(UTC)
    mail.site(suspended_until=now + timedelta(minutes=20), reason="It was not reached three times.", misses=3)
    Destination.objects.update(next_due=NEVER)
    mail.site("empty.example", suspended_until=NEVER, paused_by="root", reason="Paused by root: they move house")
    found = {s.name: s for s in line.stops(now)}
    assert found["example.net"].word == "rests" and found["example.net"].until == now + timedelta(minutes=20)
    assert found["empty.example"].word == "paused" and found["empty.example"].until is None
    text = root.get(PAGE).content.decode()
    assert "goes on in 20 min" in text and "they move house; goes on when a person resumes it" in text
    text = root.get("/admin/deliveries/destination/").content.decode()
    assert "normal" in text and "nothing waits" in text and "3000" not in text, (
        "the words of the API, and no magic year"
    )


def test_what_rests_stands_before_what_is_merely_due(root, shop):
    mail.site("zz.example", suspended_until=NEVER, paused_by="root", reason="Paused by root.")
    assert [s.name for s in line.stops(datetime.now(UTC))] == ["zz.example", "example.net"]


def test_an_operator_pauses_with_a_reason_and_resumes(root, shop):
    page = root.post(PAGE, {"verb": "pause", "site": "example.net", "reason": "they\r\nmove  house"}, follow=True)
    assert "example.net is paused" in page.content.decode()
    site = Site.objects.get(name="example.net")
    assert site.reason == "Paused by root: they move house" and site.suspended_until == NEVER
    root.post(PAGE, {"verb": "resume", "site": "example.net"})
    site.refresh_from_db()
    assert site.suspended_until is None and site.reason == ""
    assert set(AuditEntry.objects.values_list("action", flat=True)) == {"site.paused", "site.resumed"}


def test_a_flush_makes_deferred_mail_due_and_leaves_what_has_its_time(root, shop):
    later = datetime.now(UTC) + timedelta(hours=3)
    waits = mail.message(shop, "s@example.net", status=Status.SCHEDULED, next_attempt_at=later)
    unsure = mail.message(shop, "u@example.net", status=Status.UNKNOWN, next_attempt_at=later)
    page = root.post(PAGE, {"verb": "flush", "site": "example.net"}, follow=True)
    assert "2 deferred mails for example.net are due now." in page.content.decode()
    now = datetime.now(UTC)
    for row in Queued.objects.filter(delivery_id__in=Delivery.objects.filter(status="deferred").values("id")):
        assert row.due_at <= now
    for message in (waits, unsure):
        assert Queued.objects.get(delivery_id=Delivery.objects.get(message=message).id).due_at == later


def test_a_bound_is_set_and_lifted(root, shop):
    root.post(PAGE, {"verb": "slow", "site": "example.net", "places": "2"})
    assert Site.objects.get(name="example.net").most_places == 2
    for nonsense in ("0", "-1", "x", "1.5", "99999999", "٣"):
        page = root.post(PAGE, {"verb": "slow", "site": "example.net", "places": nonsense}, follow=True)
        assert "Give a number" in page.content.decode(), nonsense
    assert Site.objects.get(name="example.net").most_places == 2
    root.post(PAGE, {"verb": "slow", "site": "example.net", "places": ""})
    assert Site.objects.get(name="example.net").most_places is None


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"verb": "pause"},
        {"verb": "pause", "site": "never-met.example"},
        {"verb": "x", "site": "example.net"},
        {"verb": "pause", "site": "a\0b"},
    ],
)
def test_an_order_that_makes_no_sense_changes_nothing(root, shop, asked):
    assert "No such" in root.post(PAGE, asked, follow=True).content.decode()
    assert not Site.objects.exists() and not AuditEntry.objects.exists()


def test_the_queue_is_the_operators(shop):
    owner = login(mail.person("olga", shop, role="owner"))
    assert owner.get(PAGE).status_code == 403
    assert owner.post(PAGE, {"verb": "pause", "site": "example.net"}).status_code == 403
    assert not Site.objects.exists()
    assert "Queue" not in owner.get("/admin/").content.decode()


# --- the terminal -----------------------------------------------------------------------------------------------


def run(*args) -> str:
    out = StringIO()
    call_command(*args, stdout=out)
    return out.getvalue()


def test_the_terminal_shows_the_same_queue(shop):
    mail.site(strikes=1, reason="asked for less")
    table = run("queue")
    assert "slowed" in table and "example.net" in table and "asked for less" in table
    assert "2 deferred" in table and "1 held" in table
    (only,) = [json.loads(x) for x in run("queue", "--json").splitlines()]
    assert only["name"] == "example.net" and only["waiting"] == 3 and only["in_flight"] == 1
    assert json.loads(run("queue", "--json", "nowhere.example"))["waiting"] == 0


def test_an_empty_queue_says_so():
    assert "Nothing waits" in run("queue") and run("queue", "--json") == ""


def test_a_trace_tells_one_mail_whole_by_id_message_id_or_address(shop):
    row = mail.message(shop, "gone@example.org", status=Status.BOUNCED, subject="Hi", reply="550 5.1.1 no such user")
    for what in (str(row.id), f"<{row.message_id}>", "gone@example.org"):
        text = run("trace", what)
        assert "says that there is no such mailbox" in text and "550 5.1.1 no such user" in text
        assert "EHLO" not in text
    assert "EHLO mail.example.org" in run("trace", "gone@example.org", "--talk")
    facts = json.loads(run("trace", str(row.id), "--json"))
    assert facts["recipients"][0]["status"] == "bounced" and facts["recipients"][0]["attempts"][0]["ms"] == 71


def test_a_trace_lists_several_and_refuses_what_finds_nothing(shop):
    text = run("trace", "a@example.net", "--limit", "1")
    assert "deferred" in text
    assert len(run("trace", "subject:receipt").splitlines()) == 5, "a heading and four mails"
    assert "older ones" in run("trace", "subject:receipt", "--limit", "2")
    for asked in (("trace", "nobody@example.net"), ("trace", "x", "--limit", "0")):
        with pytest.raises(CommandError):
            run(*asked)


def test_text_from_outside_draws_nothing_in_the_terminal(shop):
    evil = "\x1b[2J\x1b]0;owned\x07[bold red]\u202e"
    mail.message(shop, "x@example.org", subject=evil, reply=evil, status=Status.BOUNCED)
    text = run("trace", "x@example.org", "--talk")
    assert "\x1b" not in text and "\x07" not in text and "\u202e" not in text and "[bold red]" in text


@pytest.mark.django_db(transaction=True)
def test_a_mail_is_sent_from_the_terminal_like_any_other():
    own = houses.build()
    answer = json.loads(run("send", "a@example.net", "B <b@example.net>", "--from", own.sender, "--subject", "Hi",
                            "--text", "Words", "--json"))  # fmt: skip
    assert answer["statuses"] == {"a@example.net": "queued", "b@example.net": "queued"}
    assert Delivery.objects.filter(message_id=answer["id"]).count() == 2
    text = run("send", "a@example.net", "--from", own.sender, "--text", "x")
    assert "Accepted as " in text and "queued  a@example.net" in text
    with pytest.raises(SystemExit):
        run("send", "a@example.net", "--from", own.sender, "--text", "x", "--wait", "0.3")
    for wrong in (["a@example.net", "--from", "x@elsewhere.example"], ["nonsense", "--from", own.sender],
                  ["a@example.net", "--from", own.sender, "--stream", "x" * 100],
                  ["a@b.example\nBcc: c@d.example", "--from", own.sender]):  # fmt: skip
        with pytest.raises(CommandError):
            run("send", *wrong, "--text", "x")
