"""The first page: every event in an hour exactly once, each tile a way on, members their own figures."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.urls import reverse

from deliveries import prune
from deliveries.admin import home as page
from deliveries.models import (
    AuditEntry,
    BounceMailbox,
    Delivery,
    Event,
    HourTally,
    Message,
    SendingDomain,
    SiteWeather,
    SourcePool,
    TallyMark,
    WebhookEndpoint,
)
from deliveries.models.figures import EVERYBODY
from deliveries.models.sql import execute
from deliveries.read import home
from deliveries.record import figures
from deliveries.record.counts import Counts
from deliveries.record.settle import Result, Tried
from deliveries.smtp.hop import Hop
from deliveries.smtp.outcome import Attempted, Replied, Stage, Verdict
from deliveries.smtp.reply import Reply
from deliveries.states import Status
from tests.fakes import clock, mail
from tests.fakes.dns import FakeDns
from tests.fakes.person import login

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


@pytest.fixture
def shop():
    return mail.tenant("Shop")


def counted(tenant_id) -> Counter[str]:
    """What stands in the hours, without the times."""
    total = Counter()
    for row in HourTally.objects.filter(tenant_id=tenant_id).exclude(what__startswith="took:"):
        total[row.what] += row.count
    return total


def test_every_event_is_counted_once_however_often_and_late_the_tally_comes(shop):
    other = mail.tenant("Other")
    for age in (30 * HOUR, 5 * HOUR, timedelta(minutes=20)):
        mail.message(shop, "a@example.net", "b@example.net", age=age)
        mail.message(shop, "c@example.net", status=Status.BOUNCED, age=age)
    mail.message(other, "d@example.net", status=Status.DEFERRED, age=2 * HOUR)
    assert figures.tally() == 4, "five minutes a step, and quiet hours are passed over"
    assert counted(shop.id) == {"accepted": 9, "delivered": 6, "bounced": 3}
    assert figures.tally() == 0 and counted(shop.id)["delivered"] == 6
    mark = TallyMark.objects.get().until
    mail.message(shop, "e@example.net", age=datetime.now(UTC) - mark - timedelta(milliseconds=1))
    figures.tally()
    assert counted(shop.id) == {"accepted": 10, "delivered": 7, "bounced": 3}
    assert counted(EVERYBODY) == {"accepted": 11, "delivered": 7, "bounced": 3, "deferred": 1}


def test_a_late_bounce_takes_its_delivery_out_of_the_rate(shop):
    for name in "ab":
        mail.message(shop, f"{name}@example.net", age=HOUR)
    row = Delivery.objects.get(recipient="a@example.net")
    Event.objects.create(
        tenant_id=shop.id, type="email.bounced", message=row.message, delivery_id=row.id, data={"late": True},
        created_at=datetime.now(UTC) - HOUR,
    )  # fmt: skip
    figures.tally()
    told = home.figures([shop.id], datetime.now(UTC), "hour")
    assert told.day["late"] == 1 and home.rate(told.day) == 0.5


def test_the_time_to_delivery_counts_from_when_a_mail_was_due(shop):
    now = datetime.now(UTC)
    for n in range(20):
        row = mail.message(shop, f"a{n}@example.net", age=2 * HOUR)
        event = Event.objects.filter(message=row, type="email.delivered")
        event.update(created_at=row.created_at + timedelta(seconds=2.5 if n < 18 else 3000))
    scheduled = mail.message(shop, "late@example.net", age=3 * HOUR)
    Message.objects.filter(id=scheduled.id).update(scheduled_at=now - HOUR)
    Event.objects.filter(message=scheduled, type="email.delivered").update(
        created_at=now - HOUR + timedelta(seconds=2.5)
    )
    figures.tally()
    told = home.figures([shop.id], now, "hour")
    half, most = home.took(told.day, 0.5), home.took(told.day, 0.95)
    assert 2 <= half <= 3 and 2700 <= most <= 3600
    assert home.took(Counter(), 0.5) is None


def test_what_no_tally_counted_yet_is_on_the_page_all_the_same(shop):
    clock.stay_within(clock.HOUR)
    mail.message(shop, "a@example.net", age=2 * HOUR)
    figures.tally()
    mail.message(shop, "b@example.net")
    for tenants in (None, [shop.id]):
        told = home.figures(tenants, datetime.now(UTC), "hour")
        assert told.day["delivered"] == 2 and told.bars[-1][1]["delivered"] == 1
    assert home.figures([], datetime.now(UTC), "hour").day == {}


def test_members_see_their_own_figures_and_operators_all(shop):
    other = mail.tenant("Other")
    mail.message(shop, "a@example.net", age=HOUR)
    mail.message(other, "b@example.net", "c@example.net", age=HOUR)
    mail.message(other, "d@example.net", status=Status.DEFERRED)
    figures.tally()

    def happened(user) -> dict[str, str]:
        return {c["word"]: c["count"] for c in login(user).get("/admin/").context["happened"]}

    assert happened(mail.person("dora", shop))["delivered"] == "1"
    assert happened(mail.person("both", shop, other))["delivered"] == "3"
    assert happened(mail.person("root", operator=True))["delivered"] == "3"
    stranger = mail.person("nobody")
    assert {*happened(stranger).values()} == {"0"}
    context = login(mail.person("vera", shop)).get("/admin/").context
    assert "weather" not in context and {c["count"] for c in context["waiting"]} == {"0"}


def test_each_tile_leads_to_a_list_that_opens(shop):
    for status in (Status.DELIVERED, Status.DEFERRED, Status.QUEUED, Status.HELD, Status.SCHEDULED, Status.BOUNCED,
                   Status.FAILED, Status.SUPPRESSED):  # fmt: skip
        mail.message(shop, "a@example.net", status=status)
    late = mail.message(shop, "late@example.net", status=Status.EXPIRED, age=timedelta(days=4))
    Event.objects.filter(message=late).exclude(type="email.sent").update(created_at=datetime.now(UTC))
    spam = mail.message(shop, "spam@example.net")
    Delivery.objects.filter(message=spam).update(complained_at=datetime.now(UTC))
    Event.objects.create(
        tenant_id=shop.id, type="email.complained", message=spam, recipient="spam@example.net",
        created_at=datetime.now(UTC),
    )  # fmt: skip
    for user in (mail.person("dora", shop), mail.person("root", operator=True)):
        client = login(user)
        context = client.get("/admin/").context
        tiles = [*context["happened"], *context["rates"], *context["waiting"]]
        assert {t["word"] for t in tiles} >= {"accepted", "complained", "failed", "suppressed", "held", "scheduled"}
        for tile in tiles:
            listed = client.get(tile["url"])
            assert listed.status_code == 200, tile
            if tile["word"] == "complained":
                assert [m.id for m in listed.context["cl"].result_list] == [spam.id]
            elif tile["word"] in ("bounced", "failed", "suppressed", "queued", "deferred", "held", "scheduled"):
                assert len(listed.context["cl"].result_list) == int(tile["count"]), tile


def test_the_page_costs_the_same_number_of_queries_whatever_it_shows(shop, django_assert_num_queries, monkeypatch):
    asked: list[str] = []  # of the read model, whose cursor Django does not count

    def counting(statement, params=None):
        asked.append(statement)
        return execute(statement, params)

    monkeypatch.setattr(home, "execute", counting)
    member, operator = login(mail.person("dora", shop)), login(mail.person("root", operator=True))
    for more in range(2):
        with django_assert_num_queries(7):
            member.get("/admin/")
        assert len(asked) == 4
        with django_assert_num_queries(8):  # one more for the IP pools
            operator.get("/admin/?span=month")
        assert len(asked) == 4 + 5
        asked.clear()
        for n in range(12):
            mail.message(shop, f"a{n}@example.net")
            mail.site(f"site{n}.example" if not more else f"more{n}.example")
        figures.tally()


def weather_row(site: str, age: timedelta, delivered: int, deferred: int = 0, bounced: int = 0, ms: int = 500) -> None:
    SiteWeather.objects.create(
        site=site, slot=figures.slot_of(datetime.now(UTC) - age), delivered=delivered, deferred=deferred,
        bounced=bounced, ms=ms * delivered,
    )  # fmt: skip


def test_a_site_is_held_against_its_own_last_week(shop):
    now = datetime.now(UTC)
    for site in ("well.example", "worse.example", "slow.example", "new.example"):
        weather_row(site, timedelta(minutes=5), 100 if site != "worse.example" else 60,
                    40 if site == "worse.example" else 0, ms=500 if site != "slow.example" else 9000)  # fmt: skip
        if site != "new.example":
            weather_row(site, timedelta(days=2), 1000)
    mail.site("rests.example", suspended_until=now + timedelta(minutes=12), reason="rests.example said <421>.")
    mail.site("paused.example", suspended_until=now + timedelta(days=400_000), paused_by="root", reason="By root.")
    mail.site("new.example", strikes=1, reason="new.example asked for less.")
    found = {w.site: w.word for w in home.weather(now)}
    assert found == {"well.example": "well", "worse.example": "worse", "slow.example": "slow",
                     "new.example": "slowed", "rests.example": "rests", "paused.example": "paused"}  # fmt: skip
    assert home.weather(now)[0].word == "paused", "what troubles stands first"
    text = login(mail.person("root", operator=True)).get("/admin/").content.decode()
    assert "rests.example said &lt;421&gt;; goes on in 12 min." in text
    assert "60.0 % taken, 100 % in the week before." in text


def answer(site: str, verdict: Verdict, ms: int) -> Result:
    now = datetime.now(UTC)
    hop = Hop("mx." + site, "192.0.2.1", site=site)
    done = Attempted(hop, Replied(Stage.DOT, Reply(250)), now - timedelta(milliseconds=ms), now, "", None)
    return Result(uuid4(), uuid4(), verdict, (Tried(uuid4(), done, verdict),), hop.host)


def test_answers_are_counted_in_memory_and_written_at_most_once_in_ten_seconds(monkeypatch):
    monkeypatch.setattr(figures, "_weather", Counts("sites", figures._write))
    good, later = Verdict(Status.DELIVERED, "2xx"), Verdict(Status.DEFERRED, "greylisting")
    figures.note([answer("one.test", good, 200), answer("one.test", good, 400), answer("two.test", later, 1)])
    assert figures.flush() == 2 and figures.flush() == 0
    figures.note([answer("one.test", later, 10)])
    assert figures.flush() == 0, "ten seconds are not over"
    assert figures.flush(now=True) == 1
    rows = SiteWeather.objects.filter(site="one.test")
    assert sum(r.delivered for r in rows) == 2 and sum(r.deferred for r in rows) == 1
    assert sum(r.ms for r in rows) == 600


def test_what_wants_a_person_is_named_with_a_way_there(shop, monkeypatch):
    monkeypatch.setattr(page.metrics, "living", lambda roles: {"deliver", "beat"})
    now = datetime.now(UTC)
    WebhookEndpoint.objects.create(tenant=shop, url="https://down.example/<b>", secret=b"x", failing_since=now)
    WebhookEndpoint.objects.create(tenant=shop, url="https://fine.example/", secret=b"x")
    SendingDomain.objects.create(tenant=shop, name="unproven.example")
    mail.domain(shop, "fine.example")
    SendingDomain.objects.filter(pk=mail.domain(shop, "breaks.example").pk).update(missing_since=now)
    for name, failures in (("bounces@shop.example", 3), ("fine@shop.example", 0)):
        BounceMailbox.objects.create(tenant=shop, host="imap.example", username=name, password=b"x", failures=failures)
    TallyMark.objects.create(id=1, until=now - 2 * HOUR)
    for name, waits_at in (("stuck", now), ("unused", None)):  # neither has an address
        SourcePool.objects.create(name=name, waits_at=waits_at)
    look = login(mail.person("root", operator=True)).get("/admin/").context["look"]
    assert [line["word"] for line in look] == ["webhook", "domain", "domain", "mailbox", "IP pool", "worker", "figures"]
    assert "breaks.example: its DKIM record went missing" in look[1]["text"] and "bounces@" in look[3]["text"]
    assert look[4]["text"] == "stuck sends nothing, and mail waits for it: The IP pool stuck has no address."
    assert "No jobs process" in look[5]["text"] and "end 2 h ago" in look[6]["text"]
    client = login(mail.person("dora", shop))
    look = client.get("/admin/").context["look"]
    assert [line["word"] for line in look] == ["webhook", "domain", "domain", "mailbox"], (
        "workers are the operator's affair"
    )
    assert all(client.get(line["url"]).status_code == 200 for line in look)
    assert login(mail.person("eve", mail.tenant("Other"))).get("/admin/").context["look"] == []
    assert "https://down.example/&lt;b&gt;" in client.get("/admin/").content.decode()


def test_old_figures_go_and_new_ones_stay(shop):
    for days, there in ((0, True), (7, True), (9, False)):
        weather_row(f"{days}.example", timedelta(days=days), 1)
        prune.run()
        assert SiteWeather.objects.filter(site=f"{days}.example").exists() is there


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (1.0, "100 %"), (0.99999, "99.9 %"), (0.5, "50.0 %"),
                                             (0.0, "0.0 %")])  # fmt: skip
def test_a_rate_says_100_only_where_it_is_all(value, text):
    assert page.percent(value) == text


def test_the_first_page_needs_no_other_host(shop):
    text = login(mail.person("dora", shop)).get(reverse("admin:index")).content.decode()
    assert "http://" not in text.replace("http://www.w3.org", "") and "//cdn" not in text
    assert not AuditEntry.objects.exists()


def test_the_doctor_examines_when_the_operator_asks_and_shows_what_it_found_as_text(shop, settings):
    client = login(mail.person("root", operator=True))
    mail.domain(shop, "shop.example")
    with FakeDns(
        '1.9.9.9.in-addr.arpa PTR mail.example\nmail.example A 9.9.9.1\nshop.example TXT "v=spf1 <b>-all"\n'
    ) as dns:
        settings.DNS_NAMESERVERS, settings.SOURCE_IPS = (dns.address,), ("9.9.9.1",)
        settings.HELO_NAME = "mail.example"
        assert dns.asked == [] and client.get("/admin/doctor/").context["checks"] is None
        assert dns.asked == [], "looking at the page asks nobody"
        answer = client.post("/admin/doctor/", {})
        tones = {check.name: check.tone.value for _, found in answer.context["checks"] for check, _ in found}
        assert tones["FCrDNS"] == tones["HELO name"] == "good" and tones["DMARC"] == "missing"
        assert "v=spf1 &lt;b&gt;-all" in answer.content.decode()
        fault = client.post("/admin/doctor/", {"domain": "not a domain"})
        assert fault.context["fault"] and fault.context["checks"] is None
    owner = login(mail.person("olga", shop, role="owner"))
    assert owner.get("/admin/doctor/").status_code == owner.post("/admin/doctor/").status_code == 403
