"""Reads the mail that came back, one at a time, and lets it act where a token of ours proves what it is about.

    claim (tries + 1, committed) → read_report → match the token → record (deliveries.record.reports)

The try is committed before the first octet is read: a mail that kills its reader is set aside after three of them
and shown, so that one mail can never poison the workers (docs/rfc.md, rule 31). One reader runs at a time, by an
advisory lock that ends with its connection; bounces come by the hundred, and a reader takes hundreds a second.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from django.conf import settings
from django.db import DatabaseError

from deliveries.addresses import find
from deliveries.bounces.letter import read_letter
from deliveries.bounces.report import Kind, Recipient, Report, ReportKind, read_report
from deliveries.errors import TokenError
from deliveries.mime import verp
from deliveries.mime.address import folded
from deliveries.models import InboundMessage, InboundRoute
from deliveries.models.sql import execute
from deliveries.read.receiving import facts
from deliveries.record.receptions import received
from deliveries.record.reports import Reading, Refused, bounced, complained, put_aside
from deliveries.smtp.rules import OF_ANOTHER
from deliveries.states import Category

log = logging.getLogger(__name__)

#: readers that may die on one mail
MAX_TRIES = 3
#: no new mail is begun after it; the task's own limit lies above
MAX_RUN_S = 45.0
#: complaints come later than bounces: the token is good for 30 days, and for 150 more in a feedback report
COMPLAINT_GRACE = timedelta(days=150)
#: RFC 5965 §7.3, RFC 6591: reports that are no complaint of a recipient
_NO_COMPLAINT = frozenset({"not-spam", "auth-failure", "dmarc"})
#: a mail to these is for a person, unless it is a report
ROLES = frozenset({"postmaster", "abuse"})
#: the address is dead. bad_domain needs a second sight, which record.reports looks for
_DEAD = frozenset({Category.BAD_MAILBOX, Category.INACTIVE})
#: from the worst to the mildest
_MILD = (Kind.HARD, Kind.UNKNOWN, Kind.SOFT)
#: reports that act also where they came to an address of a tenant: some servers send them to From
_ABOUT_US = frozenset({ReportKind.BOUNCE, ReportKind.COMPLAINT})
#: of pg_try_advisory_lock: any constant that nobody else in this database uses
_LOCK = 0x6D61696C66656564

State = InboundMessage.State


def run() -> int:
    """Read what waits; how many mails. Returns at once where another reader is at work."""
    if not _one("SELECT pg_try_advisory_lock(%(key)s) AS ours", {"key": _LOCK})["ours"]:
        return 0
    try:
        end = time.monotonic() + MAX_RUN_S
        read = 0
        while time.monotonic() < end and (row := _claim()) is not None:
            _read(row)
            read += 1
        return read
    finally:
        execute("SELECT pg_advisory_unlock(%(key)s)", {"key": _LOCK})


def _claim() -> dict[str, Any] | None:
    """The oldest mail that waits, its try counted and committed; None where nothing waits."""
    row: dict[str, Any] | None = execute(_CLAIM).fetchone()
    return row


def _read(row: dict[str, Any]) -> None:
    reading = Reading(row["id"], "", "")
    if row["tries"] > MAX_TRIES:
        note = f"{MAX_TRIES} readers ended without a result on this mail; it is kept for a person."
        ids = {"event": "inbound.set_aside", "inbound_id": row["id"]}
        log.error("inbound mail %s is set aside: %s", row["id"], note, extra=ids)
        put_aside(Reading(row["id"], ReportKind.UNREADABLE, note), State.UNREADABLE)
        return
    try:
        report = read_report(bytes(row["octets"]), row["reverse_path"])
        _act(row, report)
    except DatabaseError as e:
        if isinstance(e.__cause__, psycopg.errors.LockNotAvailable):
            # who holds a table (ALTER TABLE, VACUUM FULL) says nothing of this mail
            execute(_NOT_TRIED, {"id": row["id"]})
        raise
    except Exception:
        # a bug of ours in reading this one mail: the others go on, and it is tried until MAX_TRIES sets it aside
        log.exception("inbound mail %s: its reader failed (try %d)", reading.inbound_id, row["tries"])


def _act(row: dict[str, Any], report: Report) -> None:
    said = "; ".join(report.notes)
    reading = Reading(row["id"], report.kind.value, said)
    if report.kind is ReportKind.UNREADABLE:
        return put_aside(reading, State.UNREADABLE)
    delivery_id, why = _named(row["forward_path"], report, row["received_at"])
    if row["received_for"] and (delivery_id is None or report.kind not in _ABOUT_US or report.second_hand):
        return _received(row, reading)
    if delivery_id is None:
        # docs/rfc.md, rule 27: without a token of ours nothing acts, whatever the report says
        state = State.KEPT if is_role(row["forward_path"]) else State.UNMATCHED
        return put_aside(Reading(row["id"], report.kind.value, why), state)
    match report.kind:
        case ReportKind.BOUNCE:
            bounced(reading, delivery_id, _refused(report, _recipient(delivery_id)))
        case ReportKind.COMPLAINT if report.feedback_type not in _NO_COMPLAINT:
            complained(reading, delivery_id, report.feedback_type or "abuse")
        case _:  # delayed, delivered, auto-reply, ordinary: told to whoever looks, of no effect
            put_aside(reading, State.READ, delivery_id)
    return None


def _received(row: dict[str, Any], reading: Reading) -> None:
    """It came to an address of a tenant, and is no report with a token of ours: told, kept, handed on."""
    letter = facts(read_letter(bytes(row["octets"])), row["id"])
    found = [(find(path), path) for path in row["received_for"]]
    hand_on = [(f.route_id, path) for f, path in found if f.route_id and f.forward != InboundRoute.Forward.NONE]
    received(reading, row["tenant_id"], row["received_for"], letter, hand_on)


def _named(forward_path: str, report: Report, received_at: datetime) -> tuple[UUID | None, str]:
    """The delivery that a valid token names, the envelope's before the returned header's; else None and why."""
    grace = COMPLAINT_GRACE if report.kind is ReportKind.COMPLAINT else timedelta(0)
    whys = []
    for where, token in (("address", verp.token_of(forward_path)), ("returned header", report.token)):
        if token is None:
            continue
        try:
            return verp.read(verp.keys_of(settings.VERP_KEYS), token, received_at, grace), ""
        except TokenError as e:
            whys.append(f"the token in the {where} is {e}")
    return None, ("; ".join(whys) or "no token of ours").capitalize() + "."


def _recipient(delivery_id: UUID) -> str:
    row = execute("SELECT recipient FROM delivery WHERE id = %(id)s", {"id": delivery_id}).fetchone()
    return row["recipient"] if row else ""


def _refused(report: Report, recipient: str) -> Refused:
    """What the report says of the one recipient that each of our transactions has, if it names that one.

    Of several others the mildest. The mail bounced, yet none of them kills ours: it may stand for a team, whose server
    keeps our reverse-path, and while one member is gone the others read on.
    """
    ours = [r for r in report.recipients if folded(r.address) == folded(recipient)] or report.recipients
    failed = [r for r in ours if r.action != "delayed"] or ours
    said: Recipient | None = max(failed, key=lambda r: _MILD.index(r.kind), default=None)
    if said is None:
        return Refused(Category.UNKNOWN, "report", False, "")
    another = _another(said.address, recipient)
    dead = said.kind is Kind.HARD and not another
    return Refused(
        said.category,
        said.rule + OF_ANOTHER if another else said.rule,
        dead and said.category in _DEAD,
        said.diagnostic,
        # "" or an enhanced code; a column of 12 characters holds every one that RFC 3463 allows
        said.status[:12],
        dead and said.category is Category.BAD_DOMAIN,
    )


def _another(named: str, recipient: str) -> bool:
    """Whether a report names somebody else; not where servers wrote the same person's name with another domain, a
    subaddress (RFC 5233) or none, or in a form that has no local part (X.400, Notes)."""
    if "@" not in named:
        return False
    return _local(named) != _local(recipient)


def _local(address: str) -> str:
    return folded(address).rpartition("@")[0].partition("+")[0]


def is_role(address: str) -> bool:
    """postmaster@ and abuse@, at any domain or none (RFC 5321 §4.5.1, RFC 2142)."""
    return address.partition("@")[0].lower() in ROLES


def _one(statement: str, params: dict[str, Any]) -> dict[str, Any]:
    row = execute(statement, params).fetchone()
    assert row is not None
    return row


_CLAIM = f"""
UPDATE inbound_message SET tries = tries + 1
 WHERE id = (SELECT id FROM inbound_message WHERE state = '{State.WAITING}' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, forward_path, octets, tries, received_at, received_for, tenant_id,
          -- a polled mailbox has no envelope: Return-Path tells it, where the field is
          CASE WHEN helo <> '' THEN reverse_path END AS reverse_path
"""

_NOT_TRIED = f"UPDATE inbound_message SET tries = tries - 1 WHERE id = %(id)s AND state = '{State.WAITING}'"
