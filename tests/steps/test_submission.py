"""Submission over real sockets and TLS: who may send what, and that 250 means committed."""

from __future__ import annotations

import base64
import json
import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest
import trustme
from django.core.mail import EmailMultiAlternatives, get_connection
from django.db import OperationalError
from django.utils import timezone

from deliveries import keys, submission
from deliveries.models import ApiKey, Delivery, Event, Message, MessageContent, Suppression
from deliveries.smtp.received import Bounds
from tests.fakes.desk import desk
from tests.fakes.house import House, build

pytestmark = pytest.mark.django_db(transaction=True)

#: what some server takes for the end of a mail
ENDS = (b"\n.\r\n", b"\r.\r\n", b"\n.\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r", b"\n\n.\n", b"\r\n\0.\r\n", b"\r\n.\r\r\n")
SMUGGLING = Path(__file__).parents[3] / "shared/corpora/vectors/smuggling.jsonl"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def ports(authority: trustme.CA) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    with desk(authority) as where:
        yield where


@contextmanager
def client(where: tuple[str, int], trusted: ssl.SSLContext, password: str, user: str = "apikey") -> Iterator:
    with smtplib.SMTP(*where, local_hostname="app.test", timeout=30) as smtp:
        smtp.starttls(context=trusted)
        smtp.login(user, password)
        yield smtp


def mail(house: House, head: str = "", sender: str = "", body: str = "Thank you.") -> bytes:
    head = f"From: {sender or house.sender}\nTo: ann@one.test\nSubject: Receipt\n{head}"
    return f"{head}\n{body}\n".replace("\n", "\r\n").encode()


def answer(smtp: smtplib.SMTP, octets: bytes, *to: str) -> tuple[int, str]:
    """The reply to the final dot."""
    smtp.mail("app@client.test")
    for path in to or ("ann@one.test",):
        smtp.rcpt(path)
    code, text = smtp.data(octets)
    return code, text.decode()


def mails(house: House) -> list[Message]:
    return list(Message.objects.filter(tenant=house.tenant).order_by("id"))


def test_a_mail_is_committed_before_its_250_and_known_by_the_id_in_it(ports, trusted) -> None:
    house = build()
    with client(ports[0], trusted, house.secret) as smtp:
        code, text = answer(smtp, mail(house), "ann@one.test", "blind@two.test")
        (message,) = mails(house)
    assert (code, text) == (250, f"2.6.0 Ok: queued as {message.id}")
    rows = Delivery.objects.filter(message=message).order_by("position").values_list("field", "recipient", "status")
    assert list(rows) == [("to", "ann@one.test", "queued"), ("bcc", "blind@two.test", "queued")]
    assert bytes(MessageContent.objects.get(id=message.id).raw) == mail(house)  # no Received line: as by other doors
    assert Event.objects.filter(message=message, type="email.sent").count() == 2


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("user", ["apikey", "api", "resend", "someone@else.test"])
def test_any_user_name_will_do_over_implicit_tls(ports, trusted, mechanism: str, user: str) -> None:
    house = build()
    with smtplib.SMTP_SSL(*ports[1], local_hostname="app.test", timeout=30, context=trusted) as smtp:
        smtp.ehlo()
        assert smtp.esmtp_features.keys() >= {
            "pipelining", "8bitmime", "smtputf8", "enhancedstatuscodes", "dsn", "size", "auth",
        }  # fmt: skip
        assert "starttls" not in smtp.esmtp_features
        smtp.user, smtp.password = user, house.secret
        smtp.auth(mechanism, smtp.auth_plain if mechanism == "PLAIN" else smtp.auth_login)
        assert answer(smtp, mail(house))[0] == 250
    assert len(mails(house)) == 1


@pytest.mark.parametrize("tls", ["STARTTLS", "implicit"])
def test_djangos_own_backend_submits(ports, authority, tls: str, tmp_path: Path, monkeypatch) -> None:
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    house = build()
    host, port = ports[tls == "implicit"]
    backend = get_connection(
        "django.core.mail.backends.smtp.EmailBackend",
        host=host, port=port, username="apikey", password=house.secret,
        use_tls=tls == "STARTTLS", use_ssl=tls == "implicit", timeout=30,
    )  # fmt: skip
    letter = EmailMultiAlternatives("Grüße", "Hallo", house.sender, ["ann@one.test"], bcc=["b@two.test"])
    letter.attach_alternative("<p>Hallo</p>", "text/html")
    letter.attach("a.txt", "text", "text/plain")
    assert backend.send_messages([letter]) == 1
    (message,) = mails(house)
    assert (message.subject, message.to, message.bcc) == ("Grüße", ["ann@one.test"], ["b@two.test"])
    assert message.message_id == letter.extra_headers.get("Message-ID", f"<{message.message_id}>").strip("<>")


def test_a_wrong_key_is_refused_and_after_too_many_nobody_from_there_is_heard(authority, trusted) -> None:
    house = build()
    with desk(authority, Bounds(max_auth_failures=4)) as ports:
        said = [_login(ports[1], trusted, "re_wrong") for _ in range(4)]
        assert [code for code, _ in said] == [535] * 4
        code, text = _login(ports[1], trusted, house.secret)
    assert (code, text[:5]) == (421, "4.7.0")
    assert mails(house) == []


def _login(where: tuple[str, int], trusted: ssl.SSLContext, password: str) -> tuple[int, str]:
    with smtplib.SMTP_SSL(*where, local_hostname="app.test", timeout=30, context=trusted) as smtp:
        smtp.ehlo()
        code, text = smtp.docmd("AUTH", "PLAIN " + base64.b64encode(f"\0apikey\0{password}".encode()).decode())
        if code == 421:
            smtp.close()
        return code, text.decode()


def test_nothing_is_taken_without_a_login_and_no_login_without_tls(ports, trusted) -> None:
    house = build()
    with smtplib.SMTP(*ports[0], local_hostname="app.test", timeout=30) as smtp:
        smtp.ehlo()
        assert "auth" not in smtp.esmtp_features and "starttls" in smtp.esmtp_features
        assert smtp.docmd("AUTH", "PLAIN AA==")[0] == 538
        assert smtp.mail("app@client.test")[0] == 530
        smtp.starttls(context=trusted)
        assert smtp.mail("app@client.test")[0] == 503  # EHLO anew first (RFC 3207)
        smtp.ehlo()
        assert smtp.mail("app@client.test")[0] == 530
        assert smtp.rcpt("ann@one.test")[0] == 503
    assert mails(house) == []


def test_a_key_that_was_revoked_meanwhile_sends_nothing(ports, trusted) -> None:
    house = build()
    with client(ports[0], trusted, house.secret) as smtp:
        keys.revoke([house.key.id], "test")
        code, text = answer(smtp, mail(house))
    assert (code, text[:5]) == (550, "5.7.1")
    assert mails(house) == []


def test_a_key_for_reading_or_for_another_network_does_not_send(ports, trusted) -> None:
    house = build()
    for limits in ({"scope": ApiKey.Scope.READING}, {"networks": ["192.0.2.0/24"]}):
        _, secret = keys.create(house.tenant, "limited", **limits)
        assert _login(ports[1], trusted, secret)[0] == 535
    _, secret = keys.create(house.tenant, "here", networks=["127.0.0.0/8"])
    assert _login(ports[1], trusted, secret)[0] == 235


def test_only_a_from_that_the_key_owns_is_taken(ports, trusted) -> None:
    house, other = build(), build()
    with client(ports[0], trusted, house.secret) as smtp:
        for sender in (other.sender, "a@unknown.test", f"a@sub.{house.domain.name}"):
            code, text = answer(smtp, mail(house, sender=sender))
            assert (code, text[:5]) == (550, "5.7.1")
        for sender in (f"{house.sender}, x@{house.domain.name}", "no address"):
            assert answer(smtp, mail(house, sender=sender))[0] == 554
        assert answer(smtp, b"From: x@y.test\r\n" + mail(house))[0] == 554
        assert answer(smtp, mail(house))[0] == 250  # the connection is none the worse
    assert len(mails(house)) == 1 and mails(other) == []


@pytest.mark.parametrize(
    "path",
    ["<a%elsewhere.test@one.test>", "<@one.test:a@elsewhere.test>", '<"a@elsewhere.test"@one.test>',
     "<elsewhere.test!a@one.test>", "<a@[192.0.2.1]>", "<>", "<a@b@c.test>", "<a@localhost>", "<a@-x.test>",
     "<a@one.test> NOTIFY=SOON", "<a@one.test> NOTIFY=NEVER,DELAY", "<a@one.test> ORCPT=rfc822", "<a@one.test> X=1"],
)  # fmt: skip
def test_a_recipient_that_is_none_is_refused_for_itself(ports, trusted, path: str) -> None:
    house = build()
    with client(ports[0], trusted, house.secret) as smtp:
        smtp.mail("app@client.test")
        code, text = smtp.docmd(f"RCPT TO:{path}")
        assert 500 <= code < 560 and text.startswith(b"5."), (code, text)
        assert smtp.rcpt("good@one.test")[0] == 250
        assert smtp.data(mail(house))[0] == 250
    (message,) = mails(house)
    assert [d.recipient for d in message.deliveries.all()] == ["good@one.test"]


def test_suppressed_recipients_are_taken_and_stand_as_suppressed(ports, trusted) -> None:
    house = build()
    Suppression.objects.create(tenant=house.tenant, address="ann@one.test", reason="manual", created_at=timezone.now())
    with client(ports[0], trusted, house.secret) as smtp:
        assert answer(smtp, mail(house))[0] == 250
    assert [d.status for d in mails(house)[0].deliveries.all()] == ["suppressed"]


def test_verbs_that_are_not_spoken_and_every_reply_with_its_enhanced_code(ports, trusted) -> None:
    house = build()
    with client(ports[0], trusted, house.secret) as smtp:
        for line in ("VRFY ann", "EXPN all", "ETRN one.test", "HELP", "NOOP", "RSET", "MAIL", "RCPT", "DATA", "BOGUS"):
            code, text = smtp.docmd(line)
            assert text.decode()[:2] == f"{code // 100}." and text.decode().split()[0].count(".") == 2, (line, text)
        assert smtp.docmd("BDAT 5 LAST")[0] == 502


def test_headers_that_speak_to_us_are_obeyed_and_do_not_leave(ports, trusted) -> None:
    house = build()
    head = (
        "X-Tag: welcome\nX-Tags: a, b=c\nX-Metadata-Order: 17\nX-PM-Message-Stream: news\nX-Other: stays\n"
        'X-SMTPAPI: {"category":\n "two words"}\nX-Mailgun-Track: no\nX-Scheduled-At: 2026-12-24T09:00:00Z\n'
    ).replace("2026-12-24", (timezone.now() + timezone.timedelta(days=2)).date().isoformat())
    with client(ports[0], trusted, house.secret) as smtp:
        assert answer(smtp, mail(house, head))[0] == 250
        head_of_another = 'X-Scheduled-At: tomorrow\nX-Tag: a b\nX-SMTPAPI: {"to": ["ann@one.test"]}\n'
        code, text = answer(smtp, mail(house, head_of_another))
    assert code == 554 and all(name in text for name in ("x-scheduled-at", "x-tag", "x-smtpapi.to"))
    (message,) = mails(house)
    assert message.tags == [
        {"name": n, "value": v} for n, v in (("welcome", ""), ("a", ""), ("b", "c"), ("two words", ""))
    ]
    assert (message.metadata, message.stream, message.scheduled_at is not None) == ({"order": "17"}, "news", True)
    assert bytes(MessageContent.objects.get(id=message.id).raw) == mail(house, "X-Other: stays\n")
    assert [d.status for d in message.deliveries.all()] == ["scheduled"]


class Tomorrow(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:
        return datetime.now(tz) + timedelta(days=1)


def test_an_idempotency_key_makes_one_mail_whatever_a_program_makes_anew(ports, trusted, monkeypatch) -> None:
    house = build()
    head = "X-Idempotency-Key: order-17\nMessage-ID: <{}@app.test>\n"
    with client(ports[0], trusted, house.secret) as smtp:
        first = answer(smtp, mail(house, head.format(1)))
        assert answer(smtp, mail(house, head.format(2))) == first
        code, text = answer(smtp, mail(house, head.format(3), body="Another text."))
        assert (code, text[:5]) == (554, "5.5.4")
        # a repeat whose 250 was lost may come when its times have passed
        moments = [(timezone.now() + timezone.timedelta(hours=n)).isoformat() for n in (1, 2)]
        head = "X-Scheduled-At: {}\nX-Deliver-Before: {}\n".format(*moments) + "X-Idempotency-Key: code-{}\n"
        first = answer(smtp, mail(house, head.format(1)))
        assert first[0] == 250
        monkeypatch.setattr(submission, "datetime", Tomorrow)
        assert answer(smtp, mail(house, head.format(1))) == first
        code, text = answer(smtp, mail(house, head.format(2)))
        assert code == 554 and "passed" in text
    assert len(mails(house)) == 2


def test_while_the_database_is_away_the_client_is_told_to_keep_it(ports, trusted, monkeypatch) -> None:
    house = build()

    def away(*args: object, **kwargs: object) -> None:
        raise OperationalError("connection refused")

    with client(ports[0], trusted, house.secret) as smtp:
        with monkeypatch.context() as patch:
            patch.setattr(submission, "accept", away)
            assert answer(smtp, mail(house))[0] == 451
            patch.setattr(keys, "find", away)
            with pytest.raises(smtplib.SMTPAuthenticationError) as refused, client(ports[0], trusted, house.secret):
                pass
            assert refused.value.smtp_code == 454
        assert answer(smtp, mail(house))[0] == 250
    assert len(mails(house)) == 1


def test_a_hundred_recipients_and_no_more(ports, trusted) -> None:
    house = build()
    with client(ports[0], trusted, house.secret) as smtp:
        smtp.mail("app@client.test")
        assert {smtp.rcpt(f"a{n}@one.test")[0] for n in range(100)} == {250}
        assert smtp.rcpt("more@one.test") == (452, b"4.5.3 Too many recipients")
        assert smtp.data(mail(house))[0] == 250
    assert mails(house)[0].deliveries.count() == 100


def test_no_vector_of_smuggling_ever_makes_two_mails(ports, trusted) -> None:
    house = build()
    rows = map(json.loads, SMUGGLING.read_text().splitlines()) if SMUGGLING.exists() else ()
    corpus = [bytes.fromhex(row["payload_hex"]) for row in rows if row["where"].startswith("inbound")]
    for vector in dict.fromkeys([*ENDS, *corpus]):
        before = len(mails(house))
        with client(ports[0], trusted, house.secret) as smtp:
            smtp.mail("app@client.test")
            smtp.rcpt("ann@one.test")
            smtp.docmd("DATA")
            smtp.send(mail(house) + vector)
            smtp.send(
                f"MAIL FROM:<x@{house.domain.name}>\r\nRCPT TO:<evil@two.test>\r\nDATA\r\n".encode()
                + mail(house)
                + b"\r\n.\r\nQUIT\r\n"
            )
            assert smtp.sock is not None
            while smtp.sock.recv(65536):
                pass
            smtp.close()
        made = mails(house)[before:]
        # a vector that ends the mail lawfully is followed by the second one as a transaction of its own
        lawful = vector.endswith(b"\r\n.\r\n")
        assert len(made) <= (2 if lawful else 1), vector
        for message in made:
            stored = bytes(MessageContent.objects.get(id=message.id).raw)
            assert stored.count(b"\n") == stored.count(b"\r\n") == stored.count(b"\r")


def test_what_came_in_clear_before_starttls_is_forgotten(ports, trusted) -> None:
    house = build()
    with socket.create_connection(ports[0], timeout=30) as raw:
        file = raw.makefile("rb")
        assert file.readline().startswith(b"220")
        raw.sendall(b"EHLO app.test\r\n")
        while not file.readline().startswith(b"250 "):
            pass
        raw.sendall(b"STARTTLS\r\nMAIL FROM:<x@y.test>\r\n")
        assert file.readline().startswith(b"220")
        with trusted.wrap_socket(raw, server_hostname="127.0.0.1") as secure:
            secure.sendall(b"NOOP\r\nQUIT\r\n")
            replies = secure.makefile("rb").read().splitlines()
    assert [r[:3] for r in replies] == [b"250", b"221"]
    assert mails(house) == []
