"""Signatures, judged by dkimpy; canonical forms, judged by RFC 6376 and by mail that others signed."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
import uuid
from dataclasses import replace
from pathlib import Path

import dkim as dkimpy
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from deliveries.mime.compose import Attachment, Composed, compose
from deliveries.mime.deliverable import finish, head, prepare
from deliveries.mime.dkim import (
    KeyType,
    Signer,
    body_hash,
    dns_record,
    generate_key,
    relaxed_body,
    relaxed_field,
    signable,
)
from tests.core.test_mime_compose import BASE, any_text, clean_text

VECTORS = Path(__file__).parents[3] / "shared" / "corpora" / "vectors" / "dkim"
PRIVATE, PUBLIC = generate_key()
SIGNER = Signer("example.com", "mail1", PRIVATE)
ED_PRIVATE, ED_PUBLIC = generate_key(KeyType.ED25519)
BOTH = Signer("example.com", "mail1", PRIVATE, Signer("example.com", "ed1", ED_PRIVATE))
RECORDS = {
    b"mail1._domainkey.example.com.": dns_record(PUBLIC).encode(),
    b"ed1._domainkey.example.com.": dns_record(ED_PUBLIC, KeyType.ED25519).encode(),
}
TOKEN = "a" * 48
VECTOR = b"YU8WN4kcwQHvH04zH8+sLQJ2KkDEXL1zSk8K0hlXJbxfv294YkJo3yVIKgNg4HKPWBcXL+9pyct5kyk3wGyFBw=="


def judged(octets: bytes) -> list[bool]:
    """What dkimpy says of each signature, from the top."""
    judge = dkimpy.DKIM(octets)
    verdicts = []
    for index in range(sum(name.lower() == b"dkim-signature" for name, _ in judge.headers)):
        try:
            verdicts.append(bool(judge.verify(index, dnsfunc=lambda name, timeout=5: RECORDS.get(name))))
        except dkimpy.DKIMException:
            verdicts.append(False)
    return verdicts


def verified(octets: bytes) -> bool:
    return judged(octets) == [True]


def now() -> int:
    return int(time.time())  # dkimpy refuses a t= in the future


@given(subject=any_text, text=any_text, html=any_text, name=clean_text, content=st.binary(max_size=300))
@settings(max_examples=120, deadline=None)
def test_dkimpy_verifies_every_composed_and_signed_mail(
    subject: str, text: str, html: str, name: str, content: bytes
) -> None:
    mail = replace(
        BASE,
        subject=subject,
        text=text,
        html=html,
        attachments=(Attachment(name, "application/pdf", content), Attachment(name, "image/png", content, "c")),
        headers=(("X-Any", name), ("List-Unsubscribe", "<https://example.com/u>")),
    )
    assert judged(finish(compose(mail), TOKEN, BOTH, now())) == [True, True]


def test_deliveries_of_one_message_share_all_but_token_and_signature() -> None:
    prepared = prepare(compose(BASE))
    first, second = (finish(prepared, token, SIGNER, now()) for token in ("a" * 48, "b" * 48))
    assert verified(first) and verified(second)
    assert first.partition(b"\r\nFrom:")[2] == second.partition(b"\r\nFrom:")[2]
    assert not verified(first.replace(b"a" * 48, b"b" * 48))
    assert finish(prepared, TOKEN, None, 0) == b"X-Mailapi-Delivery: %s\r\n%s" % (TOKEN.encode(), compose(BASE).octets)
    assert finish(prepared, TOKEN, None, 0) == head(prepared, TOKEN, None, 0) + prepared.body


def test_the_signature_covers_what_it_must_and_folds() -> None:
    headers = (
        ("List-Unsubscribe", "<https://example.com/u>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ("X-Other", "1"),
    )
    octets = finish(compose(replace(BASE, headers=headers, reply_to=("r@example.com",))), TOKEN, SIGNER, 1_700_000_000)
    field = octets[: octets.index(b"X-Mailapi-Delivery:")]
    assert max(map(len, field.split(b"\r\n"))) <= 78
    tags = dict(tag.strip().split("=", 1) for tag in re.sub(r"\s", "", field.decode().partition(":")[2]).split(";"))
    assert {key: tags[key] for key in "vacdst"} == {
        "v": "1", "a": "rsa-sha256", "c": "relaxed/relaxed", "d": "example.com", "s": "mail1", "t": "1700000000"
    }  # fmt: skip
    assert "l" not in tags
    signed = tags["h"].split(":")
    assert signed.count("from") == 2  # oversigned
    assert {"list-unsubscribe", "list-unsubscribe-post", "x-mailapi-delivery", "reply-to", "to", "date", "subject",
            "message-id", "mime-version", "content-type"} <= set(signed)  # fmt: skip
    assert "x-other" not in signed


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\r\nSubject: Hello", b"\r\nSubject: Hallo"),
        (b"\r\nFrom:", b"\r\nFrom: evil@example.net\r\nFrom:"),
        (b"\r\nSubject:", b"\r\nSubject: Other\r\nSubject:"),
        (b"X-Mailapi-Delivery: aaa", b"X-Mailapi-Delivery: aab"),
        (b"<p>Hello", b"<p>Hullo"),
        (b"https://example.com/u>", b"https://example.net/u>"),
    ],
)
def test_a_change_on_the_way_breaks_the_signature(old: bytes, new: bytes) -> None:
    octets = finish(
        compose(replace(BASE, headers=(("List-Unsubscribe", "<https://example.com/u>"),))), TOKEN, BOTH, now()
    )
    assert old in octets
    assert judged(octets) == [True, True]
    assert judged(octets.replace(old, new, 1)) == [False, False]


def test_each_of_two_signatures_holds_without_the_other_and_rsa_stands_on_top() -> None:
    octets = finish(compose(BASE), TOKEN, BOTH, 1_700_000_000)
    top, below, rest = re.split(rb"(?=DKIM-Signature:)|(?=X-Mailapi-Delivery:)", octets, maxsplit=3)[1:]
    assert (b"a=rsa-sha256" in top, b"a=ed25519-sha256" in below) == (True, True)
    assert top == finish(compose(BASE), TOKEN, SIGNER, 1_700_000_000).partition(b"X-Mailapi-Delivery:")[0]
    assert judged(top + rest) == judged(below + rest) == [True] and judged(below + top + rest) == [True, True]
    assert max(map(len, below.split(b"\r\n"))) <= 78

    def covered(field: bytes) -> bytes:
        return field.partition(b" h=")[2].partition(b" b=")[0]

    assert covered(top) == covered(below) and b"dkim-signature" not in covered(top)


def test_an_ed25519_signature_is_the_one_that_another_implementation_makes() -> None:
    # the secret key of RFC 8032 §7.1, test 1; the signature was made with libsodium over the canonical octets by hand
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    private = pem(ed25519.Ed25519PrivateKey.from_private_bytes(seed))
    fields = (b"From: Ann <ann@example.com>\r\n", b"Subject:  to  lunch\r\n", b"X-Other: 1\r\n")
    field = Signer("example.com", "brisbane", private).sign(
        fields, body_hash(b"See you there. \r\n\r\n"), 1_700_000_000
    )
    signature = re.sub(rb"\s", b"", field.rpartition(b" b=")[2])
    assert signature == VECTOR


def test_changes_that_relaxed_forgives_do_not_break_it() -> None:
    octets = finish(compose(replace(BASE, html=None, text="a b\nc")), TOKEN, SIGNER, now())
    refolded = octets.replace(b"Subject: Hello", b"SUBJECT:\t Hello  ").replace(b"a b\r\n", b"a  b \r\n") + b"\r\n\r\n"
    assert refolded != octets and verified(refolded)


def test_fields_that_stand_twice_in_raw_mail_are_all_signed() -> None:
    fields = (b"From: a@example.com\r\n", b"References: <1@x>\r\n", b"TO: x@example.com\r\n", b"References: <2@x>\r\n")
    body = b"x\r\n"
    octets = SIGNER.sign(fields, body_hash(body), now()) + b"".join(fields) + b"\r\n" + body
    assert signable(fields).names.count(b"references") == 2
    assert verified(octets) and not verified(octets.replace(b"<1@x>", b"<3@x>"))


def test_prepared_raw_mail_with_eight_bit_text_verifies() -> None:
    composed = Composed((b"From: a@example.com\r\n", b"Subject: x\r\n"), "gr\u00fc\u00dfe \t x \r\n\r\n".encode())
    assert verified(finish(composed, TOKEN, SIGNER, now()))


# canonicalisation


@pytest.mark.parametrize(
    ("body", "relaxed"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b"\r\n\r\n", b""),
        (b" \r\n", b""),
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),  # RFC 6376 §3.4.5
        (b"no end", b"no end\r\n"),
        (b"no end \t", b"no end\r\n"),
        (b"a\r\n \t \r\n\r\n", b"a\r\n"),
        (b"a\r\n\r\nb\r\n", b"a\r\n\r\nb\r\n"),
        (b"\ta", b" a\r\n"),
    ],
)
def test_the_relaxed_body(body: bytes, relaxed: bytes) -> None:
    assert relaxed_body(body) == relaxed


@pytest.mark.parametrize(
    ("field", "relaxed"),
    [
        (b"A: X\r\n", b"a:X\r\n"),  # RFC 6376 §3.4.5
        (b"B : Y\t\r\n\tZ  \r\n", b"b:Y Z\r\n"),
        (b"Empty:\r\n", b"empty:\r\n"),
        (b"Subject: a: b\r\n", b"subject:a: b\r\n"),
    ],
)
def test_the_relaxed_field(field: bytes, relaxed: bytes) -> None:
    assert relaxed_field(field) == relaxed


@given(st.lists(st.sampled_from([b" ", b"\t", b"\r\n", b"a", b"b", b".", b"\xfc", b"   "]), max_size=60))
@settings(max_examples=500, deadline=None)
def test_the_relaxed_body_is_what_dkimpy_makes_of_it(pieces: list[bytes]) -> None:
    body = b"".join(pieces) + b"\r\n"
    assert relaxed_body(body) == dkimpy.canonicalization.Relaxed.canonicalize_body(body)


@pytest.mark.skipif(not VECTORS.exists(), reason="the shared corpora are not beside the checkout")
def test_our_canonical_form_is_the_one_that_the_rfc_8463_example_was_signed_over() -> None:
    """By both its keys, the Ed25519 one over the SHA-256 of it (§3)."""
    octets = re.sub(rb"\r?\n", b"\r\n", (VECTORS / "rfc8463-appendix-A.eml").read_bytes())
    dns = json.loads((VECTORS / "rfc8463-appendix-A.dns.json").read_text())
    header, _, body = octets.partition(b"\r\n\r\n")
    fields = [field + b"\r\n" for field in re.split(rb"\r\n(?![ \t])", header)]
    for own in fields[:2]:
        tags = dict(tag.split("=", 1) for tag in re.sub(r"\s", "", own.decode().partition(":")[2]).split(";") if tag)
        assert base64.b64encode(body_hash(body)).decode() == tags["bh"]
        stacks: dict[str, list[bytes]] = {}
        for field in fields:
            stacks.setdefault(field.partition(b":")[0].decode().lower(), []).append(field)
        signed = b"".join(relaxed_field(stacks[name].pop()) for name in tags["h"].split(":") if stacks.get(name))
        signed += relaxed_field(re.sub(rb"(;\s*b=)[^;]*", rb"\1", own)).removesuffix(b"\r\n")
        public = base64.b64decode(dns[f"{tags['s']}._domainkey.football.example.com"].rpartition("p=")[2])
        if tags["a"] == "ed25519-sha256":
            ed = ed25519.Ed25519PublicKey.from_public_bytes(public)
            ed.verify(base64.b64decode(tags["b"]), hashlib.sha256(signed).digest())
        else:
            key = serialization.load_der_public_key(public)
            assert isinstance(key, rsa.RSAPublicKey)
            key.verify(base64.b64decode(tags["b"]), signed, padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.skipif(not VECTORS.exists(), reason="the shared corpora are not beside the checkout")
def test_the_judge_itself_passes_mail_that_others_signed() -> None:
    for stem, index in (("rfc8463-appendix-A", 0), ("rfc8463-appendix-A", 1), ("real-rsa-2021", 0)):
        dns = json.loads((VECTORS / f"{stem}.dns.json").read_text())
        octets = re.sub(rb"\r?\n", b"\r\n", (VECTORS / f"{stem}.eml").read_bytes())
        judge = dkimpy.DKIM(octets)
        assert judge.verify(idx=index, dnsfunc=lambda name, timeout=5, dns=dns: dns[name.decode().rstrip(".")].encode())


# keys


def test_a_new_key_has_2048_bits_and_fits_its_record() -> None:
    key = serialization.load_pem_private_key(PRIVATE, None)
    assert isinstance(key, rsa.RSAPrivateKey) and key.key_size == 2048
    assert dns_record(PUBLIC).startswith("v=DKIM1; k=rsa; p=MIIB") and len(dns_record(PUBLIC)) < 420
    record = dns_record(ED_PUBLIC, KeyType.ED25519)  # RFC 8463 §4.2: 32 octets
    assert record == f"v=DKIM1; k=ed25519; p={ED_PUBLIC}" and len(base64.b64decode(ED_PUBLIC)) == 32


def pem(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, encryption: bytes | None = None
) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(encryption) if encryption else serialization.NoEncryption(),
    )


def test_keys_that_cannot_sign_are_refused() -> None:
    for bad in (b"", b"no key", pem(ec.generate_private_key(ec.SECP256R1())), PRIVATE[:300]):
        with pytest.raises(ValueError):
            Signer("example.com", "s", bad)
    encrypted = pem(serialization.load_pem_private_key(PRIVATE, None), b"word")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="encrypted"):
        Signer("example.com", "s", encrypted)
    for domain, selector in (("exämple.com", "s"), ("example.com;", "s"), ("example.com", "s\r\n"), ("", "s")):
        with pytest.raises(ValueError, match="A-labels"):
            Signer(domain, selector, PRIVATE)


def test_signing_is_deterministic() -> None:
    again = replace(BASE, id=uuid.UUID(BASE.id.hex))
    assert finish(compose(BASE), TOKEN, SIGNER, 1) == finish(compose(again), TOKEN, SIGNER, 1)
