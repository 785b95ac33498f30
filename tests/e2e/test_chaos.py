"""What was answered 2xx ends in a final state, whatever dies: nothing lost, doubles only where `unknown` says so.

CHAOS_MAILS=500 is the full size; the default is short.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.town import Town

MAILS = int(os.environ.get("CHAOS_MAILS", "120"))
RECIPIENTS = ["delivered", "delivered", "delivered", "slow", "greylist", "bounced"]


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    town = Town()
    try:
        town.build()
        yield town
    finally:
        town.tear_down()


def test_mail_survives_the_death_of_every_part(town: Town) -> None:
    before = {row[0] for row in town.sql("SELECT id::text FROM message")}
    ids: dict[str, str] = {}
    rng = random.Random(7)

    def feed() -> None:
        for n in range(MAILS):
            who = RECIPIENTS[n % len(RECIPIENTS)]
            body = {"from": town.sender, "to": f"{who}+{n}@simulator.test", "subject": f"chaos {n}", "text": "x" * 500}
            ids[town.post(body, key=f"chaos-{n}")] = who

    feeder = threading.Thread(target=feed)
    feeder.start()
    blows = ["deliver1", "web", "flush", "beat", "deliver2", "postgres", "jobs", "deliver1", "deliver2"]
    for blow in blows:
        target = rng.uniform(0.5, 1.0) * MAILS * (blows.index(blow) + 1) / (len(blows) + 2)
        while feeder.is_alive() and len(ids) < target:
            time.sleep(0.05)
        if blow == "flush":
            town.flush_broker()
        elif blow == "postgres":
            town.crash_postgres()
            time.sleep(1)
            town.revive_postgres()
        else:
            town.restart(blow)
    feeder.join(300)
    assert not feeder.is_alive() and len(ids) == MAILS

    def settled() -> bool:
        return town.sql("SELECT count(*) FROM delivery WHERE settled_at IS NULL")[0][0] == 0

    town.until(settled, "every mail ends in a final state", 240)
    found = town.sql(
        "SELECT m.id::text, m.message_id, d.status, d.unknowns, d.duplicate_possible FROM delivery d"
        " JOIN message m ON m.id = d.message_id"
    )
    rows = [row for row in found if row[0] not in before]
    arrived = {message_id for _, message_id, status, *_ in rows if status == "delivered"}
    town.until(lambda: arrived <= set(town.copies()), "the lab has written down what is called delivered")
    assert {r[0] for r in rows} == set(ids) and len(rows) == MAILS  # nothing lost, nothing accepted twice
    copies = town.copies()
    for ident, message_id, status, unknowns, _ in rows:
        expected = "bounced" if ids[ident] == "bounced" else "delivered"
        assert status in (expected, "unknown"), (ident, status)
        assert copies[message_id] <= 1 + unknowns, f"{ident}: {copies[message_id]} copies with {unknowns} unknowns"
    assert town.sql("SELECT count(*) FROM queued")[0][0] == 0


def test_two_deliver_processes_share_the_work(town: Town) -> None:
    sent: list[str] = []

    def both() -> bool:
        """One process takes all where few mails wait, so mail goes on coming until the other one helps."""
        if len(sent) < 2000:
            mails = [
                {"from": town.sender, "to": f"slow+{len(sent) + n}@simulator.test", "subject": "s", "text": "x"}
                for n in range(40)
            ]
            sent.extend(town.post_batch(mails, key=f"s{len(sent)}"))
        return town.sql("SELECT count(DISTINCT lease_id) FROM queued")[0][0] >= 2

    town.until(both, "both hold leases")
    town.until(lambda: town.sql("SELECT count(*) FROM queued")[0][0] == 0, "all of it is sent")
    theirs = {row[0] for row in town.sql("SELECT message_id FROM message WHERE id = ANY (%s::uuid[])", sent)}
    town.until(lambda: Counter({m: n for m, n in town.copies().items() if m in theirs}) == Counter(theirs), "each once")


def test_the_bell_may_be_lost_and_the_mail_still_leaves(town: Town, tmp_path: Path) -> None:
    stop = threading.Event()

    def mute() -> None:
        while not stop.is_set():
            town.flush_broker()
            time.sleep(0.02)

    thread = threading.Thread(target=mute)
    thread.start()
    ident = town.post({"from": town.sender, "to": "delivered@simulator.test", "subject": "s", "text": "x"}, key="b")
    time.sleep(0.5)
    stop.set()
    thread.join()
    town.until(
        lambda: town.sql("SELECT status FROM delivery WHERE message_id = %s", ident)[0][0] == "delivered", "delivered"
    )
