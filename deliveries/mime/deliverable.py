"""The final octets of one delivery: [DKIM-Signature][token field][header] empty line [body].

A message is prepared once, finished once per delivery: only the token and the signature differ, and the signature is
made with the key that is current at the attempt. Order of use: `prepare(compose(mail))`, then `finish` for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deliveries.mime import dkim, raw
from deliveries.mime.compose import Composed
from deliveries.mime.entities import fields
from deliveries.mime.verp import TOKEN_HEADER


@dataclass(frozen=True, slots=True)
class Prepared:
    """A composed (or raw) message with what its deliveries share."""

    header: bytes  #: all header fields, without the empty line
    body: bytes
    body_hash: bytes  #: SHA-256 of the relaxed body
    signable: dkim.Signable
    smtputf8: bool
    null_return: bool = False
    any_tls: bool = False  #: it says `TLS-Required: No` (RFC 8689 §3): better to arrive than to be protected

    @property
    def size_octets(self) -> int:
        """Without token and signature."""
        return len(self.header) + 2 + len(self.body)


def prepare(composed: Composed) -> Prepared:
    """Canonicalise and hash once per message."""
    return Prepared(
        header=b"".join(composed.header_fields),
        body=composed.body,
        body_hash=dkim.body_hash(composed.body),
        signable=dkim.signable(composed.header_fields),
        smtputf8=composed.smtputf8,
        null_return=composed.null_return,
        any_tls=any(map(_waives_tls, composed.header_fields)),
    )


def _waives_tls(field: bytes) -> bool:
    return field[:13].lower() == b"tls-required:" and field[13:].strip().lower() == b"no"


def seven_bit(prepared: Prepared) -> Prepared | None:
    """The same message for a hop without 8BITMIME; None where it cannot be recoded. Takes some 10 ms per MB."""
    changed = raw.seven_bit(
        Composed(tuple(fields(prepared.header)), prepared.body, prepared.smtputf8, prepared.null_return)
    )
    return prepare(changed) if changed is not None else None


def finish(
    message: Prepared | Composed, token: str, signer: dkim.Signer | None, now: int, own: Sequence[bytes] = ()
) -> bytes:
    """One delivery's mail, CRLF octets, dots not stuffed. `token` is the delivery's VERP token, `now` in seconds since
    1970, `own` what further fields this delivery has; they are signed. A `Composed` is prepared on the way: give a
    `Prepared` where a message has several deliveries."""
    prepared = message if isinstance(message, Prepared) else prepare(message)
    return b"".join((head(prepared, token, signer, now, own), prepared.body))


def head(prepared: Prepared, token: str, signer: dkim.Signer | None, now: int, own: Sequence[bytes] = ()) -> bytes:
    """The part of `finish` before the body, empty line included: what differs between deliveries."""
    fields_of_it = (f"{TOKEN_HEADER}: {token}\r\n".encode("ascii"), *own)
    signature = b""
    if signer is not None:
        signature = signer.sign_prepared(prepared.signable, fields_of_it, prepared.body_hash, now)
    return b"".join((signature, *fields_of_it, prepared.header, b"\r\n"))
