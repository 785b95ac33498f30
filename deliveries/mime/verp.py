"""VERP tokens: the reverse-path of each delivery names the delivery, and proves that we minted it.

In order of use: `Keys.parse` reads the secrets, `mint` makes the token of a delivery, `reverse_path` puts it into an
address and compose into the header field `TOKEN_HEADER`; when a DSN or an ARF report comes back, `token_of` finds the
token in an address and `read` gives the delivery, or raises. A Message-ID alone never acts (RFC 5965 §3.2 tells why:
reports are easily made up).

The token is 30 octets, 48 letters in base32 (RFC 4648 §6, lower case, no padding needed):

    version 1 | key id 1 | delivery id 16 | expiry 2 (days since 1970) | HMAC-SHA256 of these, first 10
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from deliveries.errors import TokenError

#: the header field that carries the same token, signed by DKIM: providers redact addresses in ARF (RFC 5965 §3)
TOKEN_HEADER = "X-Mailapi-Delivery"

#: what stands before the token; `+` so that one mailbox with subaddressing (RFC 5233) can take all of them
_PREFIX = "bounces+"
_VERSION = 1
_MAC_OCTETS = 10  # 80 bits: a forger gets one guess per mail
_TOKEN = re.compile(r"[a-z2-7]{48}", re.ASCII)
_IN_ADDRESS = re.compile(re.escape(_PREFIX) + r"([a-z2-7]{48})@", re.ASCII | re.IGNORECASE)
_DAY_S = 86_400
_MIN_SECRET_OCTETS = 16


@dataclass(frozen=True, slots=True)
class Keys:
    """Secrets by key id (1–255), in order: the first signs, all verify. Rotate by putting a new one first."""

    secrets: Mapping[int, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.secrets:
            raise ValueError("VERP_KEYS is empty; give at least one key as 1:<base64>.")
        for key_id, secret in self.secrets.items():
            if not 1 <= key_id <= 255:
                raise ValueError(f"VERP key id {key_id} is not between 1 and 255.")
            if len(secret) < _MIN_SECRET_OCTETS:
                raise ValueError(f"VERP key {key_id} is shorter than {_MIN_SECRET_OCTETS} octets.")

    @classmethod
    def parse(cls, text: str) -> Keys:
        """Read `1:<base64>,2:<base64>`; ValueError names what is wrong, never the secret."""
        secrets: dict[int, bytes] = {}
        for item in filter(None, (part.strip() for part in text.split(","))):
            key_id, colon, encoded = item.partition(":")
            if not colon or not key_id.isascii() or not key_id.isdigit():
                raise ValueError("VERP_KEYS must be written as 1:<base64>,2:<base64>.")
            if int(key_id) in secrets:
                raise ValueError(f"VERP key id {int(key_id)} stands twice in VERP_KEYS.")
            try:
                secrets[int(key_id)] = base64.b64decode(encoded, validate=True)
            except binascii.Error as error:
                raise ValueError(f"VERP key {int(key_id)} is not base64.") from error
        return cls(secrets)


@lru_cache(maxsize=4)
def keys_of(text: str) -> Keys:
    """`Keys.parse`, remembered: the setting is read for every mail."""
    return Keys.parse(text)


def mint(keys: Keys, delivery_id: uuid.UUID, expires_at: datetime) -> str:
    """The token of a delivery, 48 octets. Good to the end of the UTC day of `expires_at` (aware); the same
    arguments give the same token, so that every retry is the same mail."""
    key_id, secret = next(iter(keys.secrets.items()))
    days = -int(-expires_at.timestamp() // _DAY_S)  # rounded up
    claims = bytes((_VERSION, key_id)) + delivery_id.bytes + days.to_bytes(2, "big")
    return base64.b32encode(claims + _mac(secret, claims)).decode("ascii").lower()


def read(keys: Keys, token: str, now: datetime, grace: timedelta = timedelta(0)) -> uuid.UUID:
    """The delivery that a token names. Case does not matter: relays fold local parts.

    `grace` is added to the expiry (feedback reports come later than DSNs). TokenError says `malformed`,
    `unknown key`, `forged` or `expired`.
    """
    folded = token.lower() if token.isascii() else ""
    if _TOKEN.fullmatch(folded) is None:
        raise TokenError("malformed")
    octets = base64.b32decode(folded.upper())
    claims, mac = octets[:-_MAC_OCTETS], octets[-_MAC_OCTETS:]
    if claims[0] != _VERSION:
        raise TokenError("malformed")
    secret = keys.secrets.get(claims[1])
    if secret is None:
        raise TokenError("unknown key")
    if not hmac.compare_digest(mac, _mac(secret, claims)):
        raise TokenError("forged")
    expires_s = int.from_bytes(claims[18:20], "big") * _DAY_S
    if now.astimezone(UTC).timestamp() >= expires_s + grace.total_seconds():
        raise TokenError("expired")
    return uuid.UUID(bytes=claims[2:18])


def reverse_path(token: str, bounce_domain: str) -> str:
    """The envelope's reverse-path (RFC 5321 §4.1.1.2), without angle brackets; its local part is 56 octets."""
    return f"{_PREFIX}{token}@{bounce_domain}"


def token_of(address: str) -> str | None:
    """The token in an address (bare, in brackets, or wrapped by a forwarder as SRS and BATV do), lower case.

    None when there is none. Whether it is ours, `read` decides.
    """
    match = _IN_ADDRESS.search(address)
    return match[1].lower() if match else None


def _mac(secret: bytes, claims: bytes) -> bytes:
    return hmac.digest(secret, claims, "sha256")[:_MAC_OCTETS]
