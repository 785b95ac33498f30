"""MTA-STS and DANE: the promises of a domain about its hosts (RFC 8461, RFC 7672)."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from deliveries.fetch import Fetched
from deliveries.routing import dane, tls_rpt
from deliveries.routing.mta_sts import (
    MAX_AGE_S,
    MemoryStore,
    Mode,
    MtaSts,
    Policy,
    Stored,
    is_text_plain,
    mx_matches,
    parse_policy,
    parse_record,
    record_id,
)
from deliveries.routing.resolver import Resolver
from deliveries.routing.route import Routed, Router, Unroutable
from deliveries.smtp.hop import Tls
from deliveries.smtp.outcome import TlsFailure, TlsResult
from tests.fakes.dns import FakeDns

VECTORS = Path(__file__).parents[3] / "shared/corpora/vectors/mta_sts.jsonl"
ENFORCE = "version: STSv1\r\nmode: enforce\r\nmx: mx1.example.org\r\nmx: *.example.net\r\nmax_age: 604800\r\n"


def vectors() -> list[dict[str, Any]]:
    return [json.loads(line) for line in VECTORS.read_text().splitlines()] if VECTORS.exists() else []


def judged(vector: dict[str, Any]) -> bool | None:
    text = vector["text"]
    match vector["kind"]:
        case "record":
            return parse_record(text) is not None
        case "policy":
            try:
                return isinstance(parse_policy(text), Policy)
            except ValueError:
                return False
        case "content-type":
            return is_text_plain(text)
        case "mx-match":
            return mx_matches(vector["pattern"], text)
        case "tlsrpt-record":
            return tls_rpt.parse_record(text) is not None
    return None


@pytest.mark.skipif(not VECTORS.exists(), reason="the shared corpora are not beside the checkout")
def test_every_vector_is_judged_as_its_source_says() -> None:
    judgements = [(v, judged(v)) for v in vectors()]
    assert [v for v, said in judgements if said is not None and said is not v["valid"]] == []
    assert sum(said is not None for _, said in judgements) >= 48


def test_exactly_one_record_counts() -> None:
    assert record_id(["v=spf1 -all", "v=STSv1; id=1;"]) == "1"
    assert record_id(["v=STSv1; id=1;", "v=STSv1; id=2;"]) is None
    assert record_id(["v=STSv1; id=1;", "v=STSv1; broken"]) is None
    assert record_id(["v=STSv10; id=1;"]) is None
    assert record_id([]) is None


def test_a_policy_is_read_whole() -> None:
    policy = parse_policy(ENFORCE)
    assert policy == Policy(Mode.ENFORCE, ("mx1.example.org", "*.example.net"), 604800)
    assert policy.allows("MX1.example.org.") and policy.allows("a.example.net")
    assert (
        not policy.allows("a.b.example.net") and not policy.allows("example.net") and not policy.allows("evil.example")
    )


def test_of_double_fields_the_first_counts_and_max_age_is_capped() -> None:
    text = "version: STSv1\nmode: testing\nmode: none\nmx: a.example\nmax_age: 9999999999\nmax_age: 1"
    assert parse_policy(text) == Policy(Mode.TESTING, ("a.example",), MAX_AGE_S)


@pytest.mark.parametrize(
    "text", ["mx: a" + " " * 60_000 + "b", "x: " + " " * 60_000 + "\x01", "mx: " + "a" * 60_000 + "!"]
)
def test_a_long_line_of_blanks_takes_no_time(text: str) -> None:
    with pytest.raises(ValueError):
        parse_policy(text)  # quadratic matching would hang the test here
    assert parse_record("v=STSv1; id=a" + " " * 60_000 + "x") is None
    assert parse_record("v=STSv1;" + " " * 60_000 + "id=a") == "a"


@dataclass
class Site:
    """https://mta-sts.example.org on loopback; its answer can be changed while it runs."""

    ca_file: str
    port: int = 0
    status: int = 200
    body: bytes = ENFORCE.encode()
    content_type: str = "text/plain; charset=utf-8"
    location: str = ""
    asked: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, str]:
    ca, path = trustme.CA(), tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return ca, str(path)


@pytest.fixture
def site(authority: tuple[trustme.CA, str]) -> Iterator[Site]:
    state = Site(authority[1])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(f"{self.headers['Host']}{self.path}")
            self.send_response(state.status)
            self.send_header("Content-Type", state.content_type)
            if state.location:
                self.send_header("Location", state.location)
            self.send_header("Content-Length", str(len(state.body)))
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority[0].issue_cert("mta-sts.example.org").configure_cert(context)
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


ZONE = """
    _mta-sts.example.org TXT "v=STSv1; id=one;"
    mta-sts.example.org  A   127.0.0.1
"""


@contextlib.contextmanager
def asking(site: Site, zone: str = ZONE) -> Iterator[tuple[FakeDns, Any, list[float]]]:
    """(DNS, ask, clock): `ask()` gives the policy now; DNS is never cached, policies are."""
    now = [1_000_000.0]
    store = MemoryStore()
    with FakeDns(zone) as dns:
        failing: list[MtaSts] = []

        def ask(times: int = 1) -> Policy | None:
            async def go() -> Policy | None:
                sts = MtaSts(
                    Resolver((dns.address,), timeout_s=dns.patience_s),
                    store,
                    port=site.port,
                    ca_file=site.ca_file,
                    allow_private=True,
                    timeout_s=60,
                    clock=lambda: now[0],
                )
                failing.append(sts)
                if len(failing) > 1:
                    sts._failed = failing[-2]._failed  # the same process goes on, with an empty DNS cache
                return (await asyncio.gather(*(sts.policy("example.org") for _ in range(times))))[0]

            return asyncio.run(go())

        yield dns, ask, now


def test_a_policy_is_fetched_once_and_kept(site: Site) -> None:
    with asking(site) as (_, ask, _):
        assert ask(times=20) == parse_policy(ENFORCE)
        assert ask() == parse_policy(ENFORCE)
    assert site.asked == [f"mta-sts.example.org:{site.port}/.well-known/mta-sts.txt"]


@pytest.mark.parametrize("loss", ["SERVFAIL", "TIMEOUT", "NXDOMAIN", "NODATA", '"v=STSv1; broken"', "LAME"])
def test_a_cached_policy_survives_the_loss_of_dns(site: Site, loss: str) -> None:
    with asking(site) as (dns, ask, now):
        assert ask() is not None
        dns.set(f"_mta-sts.example.org TXT {loss}")
        assert ask() == parse_policy(ENFORCE)
        now[0] += 604_801
        assert ask() is None, "but not beyond its max_age"


def test_a_new_id_brings_the_new_policy_and_none_takes_it_back(site: Site) -> None:
    with asking(site) as (dns, ask, _):
        ask()
        site.body = b"version: STSv1\nmode: none\nmax_age: 1000\n"
        assert ask() is not None
        dns.set(ZONE.replace("id=one", "id=two"))
        assert ask() is None
    assert len(site.asked) == 2


def test_a_new_id_whose_policy_cannot_be_had_leaves_the_old_one(site: Site) -> None:
    with asking(site) as (dns, ask, now):
        ask()
        site.status = 500
        dns.set(ZONE.replace("id=one", "id=two"))
        assert ask() == ask() == parse_policy(ENFORCE)
        assert len(site.asked) == 2, "a failed fetch is not repeated within five minutes"
        now[0] += 301
        site.status, site.body = 200, b"version: STSv1\nmode: testing\nmx: a.example\nmax_age: 1000\n"
        assert ask() == Policy(Mode.TESTING, ("a.example",), 1000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": 404},
        {"status": 301, "location": "https://mta-sts.example.org/elsewhere"},
        {"content_type": "text/html"},
        {"body": b"version: STSv1\n"},
        {"body": b"\xff\xfe"},
        {"body": ENFORCE.encode() + b"more: " + b"x" * 70_000},
    ],
    ids=["404", "redirect", "html", "incomplete", "not-utf8", "too-long"],
)
def test_what_is_not_a_policy_is_none(site: Site, wrong: dict[str, Any]) -> None:
    for name, value in wrong.items():
        setattr(site, name, value)
    with asking(site) as (_, ask, _):
        assert ask() is None
    assert len(site.asked) == 1


def test_a_certificate_for_another_name_is_no_policy(site: Site) -> None:
    zone = '_mta-sts.other.example TXT "v=STSv1; id=one;"\nmta-sts.other.example A 127.0.0.1'
    with FakeDns(zone) as dns:

        async def go() -> tuple[Policy | None, TlsFailure]:
            sts = MtaSts(Resolver((dns.address,)), port=site.port, ca_file=site.ca_file, allow_private=True)
            return await sts.policy("other.example"), sts.failures["other.example"]

        policy, said = asyncio.run(go())
    assert policy is None
    assert said.result is TlsResult.POLICY_HOST and "certificate verify failed" in said.text.lower()
    assert site.asked == []


def test_a_policy_host_inside_our_network_is_never_connected_to(site: Site) -> None:
    with FakeDns(ZONE) as dns:

        async def go() -> tuple[Policy | None, TlsFailure]:
            sts = MtaSts(Resolver((dns.address,)), port=site.port, ca_file=site.ca_file)
            return await sts.policy("example.org"), sts.failures["example.org"]

        policy, said = asyncio.run(go())
    assert policy is None and said.result is TlsResult.NO_POLICY and "not a public address" in said.text
    assert site.asked == []


def test_a_domain_without_a_record_costs_no_fetch(site: Site) -> None:
    with asking(site, "example.org A 9.9.9.9") as (_, ask, _):
        assert ask() is None
    assert site.asked == []


# --- in the router ------------------------------------------------------------------------------------------------

MX = """
    example.org      MX 10 evil.example
    example.org      MX 20 mx1.example.org
    evil.example     A  9.9.9.6
    mx1.example.org  A  9.9.9.1
"""


def route(
    table: str, policy: Policy | None = None, trust_ad: bool = False, any_tls: bool = False, **options: Any
) -> Routed | Unroutable:
    class Store(MemoryStore):
        async def get(self, domain: str) -> Stored | None:
            return Stored("one", policy, 1e12) if policy else None

    async def never(*_: object, **__: object) -> Fetched:
        raise AssertionError("nothing is to be fetched")

    with FakeDns(table) as dns:

        async def go() -> Routed | Unroutable:
            resolver = Resolver((dns.address,), trust_ad=trust_ad, timeout_s=dns.patience_s)
            router = Router(resolver, mta_sts=MtaSts(resolver, Store(), get=never), **options)
            return await router.route("example.org", any_tls=any_tls)

        return asyncio.run(go())


def test_enforce_leaves_only_the_named_hosts_and_verifies_them() -> None:
    result = route(MX, Policy(Mode.ENFORCE, ("mx1.example.org",), 1000))
    assert isinstance(result, Routed)
    assert [(h.host, h.tls) for h in result.hops] == [("mx1.example.org", Tls.VERIFY)]


def test_testing_changes_nothing_but_what_is_looked_at_and_told() -> None:
    policy = Policy(Mode.TESTING, ("mx1.example.org",), 1000)
    result = route(MX, policy)
    assert isinstance(result, Routed)
    assert [(h.host, h.tls, h.watched) for h in result.hops] == [
        ("evil.example", Tls.MAY, False), ("mx1.example.org", Tls.MAY, True)
    ]  # fmt: skip
    assert result.promises["mx1.example.org"] == tls_rpt.of_policy(policy)
    broken = result.promises["evil.example"].broken
    assert broken is not None and "evil.example is not among the hosts" in broken.text


def test_enforce_without_a_matching_host_waits() -> None:
    result = route(MX, Policy(Mode.ENFORCE, ("other.example",), 1000))
    assert isinstance(result, Unroutable)
    assert (result.permanent, result.enhanced, result.rule) == (False, "4.7.5", "tls-policy-unmet")
    assert result.promise is not None and result.promise.broken is not None
    waived = route(MX, Policy(Mode.ENFORCE, ("other.example",), 1000), any_tls=True)
    assert isinstance(waived, Routed) and {hop.tls for hop in waived.hops} == {Tls.MAY} and not waived.promises


DIGEST = "ab" * 32
SIGNED = f"""
    example.org               MX   10 mx1.example.org +ad
    mx1.example.org           A    9.9.9.1 +ad
    _25._tcp.mx1.example.org  TLSA 3 1 1 {DIGEST} +ad
    _25._tcp.mx1.example.org  TLSA 0 0 1 {DIGEST} +ad
"""


def only(result: Routed | Unroutable) -> tuple[Tls, int]:
    assert isinstance(result, Routed), result
    (hop,) = result.hops
    return hop.tls, len(hop.tlsa)


def test_dane_binds_with_its_usable_records_and_goes_before_mta_sts() -> None:
    result = route(SIGNED, Policy(Mode.ENFORCE, ("other.example",), 1000), trust_ad=True)
    assert isinstance(result, Routed)
    (hop,) = result.hops
    assert (hop.tls, hop.tlsa) == (Tls.DANE, ((3, 1, 1, bytes.fromhex(DIGEST)),))
    assert hop.tls_names == ("mx1.example.org", "example.org")


def test_dane_needs_a_trusted_nameserver_and_every_answer_validated() -> None:
    assert only(route(SIGNED)) == (Tls.MAY, 0)
    for line in SIGNED.strip().splitlines()[:2]:
        assert only(route(SIGNED.replace(line, line.replace("+ad", "")), trust_ad=True)) == (Tls.MAY, 0)
    assert only(route(SIGNED.replace(f"{DIGEST} +ad", DIGEST), trust_ad=True)) == (Tls.MAY, 0)


def test_records_that_cannot_be_used_still_ask_for_encryption() -> None:
    table = SIGNED.replace("TLSA 3 1 1", "TLSA 1 1 1")
    assert only(route(table, trust_ad=True)) == (Tls.MUST, 0)
    assert only(route(table, Policy(Mode.ENFORCE, ("*.example.org",), 1000), trust_ad=True)) == (Tls.VERIFY, 0)


@pytest.mark.parametrize("word", ["SERVFAIL", "TIMEOUT", "LAME"])
def test_hidden_tlsa_records_make_the_mail_wait(word: str) -> None:
    result = route("\n".join(SIGNED.splitlines()[:3]) + f"\n_25._tcp.mx1.example.org TLSA {word}", trust_ad=True)
    assert isinstance(result, Unroutable)
    assert (result.permanent, result.enhanced) == (False, "4.4.3")


def test_no_tlsa_is_no_dane() -> None:
    assert only(route("\n".join(SIGNED.splitlines()[:3]), trust_ad=True)) == (Tls.MAY, 0)


def test_the_name_behind_a_cname_is_asked_first() -> None:
    table = f"""
        example.org              MX    10 mx.example.org +ad
        mx.example.org           CNAME host.example.net +ad
        host.example.net         A     9.9.9.1 +ad
        _25._tcp.host.example.net TLSA 2 0 1 {DIGEST} +ad
    """
    result = route(table, trust_ad=True)
    assert isinstance(result, Routed)
    assert result.hops[0].tls is Tls.DANE
    assert result.hops[0].tls_names == ("host.example.net", "mx.example.org", "example.org")


def test_only_records_that_rfc_7672_knows_are_usable() -> None:
    full, half = b"x" * 32, b"x" * 16
    good = [(3, 1, 1, full), (2, 0, 2, full * 2), (3, 0, 0, b"der")]
    bad = [
        (0, 1, 1, full),
        (1, 1, 1, full),
        (3, 2, 1, full),
        (3, 1, 3, full),
        (3, 1, 1, half),
        (3, 1, 0, b""),
        (4, 0, 1, full),
    ]
    assert dane.usable((*bad, *good)) == tuple(good)
