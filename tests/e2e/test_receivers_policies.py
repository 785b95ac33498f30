"""What a domain promises about its TLS, kept against real servers: MTA-STS (RFC 8461) and DANE (RFC 7672).

The policy host is an HTTPS server on loopback; TLSA records stand in the tests' DNS, whose AD bit is trusted.
"""

from __future__ import annotations

import contextlib
import email.policy
import gzip
import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deliveries import tls_reports
from deliveries.models import Attempt, Delivery, TlsSessions
from deliveries.record import tls_sessions
from deliveries.routing import tls_rpt
from tests.e2e.postbox import SETTLE_S, Postbox, posting, signed_by_us
from tests.fakes.clock import DAY, stay_within
from tests.fakes.daemon import Receiver
from tests.fakes.exim import running_exim
from tests.fakes.postfix import running_postfix

pytestmark = pytest.mark.django_db(transaction=True)

SERVERS: dict[str, Callable[[], contextlib.AbstractContextManager[Receiver]]] = {
    "postfix": running_postfix,
    "exim": running_exim,
}


@pytest.fixture(scope="module", params=list(SERVERS))
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    with SERVERS[request.param]() as receiver:
        yield receiver


@pytest.fixture
def postbox(receiver: Receiver, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postbox]:
    with posting(receiver, settings, monkeypatch) as postbox:
        yield postbox


# --- MTA-STS ------------------------------------------------------------------------------------------------------

#: `sts.test` publishes a policy; what it says, each test says
STS = """
sts.test            MX    10 mx.receiver.test
_mta-sts.sts.test   TXT   "v=STSv1; id=20261123;"
mta-sts.sts.test    A     127.0.0.1
"""


@dataclass
class PolicyHost:
    """https://mta-sts.sts.test on loopback."""

    port: int = 0
    policy: str = ""
    asked: list[str] = field(default_factory=list)
    reports: list[bytes] = field(default_factory=list)

    def say(self, mode: str, mx: str = "mx.receiver.test") -> None:
        self.policy = f"version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: 604800\r\n"


@pytest.fixture
def policy_host(postbox: Postbox, receiver: Receiver, tmp_path: Path) -> Iterator[PolicyHost]:
    host = PolicyHost()
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("mta-sts.sts.test").configure_cert(context)

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.asked.append(f"{self.headers['Host']}{self.path}")
            body = host.policy.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            assert (self.path, self.headers["Content-Type"]) == ("/tls", "application/tlsrpt+gzip")
            host.reports.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        host.port = server.server_address[1]
        both = tmp_path / "authorities.pem"
        both.write_bytes(authority.cert_pem.bytes() + receiver.certificates.ca.read_bytes())
        postbox.dns.add(STS)
        postbox.point(MTA_STS_PORT=host.port, SMTP_CA_FILE=str(both))
        yield host
        server.shutdown()
        thread.join()


def only_attempt(delivery: Any) -> Attempt:
    return Attempt.objects.get(delivery=delivery)


def test_an_enforced_policy_is_kept_by_a_verified_certificate(
    postbox: Postbox, receiver: Receiver, policy_host: PolicyHost
) -> None:
    policy_host.say("enforce")
    first, second = postbox.send("anna@sts.test"), postbox.send("anna@sts.test")
    assert (first.status, second.status) == ("delivered", "delivered")
    for delivery in (first, second):
        assert only_attempt(delivery).tls.startswith("TLSv1.3") and only_attempt(delivery).tls.endswith(", verified")
        assert signed_by_us(receiver.mail(delivery.message.message_id))
    assert policy_host.asked == [f"mta-sts.sts.test:{policy_host.port}/.well-known/mta-sts.txt"]


@pytest.mark.parametrize("port", ["wrong_port", "clear_port"])
def test_an_enforced_policy_never_falls_back(
    postbox: Postbox, receiver: Receiver, policy_host: PolicyHost, port: str
) -> None:
    policy_host.say("enforce", "*.receiver.test")
    postbox.point(SMTP_PORT=getattr(receiver, port))
    delivery = postbox.once("anna@sts.test")
    attempt = only_attempt(delivery)
    assert (delivery.status, delivery.category, attempt.stage) == ("deferred", "tls", "starttls")
    assert "MAIL FROM" not in attempt.transcript
    assert not receiver.mails(delivery.message.message_id)


def test_an_enforced_policy_that_names_other_hosts_keeps_the_mail_from_this_one(
    postbox: Postbox, policy_host: PolicyHost
) -> None:
    policy_host.say("enforce", "mx.elsewhere.test")
    delivery = postbox.once("anna@sts.test")
    assert (delivery.status, delivery.category) == ("deferred", "tls")
    assert "mx.receiver.test is not among the hosts" in delivery.reason
    assert not Attempt.objects.filter(delivery=delivery).exclude(transcript="").exists()


@pytest.mark.parametrize(("port", "tls"), [("wrong_port", "TLSv1.3"), ("clear_port", "")])
def test_a_policy_in_testing_lets_the_mail_pass(
    postbox: Postbox, receiver: Receiver, policy_host: PolicyHost, port: str, tls: str
) -> None:
    policy_host.say("testing")
    postbox.point(SMTP_PORT=getattr(receiver, port))
    delivery = postbox.send("anna@sts.test")
    assert delivery.status == "delivered" and only_attempt(delivery).tls[:7] == tls
    assert len(policy_host.asked) == 1


def test_who_asks_for_reports_is_told_how_our_sessions_were_protected(
    postbox: Postbox, receiver: Receiver, policy_host: PolicyHost
) -> None:
    policy_host.say("testing")
    rua = f"mailto:anna@dane.test,https://mta-sts.sts.test:{policy_host.port}/tls"
    postbox.dns.add(f'_smtp._tls.sts.test TXT "v=TLSRPTv1; rua={rua}"')
    us = f"tls@{postbox.house.domain.name}"
    # the mail that tells of it goes to a host whose own TLSA record is wrong (§5.3.1)
    postbox.dns.add(SIGNED.format(port=receiver.port, record="3 1 1 " + "ab" * 32))
    postbox.point(TLS_REPORT_FROM=us, SMTP_PORT=receiver.wrong_port, DNS_TRUST_AD=True)
    stay_within(DAY)
    day = datetime.now(UTC).date()
    # a certificate for another name lets the mail of a policy in testing pass; so does one that is kept open
    assert [postbox.send(to).status for to in ("anna@sts.test", "anna@sts.test")] == ["delivered"] * 2
    postbox.restart(SMTP_PORT=receiver.port)
    good = postbox.send("anna@sts.test")
    assert only_attempt(good).tls.endswith(", verified"), "a policy in testing is looked at"
    assert postbox.send("anna@mx.test").status == "delivered", "which asks for no report"
    _until_written(2)

    at = tls_reports.due(day, "sts.test")
    assert timedelta(days=1) <= at - datetime.combine(day, time(), UTC) <= timedelta(days=1, hours=4, minutes=5)
    assert tls_reports.run(at - timedelta(seconds=1)) == 0 and not policy_host.reports
    assert tls_reports.run(at) == 1 and tls_reports.run(at) == 0
    report = json.loads(gzip.decompress(policy_host.reports[0]))
    (told,) = report["policies"]
    assert report["contact-info"] == us and len(policy_host.reports) == 1
    assert told["policy"]["policy-type"] == "sts" and "mode: testing" in told["policy"]["policy-string"]
    assert told["summary"] == {"total-successful-session-count": 1, "total-failure-session-count": 1}
    (failure,) = told["failure-details"]
    assert failure["result-type"] == "certificate-host-mismatch"
    assert (failure["receiving-mx-hostname"], failure["receiving-ip"]) == ("mx.receiver.test", "127.0.0.1")

    (sent,) = Delivery.objects.filter(message__stream=tls_reports.STREAM)
    assert postbox.settled(sent).status == "delivered"
    assert only_attempt(sent).tls.endswith("not verified")
    mail = email.message_from_bytes(receiver.mail(sent.message.message_id), policy=email.policy.default)
    assert (mail["TLS-Report-Domain"], mail["TLS-Report-Submitter"]) == ("sts.test", postbox.house.domain.name)
    assert mail.get_content_type() == "multipart/report" and mail.get_param("report-type") == "tlsrpt"
    text, octets = mail.iter_parts()
    assert "1 as they should be, 1 not." in text.get_content()
    assert octets.get_content_type() == "application/tlsrpt+gzip" and octets.get_content() == policy_host.reports[0]
    assert signed_by_us(receiver.mail(sent.message.message_id))


def test_a_report_that_nobody_takes_is_tried_for_a_day(
    postbox: Postbox, policy_host: PolicyHost, settings: Any
) -> None:
    stay_within(DAY)
    day = datetime.now(UTC).date()
    postbox.dns.add(f'_smtp._tls.sts.test TXT "v=TLSRPTv1; rua=https://mta-sts.sts.test:{policy_host.port}/no"')
    tls_sessions.note("sts.test", [tls_rpt.Session(tls_rpt.Promise())], datetime.now(UTC))
    tls_sessions.flush(now=True)
    at = tls_reports.due(day, "sts.test")
    assert tls_reports.run(at) == 0, "nobody said who sends them"
    settings.TLS_REPORT_FROM = f"tls@{postbox.house.domain.name}"
    assert tls_reports.run(at) == 0 and TlsSessions.objects.count() == 1
    assert tls_reports.run(at + timedelta(days=1)) == 0 and not TlsSessions.objects.exists()


def _until_written(kinds: int) -> None:
    """Whether a domain asks is looked up after its mail was delivered."""
    end = monotonic() + SETTLE_S
    while TlsSessions.objects.count() < kinds:
        assert monotonic() < end
        sleep(0.02)
        tls_sessions.flush(now=True)


def test_a_policy_outlives_the_process_and_the_loss_of_its_record(
    postbox: Postbox, receiver: Receiver, policy_host: PolicyHost
) -> None:
    policy_host.say("enforce")
    assert postbox.send("anna@sts.test").status == "delivered"
    postbox.dns.set(STS.replace("_mta-sts.sts.test   TXT", "unused.test TXT") + "mx.receiver.test A 127.0.0.1")
    postbox.restart(SMTP_PORT=receiver.clear_port)
    delivery = postbox.once("anna@sts.test")
    assert (delivery.status, delivery.category) == ("deferred", "tls")
    assert len(policy_host.asked) == 1


# --- DANE ---------------------------------------------------------------------------------------------------------

SIGNED = """
dane.test             MX    10 mx.dane.test   +ad
mx.dane.test          A     127.0.0.1         +ad
_{port}._tcp.mx.dane.test   TLSA  {record}    +ad
"""


def binding(usage: int, chain: Path) -> str:
    """TLSA data, the SHA-256 of a public key: for DANE-EE (3) the server's own, for DANE-TA (2) its authority's."""
    certificates = x509.load_pem_x509_certificates(chain.read_bytes())
    key = certificates[0 if usage == 3 else -1].public_key()
    octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"{usage} 1 1 {hashlib.sha256(octets).hexdigest()}"


def to_dane(postbox: Postbox, port: int, record: str, *, signed: bool = True) -> Any:
    """One round of a mail to a domain whose MX host is bound by `record`."""
    table = SIGNED.format(port=port, record=record)
    postbox.dns.add(table if signed else table.replace("+ad", ""))
    postbox.point(SMTP_PORT=port, DNS_TRUST_AD=True)
    return postbox.once("anna@dane.test")


@pytest.mark.parametrize("port", ["port", "wrong_port"])
def test_dane_ee_goes_by_the_key_alone(postbox: Postbox, receiver: Receiver, port: str) -> None:
    certificates = receiver.certificates
    chain = certificates.chain if port == "port" else certificates.wrong_chain
    delivery = to_dane(postbox, getattr(receiver, port), binding(3, chain))
    assert delivery.status == "delivered", delivery.reason
    assert only_attempt(delivery).tls.startswith("TLSv1.3") and only_attempt(delivery).tls.endswith(", verified")


def test_dane_ta_goes_by_the_authority_and_the_name(postbox: Postbox, receiver: Receiver) -> None:
    postbox.dns.set(
        f"""
        ta.test             MX  10 mx.receiver.test  +ad
        mx.receiver.test    A   127.0.0.1            +ad
        _{receiver.port}._tcp.mx.receiver.test        TLSA {binding(2, receiver.certificates.chain)} +ad
        _{receiver.wrong_port}._tcp.mx.receiver.test  TLSA {binding(2, receiver.certificates.chain)} +ad
        """
    )
    postbox.point(DNS_TRUST_AD=True)
    delivery = postbox.once("anna@ta.test")
    assert delivery.status == "delivered", delivery.reason
    assert only_attempt(delivery).tls.endswith(", verified")
    postbox.restart(SMTP_PORT=receiver.wrong_port)
    delivery = postbox.once("anna@ta.test")
    assert (delivery.status, delivery.category) == ("deferred", "tls")


@pytest.mark.parametrize("port", ["port", "clear_port"])
def test_dane_without_its_certificate_or_without_starttls_waits(
    postbox: Postbox, receiver: Receiver, port: str
) -> None:
    delivery = to_dane(postbox, getattr(receiver, port), "3 1 1 " + "ab" * 32)
    attempt = only_attempt(delivery)
    assert (delivery.status, delivery.category, attempt.stage) == ("deferred", "tls", "starttls")
    assert "MAIL FROM" not in attempt.transcript
    assert not receiver.mails(delivery.message.message_id)


def test_tlsa_records_that_nobody_validated_bind_nothing(postbox: Postbox, receiver: Receiver) -> None:
    delivery = to_dane(postbox, receiver.port, "3 1 1 " + "ab" * 32, signed=False)
    assert delivery.status == "delivered" and only_attempt(delivery).tls.endswith("not verified")
