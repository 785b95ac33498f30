"""How SendGrid and Mailgun sign. Both know one signature: while a secret is changed, the newest one signs alone."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import lru_cache
from uuid import UUID

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key

#: Mailgun's tokens have as many characters
_TOKEN = 50


def sendgrid(secrets: str, timestamp: int, body: str) -> dict[str, str]:
    """ECDSA on P-256 with SHA-256 over timestamp and body."""
    signature = _private(secrets.split()[0]).sign(f"{timestamp}{body}".encode(), ec.ECDSA(hashes.SHA256()))
    prefix = "x-twilio-email-event-webhook"
    return {f"{prefix}-signature": base64.b64encode(signature).decode("ascii"), f"{prefix}-timestamp": str(timestamp)}


def mailgun(secrets: str, timestamp: int, event_id: UUID, data: str) -> str:
    """The whole body. The token is the event's, the same at every try: who heard it before knows it by that."""
    token = hashlib.sha256(event_id.bytes).hexdigest()[:_TOKEN]
    signature = hmac.digest(secrets.split()[0].encode("ascii"), f"{timestamp}{token}".encode(), "sha256").hex()
    seal = json.dumps({"timestamp": str(timestamp), "token": token, "signature": signature}, separators=(",", ":"))
    return f'{{"signature":{seal},"event-data":{data}}}'


@lru_cache(maxsize=256)
def _private(secret: str) -> ec.EllipticCurvePrivateKey:
    key = load_der_private_key(base64.b64decode(secret), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
