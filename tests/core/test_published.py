"""The records of a sending domain: every way in which people publish them wrongly, and what they are told."""

from __future__ import annotations

import asyncio

import pytest

from deliveries.routing import published
from deliveries.routing.published import Finding, Standing, Wanted, domain_name
from deliveries.routing.resolver import Resolver
from tests.fakes.dns import FakeDns

KEY = "MIIB" + "A" * 388
ED_KEY = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
DKIM = published.dkim("shop.example.com", "m1", f"v=DKIM1; k=rsa; p={KEY}", True)
NAME = "m1._domainkey.shop.example.com"
MX, SPF, DMARC, TRACKING = published.around(
    "shop.example.com", return_path="send", mx_name="MX.mailer.example", spf_domain="bounce.mailer.example",
    tracking="links", tracking_host="mail.mailer.example",
)  # fmt: skip


def found(wanted: Wanted, zone: str, timeout_s: float = 20.0) -> Finding:
    with FakeDns(zone) as dns:

        async def look() -> Finding:
            return (await published.look(Resolver((dns.address,)), [wanted], timeout_s))[wanted.key]

        return asyncio.run(look())


def txt(name: str, *texts: str) -> str:
    pieces = [" ".join(f'"{t[i : i + 200]}"' for i in range(0, len(t), 200)) for t in texts]
    return "\n".join(f"{name} TXT {piece}" for piece in pieces)


@pytest.mark.parametrize(
    ("zone", "status", "words"),
    [
        (txt(NAME, f"v=DKIM1; k=rsa; p={KEY}"), "verified", ""),
        (txt(NAME, f"p={KEY[:9]} {KEY[9:]}; n=anything"), "verified", ""),
        (f"{NAME} CNAME keys.example.net\n" + txt("keys.example.net", f"k=rsa; p={KEY}"), "verified", ""),
        (txt(NAME, f"v=DKIM1; t=y:s; p={KEY}"), "verified", "t=y tells receivers to pass over"),
        ("", "pending", "does not exist; add the one below"),
        (f"{NAME} A 192.0.2.1", "pending", "has no TXT record"),
        (txt(f"{NAME}.example.com", f"p={KEY}"), "failed", "enter m1._domainkey.shop."),
        (txt(NAME, f"p={KEY}", "v=DKIM1; p=x"), "failed", "2 TXT records stand at this name"),
        (txt(NAME, f"v=DKIM1; p={KEY[:255]}"), "failed", "The key ends after 255 of 392 characters"),
        (txt(NAME, "v=DKIM1; p=QUJD"), "failed", "Another key is published"),
        (txt(NAME, "v=DKIM1; p="), "failed", "the key is revoked"),
        (txt(NAME, "hello"), "failed", "There is no p= in it"),
        (txt(NAME, f"v=DKIM2; p={KEY}"), "failed", "v= is not DKIM1"),
        (txt(NAME, f"k=ed25519; p={KEY}"), "failed", "k= is not rsa"),
        (txt(NAME, f"h=sha1; p={KEY}"), "failed", "leaves sha256 out"),
        (txt(NAME, f"s=chat; p={KEY}"), "failed", "leaves mail out"),
        (f"{NAME} TXT \"\\\"v=DKIM1; p={KEY[:100]}\\\"\"", "failed", "Quotation marks are part"),
        (f"{NAME} TXT SERVFAIL", "temporary_failure", "DNS could not be asked"),
        (f"{NAME} TXT LAME", "temporary_failure", "it is asked again"),
    ],
)  # fmt: skip
def test_a_dkim_record_is_read_as_a_verifier_would(zone: str, status: str, words: str) -> None:
    finding = found(DKIM, zone)
    assert finding.status == status and words in finding.advice
    assert bool(finding.advice) == bool(words)


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [
        (f"v=DKIM1; k=ed25519; p={ED_KEY}", "verified", ""),
        (f"v=DKIM1; p={ED_KEY}", "failed", "k= is not ed25519"),  # RFC 6376 §3.6.1: without k= it is rsa
        (f"v=DKIM1; k=ed25519; p=MCowBQYDK2VwAyEA{ED_KEY}", "failed", "Another key is published"),
    ],
)
def test_a_record_of_an_ed25519_key_says_so(text: str, status: str, words: str) -> None:
    finding = found(published.dkim("shop.example.com", "m1", f"v=DKIM1; k=ed25519; p={ED_KEY}", False), txt(NAME, text))
    assert finding.status == status and words in finding.advice


def test_trouble_tells_its_kind_and_not_which_nameservers_are_asked() -> None:
    with FakeDns(f"{NAME} TXT SERVFAIL +bogus") as dns:

        async def look() -> Finding:
            return (await published.look(Resolver((dns.address,)), [DKIM]))[DKIM.key]

        advice = asyncio.run(look()).advice
        assert "SERVFAIL" in advice and "signature expired" in advice
        assert str(dns.address[1]) not in advice and "127.0.0.1" not in advice


def test_silence_ends_in_time_and_says_nothing_of_the_record() -> None:
    finding = found(DKIM, f"{NAME} TXT TIMEOUT", 0.5)
    assert finding == Finding(
        Standing.TEMPORARY_FAILURE, (), "DNS could not be asked (no answer within 0.5 s); it is asked again."
    )


INCLUDE = "include:bounce.mailer.example"


@pytest.mark.parametrize(
    ("texts", "status", "words"),
    [
        ([f"v=spf1 {INCLUDE} ~all"], "verified", ""),
        ([f"V=SPF1 ip4:192.0.2.1 {INCLUDE.upper()} -all", "google-site-verification=x"], "verified", ""),
        (["v=spf1 redirect=bounce.mailer.example"], "verified", ""),
        ([], "pending", "does not exist"),
        (["something else"], "pending", "begins with v=spf1"),
        ([f"v=spf1 {INCLUDE} ~all", "v=spf1 -all"], "failed", "Put them together into one"),
        (["v=spf1 include:elsewhere.example ~all"], "failed", f"Put {INCLUDE} into it"),
        ([f"v=spf1 -all {INCLUDE}"], "failed", "before the word that ends in all"),
        ([f"v=spf1 -{INCLUDE} ~all"], "failed", "Put"),
    ],
)  # fmt: skip
def test_an_spf_record_names_ours_before_its_end(texts: list[str], status: str, words: str) -> None:
    finding = found(SPF, txt("send.shop.example.com", *texts))
    assert finding.status == status and words in finding.advice


@pytest.mark.parametrize(
    ("zone", "status", "words"),
    [
        ("send.shop.example.com MX 10 mx.mailer.example", "verified", ""),
        ("send.shop.example.com MX 77 MX.Mailer.Example", "verified", ""),
        ("", "pending", "add the one below"),
        ("send.shop.example.com MX 10 mx.elsewhere.example", "failed", "replace it by mx.mailer.example"),
        ("send.shop.example.com MX 0 .", "failed", "The MX is .;"),
        (
            "send.shop.example.com MX 5 mx.mailer.example\nsend.shop.example.com MX 10 mx.elsewhere.example", "failed",
            "Bounces may go to mx.elsewhere.example",
        ),
        ("send.shop.example.com MX REFUSED", "temporary_failure", ""),
    ],
)  # fmt: skip
def test_the_mx_of_the_return_path_is_ours_alone(zone: str, status: str, words: str) -> None:
    finding = found(MX, zone)
    assert finding.status == status and words in finding.advice


@pytest.mark.parametrize(
    ("zone", "status", "words"),
    [
        (txt("_dmarc.shop.example.com", "v=DMARC1; p=reject; adkim=s"), "verified", ""),
        (txt("_dmarc.example.com", "v=DMARC1; p=none"), "verified", ""),
        ("", "pending", "does not exist"),
        (txt("_dmarc.shop.example.com", "v=DMARC1; p=maybe"), "failed", "none, quarantine or reject"),
        (txt("_dmarc.example.com", "v=DMARC1; p=maybe"), "failed", "none, quarantine or reject"),
        (txt("_dmarc.shop.example.com", "v=DMARC1; p=none", "v=DMARC1; p=reject"), "failed", "only one may"),
        ("_dmarc.example.com TXT SERVFAIL", "temporary_failure", ""),
    ],
)
def test_a_dmarc_policy_of_the_domain_or_of_the_one_above_counts(zone: str, status: str, words: str) -> None:
    finding = found(DMARC, zone)
    assert finding.status == status and words in finding.advice


def test_the_tracking_host_is_an_alias_of_ours() -> None:
    assert found(TRACKING, "links.shop.example.com CNAME mail.mailer.example").status == "verified"
    assert found(TRACKING, "").status == "pending"
    wrong = found(TRACKING, "links.shop.example.com CNAME cdn.example.net")
    assert (wrong.status, wrong.advice) == (
        "failed", "It points to cdn.example.net; let it point to mail.mailer.example."
    )  # fmt: skip


def test_what_stands_there_is_told_within_bounds_and_without_control_characters() -> None:
    finding = found(DKIM, f'{NAME} TXT "p=\\000\\027[31m" ' + " ".join(f'"{"x" * 250}"' for _ in range(8)))
    assert len(finding.found[0]) == 600 and "\0" not in finding.found[0] and "\x1b" not in finding.found[0]


def test_names_are_taken_as_people_write_them() -> None:
    assert domain_name(" Bücher.Example.COM. ") == "xn--bcher-kva.example.com"
    assert domain_name("shop.co.uk") == "shop.co.uk"
    assert domain_name("shop.test") == "shop.test"
    with pytest.raises(ValueError, match="its top level does not exist"):
        domain_name("shop.test", invented=False)
