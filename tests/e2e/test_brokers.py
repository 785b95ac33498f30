"""Every broker and every Postgres that we say we run on carries a mail through what may happen to it.

BROKERS_ALL=1 tries every pair; the default is the shortest way past each. All of tests/steps on other servers:
`TEST_POSTGRES=15 TEST_BROKER=rabbitmq pytest -n0 tests/steps`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from tests.fakes import servers
from tests.fakes.town import Town

#: what becomes of each; retries, a report that comes back, and a loss after the final dot are in it
ENDS = {
    "delivered": "delivered",
    "slow": "delivered",
    "greylist": "delivered",
    "bounced": "bounced",
    "latedsn": "bounced",
    "dropdot": "unknown",
}
EACH = 10
#: each Postgres and each broker: 18 with Valkey is what everything else runs on, and production 15 with RabbitMQ too
SHORT = ((servers.DEBIANS, "redis"), (servers.OURS, "rabbitmq"))
ALL = tuple(itertools.product((servers.OURS, servers.DEBIANS), servers.BROKERS))


@pytest.fixture(params=ALL if os.environ.get("BROKERS_ALL") else SHORT, ids="-".join)
def town(request: pytest.FixtureRequest) -> Iterator[Town]:
    pg, broker = request.param
    town = Town(pg=pg, broker=broker)
    try:
        town.build()
        yield town
    finally:
        town.tear_down()


def test_mail_goes_its_way_and_a_killed_worker_loses_none(town: Town) -> None:
    assert town.sql("SHOW server_version")[0][0].startswith(town.pg)
    to = {f"{who}+{n}@simulator.test": who for who in ENDS for n in range(EACH)}
    mails = [{"from": town.sender, "to": address, "subject": "s", "text": "x"} for address in to]
    town.post_batch(mails, key="all")
    town.until(lambda: town.sql("SELECT count(*) FROM attempt")[0][0] > 0, "delivery begins")
    town.restart("deliver1")
    town.flush_broker()
    settled = "SELECT count(*) FROM delivery WHERE settled_at IS NOT NULL"
    town.until(lambda: town.sql(settled)[0][0] == len(to), "every mail ends", 240)
    unreported = (
        "SELECT count(*) FROM delivery WHERE recipient LIKE 'latedsn%' AND status = 'delivered' AND unknowns = 0"
    )
    town.until(lambda: town.sql(unreported)[0][0] == 0, "reports come back", 240)
    unknown = 0
    for address, status, unknowns in town.sql("SELECT recipient, status, unknowns FROM delivery"):
        expected = ENDS[to[address]]
        unknown += bool(unknowns) and expected != "unknown"
        assert status == expected or (unknowns and status in ("unknown", "delivered")), (address, status)
    # in flight when its worker was killed, and no more than one process may hold
    assert unknown < len(to) / 2
