"""One session of IMAP4rev1 or rev2 (RFC 3501, RFC 9051) over imaplib, by UID; see `mailbox` for its order of use."""

from __future__ import annotations

import contextlib
import imaplib
import re
import socket
from collections.abc import Collection
from typing import Any

from deliveries.bounces.wire import (
    BREAKAGE,
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

#: sequence numbers in one SEARCH, so that its answer stays one short line
_WINDOW = 5_000
#: octets that each line of an answer counts for at least: a million short lines would take longer than one long one
_LINE_COST = 500
#: the mark of mails that were read: a person who opens one in a mail program does not hide it from us, and one that is
#: to go is told from what a person deletes
TAKEN = "$MailapiTaken"


class _Wire(imaplib.IMAP4):
    """imaplib on our own socket, reading under a budget: a literal may claim any size."""

    def __init__(self, account: Account, wires: list[socket.socket]) -> None:
        self._account, self._wires = account, wires
        self.budget = Budget()
        self.budget.left = MAX_LIST_OCTETS
        super().__init__(account.host, account.port, READ_S)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return connect(self._account, self._wires)

    def read(self, size: int) -> bytes:
        self.budget.spend(size)
        return super().read(size)

    def readline(self) -> bytes:
        line = super().readline()
        self.budget.spend(max(len(line), _LINE_COST))
        return line


_UIDS = re.compile(rb"\b\d{1,10}\b")
_FETCH_UID = re.compile(rb"\bUID (\d{1,10})\b")


class Imap:
    present: frozenset[str] | None = None

    def __init__(self, account: Account, wires: list[socket.socket]) -> None:
        self._account = account
        self._gone: set[str] = set()
        self._marked: set[str] = set()  #: to be expunged at the end
        self._wire = wire = _Wire(account, wires)
        if account.security is Security.STARTTLS:
            if "STARTTLS" not in wire.capabilities:
                raise MailboxFailed("The server does not offer STARTTLS")
            wire.starttls(context(account))
            wires[:] = [wire.sock]
        self._login()
        self._capabilities = self._ask_capabilities()
        answer, data = wire.select(_quoted(account.folder))
        if answer != "OK":
            raise MailboxFailed(f"The folder {account.folder} cannot be opened: {_words(data)}")
        self._count = _number(data, "how many mails there are")
        self._validity = _number(wire.response("UIDVALIDITY")[1], "UIDVALIDITY")
        # RFC 3501 §7.1: without \* a keyword of ours would not be kept
        self._keywords = b"\\*" in b" ".join(d for d in wire.response("PERMANENTFLAGS")[1] if isinstance(d, bytes))

    def _login(self) -> None:
        wire, account = self._wire, self._account
        try:
            if "AUTH=PLAIN" in wire.capabilities:
                plain = f"\0{account.username}\0{account.password}".encode()
                wire.authenticate("PLAIN", lambda _: plain)
            elif "LOGINDISABLED" in wire.capabilities:
                raise MailboxFailed("The server takes no password in clear text: use TLS")
            else:
                wire.login(account.username, account.password)
        except wire.abort:
            raise
        except wire.error as e:
            raise MailboxFailed(f"Login refused: {said(e)}") from e

    def _ask_capabilities(self) -> frozenset[str]:
        _, data = self._wire.capability()  # RFC 3501 §6.2: they may change with the login
        return frozenset(_words(data).upper().split())

    def keys(self, skip: Collection[str] = ()) -> list[str]:
        found: list[str] = []
        wanted = ["UNDELETED"]
        if self._keywords and not self._account.delete:
            wanted.append(f"UNKEYWORD {TAKEN}")
        for start in range(1, self._count + 1, _WINDOW):
            window = f"{start}:{min(start + _WINDOW - 1, self._count)}"
            found += [key for key in self._found(window, *wanted) if key not in skip]
            if len(found) >= MAX_KEYS:
                break
        return sorted(found, key=_uid)[:MAX_KEYS]

    def _found(self, *wanted: str) -> list[str]:
        self._wire.budget.left = MAX_LIST_OCTETS
        answer, data = self._wire.uid("SEARCH", *wanted)
        if answer != "OK":
            raise MailboxFailed(f"The folder cannot be searched: {_words(data)}")
        return [f"{self._validity}:{int(uid)}" for line in data if line for uid in _UIDS.findall(line)]

    def fetch(self, key: str) -> bytes:
        self._wire.budget.left = MAX_MAIL_OCTETS + MAX_LIST_OCTETS
        try:
            # PEEK leaves it unread; RFC 3501 §6.4.5: at most so many octets
            answer, data = self._wire.uid("FETCH", str(_uid(key)), f"(UID BODY.PEEK[]<0.{MAX_MAIL_OCTETS}>)")
        except imaplib.IMAP4.abort:
            raise
        except imaplib.IMAP4.error as e:
            raise MailNotFetched(said(e)) from e
        if answer != "OK":
            raise MailNotFetched(_words(data))
        for part in data:
            # what else changed in the folder may stand in the same answer
            if isinstance(part, tuple) and (named := _FETCH_UID.search(part[0])) and int(named[1]) == _uid(key):
                return bytes(part[1])
        unnamed = [bytes(part[1]) for part in data if isinstance(part, tuple) and not _FETCH_UID.search(part[0])]
        if len(unnamed) == 1:  # RFC 3501 §7.4.2: items in any order, the UID after the literal too
            return unnamed[0]
        raise MailNotFetched("The server gives no content for it")

    def acknowledge(self, key: str) -> None:
        self._wire.budget.left = MAX_LIST_OCTETS
        uid = str(_uid(key))
        if not self._account.delete:
            flags = f"(\\Seen {TAKEN})" if self._keywords else "(\\Seen)"
            answer, _ = self._wire.uid("STORE", uid, "+FLAGS.SILENT", flags)
            if answer == "OK" and self._keywords:
                self._gone.add(key)
            return
        flags = f"(\\Deleted {TAKEN})" if self._keywords else "(\\Deleted)"
        answer, _ = self._wire.uid("STORE", uid, "+FLAGS.SILENT", flags)
        if answer != "OK":
            return
        if "UIDPLUS" not in self._capabilities:
            self._marked.add(key)
        elif self._wire.uid("EXPUNGE", uid)[0] == "OK":  # RFC 4315 §2.1: this one alone
            self._gone.add(key)

    def _expunge(self) -> None:
        """Without UIDPLUS, EXPUNGE takes whatever is marked (RFC 3501 §6.4.3), also what a person marked and may want
        back. Where there is such a mail ours stay marked, until a session finds none but ours."""
        ours = self._marked | set(self._found("DELETED", "KEYWORD", TAKEN) if self._keywords else ())
        if ours and ours.issuperset(self._found("DELETED")):
            self._wire.budget.left = MAX_LIST_OCTETS + len(ours) * _LINE_COST
            if self._wire.expunge()[0] == "OK":
                self._gone |= ours

    def finish(self) -> frozenset[str]:
        if self._account.delete and "UIDPLUS" not in self._capabilities:
            self._expunge()
        with contextlib.suppress(*BREAKAGE):  # every change was answered already
            self._wire.logout()
        return frozenset(self._gone)


def _uid(key: str) -> int:
    return int(key.rpartition(":")[2])


def _quoted(folder: str) -> str:
    """RFC 3501 §4.3 quoted; names beyond ASCII in modified UTF-7 (§5.1.3)."""
    return '"' + _utf7(folder).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _utf7(name: str) -> str:
    out = ""
    for run in re.findall(r"[ -~]+|[^ -~]+", name):
        if run[0].isascii():
            out += run.replace("&", "&-")
        else:
            packed = run.encode("utf-7").decode("ascii")  # +…-, with the alphabet of RFC 2152
            out += "&" + packed[1:].removesuffix("-").replace("/", ",") + "-"
    return out


def _number(data: list[Any], what: str) -> int:
    if not data or not isinstance(data[0], bytes) or not re.fullmatch(rb"\d{1,10}", data[0]):
        raise MailboxFailed(f"The server does not say {what}")
    return int(data[0])


def _words(data: list[Any]) -> str:
    texts = (part[0] if isinstance(part, tuple) else part for part in data)
    return clean(" ".join(t.decode("utf-8", "replace") for t in texts if isinstance(t, bytes)))[:2_000]
