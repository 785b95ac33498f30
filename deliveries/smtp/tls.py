"""TLS of a hop: which context, which name, and what was proved (RFC 3207, 8461 §4, 7672, 8314).

`TlsContexts` builds each context once (25 ms each) and keeps it; `prove` is called after the handshake.
Left out: PKIX-TA and PKIX-EE usages of TLSA (0 and 1), which RFC 7672 §3.1.3 leaves to the client: treated as unusable.
"""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
from functools import cached_property
from typing import Any, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from deliveries.smtp.hop import Hop, Tls
from deliveries.smtp.outcome import TlsFacts

#: policies under which clear text is never an answer
REQUIRED = frozenset({Tls.MUST, Tls.VERIFY, Tls.DANE, Tls.IMPLICIT})

_DANE_TA, _DANE_EE = 2, 3


def _is_authority(policy: Policy, certificate: x509.Certificate, extension: x509.BasicConstraints | None) -> None:
    if extension is None or not extension.ca:
        raise ValueError("not a certificate authority")


#: RFC 5280, without the rules for public web authorities: a TLSA anchor is often a postmaster's own authority
_AUTHORITIES = ExtensionPolicy.permit_all().require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_authority)
_SERVERS = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)


class TlsContexts:
    """Shared contexts; `ca_file` replaces the system's authorities (labs, a company's own)."""

    def __init__(self, ca_file: str | None = None) -> None:
        self._ca_file = ca_file

    def of(self, hop: Hop) -> ssl.SSLContext:
        return self.verifying if hop.tls in (Tls.VERIFY, Tls.IMPLICIT) else self.trusting

    @cached_property
    def verifying(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self._ca_file)
        context.check_hostname = False  # names are compared in `prove`: a policy may allow several
        return context

    @cached_property
    def trusting(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996: older ones are no protection
        # RFC 7435 §3: unverified encryption with a short key is still better than the clear text that follows it
        context.set_ciphers("DEFAULT:@SECLEVEL=1")
        return context


def server_name(hop: Hop) -> str | None:
    """SNI: the MX name; None for an address literal, which has no place in it (RFC 6066 §3)."""
    try:
        ipaddress.ip_address(hop.host)
    except ValueError:
        return hop.host or None
    return None


def facts(tls: ssl.SSLObject, *, verified: bool) -> TlsFacts:
    cipher = tls.cipher()
    return TlsFacts(version=tls.version() or "", cipher=cipher[0] if cipher else "", verified=verified)


def prove(tls: ssl.SSLObject, hop: Hop) -> str | None:
    """Why the certificate does not serve this hop, None when it does (or none is asked for)."""
    if hop.tls in (Tls.VERIFY, Tls.IMPLICIT):
        # the chain was verified in the handshake; RFC 8461 §4.1: now the name
        wanted = hop.tls_names or (hop.host,)
        held: Any = (tls.getpeercert() or {}).get("subjectAltName", ())
        if not any(name_matches(pattern, name) for _, pattern in held for name in wanted):
            return f"certificate is for another name than {', '.join(wanted)}"
    elif hop.tls is Tls.DANE:
        try:
            return _prove_dane(tls, hop)
        except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
            return f"certificate cannot be read: {error}"  # OpenSSL forgives more than the X.509 reader
    return None


def name_matches(pattern: str, name: str) -> bool:
    """RFC 6125 §6.4.3 as RFC 8461 §4.1 narrows it: `*` stands for exactly the left-most label."""
    pattern, name = pattern.lower().rstrip("."), name.lower().rstrip(".")
    if pattern.startswith("*."):
        _, dot, rest = name.partition(".")
        return bool(dot) and rest == pattern[2:] and "*" not in rest
    return pattern == name


def _prove_dane(tls: ssl.SSLObject, hop: Hop) -> str | None:
    leaf = tls.getpeercert(binary_form=True)
    if not leaf:
        return "no certificate"
    usable = [r for r in hop.tlsa if r[0] in (_DANE_TA, _DANE_EE) and r[1] in (0, 1) and r[2] in (0, 1, 2)]
    if any(record[0] == _DANE_EE and _tlsa_matches(leaf, record) for record in usable):
        return None  # RFC 7672 §3.1.1: neither name nor dates count
    others = _chain(tls)[1:]
    for record in usable:
        for authority in others if record[0] == _DANE_TA else ():
            if _tlsa_matches(authority, record) and _leads_to(leaf, others, authority, hop):
                return None
    return "certificate matches no TLSA record" if usable else "no usable TLSA record"


def _tlsa_matches(certificate: bytes, record: tuple[int, int, int, bytes]) -> bool:
    """RFC 6698 §2.1: selector 0 = whole certificate, 1 = its public key; matching 0 = as it is, 1, 2 = hashed."""
    _, selector, matching, data = record
    octets = certificate
    if selector == 1:
        key = x509.load_der_x509_certificate(certificate).public_key()
        octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if matching == 1:
        octets = hashlib.sha256(octets).digest()
    elif matching == 2:
        octets = hashlib.sha512(octets).digest()
    return octets == data


def _chain(tls: ssl.SSLObject) -> list[bytes]:
    """The chain as the server sent it, leaf first, DER; before Python 3.13 the method hides one level down."""
    inner: Any = tls if hasattr(tls, "get_unverified_chain") else cast(Any, tls)._sslobj
    chain = inner.get_unverified_chain() or []
    return [c if isinstance(c, bytes) else ssl.PEM_cert_to_DER_cert(c.public_bytes()) for c in chain]


def _leads_to(leaf: bytes, others: list[bytes], authority: bytes, hop: Hop) -> bool:
    """RFC 7672 §3.1.2: the matched certificate is the trust anchor; names and dates count here."""
    anchor = x509.load_der_x509_certificate(authority)
    between = [x509.load_der_x509_certificate(o) for o in others if o != authority]
    for name in hop.tls_names or (hop.host,):
        policy = PolicyBuilder().store(Store([anchor]))
        policy = policy.extension_policies(ca_policy=_AUTHORITIES, ee_policy=_SERVERS)
        verifier = policy.build_server_verifier(x509.DNSName(name))
        try:
            verifier.verify(x509.load_der_x509_certificate(leaf), between)
        except VerificationError:
            continue
        return True
    return False
