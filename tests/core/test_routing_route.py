"""From a domain to hops, through a real DNS server: every DNS fault, RFC 5321 §5.1 and RFC 7505."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from deliveries.routing import mx
from deliveries.routing.resolver import Answer, NoData, NxDomain, Resolver, Trouble
from deliveries.routing.route import Routed, Router, Unroutable, at_least
from deliveries.routing.static import parse
from deliveries.smtp.hop import Hop, Tls
from deliveries.states import Category
from tests.fakes.dns import FakeDns


def routed(table: str, domain: str = "example.org", **options: Any) -> tuple[Routed | Unroutable, FakeDns]:
    with FakeDns(table) as dns:

        async def go() -> Routed | Unroutable:
            resolver = Resolver((dns.address,), timeout_s=dns.patience_s)
            return await Router(resolver, rng=random.Random(1), **options).route(domain)

        return asyncio.run(go()), dns


def route(table: str, domain: str = "example.org", **options: Any) -> Routed | Unroutable:
    return routed(table, domain, **options)[0]


def tried(result: Routed | Unroutable) -> list[tuple[str, str]]:
    assert isinstance(result, Routed), result
    return [(hop.host, hop.address) for hop in result.hops]


def refused(result: Routed | Unroutable) -> Unroutable:
    assert isinstance(result, Unroutable), result
    return result


TWO = """
    example.org     MX  20 mx2.mail.example.net
    example.org     MX  10 mx1.mail.example.net
    mx1.mail.example.net A 9.9.9.1
    mx2.mail.example.net A 9.9.9.2
"""


# --- what goes out ----------------------------------------------------------------------------------------------


def test_mx_hosts_come_by_preference() -> None:
    result = route(TWO)
    assert tried(result) == [("mx1.mail.example.net", "9.9.9.1"), ("mx2.mail.example.net", "9.9.9.2")]
    assert isinstance(result, Routed)
    assert result.site == "example.net"
    assert result.ttl_s == pytest.approx(300, abs=1)
    assert result.hops[0] == Hop("mx1.mail.example.net", "9.9.9.1", 25, tls=Tls.MAY, site="example.net")


def test_a_sender_may_ask_for_more_protection_and_never_for_less() -> None:
    by_mx, relayed = route(TWO), route("", routes=parse('{"*": {"host": "192.0.2.1", "tls": "may"}}'))
    strict = route(TWO, routes=parse('{"example.org": {"mx": true, "tls": "verify"}}'))
    assert isinstance(by_mx, Routed) and isinstance(relayed, Routed) and isinstance(strict, Routed)
    assert at_least(Tls.MAY, by_mx) is by_mx.hops
    assert {h.tls for h in at_least(Tls.MUST, by_mx)} == {Tls.MUST}
    assert {h.tls for h in at_least(Tls.MUST, strict)} == {Tls.VERIFY}
    assert at_least(Tls.VERIFY, relayed) == relayed.hops, "the way to a relay is the operator's"


def test_mail_of_a_test_key_goes_to_the_lab_or_nowhere() -> None:
    with FakeDns(TWO) as dns:

        async def go(**options: Any) -> Routed | Unroutable:
            return await Router(Resolver((dns.address,)), **options).route("example.org", lab=True)

        there = asyncio.run(go(sandbox=("127.0.0.1", 2525)))
        nowhere = asyncio.run(go())
    assert tried(there) == [("127.0.0.1", "127.0.0.1")] and not dns.asked
    assert not refused(nowhere).permanent and "test key" in refused(nowhere).text


def test_equal_preferences_are_shuffled_evenly() -> None:
    answer = Answer(tuple((10, f"mx{i}.example.org") for i in range(4)), 60.0)
    rng = random.Random(7)
    first: Counter[str] = Counter()
    sites = set()
    for _ in range(10_000):
        chosen = mx.hosts("example.org", answer, rng, frozenset())
        assert isinstance(chosen, mx.Hosts)
        first[chosen.names[0][1]] += 1
        sites.add(chosen.site)
    assert all(2300 <= n <= 2700 for n in first.values()), first
    assert sites == {"example.org"}


def test_the_shuffle_stays_within_a_preference_and_the_site_is_the_same_each_time() -> None:
    records = ((10, "a.one.example"), (10, "a.two.example"), (5, "b.three.example"), (20, "z.four.example"))
    seen = set()
    for seed in range(50):
        chosen = mx.hosts("example.org", Answer(records, 60.0), random.Random(seed), frozenset())
        assert isinstance(chosen, mx.Hosts)
        assert [p for p, _ in chosen.names] == [5, 10, 10, 20]
        seen.add(chosen.names)
        assert chosen.site == "three.example"
    assert len(seen) == 2


def test_no_mx_means_the_domain_itself() -> None:
    assert tried(route("example.org A 9.9.9.9")) == [("example.org", "9.9.9.9")]


def test_a_cname_chain_is_followed_at_the_domain_and_at_the_mx() -> None:
    table = """
        example.org      CNAME  real.example
        real.example     MX     10 mx.real.example
        mx.real.example  CNAME  host.example
        host.example     A      9.9.9.3
    """
    assert tried(route(table)) == [("mx.real.example", "9.9.9.3")]


def test_an_mx_host_that_does_not_exist_gives_way_to_the_next() -> None:
    table = """
        example.org MX 10 gone.example
        example.org MX 20 empty.example
        example.org MX 30 192.0.2.1
        example.org MX 40 good.example
        example.org MX 50 good.example     # named twice, tried once
        empty.example TXT nothing
        good.example A 9.9.9.4
    """
    assert tried(route(table)) == [("good.example", "9.9.9.4")]


def test_an_mx_host_in_trouble_gives_way_to_the_next() -> None:
    table = """
        example.org MX 10 sick.example
        example.org MX 20 good.example
        sick.example * SERVFAIL
        good.example A 9.9.9.4
    """
    assert tried(route(table)) == [("good.example", "9.9.9.4")]


def test_ipv6_goes_first_with_ipv4_at_once_after_it_and_only_when_verified() -> None:
    table = """
        example.org MX 10 mx.example
        mx.example A 9.9.9.1
        mx.example A 9.9.9.2
        mx.example AAAA 2620:fe::1
        mx.example AAAA 2620:fe::2
    """
    without, dns = routed(table)
    assert {a for _, a in tried(without)} == {"9.9.9.1", "9.9.9.2"}
    assert "AAAA" not in {rdtype for _, rdtype, _ in dns.asked}
    families = ["6" if ":" in a else "4" for _, a in tried(route(table, ipv6_ok=True))]
    assert families == ["6", "4", "6", "4"]


def test_a_round_is_five_addresses_of_two_hosts_however_many_there_are() -> None:
    table = "\n".join(
        [f"example.org MX {i} mx{i}.example" for i in range(60)]
        + [f"mx{i}.example A 9.9.{i}.{j}" for i in range(60) for j in range(1, 21)]
    )
    result, dns = routed(table)
    hosts = [host for host, _ in tried(result)]
    assert hosts == ["mx0.example"] * 3 + ["mx1.example"] * 2
    assert len(dns.asked) <= 5


def test_a_lone_host_gives_five_addresses() -> None:
    table = "example.org MX 1 mx.example\n" + "\n".join(f"mx.example A 9.9.9.{j}" for j in range(1, 21))
    assert len(set(tried(route(table)))) == 5


def test_sixty_dead_hosts_cost_a_bounded_number_of_questions_and_no_bounce() -> None:
    table = "\n".join(f"example.org MX {i} gone{i}.example" for i in range(60)) + "\nexample A 9.9.9.9"
    result, dns = routed(table)
    assert refused(result).permanent is False
    assert len(dns.asked) <= 1 + 2 * mx.MAX_HOSTS


def test_the_site_is_the_registrable_domain() -> None:
    for host, site in [
        ("gmail-smtp-in.l.google.com", "google.com"),
        ("example-com.mail.protection.outlook.com", "outlook.com"),
        ("mx.example.co.uk", "example.co.uk"),
        ("localhost", "localhost"),
        ("com", "com"),
    ]:
        assert mx.site(host) == site


def test_the_source_address_is_of_the_hops_family() -> None:
    table = "example.org MX 1 mx.example\nmx.example A 9.9.9.1\nmx.example AAAA 2620:fe::1"
    result = route(table, ipv6_ok=True, source_ips=("9.9.8.1", "2620:fe::9"))
    assert isinstance(result, Routed)
    assert {(h.address, h.source) for h in result.hops} == {("9.9.9.1", "9.9.8.1"), ("2620:fe::1", "2620:fe::9")}


def test_a_neighbour_is_not_reached_from_a_public_source() -> None:
    routes = parse('{"*": {"host": ["10.0.0.1", "9.9.9.1"]}}')
    result = route("", routes=routes, source_ips=("9.9.8.1",))
    assert isinstance(result, Routed)
    assert [hop.source for hop in result.hops] == [None, "9.9.8.1"]


def test_idn_and_case_and_the_final_dot_make_no_difference() -> None:
    table = "xn--bcher-kva.example A 9.9.9.1"
    for domain in ("bücher.example", "BÜCHER.example", "XN--BCHER-KVA.Example."):
        assert tried(route(table, domain)) == [("xn--bcher-kva.example", "9.9.9.1")]


# --- what bounces: DNS said no, with authority --------------------------------------------------------------------


def test_null_mx_is_final_and_asks_for_no_address() -> None:
    result, dns = routed("example.org MX 0 .\nexample.org A 9.9.9.9")
    no = refused(result)
    assert (no.permanent, no.enhanced, no.category) == (True, "5.1.10", Category.BAD_DOMAIN)
    assert [q[1] for q in dns.asked] == ["MX"]


def test_a_null_mx_beside_a_real_one_is_ignored() -> None:
    assert tried(route("example.org MX 0 .\nexample.org MX 10 mx.example\nmx.example A 9.9.9.1")) == [
        ("mx.example", "9.9.9.1")
    ]


def test_a_domain_that_does_not_exist_bounces_after_a_second_question() -> None:
    result, dns = routed("other.example A 9.9.9.9")
    no = refused(result)
    assert (no.permanent, no.enhanced, no.category) == (True, "5.1.2", Category.BAD_DOMAIN)
    assert [q[1] for q in dns.asked] == ["MX", "A"]


def test_a_domain_with_neither_mx_nor_address_bounces() -> None:
    no = refused(route("example.org TXT hello"))
    assert (no.permanent, no.enhanced, no.rule) == (True, "5.4.4", "dns-no-mail-host")


def test_mx_without_any_usable_host_is_an_error_and_never_the_address_of_the_domain() -> None:
    table = "example.org MX 10 gone1.example\nexample.org MX 20 gone2.example\nexample.org A 9.9.9.9"
    result, dns = routed(table)
    no = refused(result)
    assert (no.permanent, no.enhanced, no.category) == (True, "5.4.4", Category.DNS_ERROR)
    assert ("example.org", "A", "udp") not in dns.asked


@pytest.mark.parametrize(
    "domain", ["a..b", "-x.example", "x" * 64 + ".example", "exa mple.org", "", "[192.0.2.1]", "a\nb.example"]
)
def test_a_name_that_dns_cannot_hold_bounces_without_a_question(domain: str) -> None:
    result, dns = routed("", domain)
    assert (refused(result).permanent, refused(result).enhanced) == (True, "5.1.2")
    assert dns.asked == []


@pytest.mark.parametrize(
    "address",
    "127.0.0.1 10.1.2.3 192.168.1.1 172.16.0.1 169.254.169.254 0.0.0.0 100.64.0.1 224.0.0.1 255.255.255.255".split(" "),
)
def test_a_private_address_is_never_connected_to(address: str) -> None:
    table = f"example.org MX 10 mx.example\nmx.example A {address}"
    no = refused(route(table))
    assert (no.permanent, no.enhanced, no.rule) == (True, "5.4.4", "dns-mx-private")
    assert refused(route(f"example.org A {address}")).rule == "dns-mx-private"


@pytest.mark.parametrize("address", ["::1", "::", "fe80::1", "fc00::1", "::ffff:127.0.0.1", "2002:7f00:1::"])
def test_a_private_ipv6_address_is_never_connected_to(address: str) -> None:
    table = f"example.org MX 10 mx.example\nmx.example AAAA {address}"
    assert refused(route(table, ipv6_ok=True)).rule == "dns-mx-private"


def test_a_private_address_beside_a_public_one_is_left_out() -> None:
    table = "example.org MX 10 mx.example\nmx.example A 10.0.0.1\nmx.example A 9.9.9.1"
    assert tried(route(table)) == [("mx.example", "9.9.9.1")]


def test_a_lab_may_allow_private_addresses() -> None:
    table = "example.org MX 10 mx.example\nmx.example A 127.0.0.1"
    result = route(table, allow_private=True, smtp_port=2525, own_addresses=frozenset({"127.0.0.1"}))
    assert isinstance(result, Routed)
    assert (result.hops[0].address, result.hops[0].port) == ("127.0.0.1", 2525)


def test_our_own_address_is_a_loop() -> None:
    no = refused(route("example.org MX 1 mx.example\nmx.example A 9.9.9.1", own_addresses=frozenset({"9.9.9.1"})))
    assert (no.permanent, no.enhanced, no.rule) == (True, "5.4.6", "dns-mx-own")


def test_our_own_name_is_a_loop_also_as_the_implicit_mx() -> None:
    own = frozenset({"Mail.example."})
    assert refused(route("example.org MX 1 MAIL.example\nmail.example A 9.9.9.1", own_names=own)).rule == "dns-mx-own"
    assert refused(route("mail.example A 9.9.9.1", "mail.example", own_names=own)).rule == "dns-mx-own"


def test_as_a_backup_mx_we_send_only_to_the_better_ones() -> None:
    table = """
        example.org MX 10 main.example
        example.org MX 20 us.example
        example.org MX 20 twin.example
        example.org MX 30 worse.example
        main.example A 9.9.9.1
        us.example A 9.9.9.2
        twin.example A 9.9.9.3
        worse.example A 9.9.9.4
    """
    for own in ({"own_names": frozenset({"us.example"})}, {"own_addresses": frozenset({"9.9.9.2"})}):
        assert tried(route(table, **own)) == [("main.example", "9.9.9.1")]


# --- what waits: nobody could say -----------------------------------------------------------------------------------

TROUBLES = ["SERVFAIL", "REFUSED", "TIMEOUT", "LAME", "REFERRAL", "NOTIMP", "FORMERR", "GARBAGE", "WRONGID"]


@pytest.mark.parametrize("word", TROUBLES)
@pytest.mark.parametrize(
    "table",
    [
        "example.org MX {word}\nexample.org A 9.9.9.9",  # never implicit, never a bounce
        "example.org MX 10 mx.example\nmx.example A {word}",
        "example.org TXT here\nexample.org A {word}",
        "example.org MX NXDOMAIN\nexample.org A {word}",
        "example.org MX 10 mx.example\nexample.org MX 20 gone.example\nmx.example A {word}",
        "example.org MX 10 mx.example\nexample.org MX 20 priv.example\npriv.example A 10.0.0.1\nmx.example A {word}",
        "example.org MX 10 mx.example\nmx.example TXT x\nmx.example AAAA {word}",
    ],
    ids=["mx", "address", "implicit", "confirmation", "first-of-two", "beside-private", "aaaa"],
)
def test_dns_trouble_never_bounces(table: str, word: str) -> None:
    no = refused(route(table.format(word=word)))
    assert not no.permanent
    assert (no.enhanced, no.category) == ("4.4.3", Category.DNS_ERROR)


@pytest.mark.parametrize("name", ["example.org", "mx.example"])
def test_a_cname_loop_waits(name: str) -> None:
    table = f"example.org MX 10 mx.example\n{name} CNAME loop.example\nloop.example CNAME {name}"
    table = table if name != "example.org" else table.split("\n", 1)[1]
    assert not refused(route(table)).permanent


def test_a_server_that_denies_the_domain_only_for_mx_is_not_believed() -> None:
    no = refused(route("example.org MX NXDOMAIN\nexample.org A 9.9.9.9"))
    assert (no.permanent, no.rule) == (False, "dns-contradiction")


def test_a_domain_on_ipv6_only_waits_while_we_have_no_verified_ipv6() -> None:
    table = "example.org MX 10 mx.example\nmx.example AAAA 2620:fe::1"
    no = refused(route(table))
    assert (no.permanent, no.rule, no.category) == (False, "dns-ipv6-only", Category.NETWORK)
    assert tried(route(table, ipv6_ok=True)) == [("mx.example", "2620:fe::1")]


@pytest.mark.parametrize("answer", [NoData(), Trouble("x")])
def test_only_two_equal_noes_are_believed(answer: Any) -> None:
    assert not mx.missing("example.org", answer).permanent
    assert mx.missing("example.org", NxDomain()).permanent


# --- the sandbox and fixed routes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", ["example.org", "gmail.com", "nothing.invalid", "bad..name", "smart.example"])
def test_in_the_sandbox_nothing_leaves_the_machine(domain: str) -> None:
    routes = parse('{"smart.example": {"host": "9.9.9.9"}, "*": {"host": "9.9.9.8"}}')
    result, dns = routed(TWO, domain, mail_route="sandbox", sandbox=("127.0.0.1", 1025), routes=routes)
    assert result == Routed((Hop("127.0.0.1", "127.0.0.1", 1025, tls=Tls.MAY, site="sandbox"),), "sandbox", 300.0, None)
    assert dns.asked == []


def test_the_simulator_is_reached_in_every_mode() -> None:
    result, dns = routed(TWO, "Simulator.test", sandbox=("127.0.0.1", 1025))
    assert isinstance(result, Routed) and result.site == "sandbox"
    assert dns.asked == []


def test_a_sandbox_without_an_address_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="sandbox"):
        Router(Resolver(()), mail_route="sandbox")
    with pytest.raises(ValueError, match="MAIL_ROUTE"):
        Router(Resolver(()), mail_route="relay")


def test_a_fixed_route_takes_its_host_its_credentials_and_its_name() -> None:
    routes = parse('{"*": {"name": "relay", "host": "smtp.example.net", "username": "u", "password": "p"}}')
    result, dns = routed("smtp.example.net A 10.0.0.1", routes=routes)
    assert isinstance(result, Routed)
    (hop,) = result.hops
    assert (hop.host, hop.address, hop.port, hop.tls, hop.site) == (
        "smtp.example.net",
        "10.0.0.1",
        587,
        Tls.VERIFY,
        "relay",
    )
    assert hop.auth is not None and hop.auth.username == "u"
    assert (result.site, result.static) == ("relay", routes["*"])
    assert "MX" not in {q[1] for q in dns.asked}


@pytest.mark.parametrize("table", ["", "smtp.example.net A SERVFAIL", "smtp.example.net TXT x"])
def test_a_route_whose_host_has_no_address_waits(table: str) -> None:
    no = refused(route(table, routes=parse('{"*": {"host": "smtp.example.net"}}')))
    assert (no.permanent, no.rule) == (False, "route-host-unknown")


def test_a_neighbour_without_a_dot_is_known_to_the_system() -> None:
    result, dns = routed("", routes=parse('{"*": {"host": "localhost", "lmtp": true}}'))
    assert isinstance(result, Routed)
    assert "127.0.0.1" in {hop.address for hop in result.hops} and result.hops[0].lmtp
    assert dns.asked == []


def test_a_domain_taken_out_of_the_rest_goes_by_mx_with_its_policy() -> None:
    routes = parse('{"*": {"host": "9.9.9.8"}, "example.org": {"mx": true, "tls": "verify"}}')
    result = route(TWO, routes=routes)
    assert tried(result)[0] == ("mx1.mail.example.net", "9.9.9.1")
    assert isinstance(result, Routed) and {hop.tls for hop in result.hops} == {Tls.VERIFY}
