"""The resolver against a real DNS server on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

from deliveries.routing.resolver import Answer, NoData, NxDomain, Resolver, Trouble
from tests.fakes.dns import FakeDns

TABLE = """
example.org           MX     20 mx2.example.org
example.org           MX     10 MX1.example.org
example.org           TXT    "one " "string"
example.org      7    A      198.51.100.7
mx1.example.org       A      198.51.100.1
mx1.example.org       AAAA   2001:db8::1
_25._tcp.mx1.example.org TLSA 3 1 0 aabb
alias.example         CNAME  middle.example
middle.example   9    CNAME  example.org
dangling.example      CNAME  gone.example
loop1.example         CNAME  loop2.example
loop2.example         CNAME  loop1.example
null.example          MX     0 .
broken.example        *      SERVFAIL
bogus.example         *      SERVFAIL +bogus
refused.example       *      REFUSED
quiet.example         *      TIMEOUT
lame.example          *      LAME
referral.example      *      REFERRAL
garbage.example       *      GARBAGE
spoofed.example       *      WRONGID
big.example           A      198.51.100.9 +tc
old.example           A      198.51.100.8 +noedns
signed.example        MX     10 mx1.example.org +ad
zero.example     0    A      198.51.100.6
"""


@pytest.fixture
def dns() -> Iterator[FakeDns]:
    with FakeDns(TABLE) as server:
        yield server


def ask(dns: FakeDns, *questions: str, **options: Any) -> list[Any]:
    """Answers to `"name TYPE"` questions, asked one after the other of one resolver."""
    options.setdefault("timeout_s", 60)

    async def go() -> list[Any]:
        resolver = Resolver((dns.address,), **options)
        return [await resolver.lookup(*q.split()) for q in questions]

    return asyncio.run(go())


def test_records_come_back_typed(dns: FakeDns) -> None:
    mx, a, aaaa, txt, tlsa, cname, null = ask(
        dns,
        "example.org MX",
        "example.org A",
        "mx1.example.org AAAA",
        "example.org TXT",
        "_25._tcp.mx1.example.org TLSA",
        "alias.example CNAME",
        "null.example MX",
    )
    assert sorted(mx.records) == [(10, "mx1.example.org"), (20, "mx2.example.org")]
    assert (a.records, a.ttl_s) == (("198.51.100.7",), 7)
    assert aaaa.records == ("2001:db8::1",)
    assert txt.records == ("one string",)
    assert tlsa.records == ((3, 1, 0, b"\xaa\xbb"),)
    assert cname.records == ("middle.example",)
    assert null.records == ((0, ""),)


def test_a_no_is_told_apart_from_trouble(dns: FakeDns) -> None:
    nodata, nx, servfail, refused, lame, referral = ask(
        dns,
        "mx1.example.org MX",
        "nothing.example MX",
        "broken.example MX",
        "refused.example MX",
        "lame.example MX",
        "referral.example MX",
    )
    assert isinstance(nodata, NoData) and nodata.ttl_s == 60
    assert isinstance(nx, NxDomain) and nx.ttl_s == 60
    assert isinstance(servfail, Trouble) and "SERVFAIL" in servfail.text
    assert isinstance(refused, Trouble) and "REFUSED" in refused.text
    assert isinstance(lame, Trouble) and "lame" in lame.text
    assert isinstance(referral, Trouble)


@pytest.mark.parametrize("name", ["quiet.example", "garbage.example", "spoofed.example"])
def test_silence_garbage_and_forged_ids_are_trouble_in_bounded_time(dns: FakeDns, name: str) -> None:
    (result,) = ask(dns, f"{name} MX", timeout_s=0.4)
    assert isinstance(result, Trouble)
    assert name in result.text


def test_cnames_are_followed_and_the_shortest_ttl_counts(dns: FakeDns) -> None:
    (found,) = ask(dns, "alias.example MX")
    assert isinstance(found, Answer)
    assert found.name == "example.org"
    assert found.ttl_s == 9


def test_cnames_are_followed_where_the_nameserver_does_not() -> None:
    with FakeDns(TABLE, chase=False) as dns:
        found, dangling = ask(dns, "alias.example MX", "dangling.example MX")
    assert isinstance(found, Answer) and found.name == "example.org" and found.ttl_s == 9
    assert isinstance(dangling, NxDomain)
    assert [q[0] for q in dns.asked[:3]] == ["alias.example", "middle.example", "example.org"]


@pytest.mark.parametrize("chase", [True, False])
def test_a_cname_loop_is_trouble(chase: bool) -> None:
    with FakeDns(TABLE, chase=chase) as dns:
        (result,) = ask(dns, "loop1.example MX")
    assert isinstance(result, Trouble) and "circle" in result.text


def test_a_truncated_answer_is_asked_again_over_tcp(dns: FakeDns) -> None:
    (result,) = ask(dns, "big.example A")
    assert isinstance(result, Answer)
    assert [over for _, _, over in dns.asked] == ["udp", "tcp"]


def test_a_server_without_edns_is_asked_without_it(dns: FakeDns) -> None:
    (result,) = ask(dns, "old.example A")
    assert isinstance(result, Answer)


def test_the_ad_bit_counts_only_where_the_nameserver_is_trusted(dns: FakeDns) -> None:
    (trusted,) = ask(dns, "signed.example MX", trust_ad=True)
    (distrusted,) = ask(dns, "signed.example MX", trust_ad=False)
    (unsigned,) = ask(dns, "example.org MX", trust_ad=True)
    assert (trusted.secure, distrusted.secure, unsigned.secure) == (True, False, False)


def test_answers_and_noes_are_kept_for_their_ttl_and_no_longer(dns: FakeDns) -> None:
    now = [0.0]

    async def go() -> list[float]:
        resolver = Resolver((dns.address,), clock=lambda: now[0])
        left = []
        for now[0], name in [(0, "example.org"), (6.9, "example.org"), (7.1, "example.org")]:
            left.append((await resolver.a(name)).ttl_s)  # type: ignore[union-attr]
        for now[0] in (100, 159.9, 160.1):
            await resolver.a("nothing.example")
        for now[0] in (200, 204.9, 205.1):  # TTL 0 is kept for the burst at hand
            await resolver.a("zero.example")
        return left

    assert asyncio.run(go()) == [7, pytest.approx(0.1), 7]
    names = [name for name, _, _ in dns.asked]
    assert [names.count(n) for n in ("example.org", "nothing.example", "zero.example")] == [2, 2, 2]


def test_trouble_is_kept_for_seconds_only(dns: FakeDns) -> None:
    now = [0.0]

    async def go() -> list[object]:
        resolver = Resolver((dns.address,), clock=lambda: now[0])
        first = await resolver.a("broken.example")
        dns.set("broken.example A 198.51.100.1")
        second = await resolver.a("broken.example")
        now[0] = 5.1
        return [first, second, await resolver.a("broken.example")]

    first, second, third = asyncio.run(go())
    assert first == second and isinstance(first, Trouble)
    assert isinstance(third, Answer)


def test_many_who_ask_the_same_make_one_question(dns: FakeDns) -> None:
    async def go() -> list[object]:
        resolver = Resolver((dns.address,))
        asking = [asyncio.create_task(resolver.mx("Example.org.")) for _ in range(200)]
        await asyncio.sleep(0)
        asking[0].cancel()  # one who gives up does not take the answer from the others
        return await asyncio.gather(*asking[1:])

    results = asyncio.run(go())
    assert all(isinstance(r, Answer) for r in results)
    assert len(dns.asked) == 1


def test_a_burst_of_domains_is_answered_with_a_bounded_number_of_sockets(
    dns: FakeDns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deliveries.routing.resolver.TRY_S", 30.0)  # the fake answers one after the other

    async def go() -> list[object]:
        resolver = Resolver((dns.address,), timeout_s=60)
        asking = [asyncio.create_task(resolver.a(f"n{i}.example")) for i in range(600)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert resolver._places.locked()
        return await asyncio.gather(*asking)

    assert {type(r) for r in asyncio.run(go())} == {NxDomain}


def test_the_cache_is_bounded(dns: FakeDns) -> None:
    async def go() -> None:
        resolver = Resolver((dns.address,), cache_size=10)
        for i in range(30):
            await resolver.a(f"n{i}.example")
        assert len(resolver._cache) == 10

    asyncio.run(go())


def test_the_next_nameserver_is_asked_when_one_fails(dns: FakeDns) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed, FakeDns("example.org * SERVFAIL") as sick:
        closed.bind(("127.0.0.1", 0))
        dead = closed.getsockname()
        closed.close()

        async def go() -> list[object]:
            resolver = Resolver((dead, sick.address, dns.address))
            return [await resolver.mx("example.org"), await resolver.mx("signed.example")]

        first, second = asyncio.run(go())
    assert isinstance(first, Answer) and isinstance(second, Answer)
    assert len(sick.asked) == 1, "the one that answered is asked first from then on"


def test_names_that_dns_cannot_carry_do_not_exist(dns: FakeDns) -> None:
    results = ask(dns, f"{'a' * 64}.example A", "a..b A", f"{'abcdefgh.' * 40}x A")
    assert results == [NxDomain(), NxDomain(), NxDomain()]
    assert dns.asked == []


def test_trouble_says_what_the_nameserver_says(dns: FakeDns) -> None:
    (result,) = ask(dns, "bogus.example MX")
    assert isinstance(result, Trouble)
    assert result.text == "bogus.example MX: SERVFAIL (signature expired)"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.53", ("192.0.2.53", 53)),
        ("192.0.2.53:5353", ("192.0.2.53", 5353)),
        ("2001:db8::53", ("2001:db8::53", 53)),
        ("[2001:db8::53]:5353", ("2001:db8::53", 5353)),
    ],
)
def test_nameservers_may_be_written_as_text(text: str, address: tuple[str, int]) -> None:
    assert Resolver([text])._nameservers == (address,)


@pytest.mark.parametrize("text", ["dns.example", "192.0.2.53:x", "", "192.0.2.53:53:53"])
def test_a_nameserver_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no nameserver"):
        Resolver([text])


def test_no_nameserver_is_trouble() -> None:
    async def go() -> object:
        return await Resolver(()).mx("example.org")

    assert isinstance(asyncio.run(go()), Trouble)


def test_it_works_on_uvloop(dns: FakeDns) -> None:
    async def go() -> list[object]:
        resolver = Resolver((dns.address,), timeout_s=60)
        return [await resolver.mx("example.org"), await resolver.a("big.example"), await resolver.mx("broken.example")]

    run: Callable[[Coroutine[Any, Any, list[object]]], list[object]] = uvloop.run
    mx, big, broken = run(go())
    assert isinstance(mx, Answer) and isinstance(big, Answer) and isinstance(broken, Trouble)


def test_trouble_names_the_question_and_not_the_nameservers_that_are_asked() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with FakeDns("x.example MX SERVFAIL") as dns:
            for server in (dns.address, silent.getsockname(), ("127.0.0.1", 9), ("::1", 9)):
                result = asyncio.run(Resolver((server,), timeout_s=0.5).mx("x.example"))
                assert isinstance(result, Trouble) and result.text.startswith("x.example MX: ")
                assert "127.0.0.1" not in result.text and "::1" not in result.text
