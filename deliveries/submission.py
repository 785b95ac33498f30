"""Submission (RFC 6409): a mail that came over SMTP, with an API key for its password, becomes a Draft like any other.

    login(password, …)  → who it is
    forward_path(path)  → whether it is an address at all
    take(mail)          → accept(), one commit; the id, or the refusal that the client is told

Blocking: the command `smtpd` runs each in a thread of its pool.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from django.conf import settings
from django.db import OperationalError, connection

from deliveries import keys
from deliveries.accept import Reports, accept, of_raw, replayed
from deliveries.accept.whole import fields_of, once
from deliveries.errors import BadInput, Conflict, Fault, KeyRefused, MailapiError, OverQuota
from deliveries.keys import Caller
from deliveries.mime import raw
from deliveries.mime.address import Address, parse_address
from deliveries.mime.control import read_control
from deliveries.models import ApiKey
from deliveries.models.asked import Notify
from deliveries.models.sql import drop_broken
from deliveries.rates import Rates
from deliveries.smtp.listener import Received, Refusal

#: no key of ours is longer, and no login may cost a hash of megabytes
_LONGEST_KEY = 512
_MAX_REPLY = 400  # RFC 5321 §4.5.3.1.5 allows 512 with code and CRLF
_NOT_ASCII = re.compile(r"[^ -~]+")
#: RFC 3463: what a fault is to an SMTP client
_REPLIES = {
    "domain_not_verified": (550, "5.7.1"),
    "too_large": (552, "5.3.4"),
}


def login(password: str, peer: str) -> Caller | None:
    """The caller behind an API key; None when it is unknown, over, suspended, for reading only, or not for `peer`."""
    if not password or len(password) > _LONGEST_KEY:
        return None
    try:
        caller = keys.find(password)
    except OperationalError:
        # a restart of Postgres leaves dead connections behind: one try with those that live
        connection.close()
        drop_broken()
        caller = keys.find(password)
    if caller is None or caller.scope == ApiKey.Scope.READING or not caller.admits(peer):
        return None
    keys.touch(caller.key_id)
    return caller


def forward_path(path: str) -> Refusal | None:
    """None for an address that mail can go to; whether it is suppressed, accept says."""
    try:
        parse_address(path)
    except ValueError as error:
        return Refusal(553, f"5.1.3 {_line(str(error))}")
    return None


def take(mail: Received) -> Refusal | str:
    """The id of the message, committed. Raises OperationalError where Postgres is away: the client keeps the mail."""
    caller = mail.principal
    assert isinstance(caller, Caller)
    limit = caller.rate_limit or settings.RATE_LIMIT
    if limit and not _rates().take(caller.key_id, limit).allowed:
        return Refusal(450, f"4.7.1 This API key may send {limit} mails a second, come again")
    try:
        whole = raw.read(mail.octets)
        late: list[Fault] = []
        control = read_control(whole.control, datetime.now(UTC), late)
        envelope = [parse_address(path) for path in mail.forward_paths]
        draft = of_raw(whole, envelope, reports=_reports(mail, whole, envelope), **fields_of(control))
        key = once("smtp", control, whole, envelope)
        accepted = replayed(caller.tenant_id, key) if late and key else None
        if late and accepted is None:
            raise BadInput(late)
        by = {"tenant": str(caller.tenant_id), "key": caller.prefix}
        accepted = accepted or accept(caller.secret_hash, [draft], key, by)
    except MailapiError as error:
        return _refusal(error)
    except OperationalError:
        connection.close()
        drop_broken()
        raise
    return str(accepted.ids[0])


@lru_cache(maxsize=1)
def _rates() -> Rates:
    return Rates()


def _reports(mail: Received, whole: raw.Raw, envelope: Sequence[Address]) -> Reports | None:
    """RFC 5321 §4.5.5: no report ever goes to the null reverse-path; nor does one to what is no address, nor about an
    automatic reply (RFC 3834 §3.3 gives that a null reverse-path, which some programs forget)."""
    wanted = {
        address.addr_spec: (sum(Notify[word] for word in asked.notify), asked.orcpt)
        for address, asked in zip(envelope, mail.asked, strict=True)
        if asked.notify
    }
    if not wanted or not mail.reverse_path or forward_path(mail.reverse_path) is not None or raw.is_reply(whole.octets):
        return None
    return Reports(mail.reverse_path, wanted, mail.envid, mail.ret == "FULL")


def _refusal(error: MailapiError) -> Refusal:
    match error:
        case BadInput(faults=faults):
            code, enhanced = _REPLIES.get(faults[0].code, (554, "5.6.0"))
            return Refusal(code, f"{enhanced} {_line(' '.join(map(_words, faults[:3])))}")
        case Conflict(retry_after_s=None):
            return Refusal(554, f"5.5.4 {_line(str(error))}")
        case OverQuota():
            return Refusal(452, f"4.3.1 {_line(str(error))}")
        case KeyRefused():
            return Refusal(550, f"5.7.1 {_line(str(error))}")
    return Refusal(451, f"4.3.2 {_line(str(error))}")


def _words(fault: Fault) -> str:
    return fault.message


def _line(text: str) -> str:
    """Fit for a reply: one line of ASCII; it may quote what the client sent."""
    return _NOT_ASCII.sub("?", text)[:_MAX_REPLY]
