"""When to try again (RFC 5321 §4.5.4.1): first after minutes, growing, jittered, given up after days."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Schedule:
    """Waits between rounds, in seconds; the last one repeats until `max_age_s` since acceptance.

    `unknown_wait_s` is the pause before the one retry of a delivery whose final reply is not known.
    """

    waits_s: tuple[float, ...]
    max_age_s: float
    unknown_wait_s: float = 900.0
    jitter: float = 0.1

    def wait_after(self, attempts: int, rng: random.Random | None = None) -> float:
        """Seconds to wait after the `attempts`-th round (1 = the first one) ended in a deferral."""
        base = self.waits_s[min(max(attempts, 1), len(self.waits_s)) - 1]
        return base * (1 + (rng or random).uniform(-self.jitter, self.jitter))


#: RFC 5321 §4.5.4.1: greylisting clears within minutes, then ≥ 30 minutes apart, 4 days in all
DEFAULT = Schedule(waits_s=(120, 300, 900, 1800, 3600, 7200, 14400), max_age_s=4 * 86400)
#: the receiver lab answers at once, so that a person sees the whole life of a mail within a minute
SANDBOX = Schedule(waits_s=(2, 4, 8, 15), max_age_s=60, unknown_wait_s=8)


def schedule(waits: str, max_age_s: float, unknown_wait_s: float, otherwise: Schedule) -> Schedule:
    """RETRY_SCHEDULE (`120,300,900`: seconds), MAX_AGE and UNKNOWN_WAIT_S as a Schedule; empty or 0 keeps `otherwise`.

    Raises ValueError for a wait that is not a positive number.
    """
    made = otherwise
    if waits:
        try:
            waits_s = tuple(float(w) for w in waits.split(","))
        except ValueError:
            waits_s = (0.0,)
        if not all(0 < wait <= 1e9 for wait in waits_s):  # NaN is neither
            raise ValueError(f"RETRY_SCHEDULE={waits!r}: every wait is a number of seconds above 0")
        made = replace(made, waits_s=waits_s)
    if max_age_s:
        made = replace(made, max_age_s=max_age_s)
    if unknown_wait_s:
        made = replace(made, unknown_wait_s=unknown_wait_s)
    return made
