"""A delivery status notification of our own (RFC 3464), as octets for `mime.raw`.

    multipart/report( text/plain, message/delivery-status, the mail's header or the mail )

Made only for a sender who asked (RFC 3461). What comes from outside (replies, ENVID, ORCPT) stands on one line and
without control characters. Left out: message/global parts of RFC 6533; a header in UTF-8 goes as 8-bit text.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from datetime import datetime

from deliveries.mime.compose import date_field
from deliveries.mime.entities import body_at
from deliveries.mime.headers import unstructured
from deliveries.smtp.reply import clean

#: of the mail in a report that asks for all of it
MAX_WHOLE_OCTETS = 1024 * 1024
_MAX_DIAGNOSTIC = 800
_XTEXT = re.compile(r"\+([0-9A-F]{2})")

#: action (RFC 3464 §2.3.3) → subject, what it means
_WORDS = {
    "failed": ("Not delivered", "could not be delivered. It is not tried again."),
    "delayed": ("Delayed", "could not be delivered yet. It is tried further; you need not send it again."),
    "relayed": (
        "Passed on",
        "was passed on to the recipient's mail host, which does not say what becomes of it. No more is known.",
    ),
}


@dataclass(frozen=True, slots=True)
class Notification:
    """What is told of one forward-path. `action` is failed, delayed or relayed; `status` x.y.z; `envid` and `orcpt` in
    xtext ("" for none); `original` the mail as it is stored, b"" where it is no longer kept."""

    delivery_id: uuid.UUID
    sender: str  #: From of the report, an addr-spec
    to: str
    reporting_host: str
    at: datetime
    arrived: datetime
    recipient: str
    action: str
    status: str
    reply: str = ""
    remote_host: str = ""
    until: datetime | None = None
    envid: str = ""
    orcpt: str = ""
    original: bytes = b""
    whole: bool = False


def notification(told: Notification) -> bytes:
    """The mail, CRLF line ends; the same value gives the same octets."""
    subject, words = _WORDS[told.action]
    boundary = f"=_{told.delivery_id.hex}_{told.action}"
    said = f"\r\nThe last answer was:\r\n\r\n    {_line(told.reply)}\r\n" if told.reply else ""
    parts = [
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        + _wrapped(f"Your mail to {told.recipient} {words}").encode()
        + f"\r\n{said}".encode(),
        b"Content-Type: message/delivery-status\r\n\r\n" + _status(told),
    ]
    if told.original:
        parts.append(_returned(told))
    head = b"".join(
        (
            f"From: Mail Delivery System <{told.sender}>\r\nTo: <{told.to}>\r\n".encode(),
            unstructured("Subject", f"{subject}: your mail to {told.recipient}"),
            date_field(told.at),
            b"Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n",
            b"Content-Type: multipart/report; report-type=delivery-status;\r\n",
            f'\tboundary="{boundary}"\r\n\r\n'.encode(),
        )
    )
    delimiter = f"--{boundary}".encode()
    return head + b"".join(delimiter + b"\r\n" + part + b"\r\n" for part in parts) + delimiter + b"--\r\n"


def _status(told: Notification) -> bytes:
    """RFC 3464 §2.2 and §2.3."""
    lines = []
    if told.envid:
        lines.append(f"Original-Envelope-Id: {xtext(told.envid)}")
    lines += [f"Reporting-MTA: dns; {told.reporting_host}", f"Arrival-{_date(told.arrived)}", ""]
    if told.orcpt:
        kind, _, address = told.orcpt.partition(";")
        lines.append(f"Original-Recipient: {_line(kind)}; {xtext(address)}")
    lines += [f"Final-Recipient: rfc822; {told.recipient}", f"Action: {told.action}", f"Status: {told.status}"]
    if told.remote_host:
        lines.append(f"Remote-MTA: dns; {_line(told.remote_host)}")
    if told.reply:
        lines.append(f"Diagnostic-Code: smtp; {_line(told.reply)}")
    lines.append(f"Last-Attempt-{_date(told.at)}")
    if told.until is not None:
        lines.append(f"Will-Retry-Until: {_date(told.until).removeprefix('Date: ')}")
    return "\r\n".join([*lines, ""]).encode()


def _returned(told: Notification) -> bytes:
    if told.whole and len(told.original) <= MAX_WHOLE_OCTETS:
        encoding = b"" if told.original.isascii() else b"Content-Transfer-Encoding: 8bit\r\n"
        return b"Content-Type: message/rfc822\r\n" + encoding + b"\r\n" + told.original
    header = told.original[: body_at(told.original, 0, len(told.original))]
    encoding = b"" if header.isascii() else b"Content-Transfer-Encoding: 8bit\r\n"
    return b"Content-Type: text/rfc822-headers\r\n" + encoding + b"\r\n" + header


def xtext(text: str) -> str:
    """RFC 3461 §4, read; what it hides is put on one line."""
    return _line(_XTEXT.sub(lambda found: chr(int(found[1], 16)), text))


def _line(text: str) -> str:
    return " ".join(clean(text).split())[:_MAX_DIAGNOSTIC]


def _date(moment: datetime) -> str:
    return date_field(moment).decode("ascii").strip()


def _wrapped(text: str) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) > 76:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\r\n".join([*lines, line])
