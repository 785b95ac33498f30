"""A mailbox that is polled for returned mail: IMAP4rev1 and rev2 (RFC 3501, RFC 9051), POP3 (RFC 1939, RFC 2595).

    with open_mailbox(account) as box:
        for key in box.keys():
            octets = box.fetch(key)         # marks nothing
            ...                             # store and commit
            box.acknowledge(key)            # only then: delete, or mark
        gone = box.finish()                 # keys that the server will not show again

Keys are stable across sessions: UIDVALIDITY and UID, or the unique-id of UIDL. Everything is bounded: octets per mail
and per answer, the time of each read, and by a watch the time of the whole session. Left out: IDLE, SASL beyond PLAIN,
APOP (MD5), POP3 servers without UIDL, which cannot tell one mail from another.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Collection, Iterator
from typing import Protocol

from deliveries.bounces.imap import Imap
from deliveries.bounces.pop3 import Pop3
from deliveries.bounces.wire import BREAKAGE, MAX_KEYS, MAX_LIST_OCTETS, SESSION_S, Account, Kind, Security, said
from deliveries.errors import MailboxFailed

__all__ = ["MAX_KEYS", "MAX_LIST_OCTETS", "Account", "Kind", "Mailbox", "Security", "open_mailbox"]


class Mailbox(Protocol):
    """One session. Methods raise MailboxFailed when the session is over."""

    @property
    def present(self) -> frozenset[str] | None:
        """All keys that were there at `keys`; None where only some were asked for."""
        ...

    def keys(self, skip: Collection[str] = ()) -> list[str]:
        """Mails that are there and not marked as taken, oldest first, without `skip`, at most MAX_KEYS."""
        ...

    def fetch(self, key: str) -> bytes:
        """The mail, at most MAX_MAIL_OCTETS of it; MailNotFetched where only this one cannot be had."""
        ...

    def acknowledge(self, key: str) -> None:
        """The mail is stored: take it away, or mark it."""
        ...

    def finish(self) -> frozenset[str]:
        """End in order; the acknowledged keys that the server will not list again."""
        ...


@contextlib.contextmanager
def open_mailbox(account: Account) -> Iterator[Mailbox]:
    """Connect, protect, log in, choose the folder. MailboxFailed says what went wrong, for a person."""
    wires: list[socket.socket] = []
    ended = threading.Event()

    def cut() -> None:
        ended.set()
        for wire in wires:
            with contextlib.suppress(OSError):
                # the base class's: an SSL socket's own would go on in clear text
                socket.socket.shutdown(wire, socket.SHUT_RDWR)

    watch = threading.Timer(SESSION_S, cut)
    watch.daemon = True
    watch.start()
    try:
        yield _opened(account, wires)
    except (MailboxFailed, *BREAKAGE) as e:
        if ended.is_set():
            raise MailboxFailed(f"The session took longer than {SESSION_S:g} s") from e
        if isinstance(e, MailboxFailed):
            raise
        raise MailboxFailed(said(e)) from e
    finally:
        watch.cancel()
        cut()  # closing alone would wait for the libraries' own file objects
        for wire in wires:
            wire.close()


def _opened(account: Account, wires: list[socket.socket]) -> Mailbox:
    try:
        return Imap(account, wires) if account.kind is Kind.IMAP else Pop3(account, wires)
    except OSError:  # a certificate that does not hold is a ValueError too
        raise
    except ValueError as e:  # the libraries read a greeting or capabilities as ASCII
        raise MailboxFailed(f"The server's answer makes no sense: {said(e)}") from e
