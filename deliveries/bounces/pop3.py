"""One session of POP3 (RFC 1939, RFC 2595) over poplib, by UIDL; see `mailbox` for its order of use."""

from __future__ import annotations

import poplib
import socket
from collections.abc import Collection

from deliveries.bounces.wire import (
    MAX_KEYS,
    MAX_LIST_OCTETS,
    MAX_MAIL_OCTETS,
    READ_S,
    Account,
    Budget,
    Security,
    connect,
    context,
    said,
)
from deliveries.errors import MailboxFailed, MailNotFetched
from deliveries.smtp.reply import clean

#: RFC 1939 §7 says 70 characters; some servers give more
MAX_KEY_CHARS = 255
#: a mail's line in POP3; mails that break the 998 rule come every day
_MAX_LINE_OCTETS = 65_536
#: octets that each line counts for at least, which is about what it costs in memory
_LINE_COST = 32


class _Wire(poplib.POP3):
    """poplib on our own socket: long lines are read, endless ones and endless answers are not."""

    def __init__(self, account: Account, wires: list[socket.socket]) -> None:
        self._account, self._wires = account, wires
        self.budget = Budget()
        self.budget.left = MAX_LIST_OCTETS
        super().__init__(account.host, account.port, READ_S)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return connect(self._account, self._wires)

    def _getline(self) -> tuple[bytes, int]:
        line = self.file.readline(_MAX_LINE_OCTETS + 1)
        self.budget.spend(max(len(line), _LINE_COST))
        if not line.endswith(b"\n"):
            raise MailboxFailed("A line has no end" if line else "The server hung up")
        return line.removesuffix(b"\n").removesuffix(b"\r"), len(line)


class Pop3:
    def __init__(self, account: Account, wires: list[socket.socket]) -> None:
        self._account = account
        self._numbers: dict[str, int] = {}
        self._sizes: dict[int, int] = {}
        self._deleted: set[str] = set()
        self._wire = wire = _Wire(account, wires)
        if account.security is Security.STARTTLS:
            try:
                wire.stls(context(account))
            except poplib.error_proto as e:
                raise MailboxFailed(f"The server does not offer STLS: {said(e)}") from e
            wires[:] = [wire.sock]
        try:
            wire.user(account.username)
            wire.pass_(account.password)
        except poplib.error_proto as e:
            raise MailboxFailed(f"Login refused: {said(e)}") from e

    @property
    def present(self) -> frozenset[str] | None:
        return frozenset(self._numbers)

    def keys(self, skip: Collection[str] = ()) -> list[str]:
        self._wire.budget.left = 4 * MAX_LIST_OCTETS
        try:
            listing: list[bytes] = self._wire.uidl()[1]
        except poplib.error_proto as e:
            raise MailboxFailed(f"The server has no UIDL, so that its mails cannot be told apart: {said(e)}") from e
        for line in listing:
            number, _, key = line.decode("ascii", "replace").strip().partition(" ")
            if number.isdigit() and key:
                self._numbers[clean(key)[:MAX_KEY_CHARS]] = int(number)
        for line in self._wire.list()[1]:
            number, _, size = line.decode("ascii", "replace").strip().partition(" ")
            if number.isdigit() and size.strip().isdigit():
                self._sizes[int(number)] = int(size)
        return sorted((k for k in self._numbers if k not in skip), key=self._numbers.__getitem__)[:MAX_KEYS]

    def fetch(self, key: str) -> bytes:
        number = self._numbers[key]
        self._wire.budget.left = 2 * MAX_MAIL_OCTETS  # stuffed dots and line ends
        try:
            if self._sizes.get(number, 0) > MAX_MAIL_OCTETS:
                _, lines, _ = self._wire.top(number, _TOP_LINES)
            else:
                _, lines, _ = self._wire.retr(number)
        except poplib.error_proto as e:
            raise MailNotFetched(said(e)) from e
        return b"".join(line + b"\r\n" for line in lines)[:MAX_MAIL_OCTETS]

    def acknowledge(self, key: str) -> None:
        if not self._account.delete:
            return
        self._wire.budget.left = MAX_LIST_OCTETS
        try:
            self._wire.dele(self._numbers[key])
        except poplib.error_proto as e:
            raise MailNotFetched(f"It cannot be deleted: {said(e)}") from e
        self._deleted.add(key)

    def finish(self) -> frozenset[str]:
        self._wire.budget.left = MAX_LIST_OCTETS
        self._wire.quit()  # RFC 1939 §6: only now are they removed
        return frozenset(self._deleted)


#: of a mail that is too large: its report stands at the head
_TOP_LINES = 5_000
