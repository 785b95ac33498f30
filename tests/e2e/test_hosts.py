"""Worker hosts in network namespaces: what one of them held when it was cut off is not lost, and the others go on.

HOSTS_MAILS=20000 is the full size; the default is short.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.fakes.hosts import Hosts
from tests.fakes.network import namespaces

MAILS = int(os.environ.get("HOSTS_MAILS", "600"))
BATCH = 50
#: the end of what takes its time, on a machine that does much else
LONG_S = 240 + MAILS / 20
DOMAINS = tuple(f"r{n}.test" for n in range(6))
TIGHT, TIGHT_PLACES = "tight.test", 6
#: two of six answer after a pause, so that mail is under way whenever a host dies
RECIPIENTS = ("delivered", "slow", "delivered", "bounced", "delivered", "slow")


@pytest.fixture
def town() -> Iterator[Hosts]:
    town = Hosts(3, (*DOMAINS, TIGHT), LEASE_S="6")
    try:
        town.build()
        yield town
    finally:
        town.tear_down()
        assert not town.network.names() & namespaces()


def test_a_host_is_cut_off_and_killed_and_nothing_is_lost(town: Hosts) -> None:
    town.execute(
        "INSERT INTO site (name, places, most_places, proven, misses, strikes, reason, last_reply, paused_by,"
        " changed_at) VALUES (%s, %s, %s, true, 0, 0, '', '', '', now())",
        *(TIGHT, TIGHT_PLACES, TIGHT_PLACES),
    )
    # newsletters leave from the second host alone, under a name of its own, and everything else from the others
    news, expected = town.host(2).address, {}
    town.execute("INSERT INTO source_pool (id, name) VALUES (1, 'news'), (2, 'others')")
    for number, pool, helo in ((1, 2, ""), (2, 1, "news.example.net"), (3, 2, "")):
        town.execute(
            "INSERT INTO source_address (address, pool_id, helo, rests_why, used, seen_on, seen_at)"
            # until it says so itself, it is believed to live
            " VALUES (%s, %s, %s, '', 0, '', now() + interval '1 hour')",
            *(town.host(number).address, pool, helo),
        )
    town.execute("INSERT INTO pool_rule (kind, pool_id) VALUES ('bulk', 1), ('', 2)")
    for number in (1, 2, 3):
        town.of_host[number] = {"SOURCE_IPS": town.host(number).address}
        town.start_host(number)

    def feed() -> None:
        for start in range(0, MAILS, BATCH):
            who = [(n, RECIPIENTS[n % len(RECIPIENTS)]) for n in range(start, min(start + BATCH, MAILS))]
            # every tenth goes where little may be under way at a time, on all hosts together
            mails = [
                {"from": town.sender, "to": f"{word}+{n}@{TIGHT if n % 10 == 1 else DOMAINS[n % len(DOMAINS)]}",
                 "subject": f"mail {n}", "text": "x" * 500, "priority": "bulk" if n % 5 == 4 else "normal"}
                for n, word in who
            ]  # fmt: skip
            ids = town.post_batch(mails, key=f"hosts-{start}")
            expected.update(zip(ids, ("bounced" if word == "bounced" else "delivered" for _, word in who), strict=True))

    feeder = threading.Thread(target=feed)
    feeder.start()
    town.until(lambda: len({one.peer for one in town.taken()}) == 3, "each host delivers")
    crowd = [0]

    def holds_something() -> bool:
        crowd.append(town.sql(
            "SELECT count(*) FROM queued WHERE destination = %s AND lease_id IS NOT NULL", TIGHT)[0][0])  # fmt: skip
        leases = town.leases("h1.deliver")
        return bool(town.sql(
            "SELECT 1 FROM queued WHERE lease_id = ANY (%s) AND started_at IS NOT NULL LIMIT 1", leases))  # fmt: skip

    town.until(holds_something, "the first host has something under way")
    town.cut(1)
    cut_off = town.leases("h1.deliver")
    held = "SELECT count(*) FROM queued WHERE lease_id = ANY (%s)"
    stranded = town.sql(held, cut_off)[0][0]
    town.kill_host(1)
    feeder.join(LONG_S)
    assert not feeder.is_alive() and len(expected) == MAILS
    town.until(lambda: town.sql("SELECT count(*) FROM queued")[0][0] == 0, "the other two end all of it", LONG_S)
    town.until(lambda: town.sql("SELECT count(*) FROM delivery WHERE settled_at IS NULL")[0][0] == 0, "all ends", 60)

    rows = town.sql(
        "SELECT m.id::text, m.message_id, d.status, d.unknowns, d.duplicate_possible FROM delivery d"
        " JOIN message m ON m.id = d.message_id"
    )
    assert {row[0] for row in rows} == set(expected) and len(rows) == MAILS

    def copies() -> Counter[str]:
        return Counter(one.message_id for one in town.taken())

    arrived = {row[1] for row in rows if row[2] == "delivered"}
    town.until(lambda: arrived <= copies().keys(), "what is called delivered was taken")
    taken, doubled, unknown = copies(), 0, 0
    for ident, message_id, status, unknowns, possible in rows:
        assert status in (expected[ident], "unknown"), (ident, status)
        unknown += bool(unknowns)
        if taken[message_id] > 1:
            doubled += 1
            assert taken[message_id] == 2 and (unknowns or possible), f"{ident} came {taken[message_id]} times"
    assert max(crowd) <= 2 * TIGHT_PLACES, "each host took all places of a site for itself"
    for one in town.taken():
        bulk = int(one.recipient.partition("@")[0].partition("+")[2]) % 5 == 4
        assert (one.peer == news) == bulk, one
        assert one.helo == ("news.example.net" if bulk else "out.example.net")
    print(f"{MAILS} mails: {stranded} held by the host that was cut off, {unknown} unknown at some time, "
          f"{doubled} came twice, by host {dict(Counter(one.peer for one in town.taken()))}")  # fmt: skip
