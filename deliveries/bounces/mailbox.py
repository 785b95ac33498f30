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
import imaplib
import ipaddress
import poplib
import re
import socket
import ssl
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from deliveries.errors import MailboxFailed, MailNotFetched
from deliveries.fetch import not_public
from deliveries.smtp.reply import clean

#: as the inbound SMTP server takes; of a larger mail only the beginning is fetched, where a report says all it has
MAX_MAIL_OCTETS = 25 * 1024 * 1024
#: of one listing: 100,000 UIDs of eight digits fit
MAX_LIST_OCTETS = 1_000_000
#: mails of one session; the rest comes with the next
MAX_KEYS = 500
#: sequence numbers in one SEARCH, so that its answer stays one short line
_WINDOW = 5_000
#: RFC 1939 §7 says 70 characters; some servers give more
MAX_KEY_CHARS = 255
#: a mail's line in POP3; mails that break the 998 rule come every day
_MAX_LINE_OCTETS = 65_536
#: one connect or one read
READ_S = 20.0
#: one session, however busy its server keeps us
SESSION_S = 40.0
#: the mark of mails that were read and stay: a person who opens one in a mail program does not hide it from us
TAKEN = "$MailapiTaken"


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


class Mailbox(Protocol):
    """One session. Methods raise MailboxFailed when the session is over."""

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
    except _BREAKAGE as e:
        why = f"The session took longer than {SESSION_S:g} s" if ended.is_set() else said(e)
        raise MailboxFailed(why) from e
    finally:
        watch.cancel()
        for wire in wires:
            with contextlib.suppress(OSError):
                wire.close()


def _opened(account: Account, wires: list[socket.socket]) -> Mailbox:
    try:
        return _Imap(account, wires) if account.kind is Kind.IMAP else _Pop3(account, wires)
    except ValueError as e:  # the libraries read a greeting or capabilities as ASCII
        raise MailboxFailed(f"The server's answer makes no sense: {said(e)}") from e


#: what both libraries raise for trouble of the peer and the network
_BREAKAGE = (imaplib.IMAP4.error, poplib.error_proto, OSError, EOFError)


def said(error: BaseException) -> str:
    """One line for a person, without what was sent."""
    if isinstance(error, TimeoutError):
        return f"No answer within {READ_S:g} s"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"The certificate does not prove the host: {error.verify_message}"
    parts = [a.decode("utf-8", "replace") if isinstance(a, bytes) else str(a) for a in error.args]
    return clean(" ".join(parts) or type(error).__name__)[:300]


def _connect(account: Account, wires: list[socket.socket]) -> socket.socket:
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
        secured = _context(account).wrap_socket(plain, server_hostname=account.host)
        wires[:] = [secured]
        return secured
    raise MailboxFailed(f"Cannot connect to {account.host} port {account.port}: {said(trouble or OSError())}")


def _context(account: Account) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=account.ca_file)


class _Budget:
    """Octets that one command may be answered with."""

    def __init__(self) -> None:
        self.left = 0

    def spend(self, octets: int) -> None:
        self.left -= octets
        if self.left < 0:
            raise MailboxFailed("The server's answer is larger than was asked for")


# --- IMAP -------------------------------------------------------------------------------------------------------------


class _ImapWire(imaplib.IMAP4):
    """imaplib on our own socket, reading under a budget: a literal may claim any size."""

    def __init__(self, account: Account, wires: list[socket.socket]) -> None:
        self._account, self._wires = account, wires
        self.budget = _Budget()
        self.budget.left = MAX_LIST_OCTETS
        super().__init__(account.host, account.port, READ_S)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return _connect(self._account, self._wires)

    def read(self, size: int) -> bytes:
        self.budget.spend(size)
        return super().read(size)

    def readline(self) -> bytes:
        line = super().readline()
        self.budget.spend(len(line))
        return line


_UIDS = re.compile(rb"\b\d{1,10}\b")
_FETCH_UID = re.compile(rb"\bUID (\d{1,10})\b")


class _Imap:
    def __init__(self, account: Account, wires: list[socket.socket]) -> None:
        self._account = account
        self._gone: set[str] = set()
        self._wire = wire = _ImapWire(account, wires)
        if account.security is Security.STARTTLS:
            if "STARTTLS" not in wire.capabilities:
                raise MailboxFailed("The server does not offer STARTTLS")
            wire.starttls(_context(account))
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
            self._wire.budget.left = MAX_LIST_OCTETS
            answer, data = self._wire.uid("SEARCH", f"{start}:{min(start + _WINDOW - 1, self._count)}", *wanted)
            if answer != "OK":
                raise MailboxFailed(f"The folder cannot be searched: {_words(data)}")
            named = (f"{self._validity}:{int(uid)}" for line in data if line for uid in _UIDS.findall(line))
            found += [key for key in named if key not in skip]
            if len(found) >= MAX_KEYS:
                break
        return sorted(found, key=_uid)[:MAX_KEYS]

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
        octets = [bytes(part[1]) for part in data if isinstance(part, tuple)]
        if len(octets) == 1:  # RFC 3501 §7.4.2: items in any order, the UID after the literal too
            return octets[0]
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
        answer, _ = self._wire.uid("STORE", uid, "+FLAGS.SILENT", "(\\Deleted)")
        if answer == "OK":
            # RFC 4315: this one alone, where the server can
            done, _ = self._wire.uid("EXPUNGE", uid) if "UIDPLUS" in self._capabilities else self._wire.expunge()
            if done == "OK":
                self._gone.add(key)

    def finish(self) -> frozenset[str]:
        with contextlib.suppress(*_BREAKAGE):  # every change was answered already
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


# --- POP3 -------------------------------------------------------------------------------------------------------------


class _Pop3Wire(poplib.POP3):
    """poplib on our own socket: long lines are read, endless ones and endless answers are not."""

    def __init__(self, account: Account, wires: list[socket.socket]) -> None:
        self._account, self._wires = account, wires
        self.budget = _Budget()
        self.budget.left = MAX_LIST_OCTETS
        super().__init__(account.host, account.port, READ_S)

    def _create_socket(self, timeout: float | None) -> socket.socket:
        return _connect(self._account, self._wires)

    def _getline(self) -> tuple[bytes, int]:
        line = self.file.readline(_MAX_LINE_OCTETS + 1)
        self.budget.spend(len(line))
        if not line.endswith(b"\n"):
            raise MailboxFailed("A line has no end" if line else "The server hung up")
        return line.removesuffix(b"\n").removesuffix(b"\r"), len(line)


class _Pop3:
    def __init__(self, account: Account, wires: list[socket.socket]) -> None:
        self._account = account
        self._numbers: dict[str, int] = {}
        self._sizes: dict[int, int] = {}
        self._deleted: set[str] = set()
        self._wire = wire = _Pop3Wire(account, wires)
        if account.security is Security.STARTTLS:
            try:
                wire.stls(_context(account))
            except poplib.error_proto as e:
                raise MailboxFailed(f"The server does not offer STLS: {said(e)}") from e
            wires[:] = [wire.sock]
        try:
            wire.user(account.username)
            wire.pass_(account.password)
        except poplib.error_proto as e:
            raise MailboxFailed(f"Login refused: {said(e)}") from e

    def keys(self, skip: Collection[str] = ()) -> list[str]:
        self._wire.budget.left = 4 * MAX_LIST_OCTETS
        try:
            listing: list[bytes] = self._wire.uidl()[1]
        except poplib.error_proto as e:
            raise MailboxFailed(f"The server has no UIDL, so that its mails cannot be told apart: {said(e)}") from e
        for line in listing:
            number, _, key = line.decode("ascii", "replace").strip().partition(" ")
            if number.isdigit() and key:
                self._numbers[key[:MAX_KEY_CHARS]] = int(number)
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
