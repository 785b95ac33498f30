"""Shaping, with real Postgres, Valkey and sockets: one slow receiver slows itself, and nobody else.

MAILAPI_BIG=1000000 makes the backlog behind a suspended provider as large as that.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
import redis
from django.conf import settings as django_settings
from django.db import connection
from django.utils import timezone

from deliveries import deliver, keys, queue, shaping
from deliveries.accept import accept
from deliveries.claim import Alone
from deliveries.deliver import jobs
from deliveries.models import AuditEntry, Delivery, Destination, MxSite, Queued, Site
from deliveries.models.queue import NEVER
from deliveries.models.sql import execute
from deliveries.read.waits import rests
from deliveries.record import homes, outcomes, paces, sites
from deliveries.record.settle import Result, Tried
from deliveries.retry import Schedule
from deliveries.smtp.classify import classify
from deliveries.smtp.hop import Hop
from deliveries.smtp.outcome import Attempted, Replied, Stage
from deliveries.smtp.reply import Reply
from deliveries.states import Lane
from tests.fakes.dns import FakeDns
from tests.fakes.house import House, build, known_sites
from tests.fakes.labs import fresh_pump
from tests.fakes.moods import SLOWER, moods

pytestmark = pytest.mark.django_db(transaction=True)

BIG = int(os.environ.get("MAILAPI_BIG", "100000"))
PLENTY = 1 << 26
DNS = """
storm.test            MX  10 mx.slowing.test
shop.test             MX  10 mx.slowing.test
mx.slowing.test       A   127.0.0.2
good.test             A   127.0.0.1
other.test            MX  10 good.test
one.test              A   127.0.0.1
two.test              A   127.0.0.1
"""


@pytest.fixture(autouse=True)
def _by_mx(settings) -> None:
    settings.MAIL_ROUTE = "mx"
    paces._known.clear()
    paces._credit.clear()


def take(free: int = 100, unproven: int | None = None, urgent: int = 0, **in_flight: int) -> Counter[str]:
    rows = queue.claim(uuid4(), free, PLENTY, in_flight, unproven=unproven, urgent=urgent).rows
    return Counter(row.destination for row in rows)


def fill(house: House, site: str, rows: int, lane: Lane = Lane.BULK) -> None:
    """Queue rows alone, due at once: what a claim looks at, without the million mails behind them."""
    execute(
        """INSERT INTO queued (delivery_id, lane, destination, tenant_id, due_at, size)
           SELECT make_uuid7(), %(lane)s, %(site)s, %(tenant)s, now() - interval '1 min', 2000
             FROM generate_series(1, %(rows)s)""",
        {"lane": int(lane), "site": site, "tenant": house.tenant.id, "rows": rows},
    )
    Destination.objects.create(lane=lane, name=site, next_due=timezone.now(), proven=True)
    execute("ANALYZE queued")


# --- learning where mail goes -----------------------------------------------------------------------------------


def test_rows_of_a_domain_move_to_its_site_and_new_ones_are_born_there() -> None:
    house = build()
    (first,) = house.send("a@shop.test")
    lease = uuid4()
    (row,) = queue.claim(lease, 10, PLENTY, {}).rows
    assert row.destination == "shop.test" and not row.proven
    homes.move([homes.Moved(first.id, lease, "shop.test", "slowing.test")])
    assert Queued.objects.get(delivery_id=first.id).destination == "slowing.test"
    assert MxSite.objects.get(domain="shop.test").site == "slowing.test"
    (second,) = house.send("b@shop.test")
    assert Queued.objects.get(delivery_id=second.id).destination == "slowing.test"
    known_sites("slowing.test")
    assert take()["slowing.test"] == 2
    assert queue.heal() == 0


def test_when_a_domain_changes_its_provider_what_was_learned_follows() -> None:
    house = build()
    for site in ("old.test", "new.test", "shop.test"):
        house.send("a@shop.test")
        lease = uuid4()
        (row,) = queue.claim(lease, 10, PLENTY, {}).rows
        homes.move([homes.Moved(row.delivery_id, lease, "shop.test", site)])
        assert MxSite.objects.get(domain="shop.test").site == site
        Queued.objects.all().delete()


def test_mail_with_a_fixed_route_is_born_under_the_routes_name(settings) -> None:
    settings.MAIL_ROUTES = '{"big.test": {"host": "relay.example:587", "name": "our relay"}}'
    house = build()
    house.send("a@big.test", "b@one.test")
    assert set(Queued.objects.values_list("destination", flat=True)) == {"our relay", "one.test"}
    settings.MAIL_ROUTE = "sandbox"
    house.send("c@one.test")
    assert Queued.objects.filter(destination="sandbox").count() == 1


# --- places -----------------------------------------------------------------------------------------------------


def test_a_receiver_that_was_never_met_is_asked_by_one_mail_first() -> None:
    house = build()
    house.send(*[f"u{n}@new.test" for n in range(10)])
    assert take() == {"new.test": 1}
    assert take(**{"new.test": 1}) == {}


def test_those_that_may_be_tar_pits_never_crowd_out_the_others() -> None:
    house = build()
    known_sites("good.test")
    accept(keys.hash_of(house.secret), [house.draft(*[f"u@t{n}-{m}.test" for m in range(50)]) for n in range(10)])
    house.send(*[f"u{n}@good.test" for n in range(30)])  # due later than five hundred others
    taken = take(free=40, unproven=20)
    assert taken.pop("good.test") >= 15 and sum(taken.values()) <= 20
    assert set(take(free=40, unproven=0)) == {"good.test"}


def test_full_destinations_do_not_hide_those_behind_them() -> None:
    house = build()
    crowd = [f"d{n}.test" for n in range(250)]
    known_sites("good.test", *crowd, places=1)
    accept(keys.hash_of(house.secret), [house.draft(*[f"{u}@{d}" for d in crowd[i : i + 50]])
                                        for u in "ab" for i in range(0, 250, 50)])  # fmt: skip
    busy = take(free=1000) + take(free=1000, **dict.fromkeys(crowd, 1))
    house.send("u@good.test")
    assert take(free=100, **{name: 1 for name in crowd if busy[name]})["good.test"] == 1


def test_newsletters_leave_places_for_what_cannot_wait() -> None:
    house = build()
    known_sites("one.test", places=8)
    fill(house, "one.test", 100)
    assert take() == {"one.test": 6}
    (otp,) = house.send("me@one.test", lane=Lane.HIGH)
    row = queue.claim(uuid4(), 0, PLENTY, {"one.test": 6}, urgent=5).rows[0]
    assert row.delivery_id == otp.id  # though the process itself is full


def test_tenants_go_round_even_where_places_are_few_and_backlogs_old() -> None:
    known_sites("one.test", places=2)
    big = [build() for _ in range(4)]
    for house in big:
        accept(keys.hash_of(house.secret), [house.draft(*[f"u{n}@one.test" for n in range(40)])])
    Queued.objects.update(due_at=timezone.now() - timedelta(hours=1))
    small = build()
    (mine,) = small.send("me@one.test")
    seen: list[object] = []
    for _ in range(5):
        seen += [row.delivery_id for row in queue.claim(uuid4(), 2, PLENTY, {}).rows]
    owners = Counter(Queued.objects.filter(delivery_id__in=seen).values_list("tenant_id", flat=True))
    assert mine.id in seen and owners == {small.tenant.id: 1} | {h.tenant.id: owners[h.tenant.id] for h in big}
    assert {owners[h.tenant.id] for h in big} <= {2, 3}


def test_tenants_whose_mail_is_not_due_yet_keep_nobody_from_the_places() -> None:
    known_sites("one.test", places=5)
    rows = [
        Queued(delivery_id=uuid4(), lane=1, destination="one.test", tenant_id=uuid4(),
               due_at=timezone.now() + timedelta(hours=1), size=1)
        for _ in range(200)
    ]  # fmt: skip
    Queued.objects.bulk_create(rows)
    house = build()
    house.send(*[f"u{n}@one.test" for n in range(5)])
    taken = 0
    for _ in range(6):  # 64 tenants are looked at in one claim; the next one goes on behind them
        taken += take()["one.test"]
    assert taken == 5


# --- learning how fast ------------------------------------------------------------------------------------------


def ended(delivery: Delivery, lease, line: str, site: str = "slowing.test") -> Result:
    code, text = line.split(" ", 1)
    outcome = Replied(Stage.DOT if code == "250" else Stage.MAIL, Reply(int(code), (text,)))
    now = datetime.now(UTC)
    done = Attempted(Hop(f"mx.{site}", "192.0.2.1", site=site), outcome, now, now, "")
    verdict = classify(outcome)
    return Result(delivery.id, lease, verdict, (Tried(uuid4(), done, verdict),), f"mx.{site}")


def send_and_end(house: House, count: int, line: str, site: str = "slowing.test") -> None:
    deliveries = house.send(*[f"u{n}@{site}" for n in range(count)])
    lease = uuid4()
    Queued.objects.filter(delivery_id__in=[d.id for d in deliveries]).update(
        lease_id=lease, leased_until=timezone.now() + timedelta(minutes=1)
    )
    outcomes.record([ended(d, lease, line, site) for d in deliveries])


def test_a_first_success_proves_a_site_and_more_of_it_gives_places() -> None:
    house = build()
    send_and_end(house, 1, "250 2.0.0 ok")
    site = Site.objects.get(name="slowing.test")
    assert site.proven and site.places == 5
    assert set(Destination.objects.filter(name="slowing.test").values_list("proven", flat=True)) == {True}
    for _ in range(2):
        send_and_end(house, 3, "250 2.0.0 ok")
    assert Site.objects.get(name="slowing.test").places == 6


def test_success_at_full_speed_writes_nothing() -> None:
    house = build()
    known_sites("slowing.test", places=20)
    before = Site.objects.get(name="slowing.test").changed_at
    for _ in range(3):
        send_and_end(house, 30, "250 2.0.0 ok")
    assert Site.objects.get(name="slowing.test").changed_at == before


def test_a_second_request_suspends_with_a_reason_that_waiting_mail_can_show(monkeypatch) -> None:
    house = build()
    known_sites("slowing.test")
    send_and_end(house, 20, SLOWER)
    slowed = Site.objects.get(name="slowing.test")
    assert (slowed.places, slowed.suspended_until) == (10, None) and SLOWER in slowed.reason
    monkeypatch.setattr("deliveries.smtp.pace.STORM_S", 0)
    send_and_end(house, 20, SLOWER)
    site = Site.objects.get(name="slowing.test")
    assert site.places == 5 and site.suspended_until is not None
    (waiting,) = house.send("late@slowing.test")
    assert take()["slowing.test"] == 0
    rest = rests([waiting.id], timezone.now())[waiting.id]
    assert rest.site == "slowing.test" and rest.until == site.suspended_until
    assert rest.reason == f"slowing.test asked us to slow down: {SLOWER}"


def test_an_operator_pauses_resumes_and_slows_a_site_and_all_of_it_is_audited() -> None:
    house = build()
    known_sites("one.test")
    (delivery,) = house.send("a@one.test")
    sites.pause_site("one.test", "their mail is being moved", "ann")
    assert take() == {}
    assert Destination.objects.get(name="one.test").next_due == NEVER
    rest = rests([delivery.id], timezone.now())[delivery.id]
    assert (rest.reason, rest.until) == ("their mail is being moved", None)
    send_and_end(house, 30, "250 2.0.0 ok", site="one.test")  # what was under way does not resume it
    assert Site.objects.get(name="one.test").paused_by == "ann"
    sites.slow_site("one.test", 1, "ann")
    sites.resume_site("one.test", "bob")
    house.send("b@one.test")
    assert take() == {"one.test": 1} and rests([delivery.id], timezone.now()) == {}
    told = list(AuditEntry.objects.filter(subject="one.test").order_by("id").values_list("actor", "action"))
    assert told == [("ann", "site.paused"), ("ann", "site.slowed"), ("bob", "site.resumed")]
    with pytest.raises(ValueError):
        sites.slow_site("one.test", 0, "ann")


# --- a provider that rests --------------------------------------------------------------------------------------


def test_a_backlog_behind_a_suspended_provider_costs_the_others_nothing() -> None:
    house = build()
    known_sites("google.com", "one.test", places=50)
    fill(house, "google.com", BIG)
    Site.objects.filter(name="google.com").update(
        suspended_until=timezone.now() + timedelta(hours=1), reason="google.com asked us to slow down"
    )
    took_ms = []
    for n in range(60):
        (otp,) = house.send("me@one.test", lane=Lane.HIGH)
        begun = time.perf_counter()
        rows = queue.claim(uuid4(), 200, PLENTY, {}).rows
        took_ms.append((time.perf_counter() - begun) * 1000)
        assert [row.delivery_id for row in rows] == [otp.id]
        if n % 20 == 0:
            house.send("more@gmail.test")  # of the suspended site: nobody is woken for it
            Queued.objects.filter(destination="gmail.test").delete()
            Destination.objects.filter(name="gmail.test").delete()
    p95 = statistics.quantiles(took_ms, n=20)[-1]
    print(f"\n{BIG} rows due for a suspended provider: claim p50 {statistics.median(took_ms):.1f} ms, p95 {p95:.1f} ms")
    assert Queued.objects.filter(destination="google.com", lease_id=None).count() == BIG


def test_an_otp_overtakes_a_backlog_of_newsletters_to_the_same_provider() -> None:
    house = build()
    known_sites("one.test", places=20)
    fill(house, "one.test", BIG)
    took_ms = []
    for _ in range(30):
        (otp,) = house.send("me@one.test", lane=Lane.HIGH)
        begun = time.perf_counter()
        rows = queue.claim(uuid4(), 20, PLENTY, {}).rows
        took_ms.append((time.perf_counter() - begun) * 1000)
        assert otp.id in {row.delivery_id for row in rows}
    p95 = statistics.quantiles(took_ms, n=20)[-1]
    print(f"\n{BIG} newsletters due: claim p50 {statistics.median(took_ms):.1f} ms, p95 {p95:.1f} ms")


# --- shared through Valkey --------------------------------------------------------------------------------------


@pytest.fixture
def valkey(monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    monkeypatch.setattr(shaping, "ALIVE_S", 60.0)  # who is only slow has not gone
    client = redis.Redis.from_url(django_settings.REDIS_URL)
    try:
        client.ping()
    except redis.RedisError:
        pytest.skip("no Valkey")
    forget(client)
    yield client
    forget(client)


def forget(client: redis.Redis) -> None:
    """What a flush takes from this installation; others may use the same Valkey."""
    for key in client.scan_iter(shaping.Shaping().prefix + "*"):
        client.delete(key)


def pumping(name: str) -> shaping.Shaping:
    one = shaping.Shaping(name=name)
    # Valkey is not away, only slow to answer
    one.valkey._client.connection_pool.connection_kwargs["socket_timeout"] = 60
    return one


def test_the_parts_of_processes_that_pump_add_up_and_a_leaver_gives_his_to_the_others(valkey, monkeypatch) -> None:
    monkeypatch.setattr(shaping, "_SIGN_S", 0)
    crew = [pumping(f"p{n}") for n in range(3)]
    for one in crew:
        one.share("google.com", 50)
    assert sum(one.share("google.com", 50) for one in crew) == 50
    assert sum(one.share("google.com", 1) for one in crew) == 1
    crew[0].leave()
    assert sum(one.share("google.com", 1) for one in crew[1:]) == 1


def test_hosts_whose_clocks_differ_share_a_site_all_the_same(valkey, monkeypatch) -> None:
    crew = [pumping("ahead"), pumping("behind")]
    now = time.time()
    for _ in range(2):
        for process, apart in zip(crew, (3600, 0), strict=True):
            monkeypatch.setattr(shaping.time, "time", lambda at=now + apart: at)
            process._signed = -shaping.ALIVE_S
            process.share("one.test", 10)
    assert sum(process.share("one.test", 10) for process in crew) == 10


def test_a_rate_holds_for_all_processes_together_and_what_was_not_used_comes_back(valkey) -> None:
    one, two = pumping("p1"), pumping("p2")
    begun = time.monotonic()
    assert one.grant({"rate.test": (60, 4)}) == {"rate.test": 4}
    granted = two.grant({"rate.test": (60, 4)})["rate.test"]
    assert granted <= 1 + (time.monotonic() - begun)  # 5 s worth at once, and what has been earned since
    two.give_back({"rate.test": (60, 3)})
    assert one.grant({"rate.test": (60, 3)})["rate.test"] >= 3
    assert 0 < valkey.pttl(one.prefix + "rate:rate.test") <= 10_000


def test_without_valkey_mail_goes_on_and_the_failure_is_counted() -> None:
    alone = shaping.Shaping(url="redis://127.0.0.1:1/0")
    assert alone.share("google.com", 50) == 50
    assert alone.grant({"rate.test": (60, 100)}) == {"rate.test": 5}
    assert alone.valkey.failures == 1  # and it is not asked again at once


def test_a_flush_of_valkey_forgets_no_suspension(valkey) -> None:
    house = build()
    known_sites("google.com")
    house.send("a@google.com")
    end = timezone.now() + timedelta(hours=1)
    Site.objects.filter(name="google.com").update(suspended_until=end)
    before = shaping.Shaping(name="p1")
    assert queue.claim(uuid4(), 10, PLENTY, {}, shaper=before).rows == ()
    forget(valkey)
    after = shaping.Shaping(name="p1")
    assert queue.claim(uuid4(), 10, PLENTY, {}, shaper=after).rows == ()
    house.send("b@google.com")
    assert queue.claim(uuid4(), 10, PLENTY, {}, shaper=after).rows == ()
    assert Destination.objects.get(name="google.com").next_due == end


def test_a_rate_that_is_used_up_leaves_the_mail_for_later() -> None:
    class Rated(Alone):
        left = 3

        def grant(self, wants):  # type: ignore[no-untyped-def]
            granted = {site: min(n, self.left) for site, (_, n) in wants.items()}
            self.left -= sum(granted.values())
            return granted

    house, rated = build(), Rated()
    house.send(*[f"u{n}@google.com" for n in range(10)])
    assert len(queue.claim(uuid4(), 10, PLENTY, {}, shaper=rated).rows) == 3
    assert queue.claim(uuid4(), 10, PLENTY, {}, shaper=rated).rows == ()
    rated.left = 20
    assert len(queue.claim(uuid4(), 10, PLENTY, {}, shaper=rated).rows) == 7


# --- the pump, against receivers with moods ---------------------------------------------------------------------


@pytest.fixture
def town(settings) -> Iterator[SimpleNamespace]:
    with moods() as receiver, FakeDns(DNS) as dns, fresh_pump():
        settings.DNS_NAMESERVERS = (dns.address,)
        settings.SMTP_PORT, settings.MX_ALLOW_PRIVATE, settings.MAIL_ROUTES = receiver.port, True, ""
        settings.RETRY = Schedule(waits_s=(3600,), max_age_s=86400, jitter=0)
        jobs._kept.clear()
        yield SimpleNamespace(receiver=receiver, dns=dns, house=build())


def pump_until(done: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never came to that"
        deliver.run()
        time.sleep(0.01)


def test_domains_of_one_provider_share_its_limits_from_the_first_mail_on(town) -> None:
    town.house.send("a@storm.test")
    town.house.send("b@shop.test")
    pump_until(lambda: Delivery.objects.filter(status="deferred").count() == 2)
    assert dict(MxSite.objects.values_list("domain", "site")) == {
        "storm.test": "slowing.test", "shop.test": "slowing.test"
    }  # fmt: skip
    assert set(Queued.objects.values_list("destination", flat=True)) == {"slowing.test"}
    assert town.receiver.most["127.0.0.2"] == 1  # never two at once: nobody had been met


def test_a_storm_of_421_slows_that_provider_only_and_the_facts_say_why(town, monkeypatch) -> None:
    known_sites("slowing.test", "good.test")
    monkeypatch.setattr("deliveries.smtp.pace.STORM_S", 100)  # one storm, however slow this machine is
    house = town.house
    drafts = [house.draft(f"u{n}@{d}") for n in range(60) for d in ("storm.test", "good.test")]
    accept(keys.hash_of(house.secret), drafts)
    good = Delivery.objects.filter(recipient__endswith="@good.test")
    pump_until(lambda: not good.exclude(status="delivered").exists())
    pump_until(lambda: not Queued.objects.filter(attempted_yet()).exists())
    slowed, well = Site.objects.get(name="slowing.test"), Site.objects.get(name="good.test")
    assert slowed.places == 10 and slowed.strikes == 1 and well.places == 20 and not well.reason
    assert slowed.reason == f"slowing.test asked us to slow down: {SLOWER}"
    said = Delivery.objects.filter(recipient__endswith="@storm.test").first()
    assert said is not None and said.status == "deferred" and "4.7.28" in said.reason
    # a while later it asks again: it is left alone, and what waits there is not even tried
    Site.objects.filter(name="slowing.test").update(slowed_at=timezone.now() - timedelta(seconds=150))
    house.send("again@storm.test")
    pump_until(lambda: Site.objects.get(name="slowing.test").suspended_until is not None)
    came = town.receiver.came["127.0.0.2"]
    house.send("more@shop.test", "fine@other.test")
    pump_until(lambda: Delivery.objects.get(recipient="fine@other.test").status == "delivered")
    deliver.run()
    assert town.receiver.came["127.0.0.2"] == came
    assert Delivery.objects.get(recipient="more@shop.test").status == "queued"


def attempted_yet():  # type: ignore[no-untyped-def]
    from django.db.models import Q

    return Q(destination="slowing.test", due_at__lte=timezone.now())


def test_tar_pits_beside_good_receivers_hold_nobody_up_not_even_those_never_met(town, settings) -> None:
    """MAILAPI_PITS=500 beside the 200 places of a process as it comes; the figures are printed."""
    pits = int(os.environ.get("MAILAPI_PITS", "60"))
    settings.IN_FLIGHT = max(20, pits * 2 // 5)
    names = [f"pit{n}.test A 127.0.0.3" for n in range(pits)]
    names += [f"new{n}.test A 127.0.0.1" for n in range(2 * _MAILS)] + [
        f"fine{n}.test A 127.0.0.1" for n in range(pits)
    ]
    town.dns.set(DNS + "\n".join(names) + "\n")
    known_sites("good.test")
    house = town.house
    house.send("u@pit0.test")  # one hangs from the beginning: the pump goes on alike without the others
    pump = threading.Thread(target=lambda: (deliver.run(), connection.close()))
    pump.start()
    end = time.monotonic() + 60
    while not town.receiver.open["127.0.0.3"]:
        assert time.monotonic() < end, "the tar-pit is not asked"
        time.sleep(0.02)
    good_alone_s = p95_s(house, ["good.test"] * _MAILS)
    new_alone_s = p95_s(house, [f"new{n}.test" for n in range(_MAILS)])
    behind_fine_s = behind_s(house, "fine", pits, "me@two.test")
    behind_pits_s = behind_s(house, "pit", pits, "me@one.test")
    good_s = p95_s(house, ["good.test"] * _MAILS)
    new_s = p95_s(house, [f"new{n}.test" for n in range(_MAILS, 2 * _MAILS)])
    hang = town.receiver.open["127.0.0.3"]
    print(f"\n{pits} tar-pits, of which {hang} still hang: p95 of good mail {good_alone_s:.2f} s alone, {good_s:.2f} s"
          f" beside them; to receivers never met {new_alone_s:.2f} and {new_s:.2f} s; one that came behind as many new"
          f" receivers after {behind_fine_s:.2f} s, behind the tar-pits after {behind_pits_s:.2f} s")  # fmt: skip
    assert hang == pits  # all of them were asked, and nothing was won by waiting for them
    deliver.stop()
    pump.join(60)
    assert not pump.is_alive()


#: enough for the question; the figures of the full size want more
_MAILS = 60 if "MAILAPI_PITS" in os.environ else 20


def p95_s(house: House, domains: list[str]) -> float:
    """A mail every 30 ms to one domain after the other, from accepted to delivered; somebody else may pump already."""
    ids = []
    for domain in domains:
        ids += [d.id for d in house.send(f"u@{domain}")]
        deliver.look()  # the bell
        deliver.run()  # does nothing while another thread pumps
        time.sleep(0.03)
    settled(house, ids)
    took = [(d.settled_at - d.created_at).total_seconds() for d in Delivery.objects.filter(id__in=ids) if d.settled_at]
    return statistics.quantiles(took, n=20)[-1]


def behind_s(house: House, name: str, count: int, to: str) -> float:
    """One mail behind `count` others, all of them to receivers that were never met; from accepted to delivered."""
    accept(keys.hash_of(house.secret), [house.draft(*[f"u@{name}{n}.test" for n in range(i, min(i + 20, count))])
                                        for i in range(1, count, 20)])  # fmt: skip
    (last,) = house.send(to)
    deliver.look()
    settled(house, [last.id])
    last.refresh_from_db()
    assert last.settled_at is not None
    return (last.settled_at - last.created_at).total_seconds()


def settled(house: House, ids: list[UUID]) -> None:
    end = time.monotonic() + 60
    while Delivery.objects.filter(id__in=ids).exclude(status="delivered").exists():
        assert time.monotonic() < end, "good mail waits for tar-pits"
        deliver.run()
        time.sleep(0.02)
