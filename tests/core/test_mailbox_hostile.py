"""Servers of mailboxes that break the rules: each ends in words, soon, and none gets a password unasked."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from deliveries.bounces import imap, mailbox, pop3, wire
from deliveries.bounces.mailbox import Account, Kind, Security, open_mailbox
from deliveries.errors import MailboxFailed

Talk = Callable[[socket.socket, list[bytes]], None]


@contextlib.contextmanager
def serving(talk: Talk) -> Iterator[tuple[int, list[bytes]]]:
    """One connection after the other; the port, and the lines that clients sent."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client = server.accept()[0]
                    with client, contextlib.suppress(OSError):
                        client.settimeout(10)
                        talk(client, heard)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], heard
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def account(kind: Kind, port: int, security: Security = Security.NONE, **fields: object) -> Account:
    fields = {"allow_private": True, **fields}
    return Account(kind, "127.0.0.1", port, security, "user", "secret", **fields)  # type: ignore[arg-type]


def imap_until_fetch(answer: bytes) -> Talk:
    """A server that is well until the mail is asked for."""

    def talk(client: socket.socket, heard: list[bytes]) -> None:
        client.sendall(b"* OK ready\r\n")
        for line in client.makefile("rb"):
            heard.append(line)
            tag, verb = line.split()[0], line.split()[1].upper()
            if verb == b"CAPABILITY":
                client.sendall(b"* CAPABILITY IMAP4rev1\r\n")
            elif verb == b"SELECT":
                client.sendall(b"* 1 EXISTS\r\n* OK [UIDVALIDITY 7] ok\r\n")
            elif b"SEARCH" in line:
                client.sendall(b"* SEARCH 5\r\n")
            elif b"FETCH" in line:
                client.sendall(answer.replace(b"TAG", tag))
                continue
            client.sendall(tag + b" OK done\r\n")

    return talk


def fails(opened: Account, words: str) -> None:
    with pytest.raises(MailboxFailed, match=words), open_mailbox(opened) as box:
        for key in list(box.keys()):
            box.fetch(key)


def test_a_literal_that_claims_to_be_endless_is_not_read() -> None:
    with serving(imap_until_fetch(b"* 1 FETCH (UID 5 BODY[]<0> {99999999999}\r\n")) as (port, _):
        fails(account(Kind.IMAP, port), "larger than was asked for")


def test_answers_without_end_are_not_read() -> None:
    with serving(imap_until_fetch(b"* OK still here\r\n" * 4_000_000)) as (port, _):
        fails(account(Kind.IMAP, port), "larger than was asked for")


def test_another_mail_than_was_asked_for_is_not_taken_for_it() -> None:
    other = b"* 1 FETCH (UID 4 BODY[]<0> {1}\r\na)\r\nTAG OK done\r\n"
    with serving(imap_until_fetch(other)) as (port, _):
        fails(account(Kind.IMAP, port), "no content")
    behind = b"* 1 FETCH (BODY[]<0> {1}\r\na UID 5)\r\nTAG OK done\r\n"
    with serving(imap_until_fetch(behind)) as (port, _), open_mailbox(account(Kind.IMAP, port)) as box:
        assert box.fetch("7:5") == b"a"


@pytest.mark.parametrize("kind", Kind)
def test_a_server_that_drips_is_cut_off_by_the_watch(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "SESSION_S", 0.5)

    def drip(client: socket.socket, heard: list[bytes]) -> None:
        client.sendall(b"* OK" if kind is Kind.IMAP else b"+OK")
        while True:
            client.sendall(b"x")
            threading.Event().wait(0.05)

    with serving(drip) as (port, _):
        fails(account(kind, port), "longer than 0.5 s")


@pytest.mark.parametrize("kind", Kind)
def test_without_starttls_no_password_is_sent(kind: Kind) -> None:
    def plain(client: socket.socket, heard: list[bytes]) -> None:
        client.sendall(b"* OK\r\n" if kind is Kind.IMAP else b"+OK\r\n")
        for line in client.makefile("rb"):
            heard.append(line)
            if kind is Kind.IMAP:
                tag = line.split()[0]
                client.sendall(b"* CAPABILITY IMAP4rev1\r\n" + tag + b" OK done\r\n")
            else:
                client.sendall(b"-ERR what?\r\n")

    with serving(plain) as (port, heard):
        fails(account(kind, port, Security.STARTTLS), "does not offer STARTTLS|does not offer STLS")
    assert not any(b"secret" in line for line in heard)


@pytest.mark.parametrize("kind", Kind)
def test_a_greeting_that_makes_no_sense_is_said(kind: Kind) -> None:
    def noise(client: socket.socket, heard: list[bytes]) -> None:
        client.sendall(b"\xff\xfe\x00 220 hello\r\n" * 3)

    with serving(noise) as (port, _), pytest.raises(MailboxFailed), open_mailbox(account(kind, port)):
        pass


def test_a_pop3_listing_without_end_and_a_line_without_end_are_not_read() -> None:
    def talk(client: socket.socket, heard: list[bytes]) -> None:
        client.sendall(b"+OK\r\n")
        for line in client.makefile("rb"):
            heard.append(line)
            client.sendall(b"+OK\r\n")
            if line.startswith(b"UIDL"):
                for n in range(1, 2_000_000):
                    client.sendall(b"%d %s\r\n" % (n, b"k" * 60))

    with serving(talk) as (port, _):
        fails(account(Kind.POP3, port), "larger than was asked for")

    def long(client: socket.socket, heard: list[bytes]) -> None:
        client.sendall(b"+OK " + b"x" * 1_000_000)

    with serving(long) as (port, _):
        fails(account(Kind.POP3, port), "no end")


def test_a_key_of_a_mail_holds_nothing_that_no_database_stores() -> None:
    def talk(client: socket.socket, heard: list[bytes]) -> None:
        client.sendall(b"+OK ready\r\n")
        for line in client.makefile("rb"):
            client.sendall(
                {b"UIDL": b"+OK\r\n1 a\0b\r\n.\r\n", b"LIST": b"+OK\r\n1 9\r\n.\r\n"}.get(line.split()[0], b"+OK\r\n")
            )

    with serving(talk) as (port, _), open_mailbox(account(Kind.POP3, port)) as box:
        assert box.keys() == ["a b"]


def test_a_host_inside_is_refused_before_anything_is_connected() -> None:
    def never(client: socket.socket, heard: list[bytes]) -> None:
        heard.append(b"connected")

    with serving(never) as (port, heard):
        fails(account(Kind.IMAP, port, allow_private=False), "not a public address")
    assert heard == []


@pytest.mark.parametrize("wrong", ["pass\r\nDELE 1", "a\0b"])
def test_a_line_end_in_a_password_never_reaches_the_wire(wrong: str) -> None:
    with pytest.raises(MailboxFailed, match="line break"):
        Account(Kind.POP3, "127.0.0.1", 1, Security.NONE, "user", wrong)


def test_folders_are_named_in_modified_utf_7() -> None:
    assert imap._quoted("Entwürfe & mehr") == '"Entw&APw-rfe &- mehr"'
    assert imap._quoted('a "b" \\') == '"a \\"b\\" \\\\"'
    assert imap._quoted("台北") == '"&U,BTFw-"'


def test_the_bounds_are_those_that_the_modules_share() -> None:
    assert (imap.MAX_KEYS, pop3.MAX_KEYS) == (wire.MAX_KEYS, wire.MAX_KEYS)
