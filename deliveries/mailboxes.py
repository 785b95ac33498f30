"""Bounce mailboxes: polled, each mail stored before it is taken away, then read like any that came to port 25.

    due (leased) → log in → list → fetch → InboundMessage and FetchedMail in one commit → delete or mark

A crash between the commit and the deletion leaves a mail in the mailbox whose key is known: the next poll takes it away
without storing it again. A mail that the server will not give is tried last, and after MAX_TRIES no more, so that it
stands in nobody's way; a mailbox that fails waits longer each time and says why in the panel.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from deliveries.bounces import mailbox
from deliveries.bounces.mail import Headers, read_headers, split_head
from deliveries.bounces.mailbox import Account, Mailbox, open_mailbox
from deliveries.errors import MailboxFailed, MailNotFetched, TokenError, Unreadable
from deliveries.mime import verp
from deliveries.models import BounceMailbox, FetchedMail, InboundMessage
from deliveries.models.sql import execute
from deliveries.smtp.reply import clean

log = logging.getLogger(__name__)

#: between two polls of a mailbox that answers
POLL_S = 60
#: … and of one that has failed for long
MAX_POLL_S = 3_600
#: a poll whose worker died is taken up again after it; longer than any session (mailbox.SESSION_S)
LEASE_S = 120
#: sessions at a time in one process: they wait for servers nearly all the time
SESSIONS = 8
#: mailboxes of one run; the others follow ten seconds later
MAX_MAILBOXES = 32
#: sessions that may fail on one mail; then it stays where it is, and the panel says so
MAX_TRIES = 5
_UNREADABLE = "The mailbox's password cannot be read (no key of FIELD_KEYS opens it); enter it again."

#: what MDAs wrote before it: whom the envelope named. Then the fields that the sender wrote
_DELIVERED = ("delivered-to", "x-original-to", "envelope-to", "x-envelope-to", "x-delivered-to", "x-forwarded-to")
_ADDRESSED = ("to", "cc")

T = TypeVar("T")


def run() -> int:
    """Poll what is due; how many mails were stored."""
    due = execute(_CLAIM, {"lease": LEASE_S, "most": MAX_MAILBOXES}).fetchall()
    if not due:
        return 0
    connection.close()  # the sessions need the pool
    with ThreadPoolExecutor(SESSIONS, thread_name_prefix="mailbox") as sessions:
        polls = [sessions.submit(poll, row["id"]) for row in due]
    # a database that went away meanwhile is the task's failure, not the mailbox's: the lease brings it back
    return sum(done.result() for done in polls)


def poll(mailbox_id: UUID) -> int:
    """One session with one mailbox; how many mails were stored. Postgres is held only while it is asked."""
    row = _db(lambda: BounceMailbox.objects.filter(id=mailbox_id, enabled=True).first())
    if row is None:
        return 0
    stored, problem = 0, ""
    try:
        with open_mailbox(account_of(row)) as box:
            for key, taken in _to_do(row, box):
                if not taken:
                    try:
                        stored += _take(row, box, key)
                    except MailNotFetched as e:
                        problem = f"One mail cannot be fetched ({key}): {e}"
                        continue
                _acknowledge(box, key)
            gone, present = box.finish(), box.present
        _db(lambda: _forget(row, gone, present))
    except (MailboxFailed, Unreadable) as e:
        problem = _UNREADABLE if isinstance(e, Unreadable) else str(e)
        log.info("bounce mailbox %s: %s", row, e)
        _db(lambda: _failed(row, problem))
    else:
        if given_up := _db(lambda: _untaken(row).filter(tries__gte=MAX_TRIES).count()):
            problem = f"Mails that could not be fetched and stay in the mailbox: {given_up}. {problem}"
        _db(lambda: _went_well(row, problem))
    return stored


def check_now(rows: QuerySet[BounceMailbox]) -> int:
    """Due at once, mails that were given up included; how many mailboxes."""
    ids = list(rows.values_list("id", flat=True))
    FetchedMail.objects.filter(mailbox_id__in=ids, taken_at=None).update(tries=0)
    return BounceMailbox.objects.filter(id__in=ids, enabled=True).update(next_poll_at=Now())


def account_of(row: BounceMailbox) -> Account:
    """The row as the session takes it. Only the operator's may be inside our own network (docs/rfc.md, rule 34)."""
    return Account(
        kind=mailbox.Kind(row.protocol),
        host=row.host,
        port=row.port,
        security=mailbox.Security(row.tls),
        username=row.username,
        password=bytes(row.password).decode("utf-8"),
        folder=row.folder,
        delete=row.delete_after,
        ca_file=settings.SMTP_CA_FILE or None,
        allow_private=row.tenant_id is None or settings.MX_ALLOW_PRIVATE,
    )


# --- one session --------------------------------------------------------------------------------------------------


def _to_do(row: BounceMailbox, box: Mailbox) -> list[tuple[str, bool]]:
    """Keys and whether they are stored already; those that failed before come last, the hopeless not at all."""
    known = _db(lambda: list(_known(row).values_list("key", "tries", "taken_at")))
    taken = {key for key, _, taken_at in known if taken_at}
    tries = {key: count for key, count, taken_at in known if not taken_at}
    skip = {key for key, count in tries.items() if count >= MAX_TRIES}
    keys = box.keys(skip=skip if row.delete_after else skip | taken)
    return [(key, key in taken) for key in sorted(keys, key=lambda key: tries.get(key, 0))]


def _take(row: BounceMailbox, box: Mailbox, key: str) -> int:
    """Fetch and store; the try is counted before, so that a mail on which sessions die moves to the end."""
    _db(lambda: execute(_TRY, {"mailbox": row.id, "key": key}))
    octets = box.fetch(key)
    return int(_db(lambda: _store(row, key, octets)))


def _store(row: BounceMailbox, key: str, octets: bytes) -> bool:
    """False where another session has stored it meanwhile."""
    with transaction.atomic():
        if not _untaken(row).filter(key=key).update(taken_at=Now()):
            return False
        InboundMessage.objects.bulk_create([_inbound(row, octets)])
    return True


def _acknowledge(box: Mailbox, key: str) -> None:
    try:
        box.acknowledge(key)
    except MailNotFetched as e:  # it is stored, and its key is known
        log.info("mail %s stays in its mailbox: %s", key, e)


def _inbound(row: BounceMailbox, octets: bytes) -> InboundMessage:
    headers = read_headers(split_head(octets[: mailbox.MAX_LIST_OCTETS].replace(b"\r\n", b"\n"))[0])
    return InboundMessage(
        received_at=datetime.now(UTC),
        peer=f"{row.protocol}://{row.host}",
        reverse_path=clean(headers.get("return-path").strip("<> "))[:320],
        forward_path=clean(forward_path(headers, row.username))[:320],
        octets=octets,
        tenant_id=row.tenant_id,
    )


def forward_path(headers: Headers, otherwise: str) -> str:
    """A mailbox has no envelope: the address with a valid token of ours, else whom the MDA says, else `otherwise`."""
    keys = verp.Keys.parse(settings.VERP_KEYS)
    for value in _values(headers, (*_DELIVERED, *_ADDRESSED)):
        token = verp.token_of(value)
        if token is None:
            continue
        try:
            # whether it is still good, feedback asks, which knows what the mail is
            verp.read(keys, token, datetime.fromtimestamp(0, UTC))
        except TokenError:
            continue
        return verp.reverse_path(token, settings.BOUNCE_DOMAIN)
    return next((value.strip("<> ") for value in _values(headers, _DELIVERED)), otherwise)


def _values(headers: Headers, names: Iterable[str]) -> Iterable[str]:
    return (value for name in names for value in headers.all(name)[:20] if value)


# --- rows ---------------------------------------------------------------------------------------------------------


def _db(work: Callable[[], T]) -> T:
    """Two connections serve all sessions of a process: each is given back at once."""
    try:
        return work()
    finally:
        if not connection.in_atomic_block:
            connection.close()


def _known(row: BounceMailbox) -> QuerySet[FetchedMail]:
    return FetchedMail.objects.filter(mailbox_id=row.id)


def _untaken(row: BounceMailbox) -> QuerySet[FetchedMail]:
    return _known(row).filter(taken_at=None)


def _forget(row: BounceMailbox, gone: frozenset[str], present: frozenset[str] | None) -> None:
    """Keys that will not be seen again."""
    _known(row).filter(key__in=gone).delete()
    if present is not None:
        _known(row).exclude(key__in=present).delete()


def _went_well(row: BounceMailbox, problem: str) -> None:
    due = Now() + timedelta(seconds=POLL_S)
    said = clean(problem)[:400]
    _same(row).update(last_polled_at=Now(), last_error=said, failures=0, next_poll_at=due)


def _failed(row: BounceMailbox, problem: str) -> None:
    due = Now() + timedelta(seconds=min(POLL_S * 2 ** min(row.failures, 10), MAX_POLL_S))
    said = clean(problem)[:400]
    _same(row).update(last_polled_at=Now(), last_error=said, failures=row.failures + 1, next_poll_at=due)


def _same(row: BounceMailbox) -> QuerySet[BounceMailbox]:
    return BounceMailbox.objects.filter(id=row.id)


_CLAIM = """
UPDATE bounce_mailbox SET next_poll_at = now() + make_interval(secs => %(lease)s)
 WHERE id IN (SELECT id FROM bounce_mailbox WHERE enabled AND next_poll_at <= now() ORDER BY next_poll_at
               LIMIT %(most)s FOR UPDATE SKIP LOCKED)
RETURNING id
"""

_TRY = """
INSERT INTO fetched_mail (mailbox_id, key, tries) VALUES (%(mailbox)s, %(key)s, 1)
    ON CONFLICT (mailbox_id, key) DO UPDATE SET tries = least(fetched_mail.tries, 1000) + 1
"""
