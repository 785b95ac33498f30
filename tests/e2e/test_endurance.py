"""Workers killed, stopped and robbed of their database in the middle of much mail: what the protocol's figures ask for.

Short by default. The full sizes (some 40 minutes):
    ENDURANCE_MAILS=20000 ENDURANCE_KILLS=200 ENDURANCE_RESTARTS=20 python3 manage.py test tests/e2e/test_endurance.py
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest

from tests.fakes.town import Town

MAILS = int(os.environ.get("ENDURANCE_MAILS", "400"))
KILLS = int(os.environ.get("ENDURANCE_KILLS", "4"))
RESTARTS = int(os.environ.get("ENDURANCE_RESTARTS", "2"))
END_S = 240 + MAILS / 10

WORKERS = ("deliver1", "deliver2")

#: most are quick, some keep a connection busy for a second, so that every kill finds mail in each stage
WHO = ("delivered",) * 9 + ("slow",)


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    # a living worker must never lose a lease, however busy the machine is: its doubles would be nobody's death
    town = Town(lease_s=8, DRAIN_S="30")  # nor be cut short when it is told to stop
    try:
        town.build()
        yield town
    finally:
        town.tear_down()


def mail(town: Town, n: int) -> dict[str, str]:
    to = f"{WHO[n % len(WHO)]}+{n}@simulator.test"
    return {"from": town.sender, "to": to, "subject": f"{n}", "text": "x" * 400}


def batches(count: int) -> list[range]:
    """MAILS in `count` parts, as even as can be."""
    return [range(MAILS * k // count, MAILS * (k + 1) // count) for k in range(count)]


def feed(town: Town, numbers: range) -> list[str]:
    """A hundred per request, until a worker has begun some of it and not recorded it yet."""
    parts = [numbers[k : k + 100] for k in range(0, len(numbers), 100)]
    town.until(lambda: all(map(town.leases, WORKERS)), "both workers claim")
    ids = [i for part in parts for i in town.post_batch([mail(town, n) for n in part], key=f"batch-{uuid4()}")]
    town.until(lambda: at_it(town) or waiting(town) == 0, "a worker is at it")
    return ids


def waiting(town: Town) -> int:
    return int(town.sql("SELECT count(*) FROM queued")[0][0])


@pytest.fixture
def before(town: Town) -> set[str]:
    """The messages of other tests."""
    return {row[0] for row in town.sql("SELECT id::text FROM message")}


def judge(town: Town, before: set[str], ids: list[str], in_flight: set[UUID] | None) -> Counter[str]:
    """Nothing lost; doubled at most what was `in_flight` at a kill, each of it told as unknown."""
    town.until(lambda: waiting(town) == 0, "the queue is empty", END_S)
    found = town.sql(
        "SELECT d.id, m.id::text, m.message_id, d.status, d.unknowns"
        " FROM delivery d JOIN message m ON m.id = d.message_id"
    )
    rows = [row for row in found if row[1] not in before]
    assert len(rows) == len(ids) == MAILS and {r[1] for r in rows} == set(ids)
    wanted = {r[2] for r in rows if r[3] == "delivered"}
    town.until(lambda: wanted <= set(town.copies()), "the lab has what is called delivered")
    copies = town.copies()
    for delivery_id, _, message_id, status, unknowns in rows:
        assert status in ("delivered", "unknown"), (delivery_id, status)
        # RFC 1047: never more than two, and the second one only after an unknown
        assert copies[message_id] <= min(2, 1 + unknowns), f"{delivery_id}: {copies[message_id]}, {unknowns} unknowns"
    doubled = {r[0] for r in rows if copies[r[2]] > 1}
    were_unknown = {r[0] for r in rows if r[4] > 0}
    assert doubled <= were_unknown
    if in_flight is not None:
        assert were_unknown <= in_flight, "unknown without a death"
    ends = Counter(r[3] for r in rows)
    ends.update({"second copies": len(doubled), "were unknown": len(were_unknown), "in flight": len(in_flight or ())})
    print(dict(ends))
    return ends


def at_it(town: Town) -> list[str]:
    """The workers that have begun mail which is not recorded yet."""
    return [name for name in WORKERS if town.begun(town.leases(name))]


def test_killed_workers_lose_nothing_and_double_only_what_was_in_flight(town: Town, before: set[str]) -> None:
    """In flight is what the crash ledger says of the killed worker's own leases, once its sessions have ended."""
    rng = random.Random(3)
    ids: list[str] = []
    in_flight: set[UUID] = set()
    hits = 0
    for batch in batches(KILLS):
        ids += feed(town, batch)
        time.sleep(rng.uniform(0.0, 0.1))
        victim = rng.choice(at_it(town) or WORKERS)
        caught = town.kill9_and_count(victim)
        town.start(victim)
        hits += bool(caught)
        in_flight |= caught
    print(f"{KILLS} kills, {hits} of them with mail in flight")
    assert hits
    ends = judge(town, before, ids, in_flight)
    assert ends["second copies"] <= ends["were unknown"] <= ends["in flight"]


def test_a_crashing_postgres_loses_nothing(town: Town, before: set[str]) -> None:
    rng = random.Random(5)
    ids: list[str] = []
    hits = 0
    for batch in batches(RESTARTS):
        ids += feed(town, batch)
        hits += bool(at_it(town))
        town.crash_postgres()
        time.sleep(rng.uniform(0.0, 1.0))
        town.revive_postgres()
    print(f"{RESTARTS} crashes, {hits} of them with mail in flight")
    assert hits
    judge(town, before, ids, None)


def test_workers_that_are_told_to_stop_double_nothing(town: Town, before: set[str]) -> None:
    ids: list[str] = []
    hits = 0
    for n, batch in enumerate(batches(KILLS)):
        ids += feed(town, batch)
        busy = at_it(town) or WORKERS
        name = busy[n % len(busy)]
        hits += bool(town.begun(town.leases(name)))
        town.stop(name)
        town.start(name)
    print(f"{KILLS} stops, {hits} of them with mail in flight")
    assert hits
    judge(town, before, ids, set())
