"""The doctor: addresses and domains as receivers see them, by a DNS server and an SMTP host on loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from deliveries.routing.doctor import Check, Sent, Tone, of_address, of_bounces, of_domain, port_25
from deliveries.routing.resolver import Resolver
from tests.fakes.dns import FakeDns

TABLE = """
    1.9.9.9.in-addr.arpa   PTR  mail.example
    mail.example           A    9.9.9.1
    2.9.9.9.in-addr.arpa   PTR  other.example
    other.example          A    9.9.9.7
    2.9.9.9.bl.example     A    127.0.0.2
    1.9.9.9.shy.example    A    127.255.255.254
    1.9.9.9.wild.example   A    203.0.113.9
    1.9.9.9.sick.example   *    SERVFAIL
    good.example           TXT  "v=spf1 include:a.example mx -all"
    a.example              TXT  "v=spf1 ip4:192.0.2.0/24 -all"
    _dmarc.good.example    TXT  "v=DMARC1; p=reject"
    _mta-sts.good.example  TXT  "v=STSv1; id=1"
    _smtp._tls.good.example TXT "v=TLSRPTv1; rua=mailto:t@good.example"
    loop.example           TXT  "v=spf1 include:loop.example include:loop2.example a a:b.example mx ptr exists:x ~all"
    loop2.example          TXT  "v=spf1 redirect=loop.example a mx a/24 mx:c.example exists:%{i} -all"
    twice.example          TXT  "v=spf1 -all"
    twice.example          TXT  "v=spf1 ~all"
    _dmarc.twice.example   TXT  "v=DMARC1; p=none"
    _dmarc.twice.example   TXT  "v=DMARC1; p=reject"
    _mta-sts.twice.example TXT  "v=STSv1; id=not-this"
    _smtp._tls.twice.example TXT "v=TLSRPTv1; rua=reports"
    sick.example           TXT  SERVFAIL
    lan.example            MX   10 here.example
    here.example           A    127.0.0.1
"""


def ask(work: Callable[[Resolver], Coroutine[Any, Any, Any]]) -> Any:
    with FakeDns(TABLE) as dns:

        async def go() -> Any:
            return await work(Resolver((dns.address,), timeout_s=dns.patience_s))

        return asyncio.run(go())


def tones(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.tone.value for check in checks}


def test_an_address_that_leads_back_and_stands_on_no_list_is_well() -> None:
    found = ask(lambda r: of_address(r, "9.9.9.1", "mail.example", ["bl.example"]))
    assert tones(found) == {"FCrDNS": "good", "HELO name": "good", "bl.example": "good"}


def test_what_is_wrong_with_an_address_is_named_with_what_to_do() -> None:
    found = ask(lambda r: of_address(r, "9.9.9.2", "mail.example", ["bl.example"]))
    assert tones(found) == {"FCrDNS": "missing", "HELO name": "missing", "bl.example": "missing"}
    assert "listed: 127.0.0.2" in found[2].found and all(check.advice for check in found)


def test_a_list_that_answers_about_the_asker_or_not_at_all_lists_nobody() -> None:
    zones = ["shy.example", "wild.example", "sick.example"]
    found = ask(lambda r: of_address(r, "9.9.9.1", "mail.example", zones))
    assert {tones(found)[zone] for zone in zones} == {"warning"}


def test_a_domain_is_read_record_by_record() -> None:
    assert set(tones(ask(lambda r: of_domain(r, "good.example"))).values()) == {"good"}
    none = tones(ask(lambda r: of_domain(r, "none.example")))
    assert none == {"SPF": "missing", "DMARC": "missing", "MTA-STS": "warning", "TLS reports": "warning"}
    assert tones(ask(lambda r: of_domain(r, "twice.example"))) == dict.fromkeys(
        ("SPF", "DMARC", "MTA-STS", "TLS reports"), "missing"
    ), "two records of a kind, and two that are malformed"
    assert tones(ask(lambda r: of_domain(r, "sick.example")))["SPF"] == "warning", "silence is no lack"


def dmarc(record: str, sent: Sent, domain: str = "shop.example") -> dict[str, Check]:
    zone = f'_dmarc.shop.example TXT {record}\n{sent.return_path} TXT "v=spf1 include:x.example -all"'
    with FakeDns(zone) as dns:
        checks = asyncio.run(of_domain(Resolver((dns.address,)), domain, sent))
    return {c.name: c for c in checks}


OWN = Sent("shop.example", "send.shop.example")
ELSEWHERE = Sent("shop.example", "bounce.mailer.example")
UNSIGNED = Sent("", "bounce.mailer.example")


@pytest.mark.parametrize(
    ("record", "sent", "dkim", "spf", "verdict", "said"),
    [
        ('"v=DMARC1; p=reject"', OWN, "good", "good", "good", "passes, by DKIM and SPF"),
        ('"v=DMARC1; p=reject; adkim=s; aspf=s"', OWN, "good", "warning", "good", "passes, by DKIM."),
        ('"v=DMARC1; p=reject"', ELSEWHERE, "good", "warning", "good", "passes, by DKIM."),
        ('"v=DMARC1; p=quarantine"', Sent("", "send.shop.example"), "missing", "good", "good", "passes, by SPF."),
        ('"v=DMARC1; p=reject"', UNSIGNED, "missing", "warning", "missing", "refuse mail that fails"),
        ('"v=DMARC1; p=quarantine"', UNSIGNED, "missing", "warning", "missing", "among the spam"),
        ('"v=DMARC1; p=none"', UNSIGNED, "missing", "warning", "warning", "as any other"),
        ("NODATA", UNSIGNED, "missing", "warning", "warning", "as any other"),
    ],
)
def test_the_doctor_says_what_aligns_and_what_receivers_are_asked_to_do(record, sent, dkim, spf, verdict, said) -> None:
    found = dmarc(record, sent)
    seen = [found[name].tone.value for name in ("DKIM alignment", "SPF alignment", "DMARC verdict")]
    assert seen == [dkim, spf, verdict] and said in found["DMARC verdict"].found
    assert all(bool(check.advice) == (check.tone is not Tone.GOOD) for check in found.values())
    assert "(1 of 10 look-ups)" in found["SPF of the return path"].found


def test_a_domain_without_a_record_has_that_of_the_domain_above_and_its_word_for_those_below() -> None:
    sent = Sent("news.shop.example", "send.news.shop.example")
    found = dmarc('"v=DMARC1; p=reject; sp=quarantine; pct=20; rua=mailto:d@shop.example"', sent, "news.shop.example")
    assert "of shop.example" in found["DMARC"].found and "among the spam, for 20 % of it" in found["DMARC"].found
    # relaxed: the signature of the organizational domain speaks for what is below it, another's does not
    assert (
        dmarc('"v=DMARC1; p=reject"', Sent("shop.example", "x.other.example"), "news.shop.example")[
            "DKIM alignment"
        ].tone
        is Tone.GOOD
    )
    assert (
        dmarc('"v=DMARC1; p=reject; adkim=s"', Sent("shop.example", "x.other.example"), "news.shop.example")[
            "DKIM alignment"
        ].tone
        is Tone.MISSING
    )


@pytest.mark.parametrize("record", ['"v=DMARC1; p=later; pct=many"', '"v=DMARC1"', '"v=DMARC1;;;=;p"'])
def test_a_record_with_nonsense_in_it_asks_for_nothing(record: str) -> None:
    found = dmarc(record, OWN)
    assert "as any other" in found["DMARC"].found and found["DMARC"].tone is Tone.WARNING


def test_look_ups_of_spf_are_counted_through_includes_that_lead_in_a_circle() -> None:
    good, bad = (ask(lambda r, n=name: of_domain(r, n))[0] for name in ("good.example", "loop.example"))
    assert "(2 of 10 look-ups)" in good.found
    assert bad.tone == "missing" and "look-ups)" in bad.found and "stop at 10" in bad.advice


@pytest.mark.parametrize(("line", "tone"), [(b"220 mx ESMTP\r\n", "good"), (b"554 no\x1b[2J\r\n", "warning"),
                                            (b"2" * 9000, "warning")])  # fmt: skip
def test_port_25_is_open_where_a_host_greets(line: bytes, tone: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with server.accept()[0] as peer:
                peer.sendall(line)
                peer.recv(100)

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        found = ask(lambda r: port_25(r, "lan.example", port, private=True))
        thread.join(10)
    assert found.tone == tone and "\x1b" not in found.found


def test_a_closed_port_and_a_private_address_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        refused = ask(lambda r: port_25(r, "lan.example", port))
        assert refused.tone == "warning" and "no public address" in refused.found
    closed = ask(lambda r: port_25(r, "lan.example", port, private=True))
    assert closed.tone == "missing" and "smarthost" in closed.advice
    assert ask(lambda r: port_25(r, "none.example", port, private=True)).tone == "warning"


@pytest.mark.parametrize(
    ("record", "tone"),
    [("MX 10 mx1.us.test", Tone.GOOD), ("MX 10 other.test", Tone.WARNING), ("MX NODATA", Tone.MISSING),
     ("MX SERVFAIL", Tone.WARNING)],
)  # fmt: skip
def test_what_comes_back_must_find_us(record: str, tone: Tone) -> None:
    with FakeDns(f"bounce.us.test {record}") as dns:
        (check,) = asyncio.run(of_bounces(Resolver((dns.address,)), "bounce.us.test", "mx1.us.test"))
    assert check.tone is tone and (tone is Tone.GOOD or "Publish bounce.us.test MX 10 mx1.us.test." in check.advice)
