"""TLS reports (RFC 8460): the record that asks for them, and what they say."""

from __future__ import annotations

import asyncio
from datetime import date

import pytest

from deliveries.routing import tls_rpt
from deliveries.routing.mta_sts import Mode, Policy
from deliveries.routing.resolver import Resolver
from deliveries.routing.tls_rpt import Promise, Session
from deliveries.smtp.outcome import TlsFailure, TlsResult
from tests.fakes.dns import FakeDns

MAIL, WEB = "mailto:tls@example.org", "https://example.org/tls"


@pytest.mark.parametrize(
    ("text", "uris"),
    [
        (f"v=TLSRPTv1;rua={MAIL}", (MAIL,)),
        (f"v=TLSRPTv1 ; \t rua={MAIL} ;", (MAIL,)),
        (f"v=TLSRPTv1; rua={MAIL} , {WEB},{MAIL}", (MAIL, WEB)),
        (f"v=TLSRPTv1; x-new=1; rua={WEB}; rua={MAIL}", (WEB, MAIL)),
        (f"v=TLSRPTv1; rua=ftp://example.org/,http://example.org/,{WEB}", (WEB,)),
        ("v=TLSRPTv1", None),
        ("v=TLSRPTv1;", None),
        ("v=TLSRPTv1; ext=1", None),
        ("v=TLSRPTv1; rua=", None),
        ("v=TLSRPTv1; rua=ftp://example.org/", None),
        (f"v=TLSRPTv2; rua={MAIL}", None),
        (f"v=TLSRPTv10; rua={MAIL}", None),
        (f"V=TLSRPTv1; rua={MAIL}", None),
        (f" v=TLSRPTv1; rua={MAIL}", None),
        (f"v=TLSRPTv1; rua={MAIL};;", None),
        (f"v=TLSRPTv1; rua {MAIL}", None),
        (f"v=TLSRPTv1; rua={MAIL}\nBcc: x", None),
        ("v=TLSRPTv1; rua=mailto:nobody", None),
        ("v=TLSRPTv1; rua=mailto:a@b@c", None),
    ],
)
def test_a_record_names_where_reports_go(text: str, uris: tuple[str, ...] | None) -> None:
    assert tls_rpt.parse_record(text) == uris


def test_exactly_one_record_counts_and_trouble_is_none() -> None:
    table = f"""
        _smtp._tls.one.example   TXT "something else"
        _smtp._tls.one.example   TXT "v=TLSRPTv1; rua={WEB}"
        _smtp._tls.two.example   TXT "v=TLSRPTv1; rua={WEB}"
        _smtp._tls.two.example   TXT "v=TLSRPTv1; rua={MAIL}"
        _smtp._tls.ill.example   TXT SERVFAIL
    """
    with FakeDns(table) as dns:

        async def ask() -> list[tuple[str, ...]]:
            resolver = Resolver((dns.address,), timeout_s=dns.patience_s)
            names = ("one", "two", "ill", "none")
            return [await tls_rpt.destinations(resolver, f"{name}.example") for name in names]

        assert asyncio.run(ask()) == [(WEB,), (), (), ()]


def test_a_report_tells_each_policy_its_sessions_and_each_failure_once() -> None:
    policy = tls_rpt.of_policy(Policy(Mode.TESTING, ("mx1.example.org", "*.example.net"), 1000))
    expired = TlsFailure(TlsResult.EXPIRED, "certificate has expired")
    counts = [
        (Session(policy, "mx1.example.org", "192.0.2.1", "198.51.100.7"), 7),
        (Session(policy, "mx1.example.org", "192.0.2.2", "198.51.100.7"), 1),
        (Session(policy, "a.example.net", "192.0.2.3", "", expired), 2),
        (Session(Promise(), "mx9.example.org", "192.0.2.9"), 4),
        (Session(tls_rpt.of_tlsa("mx8.example.org", [(3, 1, 1, b"\xab" * 32)]), "mx8.example.org"), 1),
    ]
    day = date(2026, 11, 25)
    report = tls_rpt.report(counts, "example.org", day, "sender.example", "tls@sender.example")
    assert report == tls_rpt.report(counts, "example.org", day, "sender.example", "tls@sender.example")
    other = tls_rpt.report(counts[1:], "example.org", day, "sender.example", "tls@sender.example")
    assert other["report-id"] != report.pop("report-id")
    assert report == {
        "organization-name": "sender.example",
        "date-range": {"start-datetime": "2026-11-25T00:00:00Z", "end-datetime": "2026-11-25T23:59:59Z"},
        "contact-info": "tls@sender.example",
        "policies": [
            {
                "policy": {
                    "policy-type": "sts",
                    "policy-string": [
                        "version: STSv1", "mode: testing", "mx: mx1.example.org", "mx: *.example.net", "max_age: 1000",
                    ],
                    "policy-domain": "example.org",
                    "mx-host": ["mx1.example.org", "*.example.net"],
                },
                "summary": {"total-successful-session-count": 8, "total-failure-session-count": 2},
                "failure-details": [
                    {
                        "result-type": "certificate-expired",
                        "receiving-mx-hostname": "a.example.net",
                        "receiving-ip": "192.0.2.3",
                        "failure-reason-code": "certificate has expired",
                        "failed-session-count": 2,
                    }
                ],
            },
            {
                "policy": {"policy-type": "no-policy-found", "policy-string": [], "policy-domain": "example.org"},
                "summary": {"total-successful-session-count": 4, "total-failure-session-count": 0},
            },
            {
                "policy": {
                    "policy-type": "tlsa",
                    "policy-string": ["3 1 1 " + "ab" * 32],
                    "policy-domain": "example.org",
                    "mx-host": ["mx8.example.org"],
                },
                "summary": {"total-successful-session-count": 1, "total-failure-session-count": 0},
            },
        ],
    }  # fmt: skip
