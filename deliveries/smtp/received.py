"""Values of the listener: a mail as it came, a refusal, and the bounds of what is borne."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

#: what a client may ask of one connection before it is told to come back (421)
COMMAND_LIMITS = {"*": 100, "MAIL": 1_000, "RCPT": 20_000, "DATA": 1_000, "RSET": 1_000}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a recipient is not taken; `reply` is the line after the code: `5.1.1 No such user`."""

    code: int
    text: str


#: RFC 3463 §3.2: unknown recipients are refused in the session, so that we never have to send a DSN about them
NO_SUCH_USER = Refusal(550, "5.1.1 No such user here")
RELAY_DENIED = Refusal(550, "5.7.1 Relaying denied")


@dataclass(frozen=True, slots=True)
class Asked:
    """Of which ends a client wants to hear for one forward-path (RFC 3461 §4.1): SUCCESS, FAILURE, DELAY. `orcpt` is
    `type;xtext`, "" where none was given."""

    notify: frozenset[str] = frozenset()
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """One mail as it came, with our Received line on top (not in submission). `reverse_path` is "" for the null path.

    `tls` is the version, "" in clear. `principal` is what `authenticate` gave, None without AUTH. `asked` is as long as
    `forward_paths` in submission, else empty; `ret` is FULL, HDRS or "", `envid` xtext.
    """

    id: str
    peer: str
    helo: str
    reverse_path: str
    forward_paths: tuple[str, ...]
    octets: bytes
    tls: str
    at: datetime
    principal: object | None = None
    ret: str = ""
    envid: str = ""
    asked: tuple[Asked, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the listener bears. Octets and seconds."""

    max_size_octets: int = 25 * 1024 * 1024
    #: of mail data of all connections together, small mails apart, and large ones that trickle give way (smtp.reading);
    #: copies are made while it is stored
    max_held_octets: int = 200 * 1024 * 1024
    max_connections: int = 500
    max_connections_per_peer: int = 20  #: per IPv4 address or IPv6 /64
    max_refused_recipients: int = 20  #: per connection: who guesses more is harvesting
    max_mails: int = 200  #: per connection
    max_auth_failures: int = 30  #: of one peer within auth_window_s: keys have 256 bits, this spares us the looking up
    auth_window_s: float = 600
    slow_s: float = 2  #: who got on within it keeps its place also when all are taken
    idle_s: float = 300  #: RFC 5321 §4.5.3.2.7: at least five minutes
    lifetime_s: float = 3600  #: of a connection, however busy: one octet a minute is busy too
