"""What the lab does for each local part of `simulator.test` (any `+label` and any case allowed)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

#: RFC 6761 §6.4: `.test` never resolves on the Internet
DOMAIN = "simulator.test"


class Report(StrEnum):
    """What comes back to the reverse-path after a 250."""

    DSN = "dsn"  #: a failure report (RFC 3464)
    ARF = "arf"  #: a complaint (RFC 5965)
    VACATION = "vacation"  #: an automatic reply (RFC 3834)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One address. Replies are whole lines; None means the ordinary good one."""

    name: str
    tells: str  #: one line for a person
    rcpt: str | None = None
    rcpt_once: bool = False  #: `rcpt` only for the first try of a (reverse-path, forward-path) pair
    needs_tls: bool = False
    slow: bool = False
    closes_at_rcpt: bool = False
    #: the connection is lost when DATA is asked for. Not later: a client may write body and dot in one piece, and
    #: whether it saw our 354 before the loss would be chance
    drops_at_data: bool = False
    #: the mail is kept, the reply to the final dot never comes
    drops_at_dot: bool = False
    report: Report | None = None


_ALL = (
    Behaviour("delivered", "accepted"),
    Behaviour("bounced", "no such mailbox", rcpt="550 5.1.1 No such user here"),
    Behaviour("mailboxfull", "over quota, for ever", rcpt="452 4.2.2 Mailbox full"),
    Behaviour(
        "greylist", "accepted on the second try", rcpt="451 4.7.1 Greylisted, please try again later", rcpt_once=True
    ),
    Behaviour("deferred", "never ready", rcpt="451 4.3.0 Temporary system problem, try again later"),
    Behaviour("latedsn", "accepted; a DSN says afterwards that there is no such user", report=Report.DSN),
    Behaviour("complained", "accepted; the reader reports it as spam (ARF)", report=Report.ARF),
    Behaviour("autoreply", "accepted; a vacation note comes back", report=Report.VACATION),
    Behaviour("blocked", "refused by policy", rcpt="550 5.7.1 Message refused by local policy"),
    Behaviour("slow", "accepted, each answer after a pause", slow=True),
    Behaviour("drop", "the connection is lost at DATA", drops_at_data=True),
    Behaviour("dropdot", "kept, but the connection is lost before the answer", drops_at_dot=True),
    Behaviour("tls", "accepted over TLS only", needs_tls=True),
    Behaviour(
        "badcert", "accepted over TLS only, whose certificate nobody signed: a verifying route refuses", needs_tls=True
    ),
    Behaviour(
        "421", "the server closes instead of answering", rcpt="421 4.3.2 Service shutting down", closes_at_rcpt=True
    ),
)

BEHAVIOURS: dict[str, Behaviour] = {b.name: b for b in _ALL}


def behaviour_of(local_part: str) -> Behaviour | None:
    """The behaviour of an address, None for one that does not exist (550 5.1.1)."""
    return BEHAVIOURS.get(local_part.lower().partition("+")[0])
