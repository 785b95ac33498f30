"""What IMAP and POP3 have in common: the account, the way to its server, and the bounds of what is borne.

The name is resolved once, every address is checked, and the connection goes to one of those; TLS proves the name.
"""

from __future__ import annotations

import imaplib
import ipaddress
import poplib
import socket
import ssl
from dataclasses import dataclass, field
from enum import StrEnum

from deliveries.errors import MailboxFailed
from deliveries.fetch import not_public
from deliveries.smtp.reply import clean

#: as the inbound SMTP server takes; of a larger mail only the beginning is fetched, where a report says all it has
MAX_MAIL_OCTETS = 25 * 1024 * 1024
#: of one listing: 100,000 UIDs of eight digits fit
MAX_LIST_OCTETS = 1_000_000
#: mails of one session; the rest comes with the next
MAX_KEYS = 500
#: one connect or one read
READ_S = 20.0
#: one session, however busy its server keeps us
SESSION_S = 40.0


class Kind(StrEnum):
    """How the mailbox is reached."""

    IMAP = "imap"
    POP3 = "pop3"


class Security(StrEnum):
    """What protects the login."""

    IMPLICIT = "implicit"  #: TLS from the first octet (RFC 8314), certificate checked
    STARTTLS = "starttls"  #: STARTTLS or STLS, certificate checked, never clear text after a failure
    NONE = "none"  #: clear text, for a server on this machine


@dataclass(frozen=True, slots=True)
class Account:
    """Where the mailbox is. `delete` removes what was acknowledged; else it is marked (IMAP) or left (POP3).

    `ca_file` replaces the system's authorities. `allow_private` lets the host be one of our own network: for accounts
    of the operator, never for those of a tenant.
    """

    kind: Kind
    host: str
    port: int
    security: Security
    username: str
    password: str = field(repr=False)
    folder: str = "INBOX"
    delete: bool = True
    ca_file: str | None = None
    allow_private: bool = False

    def __post_init__(self) -> None:
        # neither library looks: a line end in a password would be the next command
        for name in ("username", "password", "folder"):
            if not getattr(self, name).isprintable():
                raise MailboxFailed(f"The {name} has a line break or another control character.")


#: what both libraries raise for trouble of the peer and the network
BREAKAGE = (imaplib.IMAP4.error, poplib.error_proto, OSError, EOFError)


def said(error: BaseException) -> str:
    """One line for a person, without what was sent."""
    if isinstance(error, TimeoutError):
        return f"No answer within {READ_S:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"The certificate does not prove the host: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return clean(error.strerror)
    parts = [a.decode("utf-8", "replace") if isinstance(a, bytes) else str(a) for a in error.args]
    return clean(" ".join(parts) or type(error).__name__)[:300]


def connect(account: Account, wires: list[socket.socket]) -> socket.socket:
    """To an address that was checked: the name is asked once, and one inner address refuses them all."""
    try:
        found = socket.getaddrinfo(account.host, account.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as e:
        raise MailboxFailed(f"{account.host} has no address: {said(e)}") from e
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not account.allow_private:
        for address in addresses:
            if why := not_public(ipaddress.ip_address(address.partition("%")[0])):
                raise MailboxFailed(f"{account.host} cannot be polled: {why}")
    trouble: OSError | None = None
    for address in addresses[:3]:
        try:
            plain = socket.create_connection((address, account.port), READ_S)
        except OSError as e:
            trouble = e
            continue
        wires.append(plain)
        if account.security is not Security.IMPLICIT:
            return plain
        secured = context(account).wrap_socket(plain, server_hostname=account.host)
        wires[:] = [secured]
        return secured
    raise MailboxFailed(f"Cannot connect to {account.host} port {account.port}: {said(trouble or OSError())}")


def context(account: Account) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=account.ca_file)


class Budget:
    """Octets that one command may be answered with."""

    def __init__(self) -> None:
        self.left = 0

    def spend(self, octets: int) -> None:
        self.left -= octets
        if self.left < 0:
            raise MailboxFailed("The server's answer is larger than was asked for")
