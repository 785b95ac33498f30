"""A whole mail of somebody else's: what of it leaves, what is refused, and how it is recoded."""

from __future__ import annotations

import email
import email.policy
import json
import random
import time
from datetime import UTC, datetime
from email.message import EmailMessage

import dkim
import pytest

from deliveries.errors import BadInput
from deliveries.mime import deliverable, raw
from deliveries.mime.control import is_control, read_control
from deliveries.mime.dkim import Signer, generate_key
from deliveries.states import Tracking

NOW = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
HEAD = b"From: App <app@one.test>\r\nTo: ann@two.test\r\nSubject: hello\r\n"
PLAIN = HEAD + b"\r\nText\r\n"


def mail(head: bytes = b"", body: bytes = b"Text\r\n") -> bytes:
    return HEAD + head + b"\r\n" + body


def faults(octets: bytes) -> list[tuple[str, str]]:
    with pytest.raises(BadInput) as refused:
        raw.read(octets)
    return [(f.field, f.code) for f in refused.value.faults]


def parsed(octets: bytes) -> EmailMessage:
    found = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return found


def test_a_mail_goes_out_as_it_came_but_for_the_fields_that_every_mail_has() -> None:
    body = b"--x\r\nContent-Type: text/plain;  charset=utf-8\r\n\r\nTwo  spaces\t\r\n\r\n--x--\r\n"
    octets = mail(b"X-Odd:   kept \r\n as it is\r\nContent-Type: multipart/mixed; boundary=x\r\n", body)
    read = raw.read(octets)
    assert read.octets == octets
    out = raw.composed(read.octets, "id@one.test", NOW)
    assert out.octets == octets.replace(
        b"\r\n\r\n--x\r\n",
        b"\r\nDate: Thu, 31 Jan 2030 09:00:00 +0000\r\nMessage-ID: <id@one.test>\r\nMIME-Version: 1.0\r\n\r\n--x\r\n",
        1,
    )
    own = raw.read(
        mail(b"Message-ID: <own@one.test>\r\nDate: Thu, 31 Jan 2030 09:00:00 +0000\r\nmime-version: 1.0\r\n")
    )
    assert own.message_id == "own@one.test"
    assert raw.composed(own.octets, "id@one.test", NOW).octets == own.octets


@pytest.mark.parametrize(
    "date", ["yesterday", "2030-01-31 09:00:00", "Thu, 32 Jan 2030 09:00:00 +0000", "Thu, 31 Jan 2030", "(a) " * 9]
)
def test_words_that_are_no_date_and_no_identifier_give_way_to_what_is(date: str) -> None:
    read = raw.read(mail(f"Date: {date}\r\nMessage-ID: 4711\r\n".encode()))
    out = parsed(raw.composed(read.octets, "id@one.test", NOW).octets)
    assert (out.get_all("date"), out.get_all("message-id")) == (["Thu, 31 Jan 2030 09:00:00 +0000"], ["<id@one.test>"])
    for good in ("Thu, 31 Jan 2030 09:00:00 +0100 (CET)", "1 feb 30 9:00 GMT", "Thu,31 Jan 2030\r\n 09:00:00 -0000"):
        octets = mail(f"Date: {good}\r\nMessage-ID: <a@b.test> (x)\r\nMIME-Version: 1.0\r\n".encode())
        assert raw.composed(raw.read(octets).octets, "id@one.test", NOW).octets == octets


@pytest.mark.parametrize("name", ["ceo@bank.test", "Bo ceo@bank.test", "ceo@bank.test (x)", '"Bo" ceo@bank.test "x"'])
def test_a_senders_name_that_some_readers_take_for_the_address_is_put_in_quotes(name: str) -> None:
    head = f"From: {name} <app@one.test>\r\nReply-To: {name} <app@one.test>, b@one.test\r\nTo: {name} <a@two.test>\r\n"
    out = raw.read(f"{head}\r\nx\r\n".encode()).octets
    assert out.count(f": {name} <".encode()) == 1  # To is nobody's face
    for field in (parsed(out)["from"], parsed(out)["reply-to"]):
        assert field.addresses[0].addr_spec == "app@one.test" and "ceo@bank.test" in field.addresses[0].display_name
        assert not field.defects and str(field).startswith('"')
    legal = b'From: "ceo@bank.test, Bo" <app@one.test>\r\nReply-To: a@one.test, Bo <b@one.test>\r\n\r\nx\r\n'
    assert raw.read(legal).octets == legal


def test_what_must_not_leave_is_taken_out_and_read() -> None:
    read = raw.read(
        mail(
            b"Bcc: Blind <blind@three.test>,\r\n other@three.test\r\nReturn-Path: <x@y.test>\r\nX-Tag: welcome\r\n"
            b"X-Mailapi-Delivery: forged\r\nx-metadata-Order: 17\r\nX-Other: stays\r\nResent-Bcc: z@y.test\r\n"
        )
    )
    assert read.octets == mail(b"X-Other: stays\r\n")
    assert [a.addr_spec for a in read.bcc] == ["blind@three.test", "other@three.test"]
    assert read.control == (("x-tag", "welcome"), ("x-metadata-order", "17"))


def test_names_and_addresses_are_read_apart() -> None:
    read = raw.read(
        b"From: =?utf-8?q?J=C3=B6rg=2C_=3Cevil=40x=2Etest=3E?= <App@One.test>\r\n"
        b'To: "Last,\r\n\tFirst" <a@two.test>, b@two.test (a comment), team: c@two.test, d@two.test;\r\n'
        b"Cc: e@two.test,, not an address\r\nReply-To: r@one.test\r\nSubject: =?utf-8?b?SMOpbGxv?=\r\n\r\nx\r\n"
    )
    assert (read.sender.display_name, read.sender.addr_spec) == ("Jörg, <evil@x.test>", "App@one.test")
    assert [a.addr_spec for a in read.to] == ["a@two.test", "b@two.test", "c@two.test", "d@two.test"]
    assert read.to[0].display_name == "Last, First"
    assert [a.addr_spec for a in read.cc] == ["e@two.test"]
    assert read.unread == ("not an address",)
    assert (read.subject, [a.addr_spec for a in read.reply_to]) == ("Héllo", ["r@one.test"])


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (PLAIN.replace(b"\r\nText", b"\r\nTe\0xt"), ("", "control_character")),
        (PLAIN.replace(b"\r\nText", b"\r\nTe\nxt"), ("", "bare_line_end")),
        (PLAIN.replace(b"\r\nText", b"\r\nTe\rxt"), ("", "bare_line_end")),
        (PLAIN.replace(b"hello\r\n", b"hello\r\n \t\r\n"), ("", "invalid_mime")),
        (PLAIN.replace(b"Subject:", b"Sub ject:"), ("", "invalid_mime")),
        (b" folded: from the start\r\n" + PLAIN, ("", "invalid_mime")),
        (b"no field at all\r\n\r\nx\r\n", ("", "invalid_mime")),
        (b"", ("from", "invalid_from_address")),
        (b"\r\n" + PLAIN, ("from", "invalid_from_address")),
        (PLAIN.replace(b"App <app@one.test>", b"a@one.test, b@one.test"), ("from", "invalid_from_address")),
        (PLAIN.replace(b"App <app@one.test>", b"group:;"), ("from", "invalid_from_address")),
        (PLAIN.replace(b"App <app@one.test>", b"ceo@bank.test: app@one.test;"), ("from", "invalid_from_address")),
        (PLAIN.replace(b"App <app@one.test>", b"Bo <ceo@bank.test>: app@one.test;"), ("from", "invalid_from_address")),
        (PLAIN.replace(b"App <app@one.test>", b"ceo@bank.test:;, app@one.test"), ("from", "invalid_from_address")),
        (PLAIN.replace(b"App <app@one.test>", b"app@one.test <x@evil.test> <y@evil.test>"),
         ("from", "invalid_from_address")),
        (b"From: other@evil.test\r\n" + PLAIN, ("from", "duplicate_header")),
        (b"Subject: other\r\n" + PLAIN, ("subject", "duplicate_header")),
        (b"subject : other\r\n" + PLAIN, ("subject", "duplicate_header")),
        (b"Content-Type: text/plain\r\nContent-Type: text/html\r\n" + PLAIN, ("content-type", "duplicate_header")),
        (b"X-Name: J\xf6rg\r\n" + PLAIN, ("x-name", "invalid_header")),
        (b"X: y\r\n" * 1_001 + PLAIN, ("", "invalid_mime")),
        (b"X: " + b"y\r\n " * 70_000 + b"y\r\n" + PLAIN, ("", "invalid_mime")),
        (b"X-Long: " + b"y" * 1_000 + b"\r\n" + PLAIN, ("", "line_too_long")),
    ],
)  # fmt: skip
def test_what_two_readers_would_read_differently_is_refused(octets: bytes, expected: tuple[str, str]) -> None:
    assert expected in faults(octets)


def test_nesting_and_numbers_of_parts_are_bounded() -> None:
    deep = b"".join(b"--%d\r\nContent-Type: multipart/mixed; boundary=%d\r\n\r\n" % (n, n + 1) for n in range(40))
    assert faults(mail(b"Content-Type: multipart/mixed; boundary=0\r\n", deep)) == [("", "invalid_mime")]
    wide = b"--x\r\n\r\n\r\n" * 2_000
    assert faults(mail(b"Content-Type: multipart/mixed; boundary=x\r\n", wide)) == [("", "invalid_mime")]
    letters = b"Content-Type: message/rfc822\r\n\r\n" * 2_000
    assert faults(mail(b"Content-Type: message/rfc822\r\n", letters)) == [("", "invalid_mime")]


def test_utf8_in_the_header_becomes_encoded_words_and_an_address_keeps_it() -> None:
    read = raw.read("From: Jörg <app@one.test>\r\nTo: ann@two.test\r\nSubject: Grüße\r\n\r\nx\r\n".encode())
    assert read.octets.isascii()
    assert parsed(read.octets)["subject"] == "Grüße"
    assert parsed(read.octets)["from"] == "Jörg <app@one.test>"
    kept = raw.read("From: app@one.test\r\nTo: jörg@two.test\r\nSubject: x\r\n\r\nx\r\n".encode())
    assert raw.composed(kept.octets, "i@one.test", NOW).smtputf8
    many = "".join(f",\r\n Jörg <a{n}@two.test>" for n in range(raw.MAX_ADDRESSES))
    crowd = raw.read(f"From: app@one.test\r\nCc: b@two.test{many}\r\n\r\nx\r\n".encode())
    assert crowd.octets.isascii() and len(parsed(crowd.octets)["cc"].addresses) == raw.MAX_ADDRESSES + 1


def built() -> bytes:
    """A mail as Python's own library builds it: 8-bit text, HTML, a picture, a letter in it."""
    made = EmailMessage(policy=email.policy.SMTP.clone(cte_type="8bit"))
    made["From"], made["To"], made["Subject"] = "App <app@one.test>", "ann@two.test", "Bill"
    made.set_content("Grüße\nund mehr\n", cte="8bit")
    made.add_alternative("<p>" + "Grüße, " * 30 + "</p>", subtype="html", cte="8bit")
    made.add_attachment(bytes(range(256)) * 9, maintype="image", subtype="png", filename="a.png")
    inner = EmailMessage(policy=email.policy.SMTP)
    inner["Subject"] = "within"
    inner.set_content("Überall\n", cte="8bit")
    made.add_attachment(inner)
    return made.as_bytes()


def contents(octets: bytes) -> list[tuple[str, object]]:
    return [(part.get_content_type(), part.get_content()) for part in parsed(octets).walk() if not part.is_multipart()]


def test_eight_bit_stays_as_it_came_and_is_recoded_for_a_hop_without_8bitmime() -> None:
    octets = built()
    read = raw.read(octets)
    assert read.octets == octets and not octets.isascii()
    prepared = deliverable.prepare(raw.composed(read.octets, "i@one.test", NOW))
    recoded = deliverable.seven_bit(prepared)
    assert recoded is not None
    private, public = generate_key()
    whole = deliverable.finish(recoded, "t" * 48, Signer("one.test", "m1", private), int(time.time()))
    assert whole.isascii()
    assert contents(whole) == contents(octets)
    record = b"v=DKIM1; k=rsa; p=" + public.encode()
    assert dkim.verify(whole, dnsfunc=lambda *a, **k: record)


def test_a_signed_part_is_never_recoded() -> None:
    body = (
        b"--s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        b"Gr\xc3\xbc\xc3\x9fe\r\n"
        b"--s\r\nContent-Type: application/pgp-signature\r\n\r\nsig\r\n--s--\r\n"
    )
    head = b'Content-Type: multipart/signed; protocol="application/pgp-signature"; boundary=s\r\n'
    read = raw.read(mail(head, body))
    assert read.octets == mail(head, body)
    assert raw.seven_bit(raw.composed(read.octets, "i@one.test", NOW)) is None
    assert faults(mail(head, body.replace(b"Gr", b"G" * 1_000))) == [("", "line_too_long")]


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json", "image/svg+xml"])
@pytest.mark.parametrize("encoding", ["", "7bit", "8bit", "binary", "quoted-printable", "base64"])
def test_long_lines_are_recoded_and_the_content_stays(kind: str, encoding: str) -> None:
    content = b"<p>" + b"A long line of HTML. " * 200 + b"</p>\r\nand =3D a second\r\n"
    body = content
    if encoding == "base64":
        import base64

        body = base64.b64encode(content) + b"\r\n"
    if encoding == "quoted-printable":
        body = content.replace(b"=", b"=3D")
    head = b"MIME-Version: 1.0\r\nContent-Type: %s\r\n" % kind.encode()
    if encoding:
        head += b"Content-Transfer-Encoding: %s\r\n" % encoding.encode()
    read = raw.read(mail(head, body))
    assert max(map(len, read.octets.split(b"\r\n"))) <= 998
    got = parsed(read.octets).get_payload(decode=True)
    assert isinstance(got, bytes) and got.rstrip() == content.rstrip()


def test_a_report_of_ours_goes_with_the_null_reverse_path() -> None:
    head = b"Content-Type: multipart/report; report-type=delivery-status; boundary=r\r\n"
    read = raw.read(mail(head, b"--r\r\n\r\nx\r\n--r--\r\n"))
    assert deliverable.prepare(raw.composed(read.octets, "i@one.test", NOW)).null_return
    assert not deliverable.prepare(raw.composed(PLAIN, "i@one.test", NOW)).null_return


def test_two_thousand_broken_mails_are_read_or_refused_and_what_is_read_is_safe() -> None:
    rng = random.Random(6409)
    good = 0
    whole = built()
    for _ in range(2_000):
        octets = bytearray(whole)
        for _ in range(rng.randrange(1, 12)):
            at = rng.randrange(len(octets))
            octets[at : at + rng.randrange(6)] = rng.choice(
                [
                    b"",
                    b"\r\n",
                    b"--",
                    b"\n",
                    b";",
                    b'"',
                    b"boundary=",
                    b"\x00",
                    b"\xff",
                    b"Content-Type: multipart/mixed",
                ]
            )
        try:
            read = raw.read(bytes(octets))
        except BadInput:
            continue
        good += 1
        out = raw.composed(read.octets, "i@one.test", NOW)
        assert max(map(len, out.octets.split(b"\r\n"))) <= 998
        seven = raw.seven_bit(out)
        assert seven is None or seven.octets.isascii()
    assert 200 < good < 1_800


def test_control_fields_say_what_the_fields_of_the_api_say() -> None:
    said = read_control(
        [
            ("x-tag", "welcome"), ("x-tags", "a, b=c"), ("x-pm-tag", "d"), ("x-metadata-order", "17"),
            ("x-pm-metadata-who", "ann"), ("x-pm-message-stream", "outbound"), ("x-idempotency-key", "k-1"),
            ("x-scheduled-at", "2030-02-01T09:00:00+02:00"), ("x-deliver-before", "2030-02-02T00:00:00Z"),
            ("x-unsubscribe", "True"),
        ],
        NOW,
    )  # fmt: skip
    assert said.tags == (("welcome", ""), ("a", ""), ("b", "c"), ("d", ""))
    assert said.metadata == (("order", "17"), ("who", "ann"))
    assert (said.stream, said.idempotency_key, said.unsubscribe) == ("transactional", "k-1", True)
    assert said.scheduled_at == datetime(2030, 2, 1, 7, 0, tzinfo=UTC)
    assert said.deliver_before == datetime(2030, 2, 2, tzinfo=UTC)
    assert read_control([("x-scheduled-at", "2029-01-01T00:00:00Z")], NOW).scheduled_at is None


def test_orders_of_mailguns_and_sendgrids_clients_are_ours_too() -> None:
    mailgun = read_control(
        [("x-mailgun-tag", "two words"), ("x-mailgun-variables", '{"Order": 17, "a": {"b": "ü"}}'),
         ("x-mailgun-deliver-by", "Fri, 01 Feb 2030 09:00:00 +0200"), ("x-mailgun-track-clicks", "yes"),
         ("x-pm-trackopens", "False"), ("x-mailgun-drop-message", "no"), ("x-metadata-a", "ours")],
        NOW,
    )  # fmt: skip
    assert (mailgun.tags, mailgun.untracked) == ((("two words", ""),), Tracking.OPENS)
    assert dict(mailgun.metadata) == {"Order": "17", "a": "ours"}
    assert mailgun.scheduled_at == datetime(2030, 2, 1, 7, 0, tzinfo=UTC)
    asked = {
        "category": ["a", "b c"],
        "unique_args": {"order": "17"},
        "asm_group_id": 17,
        "send_at": 1896159600,
        "to": [],
    }
    sendgrid = read_control([("x-smtpapi", json.dumps(asked))], NOW)
    assert sendgrid.tags == (("a", ""), ("b c", ""))
    assert (sendgrid.metadata, sendgrid.stream, sendgrid.unsubscribe) == ((("order", "17"),), "group-17", True)
    assert sendgrid.scheduled_at == datetime.fromtimestamp(1896159600, UTC)
    assert is_control(b"x-smtpapi") and is_control(b"x-mailgun-sending-ip") and not is_control(b"x-mailgun-sid")


@pytest.mark.parametrize(
    ("name", "value"),
    [("x-mailgun-drop-message", "yes"), ("x-mailgun-require-tls", "True"), ("x-mailgun-recipient-variables", "{}"),
     ("x-mailgun-variables", "[]"), ("x-mailgun-variables", '{"a": "\\ud800"}'), ("x-mailgun-variables", "[" * 9_999),
     ("x-mailgun-deliver-by", "soon"), ("x-mailgun-deliver-by", "Fri, 01 Feb 2031 09:00:00 +0200"),
     ("x-smtpapi", '{"to": ["a@b.example"]}'), ("x-smtpapi", '{"send_at": 1e300}'), ("x-smtpapi", '{"category": [1]}'),
     ("x-smtpapi", '{"filters": {"bypass_list_management": {"settings": {"enable": 1}}}}')],
)  # fmt: skip
def test_an_order_that_cannot_be_kept_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(BadInput) as refused:
        read_control([(name, value)], NOW)
    assert refused.value.faults[0].field.partition(".")[0] == name and name in refused.value.faults[0].message


@pytest.mark.parametrize(
    ("name", "value"),
    [("x-tag", "no spaces"), ("x-stream", "a b"), ("x-idempotency-key", ""), ("x-scheduled-at", "tomorrow"),
     ("x-scheduled-at", "9999-12-31T23:59:59-12:00"), ("x-deliver-before", "0001-01-01T00:00:00+12:00"),
     ("x-scheduled-at", "2030-01-31T10:00:00"), ("x-scheduled-at", "2031-01-31T10:00:00Z"),
     ("x-deliver-before", "2030-01-30T00:00:00Z"), ("x-unsubscribe", "maybe"), ("x-metadata-a", "x" * 1_025),
     ("x-metadata-a*b", "x")],
)  # fmt: skip
def test_a_control_field_that_cannot_be_understood_is_named(name: str, value: str) -> None:
    with pytest.raises(BadInput) as refused:
        read_control([(name, value)], NOW)
    assert refused.value.faults[0].field == name
