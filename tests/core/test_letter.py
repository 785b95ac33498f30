"""A letter taken apart: addresses, texts and files as programs write them, and never an exception."""

from __future__ import annotations

import random

import pytest

from deliveries.bounces.letter import MAX_ADDRESSES, addresses, read_letter
from deliveries.bounces.mail import read_headers


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("a@b.test", ("a@b.test",)),
        ('"Last, First" <a@b.test>, c@d.test', ('"Last, First" <a@b.test>', "c@d.test")),
        ("Bob (a, b) <b@x.test>,c@y.test", ("Bob (a, b) <b@x.test>", "c@y.test")),
        ("Team: a@x.test, b@x.test;", ("a@x.test", "b@x.test")),
        ("undisclosed-recipients:;", ()),
        ("=?utf-8?q?=C3=84nne=2C_U=2E?= <a@b.test>", ("Änne, U. <a@b.test>",)),
        ('"a\\"b, c" <x@y.test>', ('"a\\"b, c" <x@y.test>',)),
        (", ,a@b.test,,", ("a@b.test",)),
        ('"never closed, a@b.test', ('"never closed, a@b.test',)),
    ],
)
def test_addresses_are_parted_where_a_person_would_part_them(field: str, found: tuple[str, ...]) -> None:
    assert addresses(read_headers(f"To: {field}\n".encode()), "to") == found


def test_a_field_of_ten_thousand_addresses_is_cut() -> None:
    field = ", ".join(f"a{n}@b.test" for n in range(10_000))
    assert len(addresses(read_headers(f"To: {field}\n".encode()), "to")) == MAX_ADDRESSES


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ('Content-Disposition: attachment; filename="a b.pdf"', "a b.pdf"),
        ("Content-Disposition: attachment; filename*=utf-8''%C3%A4.pdf", "ä.pdf"),
        ("Content-Disposition: attachment; filename*0*=utf-8''%C3%A4; filename*1=b.pdf", "äb.pdf"),
        ('Content-Disposition: attachment; filename="=?utf-8?b?w6QucGRm?="', "ä.pdf"),
        ("Content-Type: application/pdf; name=x.pdf", "x.pdf"),
        ('Content-Disposition: attachment; filename="../../etc/passwd"', "passwd"),
        ('Content-Disposition: attachment; filename="C:\\\\temp\\\\x.exe"', "x.exe"),
        ('Content-Disposition: attachment; filename="say \\"hi\\".txt"', 'say "hi".txt'),
    ],
)
def test_names_of_files_are_read_as_programs_write_them(fields: str, name: str) -> None:
    mail = f"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n--b\n{fields}\n\nx\n--b--\n"
    (file,) = read_letter(mail.encode()).files
    assert file.filename == name


def test_a_plain_mail_is_text_and_has_no_file() -> None:
    letter = read_letter(b"From: a@b.test\r\nSubject: =?utf-8?q?gr=C3=BC?=\r\n\r\nHello\r\n")
    assert (letter.text, letter.html, letter.files, letter.subject) == ("Hello\n", None, (), "grü")


def test_an_attached_text_and_an_attached_mail_are_files() -> None:
    mail = (
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nHi\n"
        "--b\nContent-Type: text/plain\nContent-Disposition: attachment; filename=log.txt\n\nline\n"
        "--b\nContent-Type: message/rfc822\n\nSubject: inner\n\nx\n--b--\n"
    )
    letter = read_letter(mail.encode())
    assert letter.text == "Hi"
    assert [(f.filename, f.content_type) for f in letter.files] == [("log.txt", "text/plain"), ("", "message/rfc822")]


def test_mutated_mails_are_read_without_an_exception() -> None:
    seed = (
        b'From: "A" <a@b.test>\nTo: x@y.test, "Q, R" <q@r.test>\nSubject: =?utf-8?b?w6Q=?=\n'
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html; charset=utf-7\n\n<b>+AOQ-</b>\n"
        b"--b\nContent-Type: image/png; name*0*=utf-8''%41; name*1=b\n"
        b"Content-Transfer-Encoding: base64\n\niVBORw==\n--b--\n"
    )
    rng = random.Random(11)
    for _ in range(2_000):
        octets = bytearray(seed)
        for _ in range(rng.randrange(1, 12)):
            at = rng.randrange(len(octets))
            what = rng.randrange(3)
            if what == 0:
                octets[at] = rng.randrange(256)
            elif what == 1:
                del octets[at : at + rng.randrange(1, 20)]
            else:
                octets[at:at] = bytes(octets[: rng.randrange(40)])
            octets = octets or bytearray(b"x")
        letter = read_letter(bytes(octets))
        assert "\0" not in (letter.text or "") + (letter.html or "") + letter.subject
