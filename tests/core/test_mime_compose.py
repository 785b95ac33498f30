"""Composed mail, judged by the standard library's parser: what went in comes out, and nothing else does."""

from __future__ import annotations

import email
import email.policy
import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from email.header import decode_header, make_header
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deliveries.errors import ComposeError
from deliveries.mime.address import named_address, parse_address
from deliveries.mime.compose import Attachment, Composed, Mail, compose, refused_header, refused_subject

BASE = Mail(
    id=uuid.UUID("019aa000-0000-7000-8000-0123456789ab"),
    message_id="019aa000@mail.example.com",
    date=datetime(2026, 11, 3, 9, 5, 7, tzinfo=UTC),
    from_header="Acme <hello@example.com>",
    to=("jane@example.org",),
    cc=(),
    reply_to=(),
    subject="Hello",
    html="<p>Hello</p>",
    text="Hello",
    headers=(),
    attachments=(),
)

#: anything a JSON body can carry, with the awkward ones often
any_text = st.text(
    st.one_of(
        st.characters(),
        st.sampled_from(' \t"\\<>@,;:()=?_\u2028\u2029\x85\xa0éßЖع🎉👩\u200d\ufe0f\u202e\ud83d\ude00\udc00'),
    ),
    max_size=400,
)
#: what is printable and comes back unchanged
clean_text = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"), exclude_characters="\x85\u2028\u2029"), max_size=300
)


def read(composed: Composed) -> EmailMessage:
    message = email.message_from_bytes(composed.octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def letters(text: str) -> str:
    """Without white space: the parser of Python 3.11 puts a space between two encoded words of a display name."""
    return "".join(text.split())


def check_octets(composed: Composed) -> None:
    """What must hold on the wire, whatever was asked (RFC 5321 §2.3.8, §4.5.3.1.6)."""
    octets = composed.octets
    assert len(octets) == composed.size_octets
    assert octets.endswith(b"\r\n")
    assert b"\0" not in octets
    assert re.search(rb"\r(?!\n)|(?<!\r)\n", octets) is None
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    assert octets.isascii() or composed.smtputf8
    for field in composed.header_fields:
        assert field.endswith(b"\r\n")
        lines = field[:-2].split(b"\r\n")
        assert re.match(rb"[!-9;-~]+:", lines[0])
        assert all(line[:1] in b" \t" and line.strip() for line in lines[1:])
        for line in lines:
            assert b"=?utf-8?" not in line or len(line) <= 76
            assert all(len(word) <= 75 for word in re.findall(rb"=\?utf-8\?[bq]\?[^?]*\?=", line))


def names(composed: Composed) -> list[str]:
    return [field.partition(b":")[0].decode().lower() for field in composed.header_fields]


# structure


@pytest.mark.parametrize(
    ("html", "text", "attached", "expected"),
    [
        (None, "t", "", "text/plain"),
        ("<p>", None, "", "text/html"),
        (None, None, "", "text/plain"),
        ("<p>", "t", "", "multipart/alternative(text/plain text/html)"),
        ("<p>", "t", "i", "multipart/alternative(text/plain multipart/related(text/html image/png))"),
        ("<p>", None, "i", "multipart/related(text/html image/png)"),
        (None, "t", "i", "multipart/mixed(text/plain image/png)"),
        ("<p>", "t", "a", "multipart/mixed(multipart/alternative(text/plain text/html) application/pdf)"),
        (None, None, "a", "multipart/mixed(text/plain application/pdf)"),
        (
            "<p>",
            "t",
            "iaa",
            "multipart/mixed(multipart/alternative(text/plain multipart/related(text/html image/png)) "
            "application/pdf application/pdf)",
        ),
    ],
)
def test_the_structure_is_the_smallest_that_holds_the_content(
    html: str | None, text: str | None, attached: str, expected: str
) -> None:
    files = {
        "i": Attachment("i.png", "image/png", b"\x89PNG", "logo"),
        "a": Attachment("a.pdf", "application/pdf", b""),
    }
    composed = compose(replace(BASE, html=html, text=text, attachments=tuple(files[kind] for kind in attached)))
    check_octets(composed)

    def shape(part: EmailMessage) -> str:
        inner = f"({' '.join(shape(p) for p in part.iter_parts())})" if part.is_multipart() else ""  # type: ignore[arg-type]
        return part.get_content_type() + inner

    assert shape(read(composed)) == expected


def test_each_identity_field_stands_once_and_bcc_never() -> None:
    seen = names(compose(replace(BASE, cc=("c@example.org",), reply_to=("r@example.org",))))
    for name in ("from", "to", "cc", "reply-to", "subject", "date", "message-id", "mime-version", "content-type"):
        assert seen.count(name) == 1
    assert "bcc" not in seen


def test_mail_with_only_bcc_recipients_says_undisclosed_recipients() -> None:
    composed = compose(replace(BASE, to=()))
    assert b"To: undisclosed-recipients:;\r\n" in composed.header_fields
    assert b"undisclosed" not in compose(replace(BASE, to=(), cc=("c@example.org",))).octets


def test_the_same_mail_has_the_same_octets() -> None:
    mail = replace(BASE, attachments=(Attachment("ü.bin", "x/y", b"\0" * 99, "c"), Attachment("b", "x/y", b"2")))
    assert compose(mail) == compose(replace(mail))
    assert compose(mail).body != compose(replace(mail, id=uuid.UUID(int=1))).body


def test_the_date_is_written_in_its_own_zone_and_without_a_locale() -> None:
    assert b"Date: Tue, 03 Nov 2026 09:05:07 +0000\r\n" in compose(BASE).header_fields
    west = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(-timedelta(hours=3, minutes=30)))
    assert b"Date: Fri, 02 Jan 2026 03:04:05 -0330\r\n" in compose(replace(BASE, date=west)).header_fields
    with pytest.raises(ComposeError):
        compose(replace(BASE, date=datetime(2026, 1, 2)))


# header text


@given(any_text)
@settings(max_examples=300, deadline=None)
def test_any_subject_can_be_rendered_and_stays_one_field(subject: str) -> None:
    composed = compose(replace(BASE, subject=subject))
    check_octets(composed)
    assert names(composed) == names(compose(BASE))


@given(clean_text)
@settings(max_examples=300, deadline=None)
def test_a_clean_subject_comes_back_unchanged(subject: str) -> None:
    assert read(compose(replace(BASE, subject=subject)))["Subject"] == subject.strip(" \t")


@pytest.mark.parametrize(
    "subject",
    [
        "",
        " ",
        "x" * 5_000,
        "x" * 70 + " " + "y" * 950,
        "word " * 400,
        "a" + " " * 3_000 + "b",
        "é" * 3_000,
        "🎉" * 500,
        "👩‍👩‍👧‍👦" * 60,
        "שלום עולם " * 40,
        "=?utf-8?q?not_an_encoded_word_of_ours?=",
        "a =?b",
        "?= _ =",
        "tab\there",
        "x" * 100,
    ],
)
def test_long_and_strange_subjects_come_back(subject: str) -> None:
    composed = compose(replace(BASE, subject=subject))
    check_octets(composed)
    assert read(composed)["Subject"] == subject.strip(" ")


def test_surrogates_are_paired_or_replaced() -> None:
    assert read(compose(replace(BASE, subject="a \ud83d\ude00 b \ud83d")))["Subject"] == "a 😀 b \ufffd"


@given(clean_text, st.sampled_from(["jane@example.org", '"a b"@example.org', "x@exämple.org"]))
@settings(max_examples=150, deadline=None)
def test_display_names_and_addresses_come_back(name: str, addr_spec: str) -> None:
    try:
        mailbox = named_address(name, addr_spec)
    except ValueError:
        return
    others = ("a@example.com", "B <b@example.com>", mailbox.header())
    composed = compose(replace(BASE, from_header=mailbox.header(), to=others, cc=others[::-1], reply_to=others))
    check_octets(composed)
    message = read(composed)
    for field, wanted in (("From", (mailbox.header(),)), ("To", others), ("Cc", others[::-1]), ("Reply-To", others)):
        mailboxes = [parse_address(text) for text in wanted]
        assert [found.addr_spec for found in message[field].addresses] == [one.addr_spec for one in mailboxes]
        assert [letters(found.display_name) for found in message[field].addresses] == [
            letters(one.display_name) for one in mailboxes
        ]
    if composed.header_fields[0].startswith(b"From: =?"):
        raw = composed.header_fields[0][6:].decode().replace("\r\n", "").rpartition(" <")[0]
        assert str(make_header(decode_header(raw))) == mailbox.display_name


def test_fifty_recipients_fold_between_addresses() -> None:
    to = tuple(f'"Recipient, Number {n}" <recipient{n}@example.org>' for n in range(50))
    composed = compose(replace(BASE, to=to))
    check_octets(composed)
    field = next(f for f in composed.header_fields if f.startswith(b"To:"))
    assert max(map(len, field.split(b"\r\n"))) <= 78
    assert len(read(composed)["To"].addresses) == 50


def test_a_local_part_outside_ascii_asks_for_smtputf8_and_nothing_else_does() -> None:
    composed = compose(replace(BASE, to=("Jörg <jörg@exämple.org>",)))
    check_octets(composed)
    assert composed.smtputf8 and "<jörg@xn--exmple-cua.org>".encode() in composed.octets
    assert not compose(replace(BASE, to=("Jörg <jorg@exämple.org>",), subject="ü", text="ü", html="ü")).smtputf8


def test_an_address_that_cannot_be_read_is_our_breakage() -> None:
    with pytest.raises(ComposeError, match="more than one"):
        compose(replace(BASE, to=("a@example.org, b@example.org",)))


# callers' fields


@pytest.mark.parametrize(
    "name",
    ["From", "to", "CC", "Bcc", "Reply-To", "Subject", "Date", "Sender", "Resent-To", "MIME-Version", "Content-Type",
     "content-anything", "DKIM-Signature", "Return-Path", "Received", "ARC-Seal", "X-Mailapi-Delivery", "", "X Foo",
     "X:Foo", "X-Ü", "X-Foo\r\nBcc", "X\0", "x" * 77],
)  # fmt: skip
def test_fields_that_are_ours_or_no_field_at_all_are_refused(name: str) -> None:
    assert (refused_header(name, "x") or "").endswith(".")
    with pytest.raises(ComposeError):
        compose(replace(BASE, headers=((name, "x"),)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "a\r\nBcc: b@example.com"), ("X-A", "a\n b"), ("X-A", "a\rb"), ("X-A", "\0"), ("X-A", "\x0b"),
        ("X-A", "x" * 16_001), ("Message-ID", "no brackets"), ("Message-ID", "<a b@c>"), ("Message-ID", "<a@b> <c@d>"),
        ("References", "<ü@example.com>"), ("List-Unsubscribe", f"<https://example.com/{'x' * 900}>"),
    ],
)  # fmt: skip
def test_values_that_could_break_a_line_or_a_structure_are_refused(name: str, value: str) -> None:
    assert (refused_header(name, value) or "").endswith(".")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Entity-Ref-ID", "123"), ("In-Reply-To", "<a@b.example>"), ("X-Tags", '{"a": "ü"}'), ("X-Empty", ""),
        ("List-Unsubscribe", "<https://example.com/u/" + "x" * 300 + ">, <mailto:u@example.com>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"), ("Auto-Submitted", "auto-generated"),
        ("Feedback-ID", "a:b:c:d"), ("X-Tab", "a\tb"), ("X-Word", "=?x"), ("x" * 76, "é" * 50), ("X-Long", "y" * 2_000),
    ],
)  # fmt: skip
def test_fields_that_callers_need_are_sent_as_given(name: str, value: str) -> None:
    assert refused_header(name, value) is None
    composed = compose(replace(BASE, headers=((name, value),)))
    check_octets(composed)
    assert read(composed)[name].lstrip(" ") == value  # after a field name of 76 characters the text begins a line


def test_references_fold_between_identifiers() -> None:
    value = " ".join(f"<{n}.0123456789abcdef@mail.example.com>" for n in range(60))
    composed = compose(replace(BASE, headers=(("References", value),)))
    check_octets(composed)
    field = next(f for f in composed.header_fields if f.startswith(b"References:"))
    assert max(map(len, field.split(b"\r\n"))) <= 78
    assert field[:-2].replace(b"\r\n", b"").decode() == f"References: {value}"


def test_a_message_id_of_the_caller_replaces_ours_and_the_last_of_a_unique_field_counts() -> None:
    composed = compose(
        replace(BASE, headers=(("message-id", "<own@example.com>"), ("References", "<1@x>"), ("references", "<2@x>")))
    )
    assert names(composed).count("message-id") == 1
    assert b"Message-ID: <own@example.com>\r\n" in composed.header_fields
    assert b"references: <2@x>\r\n" in composed.header_fields and b"<1@x>" not in composed.octets


INJECTIONS = [
    f"{before}{end}{after}"
    for end in (
        "\r\n",
        "\n",
        "\r",
        "\r\n\r\n",
        "\x00",
        "\x0b",
        "\x0c",
        "\x1c",
        "\x85",
        "\u2028",
        "\u2029",
        "\r\n ",
        "\n\t",
        "%0d%0a",
        "=0D=0A",
        "\ud800\r\n",
    )
    for before in ("", "a", "é", '"', "<", "=?utf-8?q?", "x" * 80)
    for after in (
        "Bcc: evil@example.net",
        " Bcc: evil@example.net",
        "\r\n.\r\n",
        "<script>",
        "?=",
        "X-Evil: 1\r\n\r\nbody",
    )
]


@pytest.mark.parametrize("place", ["subject", "name", "header", "filename", "content_type", "content_id", "message_id"])
def test_no_text_of_a_caller_makes_another_header_line(place: str) -> None:
    plain = Attachment("a.txt", "text/plain", b"x", "cid")
    for number, text in enumerate(INJECTIONS):
        mail = replace(BASE, attachments=(plain,), headers=(("X-A", "b"),))
        clean = compose(mail)
        try:
            match place:
                case "subject":
                    mail = replace(mail, subject=text)
                case "name":
                    mail = replace(mail, from_header=f'"{text}" <hello@example.com>')
                case "header":
                    mail = replace(mail, headers=(("X-A", text),))
                case "filename":
                    mail = replace(mail, attachments=(replace(plain, filename=text),))
                case "content_type":
                    mail = replace(mail, attachments=(replace(plain, content_type=f"text/plain; x={text}"),))
                case "content_id":
                    mail = replace(mail, attachments=(replace(plain, content_id=text),))
                case "message_id":
                    mail = replace(mail, message_id=f"{text}@example.com")
            composed = compose(mail)
        except ComposeError:
            continue  # refused, and accept refuses the same
        check_octets(composed)
        assert names(composed) == names(clean)
        if number % 7 == 0:  # the judge is slow
            assert [part.keys() for part in read(composed).walk()] == [part.keys() for part in read(clean).walk()]
        assert len(composed.body.split(b"\r\n\r\n")) == len(clean.body.split(b"\r\n\r\n"))
        assert b"\r\nBcc" not in composed.octets and b"\r\nX-Evil" not in composed.octets


def test_control_characters_in_a_subject_are_refused_at_the_door() -> None:
    assert refused_subject("two\nlines") and refused_subject("nul\0") and refused_subject("x" * 16_001)
    assert refused_subject("Grüße\tund 🎉") is None


# bodies


@given(text=any_text, html=any_text)
@settings(max_examples=300, deadline=None)
def test_any_body_can_be_rendered_and_comes_back(text: str, html: str) -> None:
    def lines(given: str) -> str:
        paired = given.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return paired.replace("\r\n", "\n").replace("\r", "\n")

    composed = compose(replace(BASE, text=text, html=html))
    check_octets(composed)
    for part, given_text in zip(read(composed).iter_parts(), (text, html), strict=True):
        payload = part.get_payload(decode=True)
        assert isinstance(payload, bytes)
        assert payload.decode().replace("\r\n", "\n") == lines(given_text)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("short lines\nof ASCII\n", "7bit"),
        ("", "7bit"),
        ("x" * 78, "7bit"),
        ("x" * 79, "quoted-printable"),
        ("trailing space \nhere", "quoted-printable"),
        ("\nFrom here on", "quoted-printable"),
        ("From here on", "quoted-printable"),
        ("on From here", "7bit"),
        ("From here " + "x" * 200, "quoted-printable"),
        ("From here " + "x" * 65 + "\nFrom here " + "x" * 66, "quoted-printable"),
        ("x" * 75 + "From here on", "quoted-printable"),
        ("Grüße aus dem schönen Köln am Rhein, wie immer", "quoted-printable"),
        ("Привет, мир", "base64"),
        ("日本語のメール" * 50, "base64"),
        ("nul\0", "quoted-printable"),
    ],
)
def test_the_transfer_encoding_is_the_cheapest_that_survives(text: str, encoding: str) -> None:
    composed = compose(replace(BASE, html=None, text=text))
    check_octets(composed)
    message = read(composed)
    assert message["Content-Transfer-Encoding"] == encoding
    assert max(map(len, composed.octets.split(b"\r\n"))) <= 78
    if encoding != "7bit":
        assert max(map(len, composed.body.split(b"\r\n"))) <= 76  # RFC 2045 §6.7 (5), §6.8
    assert b"\nFrom here" not in composed.octets
    payload = message.get_payload(decode=True)
    assert isinstance(payload, bytes) and payload.decode().rstrip("\r\n").replace("\r\n", "\n") == text.rstrip("\n")


def test_a_body_cannot_end_its_part_by_guessing_the_boundary() -> None:
    boundary = f"--=_{BASE.id.hex}_1"
    composed = compose(
        replace(
            BASE,
            text=f"a\n{boundary}--\n{boundary}\nContent-Type: text/html\n\nevil",
            attachments=(Attachment("m.eml", "message/rfc822", f"A: b\r\n\r\n{boundary}--\r\n".encode()),),
        )
    )
    kinds = [part.get_content_type() for part in read(composed).walk()]
    assert kinds == ["multipart/mixed", "multipart/alternative", "text/plain", "text/html", "application/octet-stream"]


# attachments


@given(
    # the judge takes quotes and brackets off the ends of a decoded name
    filename=clean_text.filter(lambda name: name.strip('" <>\xa0') == name.strip() == name != ""),
    content=st.binary(max_size=2_000),
)
@settings(max_examples=200, deadline=None)
def test_attachments_come_back_with_name_and_octets(filename: str, content: bytes) -> None:
    files = (Attachment(filename, "application/pdf", content), Attachment("x", "text/csv", content, "in-line"))
    composed = compose(replace(BASE, attachments=files))
    check_octets(composed)
    found = [part for part in read(composed).walk() if part.get_filename()]
    assert sorted((part.get_filename(), part.get_payload(decode=True)) for part in found) == sorted(
        (file.filename, content) for file in files
    )


@given(any_text, any_text, any_text)
@settings(max_examples=200, deadline=None)
def test_any_file_name_type_and_content_id_can_be_rendered(filename: str, content_type: str, content_id: str) -> None:
    composed = compose(replace(BASE, attachments=(Attachment(filename, content_type, b"x", content_id),)))
    check_octets(composed)
    assert sum(part.get_payload(decode=True) == b"x" for part in read(composed).walk()) == 1


@pytest.mark.parametrize(
    ("content_type", "content", "expected"),
    [
        ("text/calendar; method=REQUEST", "ü".encode(), 'text/calendar; method="REQUEST"; charset="utf-8"'),
        ("text/csv; charset=iso-8859-1", b"\xfc", 'text/csv; charset="iso-8859-1"'),
        ("TEXT/CSV", b"\xfc", "text/csv"),
        ('application/x; a="b c"', b"", 'application/x; a="b c"'),
        ("nonsense", b"", "application/octet-stream"),
        ("", b"", "application/octet-stream"),
        ("text/plain\r\nX: y", b"", "application/octet-stream"),
        ("multipart/mixed; boundary=x", b"", "application/octet-stream"),
        ("message/rfc822", b"Subject: x\n\n\0\n", "application/octet-stream"),
        ("message/rfc822", b"Subject: x\r\n\r\nfine\r\n", "message/rfc822"),
    ],
)
def test_a_media_type_is_kept_where_it_is_one(content_type: str, content: bytes, expected: str) -> None:
    composed = compose(replace(BASE, attachments=(Attachment("a.bin", content_type, content),)))
    check_octets(composed)
    part = list(read(composed).iter_parts())[-1]
    del (params := dict(part["Content-Type"].params))["name"]
    assert "; ".join([part.get_content_type(), *(f'{k}="{v}"' for k, v in params.items())]) == expected
    if expected == "message/rfc822":
        assert content in composed.body
    else:
        assert part.get_payload(decode=True) == content


def test_a_large_file_is_one_run_of_base64() -> None:
    content = bytes(range(256)) * 8_000
    composed = compose(replace(BASE, attachments=(Attachment("big.bin", "x/y", content),)))
    check_octets(composed)
    assert list(read(composed).iter_parts())[-1].get_payload(decode=True) == content


def test_an_inline_image_is_found_by_its_content_id() -> None:
    files = (Attachment("l.png", "image/png", b"1", "<logo@acme>"), Attachment("m.png", "image/png", b"2", "lö go"))
    message = read(compose(replace(BASE, html='<img src="cid:logo@acme">', attachments=files)))
    images = [part for part in message.walk() if part.get_content_maintype() == "image"]
    assert [part["Content-ID"] for part in images] == ["<logo@acme>", "<l%C3%B6%20go>"]
    assert {part.get_content_disposition() for part in images} == {"inline"}


EIGHT_BIT = "Subject: x\nContent-Type: text/plain; charset=utf-8\n\nGrüße\n".encode()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"Subject: x\r\n\r\nplain\r\n", "plain\r\n"),
        (b"Subject: x\n\nfrom a file\n", "from a file\n"),
        (EIGHT_BIT, "Grüße\n"),
        (b"Subject: x\nContent-Type: text/plain\n\n" + b"y" * 3000 + b"\n", "y" * 3000 + "\n"),
    ],
)
def test_an_attached_mail_goes_out_as_a_mail_without_an_encoding_around_it(content: bytes, text: str) -> None:
    composed = compose(replace(BASE, text="t", attachments=(Attachment("m.eml", "message/rfc822", content),)))
    assert composed.octets.isascii() and max(map(len, composed.octets.split(b"\r\n"))) <= 998
    part = list(read(composed).walk())[-2]
    assert (part.get_content_type(), part["Content-Transfer-Encoding"]) == ("message/rfc822", "7bit")
    (inner,) = part.get_payload()
    assert inner["Subject"] == "x" and inner.get_content().replace("\r\n", "\n") == text.replace("\r\n", "\n")  # type: ignore[union-attr]


@pytest.mark.parametrize("content", [b"", b"no field\n\nx", b"A: b\n\n\0", b"A: " + b"y" * 1200 + b"\n\nx"])
def test_what_is_no_mail_or_cannot_be_made_fit_goes_as_octets(content: bytes) -> None:
    composed = compose(replace(BASE, text="t", attachments=(Attachment("m.eml", "message/rfc822", content),)))
    part = list(read(composed).walk())[-1]
    assert part.get_content_type() == "application/octet-stream" and part.get_payload(decode=True) == content
