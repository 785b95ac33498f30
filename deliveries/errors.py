"""Breakage, in one tree. A refusal by a peer (a 550, a null MX) is data, never one of these.

MailapiError
├── BadInput            the caller can mend it; names the fields
├── KeyRefused          the credential does not open this door
├── Conflict            the idempotency key is taken, or the mail is not in the state that the order needs
├── OverQuota           the tenant has used its recipients of the day or month
├── BadTemplate         a template that cannot be read, or goes beyond its limits with these values
├── ComposeError        accepted content that cannot be rendered: our bug, the delivery fails
├── TokenError          a VERP token that is not ours, altered or too old
├── AddressRefused      a URL or host that leads to an address we never connect to
├── Unreadable          an encrypted column that no key of FIELD_KEYS opens
├── FetchFailed         an HTTP exchange that brought no complete answer
└── MailboxFailed       a bounce mailbox that could not be opened or listed, or broke off
    └── MailNotFetched  one mail of it that could not be had; the others can
"""

from __future__ import annotations

from dataclasses import dataclass


class MailapiError(Exception):
    """Root of the tree; caught only at the edges (a view, a task, a command)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request.

    `field` is the path in the caller's words (`to[3]`, `attachments[0].content`; empty for the whole
    body), `code` a stable word (`invalid_address`), `message` says what is wrong and what to do.
    `index` is the position of the mail in a batch, None outside of one.
    """

    field: str
    code: str
    message: str
    index: int | None = None


class BadInput(MailapiError):
    """The request cannot be honoured as it is; nothing was stored. `faults` is never empty."""

    def __init__(self, faults: list[Fault], name: str = "validation_error", http_status: int = 422) -> None:
        super().__init__("; ".join(f.message for f in faults))
        self.faults = faults
        self.name = name
        self.http_status = http_status


class KeyRefused(MailapiError):
    """The API key is missing, unknown, revoked or may not do this. `name` is the error word of the wire."""

    def __init__(self, name: str, message: str, http_status: int) -> None:
        super().__init__(message)
        self.name = name
        self.http_status = http_status


class Conflict(MailapiError):
    """It does not fit what is there: `name` says what is; `retry_after_s` is None where waiting does not help."""

    def __init__(self, name: str, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.retry_after_s = retry_after_s


class OverQuota(MailapiError):
    """`name` is daily_quota_exceeded or monthly_quota_exceeded."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class BadTemplate(MailapiError):
    """A template that cannot be understood, or whose rendering failed or cost too much.

    `line` counts from 1 and is None where no place is known; `part` (html, text, subject) is named by who knows it.
    """

    def __init__(self, message: str, line: int | None = None, part: str = "") -> None:
        super().__init__(message if line is None else f"Line {line}: {message}")
        self.message = message
        self.line = line
        self.part = part


class ComposeError(MailapiError):
    """Frozen content that cannot be put on the wire; accept should have refused it."""


class TokenError(MailapiError):
    """A token without effect; the message is one of `malformed`, `unknown key`, `forged`, `expired`."""


class AddressRefused(MailapiError):
    """Loopback, private, link-local, shared or mapped address behind a user's URL."""


class Unreadable(MailapiError):
    """What is encrypted cannot be opened: its key is gone from FIELD_KEYS, or the octets are damaged."""


class FetchFailed(MailapiError):
    """DNS, connection, TLS, protocol or time ended an HTTP exchange; the message says which, for a person."""


class MailboxFailed(MailapiError):
    """IMAP or POP3: connection, TLS, login, protocol or time; the message says which, for a person."""


class MailNotFetched(MailboxFailed):
    """The server refused one mail, and the session goes on."""
