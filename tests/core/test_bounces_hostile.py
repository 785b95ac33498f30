"""No mail, however broken or hostile, raises or costs unbounded work (docs/rfc.md, rule 31).

MAILAPI_FUZZ=10000 runs the full count; the mails of ../shared/corpora are mutated too where they are present.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from deliveries.bounces import mail as parts
from deliveries.bounces.finding import MAX_RECIPIENTS
from deliveries.bounces.mail import MAX_PARTS, read_mail
from deliveries.bounces.report import Report, read_report

ROUNDS = int(os.environ.get("MAILAPI_FUZZ", "300"))
HERE = Path(__file__).parent.parent
SHARED = HERE.parent.parent / "shared" / "corpora"

TOKENS = (
    b"<a@b.example>:\n", b"=?utf-8?B?", b"=?x?q?=", b"charset=punycode", b"charset=\"\x00\"",
    b"--", b"--\n", b"\x00", b"a@",
    b"<" * 50, b"5.1.1 ", b"\"" * 30, b"utf-8;\\x{D800}@x", b"utf-8;\\x{FFFFFF}@x", b"Final-Recipient: rfc822;",
    b"Content-Type: multipart/mixed; boundary=x\n\n--x\n", b"Content-Type: message/rfc822\n\n", b"Status: 5", b"+40+3D",
    b"Content-Transfer-Encoding: base64\n\n", b"{\"Message\":" , b"[[[[", b"\xe3\x81", b"\x1b$B",
)  # fmt: skip


def seeds() -> list[bytes]:
    paths = sorted((HERE / "corpus" / "bounces").iterdir())
    if SHARED.is_dir():
        paths += sorted(p for folder in ("bounces", "arf") for p in (SHARED / folder).rglob("*") if p.is_file())
    return [p.read_bytes() for p in paths]


def mutated(seed: bytes, all_seeds: list[bytes], rng: random.Random) -> bytes:
    octets = bytearray(seed)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(octets) + 1)
        end = min(len(octets), at + rng.randint(1, 400))
        match rng.randrange(8):
            case 0:
                octets[at:at] = bytes([rng.randrange(256)])
            case 1:
                del octets[at:end]
            case 2:
                octets[at:at] = octets[at:end] * rng.choice((1, 2, 50, 1000))
            case 3:
                octets[at:at] = rng.randbytes(30)
            case 4:
                del octets[at:]
            case 5:
                octets[at:end] = rng.choice(all_seeds)[: rng.randint(1, 5000)]
            case 6:
                octets = octets.replace(b"\n", rng.choice((b"\r", b"\r\n", b"\n\n", b" ")))
            case 7:
                octets[at:at] = rng.choice(TOKENS) * rng.choice((1, 10, 2000))
    return bytes(octets[:3_000_000])


def test_mutated_mails_never_raise_and_stay_within_the_caps() -> None:
    rng = random.Random(20261123)
    pool = seeds()
    for _ in range(ROUNDS):
        report = read_report(mutated(rng.choice(pool), pool, rng))
        assert isinstance(report, Report)
        assert len(report.recipients) <= MAX_RECIPIENTS
        for recipient in report.recipients:
            text = recipient.address + recipient.diagnostic
            assert "\x00" not in text and text == text.encode("utf-8", "replace").decode()
            assert len(recipient.diagnostic) <= 4_000


def nested(depth: int) -> bytes:
    heads = b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (level, level) for level in range(depth)
    )
    return b"From: mailer-daemon@x.example\nSubject: undelivered\n" + heads


@pytest.mark.parametrize("depth", [9, 200, 5_000])
def test_nesting_is_walked_not_recursed(depth: int) -> None:
    assert len(read_mail(nested(depth)).parts) <= MAX_PARTS
    read_report(nested(depth))


def test_parts_headers_and_octets_beyond_the_caps_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    many = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"--b\n\nx\n" * 5_000 + b"--b--\n"
    assert len(read_mail(many).parts) <= MAX_PARTS
    assert len(read_mail(b"X-A: 1\n" * 5_000 + b"\nx").headers) <= parts.MAX_HEADERS
    monkeypatch.setattr(parts, "MAX_OCTETS", 1_000)
    assert "cut at the size cap" in read_report(b"From: a@b.example\n\n" + b"x" * 5_000).notes


@pytest.mark.parametrize(
    "body",
    [
        b"<" * 200_000,
        b"a@" * 100_000,
        b"a." * 100_000 + b"@x",
        b"\n".join(b"<user%d@x.example>: user unknown" % n for n in range(20_000)),
        b'"' * 100_000 + b"@x.example",
        b"<style" * 30_000,
        b"<style></style>" * 10_000,
        b"5.1.1 " * 40_000,
        b"\n" * 500_000,
    ],
    ids=["angles", "ats", "dots", "addresses", "quotes", "styles", "style pairs", "codes", "lines"],
)
@pytest.mark.parametrize("kind", [b"text/plain", b"text/html", b"message/delivery-status"])
def test_bodies_made_to_be_slow_end(body: bytes, kind: bytes) -> None:
    head = b"From: mailer-daemon@x.example\nSubject: Undelivered mail\nContent-Type: " + kind + b"\n\n"
    assert len(read_report(head + body).recipients) <= MAX_RECIPIENTS


@pytest.mark.parametrize(
    "charset", ["punycode", "idna", "unicode_escape", "undefined", "hex", "rot13", "utf-7", "\x00", "x" * 500]
)
def test_a_charset_is_never_trusted(charset: str) -> None:
    head = f"From: mailer-daemon@x.example\nSubject: failure notice\nContent-Type: text/plain; charset={charset}\n\n"
    read_report(head.encode() + b"<a@b.example>: \xff\xfe user unknown" + b"-" * 50_000)


def test_an_encoded_word_that_is_broken_stays_as_it_is() -> None:
    for word in (b"=?utf-8?B?====?=", b"=?utf-8?B?A?=", b"=?nope?Q?=ZZ?=", b"=?utf-8?Q?" + b"=C3" * 500):
        read_report(b"From: " + word + b" <mailer-daemon@x.example>\nSubject: " + word + b"\n\nundeliverable")
