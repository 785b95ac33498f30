"""DKIM signatures (RFC 6376): rsa-sha256 (RFC 8301) and ed25519-sha256 (RFC 8463), relaxed/relaxed, without `l=`.

In order of use: `body_hash` and `signable` once per message, a `Signer` per key (parsing a key takes some 100 µs: keep
it), `Signer.sign_prepared` once per delivery. `Signer.sign` does it all for one mail. The verifier of a key record is
not here; tests verify with dkimpy.

A mail may bear two signatures of one domain, by an RSA key and by an Ed25519 key beside it (RFC 8463 §6: of different
selectors, since a selector has one key record). They cover the same fields and the same body, and neither covers the
other: whichever is removed or not understood, the other holds. No order is asked for (RFC 6376 §4.2, §6.1); the RSA
signature stands on top, for verifiers that look at one signature only look at the first, and every one knows RSA.

A mail that is signed must already be as it leaves: CRLF line ends, and recoded for the hop where that is needed
(RFC 6376 §5.3). Left out: `i=`, `x=`, `z=`, simple canonicalisation.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from deliveries.mime.verp import TOKEN_HEADER

#: RFC 6376 §5.4.1, and RFC 8058 §4: the List-Unsubscribe pair must be covered
SIGNED_FIELDS = frozenset({
    b"from", b"sender", b"reply-to", b"to", b"cc", b"subject", b"date", b"message-id", b"in-reply-to", b"references",
    b"mime-version", b"content-type", b"content-transfer-encoding", b"list-id", b"list-help", b"list-unsubscribe",
    b"list-unsubscribe-post", b"list-subscribe", b"list-post", b"list-owner", b"list-archive", b"auto-submitted",
    b"feedback-id", TOKEN_HEADER.lower().encode("ascii"),
})  # fmt: skip
#: RFC 6376 §8.15: named once more than they occur, so that one added on the way breaks the signature
OVERSIGNED_FIELDS = (b"from", b"to", b"subject", b"date")

#: RFC 8301 §3.2: verifiers refuse less
_MIN_KEY_BITS = 1024
_KEY_BITS = 2048  # what fits into DNS everywhere and takes under 1 ms
_WSP_RUN = re.compile(rb"[ \t]+")
_B64_LINE = 72
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


class KeyType(StrEnum):
    """`k=` of a key record (RFC 6376 §3.6.1)."""

    RSA = "rsa"  #: every verifier knows it
    ED25519 = "ed25519"  #: RFC 8463: beside an RSA key, never alone, since some verifiers know only that


@dataclass(frozen=True, slots=True)
class Signable:
    """A message's part of the signed octets: field names for `h=`, and their canonical form in that order."""

    names: tuple[bytes, ...]
    canonical: bytes


def generate_key(key_type: KeyType = KeyType.RSA) -> tuple[bytes, str]:
    """A new key: (private key as PKCS #8 PEM, public key as base64 for `p=`). One of RSA-2048 takes 0.1–1 s."""
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    if key_type is KeyType.ED25519:
        key = ed25519.Ed25519PrivateKey.generate()
        # RFC 8463 §4.2: the 32 octets themselves, no SubjectPublicKeyInfo as with RSA
        public = key.public_key().public_bytes_raw()
    else:
        key = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    private_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private_pem, base64.b64encode(public).decode("ascii")


def dns_record(public_b64: str, key_type: str = KeyType.RSA) -> str:
    """The TXT value for `<selector>._domainkey.<domain>` (RFC 6376 §3.6.1), in one piece; of RSA it has some 410
    octets, which DNS splits into strings of 255."""
    return f"v=DKIM1; k={key_type}; p={public_b64}"


def body_hash(body: bytes) -> bytes:
    """SHA-256 of the relaxed body (RFC 6376 §3.4.4): the same for every delivery of a message."""
    return hashlib.sha256(relaxed_body(body)).digest()


def relaxed_body(body: bytes) -> bytes:
    """RFC 6376 §3.4.4: white space runs become one space, none at line ends, no empty lines at the end."""
    if b"\t" in body:
        body = body.replace(b"\t", b" ")
    while b"  " in body:  # each round halves the runs: a handful of passes in C, where a pattern would take µs per run
        body = body.replace(b"  ", b" ")
    body = body.replace(b" \r\n", b"\r\n")
    if body.endswith(b" "):
        body = body[:-1]
    end = len(body)
    while body.endswith(b"\r\n", 0, end):
        end -= 2
    return body[:end] + b"\r\n" if end else b""


def relaxed_field(field: bytes) -> bytes:
    """RFC 6376 §3.4.2: `name:value` in lower case, unfolded, white space runs one space, CRLF at the end."""
    name, _, value = field.partition(b":")
    value = _WSP_RUN.sub(b" ", value.replace(b"\r\n", b"")).strip(b" ")
    return b"%s:%s\r\n" % (name.rstrip(b" \t").lower(), value)


def signable(header_fields: Sequence[bytes]) -> Signable:
    """What of these fields is signed. Of a field that occurs more than once all are (RFC 6376 §5.4.2: from the
    last to the first)."""
    names: list[bytes] = []
    canonical: list[bytes] = []
    for field in reversed(header_fields):
        name = field.partition(b":")[0].rstrip(b" \t").lower()
        if name in SIGNED_FIELDS:
            names.append(name)
            canonical.append(relaxed_field(field))
    names += OVERSIGNED_FIELDS
    return Signable(tuple(names), b"".join(canonical))


class Signer:
    """One key of one domain, and where there is a second one, that one too. Safe to share between threads; `domain` in
    A-labels."""

    def __init__(self, domain: str, selector: str, private_key_pem: bytes, beside: Signer | None = None) -> None:
        """`beside` signs as well, below this one. ValueError when the key cannot be read, is neither RSA nor Ed25519,
        or is RSA of less than 1024 bits."""
        for label in (domain, selector):
            if _NAME.fullmatch(label) is None:
                raise ValueError(f"{label!r} cannot stand in a DKIM signature: use a domain name in A-labels.")
        self.domain = domain.lower()
        self.selector = selector
        self.beside = beside
        self._algorithm, self._sign = _signing(private_key_pem)

    def sign(self, header_fields: Sequence[bytes], body_hash: bytes, now: int) -> bytes:
        """The DKIM-Signature field, folded, with CRLF; it goes on top. `now` is in seconds since 1970 (`t=`)."""
        return self.sign_prepared(signable(header_fields), (), body_hash, now)

    def sign_prepared(self, message: Signable, extra_fields: Sequence[bytes], body_hash: bytes, now: int) -> bytes:
        """The DKIM-Signature field of a prepared message, and a second one where there is a key `beside`.

        `extra_fields` are those of this delivery (its token); `now` is in seconds since 1970.
        """
        extra_names = [field.partition(b":")[0].lower() for field in extra_fields]
        names = _folded_names((*message.names, *extra_names))
        canonical = b"".join((message.canonical, *map(relaxed_field, extra_fields)))
        bh = base64.b64encode(body_hash)
        field = self._field(names, canonical, bh, now)
        return field if self.beside is None else field + self.beside._field(names, canonical, bh, now)

    def _field(self, names: bytes, canonical: bytes, bh: bytes, now: int) -> bytes:
        head = (
            f"DKIM-Signature: v=1; a={self._algorithm}; c=relaxed/relaxed; d={self.domain};\r\n"
            f" s={self.selector}; t={now};\r\n"
        ).encode("ascii")
        unsigned = b"".join((head, names, b";\r\n bh=", bh, b";\r\n b="))
        # RFC 6376 §3.7: the field itself comes last, with an empty b= and no CRLF
        own = _WSP_RUN.sub(b" ", unsigned[15:].replace(b"\r\n", b"")).strip(b" ")
        signature = base64.b64encode(self._sign(b"".join((canonical, b"dkim-signature:", own))))
        lines = [signature[start : start + _B64_LINE] for start in range(0, len(signature), _B64_LINE)]
        return b"%s%s\r\n" % (unsigned, b"\r\n ".join(lines))


def _signing(private_key_pem: bytes) -> tuple[str, Callable[[bytes], bytes]]:
    """`a=` of the key, and what makes `b=` of the octets to sign; ValueError as Signer has it."""
    try:
        key = serialization.load_pem_private_key(private_key_pem, password=None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("The DKIM key is encrypted or of an unknown kind.") from error
    if isinstance(key, ed25519.Ed25519PrivateKey):
        # RFC 8463 §3: PureEdDSA of the SHA-256, not Ed25519ph
        return "ed25519-sha256", lambda octets: key.sign(hashlib.sha256(octets).digest())
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("The DKIM key is neither RSA nor Ed25519.")
    if key.key_size < _MIN_KEY_BITS:
        raise ValueError(f"The DKIM key has {key.key_size} bits; RFC 8301 asks for at least {_MIN_KEY_BITS}.")
    scheme, digest = padding.PKCS1v15(), hashes.SHA256()
    return "rsa-sha256", lambda octets: key.sign(octets, scheme, digest)


@lru_cache(maxsize=256)  # mails of one make have the same fields
def _folded_names(names: tuple[bytes, ...]) -> bytes:
    """`h=` over lines of at most 78 octets; RFC 6376 §3.5 allows folding around its colons."""
    lines: list[bytes] = []
    line = b" h=" + names[0]
    for name in names[1:]:
        if len(line) + len(name) + 2 > 76:
            lines.append(line + b":")
            line = b"  " + name
        else:
            line += b":" + name
    lines.append(line)
    return b"\r\n".join(lines)
