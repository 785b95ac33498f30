"""Replies read from octets: the same whatever the packets, nothing raised, memory bounded. And TLS proved by DANE."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from deliveries.smtp import tls
from deliveries.smtp.connection import Garbled, Wire
from deliveries.smtp.hop import Envelope, Hop, Tls
from deliveries.smtp.limits import MAX_REPLY_LINE_OCTETS, MAX_REPLY_OCTETS, MAX_TRANSCRIPT_OCTETS
from deliveries.smtp.outcome import Attempted, Broken, Replied, TlsFacts
from deliveries.smtp.pool import Pool
from deliveries.smtp.reply import Reply
from deliveries.smtp.session import open_gate
from deliveries.smtp.transcript import Transcript
from tests.fakes.smtp_player import Player

HOST = "mx.example.test"


def read(octets: bytes, cuts: list[int], asked: int) -> tuple[list[Reply], str]:
    loop = asyncio.new_event_loop()
    try:
        wire = Wire(loop)
        wire._asked = asked
        edges = [0, *sorted(min(c, len(octets)) for c in cuts), len(octets)]
        for start, end in itertools.pairwise(edges):
            wire.data_received(octets[start:end])
        assert len(wire._inbox) <= MAX_REPLY_LINE_OCTETS + len(octets)
        return list(wire._replies), type(wire.failure).__name__
    finally:
        loop.close()


SERVERS = st.lists(
    st.sampled_from(
        [b"250 ok\r\n", b"250-a\r\n", b"250", b"-", b"\r\n", b"\n", b"550 5.1.1 no\r\n", b"2200 x\r\n", b"\x00",
         b"\xff\xfe\r\n", b"421 bye\r\n", b"354 go\r\n", b"\r", b"2_5 x\r\n", b"999 x\r\n"]
    )
    | st.binary(max_size=8),
    max_size=12,
).map(b"".join)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(SERVERS, st.lists(st.integers(0, 100), max_size=5), st.integers(0, 4))
def test_replies_do_not_depend_on_how_the_packets_were_cut(octets: bytes, cuts: list[int], asked: int) -> None:
    assert read(octets, cuts, asked) == read(octets, [], asked)


@given(st.lists(st.tuples(st.integers(200, 599), st.lists(st.text(st.characters(codec="ascii")), max_size=3))))
def test_a_well_formed_reply_is_read_as_it_was_said(replies: list[tuple[int, list[str]]]) -> None:
    octets = b""
    for code, lines in replies:
        lines = [line.replace("\r", "").replace("\n", "") for line in lines]
        octets += b"".join(f"{code}-{line}\r\n".encode() for line in lines) + f"{code} end\r\n".encode()
    found, failure = read(octets, [], len(replies))
    assert [r.code for r in found] == [code for code, _ in replies]
    assert failure == "NoneType"


@pytest.mark.parametrize("octets", [b"250-x\r\n" * 100_000, b"x" * 1_000_000, b"250-" + b"y" * 1_000_000])
def test_a_reply_without_end_is_given_up_in_bounded_memory(octets: bytes) -> None:
    loop = asyncio.new_event_loop()
    wire = Wire(loop)
    for start in range(0, len(octets), 4096):
        wire.data_received(octets[start : start + 4096])
        assert len(wire._inbox) <= MAX_REPLY_OCTETS
    assert isinstance(wire.failure, Garbled)
    loop.close()


@given(st.lists(st.tuples(st.booleans(), st.text(max_size=3000)), max_size=30))
def test_a_transcript_is_bounded_and_fit_for_postgres(entries: list[tuple[bool, str]]) -> None:
    log = Transcript()
    for ours, text in entries:
        if ours:
            log.said(text)
        else:
            log.note(text)
    shown = log.render()
    assert len(shown.encode()) <= MAX_TRANSCRIPT_OCTETS
    assert "\0" not in shown


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("mx.example.test", "mx.example.test", True),
        ("MX.Example.test", "mx.example.TEST.", True),
        ("*.example.test", "mx.example.test", True),
        ("*.example.test", "example.test", False),
        ("*.example.test", "a.mx.example.test", False),
        ("mx.*.test", "mx.example.test", False),
        ("m*.example.test", "mx.example.test", False),
        ("*", "test", False),
    ],
)
def test_a_certificate_name_stands_for_its_left_most_label_only(pattern: str, name: str, fits: bool) -> None:
    assert tls.name_matches(pattern, name) is fits


def tlsa(pem: bytes, usage: int, selector: int, matching: int) -> tuple[int, int, int, bytes]:
    certificate = x509.load_pem_x509_certificate(pem)
    octets = certificate.public_bytes(Encoding.DER)
    if selector:
        octets = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = {0: lambda o: o, 1: lambda o: hashlib.sha256(o).digest(), 2: lambda o: hashlib.sha512(o).digest()}
    return usage, selector, matching, digest[matching](octets)


async def deliver(context: ssl.SSLContext, *records: tuple[int, int, int, bytes], host: str = HOST) -> Attempted:
    script = [
        ("S:", "220 mx"), ("C:", "EHLO *"), ("S:", "250-mx"), ("S:", "250 STARTTLS"), ("C:", "STARTTLS"),
        ("S:", "220 go"), ("TLS", ""), ("C:", "EHLO *"), ("S:", "250 mx"), ("C:", "MAIL *"), ("S:", "250 ok"),
        ("C:", "RCPT *"), ("S:", "250 ok"), ("C:", "DATA"), ("S:", "354 go"), ("C.", ""), ("S:", "250 ok"),
    ]  # fmt: skip
    async with Player([script], context) as player:
        pool = Pool(helo_name="sender.example.test")
        hop = Hop(host, "127.0.0.1", player.port, tls=Tls.DANE, tlsa=records)
        [attempt] = await pool.deliver([hop], Envelope("", "a@example.test"), b"x: y\r\n\r\n", open_gate)
        await pool.close()
        return attempt


def test_dane_proves_the_server_by_its_own_certificate_or_by_an_authority_in_its_chain(tmp_path: Path) -> None:
    ca, stranger = trustme.CA(), trustme.CA()
    leaf = ca.issue_cert(HOST)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes() + ca.cert_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    own, authority = leaf.cert_chain_pems[0].bytes(), ca.cert_pem.bytes()

    def proved(*records: tuple[int, int, int, bytes], host: str = HOST) -> bool:
        attempt = asyncio.run(deliver(context, *records, host=host))
        if isinstance(attempt.outcome, Broken):
            assert attempt.tls is None or not attempt.tls.verified
            return False
        assert isinstance(attempt.outcome, Replied)
        assert isinstance(attempt.tls, TlsFacts)
        return attempt.tls.verified

    assert proved(tlsa(own, 3, 1, 1))
    assert proved(tlsa(own, 3, 0, 2))
    assert proved(tlsa(own, 3, 0, 0))
    assert proved(tlsa(authority, 2, 0, 1))
    assert proved(tlsa(stranger.cert_pem.bytes(), 3, 1, 1), tlsa(authority, 2, 1, 2))
    assert proved(tlsa(own, 3, 1, 1), host="another.example.test")  # RFC 7672 §3.1.1: the name does not count
    assert not proved(tlsa(authority, 2, 0, 1), host="another.example.test")  # but here it does
    assert not proved(tlsa(stranger.cert_pem.bytes(), 2, 0, 1))
    assert not proved(tlsa(authority, 3, 1, 1))
    assert not proved(tlsa(own, 1, 1, 1))
    assert not proved()
