"""One POST (Standard Webhooks): signed, answered or not, and when to try again. No database."""

from __future__ import annotations

import base64
import binascii
import hmac
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from uuid import UUID

from deliveries.errors import AddressRefused, FetchFailed
from deliveries.fetch import Kept, fetch
from deliveries.notify import seals

#: an answer within this, or none (docs/rfc.md, rule 33)
TIMEOUT_S = 15.0
#: of the answer, kept for the log
MAX_ANSWER_OCTETS = 2_048
#: seconds after the first, second … seventh failed try; the eighth is the last, 27.6 hours after the event
WAITS_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 36_000)
JITTER = 0.1
#: the longest that a receiver may put us off
MAX_RETRY_AFTER_S = 36_000
USER_AGENT = "mailapi-webhooks/1"
#: HTTP 410: the receiver asks for no more (Standard Webhooks: "the endpoint should be disabled")
GONE = 410


@dataclass(frozen=True, slots=True)
class Telling:
    """One outbox row that is ours for the time of a lease. `secrets` is one signing secret or several, by spaces."""

    id: UUID
    tenant_id: UUID
    endpoint_id: UUID
    event_id: UUID
    url: str
    secrets: str
    body: str
    tries: int  #: made before this one
    failing: bool = False  #: the endpoint's last answer was none, or no 2xx
    format: str = "native"
    credentials: str = field(default="", repr=False)  #: `user:password`, or none
    broken: str = ""  #: why it cannot be told, in words; else empty


@dataclass(frozen=True, slots=True)
class Posted:
    """What came of it. `status` None where no complete answer came; then `error` says why."""

    telling: Telling
    at: datetime
    elapsed_ms: int
    status: int | None = None
    address: str = ""
    answer: str = ""
    error: str = ""
    retry_after_s: float = 0.0

    @property
    def ok(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        return self.status == GONE


async def post(telling: Telling, allow_private: bool, timeout_s: float = TIMEOUT_S, keep: Kept | None = None) -> Posted:
    """Never raises for what the receiver or the network does. With `keep` on a connection that may be there already."""
    at = datetime.now(UTC)
    began = time.monotonic()
    if telling.broken:
        return Posted(telling, at, 0, error=telling.broken)
    try:
        got = await fetch(
            "POST",
            telling.url,
            headers=headers(telling, int(at.timestamp())),
            content=content(telling, int(at.timestamp())),
            timeout_s=timeout_s,
            max_octets=MAX_ANSWER_OCTETS,
            allow_private=allow_private,
            keep=keep,
        )
    except (AddressRefused, FetchFailed) as e:
        return Posted(telling, at, round((time.monotonic() - began) * 1000), error=str(e))
    return Posted(
        telling,
        at,
        got.elapsed_ms,
        got.status,
        got.address,
        got.body.decode("utf-8", "replace"),
        f"redirect to {got.header('location')} is not followed" if 300 <= got.status < 400 else "",
        retry_after(got.header("retry-after"), at),
    )


def headers(telling: Telling, timestamp: int) -> dict[str, str]:
    """The signature under both names: verifiers of Svix read the one, of Standard Webhooks the other.

    The id is the event's, the same at every try, at every endpoint, after a replay and in GET /events: what was heard
    by one way is known when it comes by another.
    """
    ident = f"msg_{telling.event_id}"
    made = {"content-type": "application/json", "user-agent": USER_AGENT}
    if telling.credentials:  # RFC 7617 §2.1: a receiver of today reads UTF-8
        made["authorization"] = "Basic " + base64.b64encode(telling.credentials.encode()).decode("ascii")
    if telling.format == "sendgrid":
        return made | seals.sendgrid(telling.secrets, timestamp, telling.body)
    if telling.format == "mailgun":
        return made  # it stands in the body
    signed = sign(telling.secrets, ident, timestamp, telling.body)
    for prefix in ("webhook", "svix"):
        made |= {f"{prefix}-id": ident, f"{prefix}-timestamp": str(timestamp), f"{prefix}-signature": signed}
    return made


def content(telling: Telling, timestamp: int) -> bytes:
    if telling.format == "mailgun":
        return seals.mailgun(telling.secrets, timestamp, telling.event_id, telling.body).encode("ascii")
    return telling.body.encode("ascii")


def sign(secrets: str, ident: str, timestamp: int, body: str) -> str:
    """`v1,<base64>` for each secret, by spaces: while a secret is changed, both are good."""
    content = f"{ident}.{timestamp}.{body}".encode()
    macs = (hmac.digest(_octets(secret), content, "sha256") for secret in secrets.split())
    return " ".join(f"v1,{base64.b64encode(mac).decode('ascii')}" for mac in macs)


def _octets(secret: str) -> bytes:
    encoded = secret.removeprefix("whsec_")
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise ValueError("a signing secret is not whsec_ and base64") from None


def retry_after(value: str, now: datetime) -> float:
    """RFC 9110 §10.2.3: seconds or a date; 0 where there is none or it makes no sense."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # a year or a zone of twenty digits
        return 0.0
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max((at - now).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def wait_after(posted: Posted, rng: random.Random | None = None) -> float | None:
    """Seconds until the next try; None where there is none: told, gone, or the schedule ran out."""
    made = posted.telling.tries + 1
    if posted.ok or posted.gone or made > len(WAITS_S):
        return None
    wait = WAITS_S[made - 1] * (1 + (rng or random).uniform(-JITTER, JITTER))
    return max(wait, posted.retry_after_s)
