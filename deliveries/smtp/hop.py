"""Values that a session is given: where to connect, and the envelope of one transaction."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Tls(StrEnum):
    """What protection a hop must have."""

    NONE = "none"  #: never STARTTLS (a route that forbids it)
    MAY = "may"  #: opportunistic, unverified; clear text after a failed handshake (RFC 3207)
    MUST = "must"  #: encrypted or not at all; the certificate is not checked
    VERIFY = "verify"  #: encrypted, certificate chain and name checked (MTA-STS, or a policy of ours)
    DANE = "dane"  #: encrypted, certificate matched against TLSA records (RFC 7672)
    IMPLICIT = "implicit"  #: TLS from the first octet (RFC 8314), certificate checked: smarthosts on 465


@dataclass(frozen=True, slots=True)
class Credentials:
    """AUTH for a smarthost (RFC 4954); never logged, never in a transcript."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Hop:
    """One address to try: `host` is the MX name (A-label, no trailing dot), `address` an IP literal."""

    host: str
    address: str
    port: int = 25
    lmtp: bool = False
    tls: Tls = Tls.MAY
    #: MTA-STS in testing: the certificate is looked at, and what is wrong with it is told, not held against the hop
    watched: bool = False
    #: names the certificate may carry; empty = (`host`,)
    tls_names: tuple[str, ...] = ()
    #: TLSA records as (usage, selector, matching type, data), only with Tls.DANE
    tlsa: tuple[tuple[int, int, int, bytes], ...] = ()
    auth: Credentials | None = None
    #: source IP to bind to; None lets the system choose
    source: str | None = None
    #: our name in EHLO, that of the source address; empty: the installation's
    helo: str = ""
    #: hops of the same provider share it: a slow-down ends the round instead of moving on to the next MX
    site: str = ""


@dataclass(frozen=True, slots=True)
class Dsn:
    """What is asked of a receiver that offers DSN (RFC 3461 §4); of others nothing is."""

    notify: str = ""  #: SUCCESS,FAILURE,DELAY or NEVER; empty = the receiver's own way, which is FAILURE
    ret: str = ""  #: FULL or HDRS: what a notice of failure brings back; empty = as it likes
    envid: str = ""  #: printable ASCII; comes back as Original-Envelope-Id


@dataclass(frozen=True, slots=True)
class Envelope:
    """RFC 5321 §2.3.1: one reverse-path, exactly one forward-path (each delivery has its own VERP path)."""

    reverse_path: str  #: without angle brackets; "" is the null path
    forward_path: str
    smtputf8: bool = False  #: an address or header needs SMTPUTF8 (RFC 6531)
    dsn: Dsn | None = None
