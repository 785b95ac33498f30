"""The queue: leases, fairness, and that no due row is ever overlooked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from django.utils import timezone

from deliveries import keys, queue
from deliveries.accept import accept
from deliveries.models import Destination, Queued, Site
from deliveries.models.queue import NEVER
from deliveries.states import Lane
from tests.fakes.house import build, known_sites

pytestmark = pytest.mark.django_db(transaction=True)

PLENTY = 1 << 26


@pytest.fixture(autouse=True)
def _known_sites(settings) -> None:
    """Mail goes by MX, to receivers that answered before."""
    settings.MAIL_ROUTE = "mx"
    known_sites("one.test", "two.test", "bulk.test", *(f"d{n}.test" for n in range(3)))


def take(free: int = 100, octets: int = PLENTY, lease: UUID | None = None, **in_flight: int) -> list[queue.Claimed]:
    return list(queue.claim(lease or uuid4(), free, octets, in_flight).rows)


def test_a_claim_takes_what_is_due_and_nothing_twice() -> None:
    house = build()
    ids = {d.id for n in range(5) for d in house.send(f"u{n}@one.test", f"u{n}@two.test")}
    assert {c.delivery_id for c in take()} == ids
    assert take() == []


def test_a_destination_gives_no_more_than_its_places() -> None:
    house = build()
    for n in range(30):
        house.send(f"u{n}@one.test")
    assert len(take()) == 20
    assert take(**{"one.test": 20}) == []
    assert len(take(**{"one.test": 15})) == 5


def test_an_urgent_mail_overtakes_a_thousand_newsletters() -> None:
    house = build()
    draft = house.draft(*[f"u{n}@bulk.test" for n in range(50)], lane=Lane.BULK)
    accept(keys.hash_of(house.secret), [draft] * 20)
    (otp,) = house.send("me@bulk.test", lane=Lane.HIGH)
    assert take(free=1)[0].delivery_id == otp.id


def test_tenants_share_a_destination_evenly() -> None:
    big, small = build(), build()
    accept(keys.hash_of(big.secret), [big.draft(*[f"u{n}@one.test" for n in range(50)])] * 4)
    mine = {d.id for d in small.send("a@one.test", "b@one.test")}
    assert mine <= {c.delivery_id for c in take()}


def test_a_claim_ends_with_the_octets_that_are_free_but_takes_at_least_one() -> None:
    house = build()
    for n in range(3):
        house.send(f"u{n}@one.test", text="x" * 10_000)
    assert len(take(octets=15_000)) == 2
    assert len(take(octets=1)) == 1


def test_an_emptied_destination_sleeps_and_wakes_with_the_next_mail() -> None:
    house = build()
    house.send("a@one.test")
    assert len(take()) == 1 and take() == []
    assert Destination.objects.get(name="one.test").next_due == NEVER
    house.send("b@one.test")
    assert len(take()) == 1


def test_while_an_accept_is_not_committed_its_destination_is_not_put_to_sleep() -> None:
    house = build()
    house.send("a@one.test")
    inserted, go_on = threading.Event(), threading.Event()

    def slow_accept() -> None:
        with transaction.atomic():
            house.send("late@one.test")
            inserted.set()
            go_on.wait(60)
        connection.close()

    thread = threading.Thread(target=slow_accept)
    thread.start()
    assert inserted.wait(60)
    assert len(take()) == 1 and take() == []  # finds it empty, but must not push it back
    go_on.set()
    thread.join()
    assert [c.destination for c in take()] == ["one.test"]
    assert queue.heal() == 0


def test_under_a_hammer_of_accepts_and_claims_nothing_is_left_behind() -> None:
    house = build()
    writers_done = threading.Event()
    claimed: list[UUID] = []
    lock = threading.Lock()

    def write(number: int) -> None:
        try:
            for n in range(25):
                house.send(f"u{n}@d{(n + number) % 3}.test")
        finally:
            connection.close()

    def claim() -> None:
        try:
            quiet = 0
            while quiet < 3:
                rows = [c.delivery_id for c in take(free=7)]
                with lock:
                    claimed.extend(rows)
                quiet = quiet + 1 if not rows and writers_done.is_set() else 0
        finally:
            connection.close()

    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    claimers = [threading.Thread(target=claim) for _ in range(2)]
    for thread in writers + claimers:
        thread.start()
    for thread in writers:
        thread.join()
    writers_done.set()
    for thread in claimers:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 100
    assert queue.heal() == 0


def test_the_ledger_starts_only_what_is_ours() -> None:
    house = build()
    house.send("a@one.test", "b@one.test")
    lease = uuid4()
    mine, lost = take(lease=lease)
    Queued.objects.filter(delivery_id=lost.delivery_id).update(lease_id=uuid4())
    assert queue.start(lease, [mine.delivery_id, lost.delivery_id]) == {mine.delivery_id}
    assert Queued.objects.get(delivery_id=mine.delivery_id).started_at is not None
    assert Queued.objects.get(delivery_id=lost.delivery_id).started_at is None


def test_what_is_released_is_due_at_once() -> None:
    house = build()
    house.send("a@one.test")
    lease = uuid4()
    (row,) = take(lease=lease)
    assert take() == []
    queue.release([(row.delivery_id, lease)])
    assert [c.delivery_id for c in take()] == [row.delivery_id]


def test_renewing_keeps_a_lease_and_a_dead_one_is_found_with_what_it_had_started(settings) -> None:
    settings.LEASE_S = 0.2
    house = build()
    house.send("a@one.test", "b@one.test")
    lease = uuid4()
    rows = take(lease=lease)
    queue.start(lease, [rows[0].delivery_id])
    settings.LEASE_S = 60
    assert queue.renew([lease]) == 2
    assert queue.expired() == []
    settings.LEASE_S = 0.01
    queue.renew([lease])
    time.sleep(0.05)
    found = {e.delivery_id: e.started for e in queue.expired()}
    assert found == {rows[0].delivery_id: True, rows[1].delivery_id: False}


def test_the_sweeper_waits_two_lease_lengths_after_a_start_of_postgres(settings) -> None:
    house = build()
    house.send("a@one.test")
    settings.LEASE_S = 0.01
    take()
    time.sleep(0.05)
    settings.LEASE_S = 10_000_000  # Postgres has not been up for that long
    assert queue.expired() == []


def test_what_was_never_started_is_given_back_even_where_postgres_has_crashed_since(settings) -> None:
    house = build()
    house.send("a@one.test")
    settings.LEASE_S = 0.01
    take()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE queued SET leased_until = pg_postmaster_start_time() - interval '1 s'")
    assert [e.started for e in queue.expired()] == [False]


@pytest.fixture
def commits() -> Iterator[Callable[[], list[tuple[str, str]]]]:
    """What changed queue rows, and how its commit waited for the disk: a deferred trigger runs as the first step of the
    commit itself, in its session and with its settings."""
    with connection.cursor() as cursor:
        cursor.execute(_WITNESS)

        def told() -> list[tuple[str, str]]:
            cursor.execute("SELECT what, waits FROM witness ORDER BY id")
            return cursor.fetchall()

        yield told
        cursor.execute("DROP TABLE witness; DROP FUNCTION bear_witness() CASCADE")


_WITNESS = """
CREATE TABLE witness (id int GENERATED ALWAYS AS IDENTITY, what text, waits text);
CREATE FUNCTION bear_witness() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO witness (what, waits)
    VALUES (CASE WHEN NEW.started_at IS NULL THEN 'claim' ELSE 'start' END, current_setting('synchronous_commit'));
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER witness AFTER UPDATE ON queued DEFERRABLE INITIALLY DEFERRED
   FOR EACH ROW EXECUTE FUNCTION bear_witness();
"""


def test_a_start_waits_for_the_disk_and_the_claim_before_it_does_not(commits) -> None:
    """The write-ahead log is one line: a claim's commit may be behind, but never behind a start that was told."""
    build().send("a@one.test", "b@one.test")
    lease = uuid4()
    rows = take(lease=lease)
    assert queue.start(lease, [rows[0].delivery_id]) == {rows[0].delivery_id}
    assert commits() == [("claim", "off"), ("claim", "off"), ("start", "on")]
    with connection.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        assert cursor.fetchone() == ("on",)  # what the claim set was its own


def test_the_alarm_finds_a_destination_that_sleeps_although_mail_is_due() -> None:
    house = build()
    house.send("a@one.test")
    Destination.objects.filter(name="one.test").update(next_due=NEVER)
    assert take() == []
    assert queue.heal() == 1
    assert len(take()) == 1


def test_the_alarm_goes_round_all_destinations_some_at_a_time(monkeypatch) -> None:
    house = build()
    house.send("a@one.test", "b@two.test", "c@three.test")
    Destination.objects.update(next_due=NEVER)
    monkeypatch.setattr(queue, "HEALED_AT_ONCE", 2)
    monkeypatch.setattr(queue, "_healed_to", 0)
    assert [queue.heal() for _ in range(3)] == [2, 1, 0]
    Destination.objects.filter(name="one.test").update(next_due=NEVER)
    assert sorted(queue.heal() for _ in range(2)) == [0, 1]
    assert len(take()) == 3


def test_a_suspended_destination_rests_until_its_end_and_is_not_woken_by_new_mail() -> None:
    house = build()
    house.send("a@one.test")
    end = timezone.now() + timezone.timedelta(hours=1)
    Site.objects.filter(name="one.test").update(suspended_until=end)
    assert take() == []
    house.send("b@one.test")
    assert take() == []
    assert Destination.objects.get(name="one.test").next_due == end
    house.send("c@one.test", lane=Lane.HIGH)  # a lane that it had no mail of is born resting
    assert {d.next_due for d in Destination.objects.filter(name="one.test")} == {end}
