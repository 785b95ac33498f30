"""DANE for SMTP: which TLSA records bind a host (RFC 7672). Matching them is the session's work (`smtp.tls`).

Used only with a nameserver that validates and is trusted (`Resolver.validates`), and only where the MX answer and
the host's address answers were validated (§2.2): an attacker who can forge those needs no certificate.
"""

from __future__ import annotations

from dataclasses import dataclass

from deliveries.routing.resolver import Answer, Resolver, Trouble
from deliveries.smtp.hop import Tls

_DANE_TA, _DANE_EE = 2, 3
_SELECTORS = frozenset({0, 1})  # RFC 6698 §2.1.2: the whole certificate, its public key
#: RFC 6698 §2.1.3: matching type → octets of its data; None = as it is
_LENGTHS: dict[int, int | None] = {0: None, 1: 32, 2: 64}

Tlsa = tuple[int, int, int, bytes]


@dataclass(frozen=True, slots=True)
class Bound:
    """What TLSA records ask of a host: Tls.DANE with `records`, or Tls.MUST where none of them is usable."""

    tls: Tls
    records: tuple[Tlsa, ...] = ()
    names: tuple[str, ...] = ()  #: reference identifiers for DANE-TA (§3.2.2)


async def bound(resolver: Resolver, host: str, expanded: str, port: int, domain: str) -> Bound | Trouble | None:
    """What binds `host`, whose validated addresses stand at `expanded`; None = no TLSA, Trouble = do not use it now."""
    # §2.2.2: the name at the end of the CNAMEs first, then the name that the MX says
    for base in dict.fromkeys((expanded or host, host)):
        answer = await resolver.tlsa(f"_{port}._tcp.{base}")
        if isinstance(answer, Trouble):
            return answer  # §2.1.2: an attacker may be hiding the records: this host is not used
        if isinstance(answer, Answer) and answer.secure:
            records = usable(answer.records)
            if not records:
                return Bound(Tls.MUST)  # §2.2: "TLS must be used", unauthenticated
            return Bound(Tls.DANE, records, tuple(dict.fromkeys((base, host, domain))))
    return None


def usable(records: tuple[Tlsa, ...]) -> tuple[Tlsa, ...]:
    """§3.1: DANE-TA and DANE-EE with selector, matching type and length that RFC 6698 knows."""
    return tuple(
        record
        for record in records
        if record[0] in (_DANE_TA, _DANE_EE)
        and record[1] in _SELECTORS
        and record[2] in _LENGTHS
        and record[3]
        and _LENGTHS[record[2]] in (None, len(record[3]))
    )
