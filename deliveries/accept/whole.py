"""A mail that came whole, by submission or the API: what its control fields ask for, and when it is the same again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from deliveries.accept.drafts import Idempotency
from deliveries.mime.address import Address
from deliveries.mime.control import Control
from deliveries.mime.raw import Raw


def fields_of(control: Control) -> dict[str, Any]:
    """The fields of a Draft that the control fields ask for; what they do not speak of is missing."""
    asked = {
        "tags": control.tags,
        "metadata": control.metadata,
        "stream": control.stream,
        "scheduled_at": control.scheduled_at,
        "deliver_before": control.deliver_before,
        "unsubscribe": control.unsubscribe,
        "redact": control.redact,
        "untracked": control.untracked,
    }
    return {name: value for name, value in asked.items() if value or value is False}


def once(endpoint: str, control: Control, mail: Raw, envelope: Iterable[Address]) -> Idempotency | None:
    """By X-Idempotency-Key: the same mail is the same though a program made its Date and boundaries anew."""
    if control.idempotency_key is None:
        return None
    recipients = "\0".join(sorted(a.addr_spec for a in envelope))
    asked = repr((
        control.tags, control.metadata, control.stream, *control.times,
        control.unsubscribe, int(control.redact),
    ))  # fmt: skip
    digest = hashlib.sha256(mail.same + f"\0{recipients}\0{asked}".encode()).digest()
    return Idempotency(endpoint, control.idempotency_key, digest)
