from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from deliveries.routing.route import leaving_from
from deliveries.smtp.hop import Hop
from deliveries.smtp.sources import (
    WARM_UP,
    Address,
    Elsewhere,
    Network,
    Pool,
    Rule,
    Source,
    Waits,
    allowance,
    chosen,
    shared_way,
    spare,
    spread,
    way,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
POOLS = {1: Pool(1, "own", overflow=2), 2: Pool(2, "shared"), 3: Pool(3, "a", overflow=4), 4: Pool(4, "b", overflow=3)}
TENANT = uuid4()


def address(name: str, pool: int | None = 1, **facts: object) -> Address:
    return Address(name, pool, **{"here": True, **facts})  # type: ignore[arg-type]


def test_the_nearest_rule_counts_tenant_before_kind() -> None:
    rules = [Rule(1), Rule(2, bulk=True), Rule(3, TENANT), Rule(4, TENANT, True)]
    other = UUID(int=1)
    assert [chosen(rules, t, bulk) for t in (other, TENANT) for bulk in (False, True)] == [1, 2, 3, 4]
    assert chosen(rules[1:2], other, False) is None


def test_a_warm_up_allows_more_each_day_and_ends() -> None:
    days = [allowance(day) for day in range(len(WARM_UP))]
    assert days == sorted(days) and days[0] == 50  # type: ignore[type-var]
    assert allowance(-1) == 0 and allowance(len(WARM_UP)) is None


def test_what_a_pool_cannot_send_goes_by_its_overflow_and_else_waits_with_a_reason() -> None:
    shared = address("192.0.2.9", 2)
    able = [
        address("192.0.2.1"),
        address("192.0.2.1", here=False, seen_at=NOW - timedelta(seconds=30)),
        address("192.0.2.1", most=50, used=49),
    ]
    for one in able:
        assert way(1, Network(POOLS, (one, shared)), NOW) == 1
    unable = {
        "no worker host": address("192.0.2.1", here=False, seen_at=NOW - timedelta(hours=1)),
        "rest: spamhaus": address("192.0.2.1", rests_until=NOW + timedelta(hours=2), rests_why="Spamhaus lists it."),
        "warm-up allows today": address("192.0.2.1", most=50, used=50),
    }
    for words, one in unable.items():
        assert way(1, Network(POOLS, (one, shared)), NOW) == 2
        waits = way(1, Network(POOLS, (one,)), NOW)
        assert isinstance(waits, Waits) and words in waits.reason.lower() and waits.until > NOW
        assert "shared has no address" in waits.reason
    midnight = way(2, Network(POOLS, (address("192.0.2.1", 2, most=1, used=1),)), NOW)
    assert isinstance(midnight, Waits) and midnight.until == datetime(2026, 3, 2, tzinfo=UTC)


def test_overflows_that_run_in_a_circle_come_to_an_end() -> None:
    waits = way(3, Network(POOLS, ()), NOW)
    assert isinstance(waits, Waits) and waits.reason.count("has no address") == 2
    assert isinstance(way(9, Network(POOLS, ()), NOW), Waits)


def test_what_warms_up_takes_what_it_may_and_the_others_the_rest() -> None:
    cold, cool, warm = address("192.0.2.1", most=50, used=45), address("192.0.2.2", most=100), address("192.0.2.3")
    away = address("192.0.2.4", here=False, seen_at=NOW)

    def shares(count: int, *addresses: Address) -> dict[str, int]:
        return {a.address[-1]: n for a, n in spread(count, addresses, NOW)}

    assert shares(90, warm, cool, cold, away) == {"1": 5, "2": 43, "3": 42}
    assert shares(500, warm, cool, cold) == {"1": 5, "2": 100, "3": 395}
    assert shares(500, cool, cold) == {"1": 5, "2": 100}
    assert shares(1, warm, address("192.0.2.5")) in ({"3": 1}, {"5": 1})


def test_mail_without_a_pool_leaves_pools_alone_while_the_host_has_another_address() -> None:
    pooled, free = address("192.0.2.1"), address("192.0.2.2", None)
    assert shared_way(Network(POOLS, (pooled, free)), NOW) == [free]
    assert shared_way(Network(POOLS, (pooled,)), NOW) == [pooled]
    assert shared_way(Network(POOLS, ()), NOW) == []
    resting = address("192.0.2.2", None, rests_until=NOW + timedelta(minutes=1))
    assert isinstance(shared_way(Network(POOLS, (pooled, resting)), NOW), Waits)


def test_mail_without_a_pool_is_left_to_a_host_that_lives_and_has_an_address_for_it() -> None:
    used_up = address("192.0.2.1", None, most=50, used=50)

    def way_beside(*others: Address) -> object:
        return shared_way(Network(POOLS, (used_up, *others)), NOW)

    there = {"here": False, "host": "b", "seen_at": NOW}
    assert way_beside(address("192.0.2.2", None, **there)) == Elsewhere()
    assert way_beside(address("192.0.2.2", **there)) == Elsewhere()  # its only one, in a pool or not
    unable = [
        (address("192.0.2.2", **there), address("192.0.2.3", None, most=1, used=1, **there)),
        (address("192.0.2.2", None, **there | {"seen_at": NOW - timedelta(hours=1)}),),
    ]
    for others in unable:
        waits = way_beside(*others)
        assert isinstance(waits, Waits) and "warm-up allows today" in waits.reason
        assert waits.until <= NOW + timedelta(hours=1)  # a host may come that can send it at once


def test_an_overflow_has_addresses_of_the_kind_of_which_its_pool_can_send_nothing() -> None:
    own = [address("192.0.2.1", most=50, used=50), address("2001:db8::1")]
    warm, cold, six = address("192.0.2.8", 2), address("192.0.2.9", 2, most=50), address("2001:db8::9", 2)
    assert [(a.address, a.spare) for a in spare(1, Network(POOLS, (*own, warm, cold, six)), NOW)] == [
        (warm.address, True)
    ]
    assert spare(1, Network(POOLS, (own[1], warm)), NOW) == []  # a pool of one kind is meant to be so
    assert spare(3, Network(POOLS, (address("192.0.2.1", 3, most=1, used=1), address("::9", 3))), NOW) == []


def test_a_hop_is_left_from_an_address_of_its_family_with_its_name() -> None:
    hops = [Hop("mx", "8.8.8.8"), Hop("mx", "2001:4860::1"), Hop("near", "127.0.0.1")]
    v4 = Source("9.9.9.9", "a.example")
    assert [(h.address, h.source, h.helo) for h in leaving_from(hops, [v4])] == [
        ("8.8.8.8", "9.9.9.9", "a.example"),
        ("127.0.0.1", None, "a.example"),  # a neighbour is not reached from a public address
    ]
    assert not leaving_from(hops, [])
    v6 = Source("2001:4860::9")
    assert [h.source for h in leaving_from(hops, [v6, replace(v4, spare=True)])] == [v6.address]
    assert [h.source for h in leaving_from(hops[:1], [v6, replace(v4, spare=True)])] == [v4.address]
