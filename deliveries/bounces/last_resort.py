"""flufl.bounce (Mailman's detectors) for bounces whose address no reader of ours finds.

It is given only small mails that are known to be bounces; it recurses with `email` and raises on some inputs,
so the call is contained: whatever it raises counts as finding nothing.
"""

from __future__ import annotations

import email
import email.policy
import logging

from deliveries.bounces.finding import MAX_RECIPIENTS, tidy
from deliveries.bounces.mail import Mail

#: beyond these its patterns grow slow or deep
MAX_OCTETS = 100_000
MAX_PARTS = 12

logging.getLogger("flufl.bounce").setLevel(logging.CRITICAL)


def find_addresses(octets: bytes, mail: Mail) -> list[str]:
    """Addresses that flufl.bounce blames; empty where it blames none, or the mail is not for it."""
    if len(octets) > MAX_OCTETS or len(mail.parts) > MAX_PARTS or octets.count(b"boundary=") > MAX_PARTS:
        return []
    try:
        from flufl.bounce import all_failures  # imports 17 detectors: only where wanted

        message = email.message_from_bytes(octets, policy=email.policy.compat32)
        temporary, permanent = all_failures(message)
    except Exception:  # foreign code on hostile input: its breakage is "nothing found", never ours
        return []
    found = []
    for one in sorted(permanent or temporary)[:MAX_RECIPIENTS]:
        address = tidy(one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one))
        if address:
            found.append(address)
    return found
