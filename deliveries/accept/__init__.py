"""Accept: one statement, one commit, the disk, and only then a 2xx.

The statement checks the key, the sender domains, the idempotency key and the suppressions, and inserts
messages, contents, attachments, deliveries, queue rows, events and outbox rows for one mail or a batch
of a hundred. When any check fails it inserts nothing and says which one failed.

A mail that comes alone commits without waiting for the disk, so that a worker can claim it at once; the 2xx waits until
the write-ahead log is on disk. No mail can leave before that: its start is written later in the same log, and waits for
the disk before the final dot (docs/decisions/ledger.md). Many mails at once wait for the disk in their own commit.

    gather       requests that wait at the same moment, as one batch
    most         a batch without what is refused of it
    drafts       what may be accepted
    columns      drafts → arrays
    statement    arrays → rows
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import psycopg.errors
from django.conf import settings
from django.db import DatabaseError, OperationalError, connection

from deliveries import named, queue, quotas
from deliveries.accept.columns import columns
from deliveries.accept.columns import message_id_of as message_id_of
from deliveries.accept.drafts import Accepted as Accepted
from deliveries.accept.drafts import Draft as Draft
from deliveries.accept.drafts import Idempotency as Idempotency
from deliveries.accept.drafts import Reports as Reports
from deliveries.accept.drafts import of_raw as of_raw
from deliveries.accept.gather import Gatherer, is_small
from deliveries.accept.statement import ON_DISK, statement_for
from deliveries.errors import BadInput, Conflict, Fault, KeyRefused
from deliveries.models.fields import uuid7
from deliveries.models.sql import execute
from deliveries.record.again import again

log = logging.getLogger(__name__)


def accept(
    secret_hash: bytes,
    drafts: Sequence[Draft],
    idempotency: Idempotency | None = None,
    by: Mapping[str, str] | None = None,
) -> Accepted:
    """Store `drafts`, all or none, and ring the bell. `by`: who asks, where the log does not know it by the request.

    Raises KeyRefused (unknown, revoked, expired or suspended meanwhile; a test key without a lab), BadInput (a sender
    domain that is not the tenant's or not verified, or not the key's), Conflict (idempotency key in use or used for
    another body) and OverQuota; then nothing was stored.
    """
    if idempotency is None and is_small(drafts) and not connection.in_atomic_block:
        gathered = _gatherer.accept(secret_hash, drafts)
        if gathered is not None:
            _tell(gathered, drafts, by)
            return Accepted(gathered)
    ids = tuple(uuid7() for _ in drafts)
    params = columns(secret_hash, ids, drafts, idempotency)
    params["waits"] = _waits(params)
    row = _execute(params)
    if not row["key_ok"]:
        raise KeyRefused("invalid_api_key", "This API key is unknown, expired or was revoked, or may only read.", 403)
    if row["suspended"]:
        raise KeyRefused(
            "account_suspended", "This account is suspended; nothing is accepted until it is released.", 403
        )
    if row["labless"]:
        raise KeyRefused(
            "restricted_api_key",
            "This is a test key, whose mail goes to the receiver lab, and this installation has none (SANDBOX_SMTP); "
            "send with another key.",
            403,
        )
    if row["refused"]:
        raise BadInput(_domain_faults(drafts, set(row["refused"]), row["domain_id"] is not None), http_status=403)
    if not row["stored"]:
        assert idempotency is not None  # the only check left
        return _replay(row["tenant_id"], idempotency)
    _ring_and_flush(params)
    _tell(ids, drafts, by)
    return Accepted(ids)


def _tell(ids: Sequence[UUID], drafts: Sequence[Draft], by: Mapping[str, str] | None) -> None:
    """The line of the log, one for a request (LOG_ACCEPTED)."""
    if settings.LOG_ACCEPTED:
        told = " ".join(map(str, ids))
        recipients = sum(len({a.addr_spec for a in d.envelope or (*d.to, *d.cc, *d.bcc)}) for d in drafts)
        known = {"event": "mail.accepted", "message_id": told, "recipients": recipients, **(by or {})}
        log.info("accepted for %d recipients: %s", recipients, told, extra=known)


def replayed(tenant_id: UUID, idempotency: Idempotency) -> Accepted | None:
    """What an earlier request with this key and body stored, without storing anything; None where there was none.

    Asked before what may have changed since is checked: a URL that has gone, or a time that has passed, is no fault of
    a replay.
    """
    try:
        return _replay(tenant_id, idempotency)
    except Conflict:
        return None


def _store(secret_hash: bytes, drafts: Sequence[Draft], crowd: bool) -> tuple[UUID, ...] | None:
    """The ids where all of it was stored; what a refusal says is said to each alone."""
    ids = tuple(uuid7() for _ in drafts)
    params = columns(secret_hash, ids, drafts, None)
    params["waits"] = crowd or _waits(params)
    if not _execute(params)["stored"]:
        return None
    _ring_and_flush(params)
    return ids


def _waits(params: dict[str, Any]) -> bool:
    """Whether the statement's own commit waits for the disk: with many deliveries, and within a larger transaction."""
    return connection.in_atomic_block or len(params["d_id"]) > named.MOST


def _ring_and_flush(params: dict[str, Any]) -> None:
    """Ring the bell, then wait for the disk, unless the commit did; a larger transaction waits in its own commit."""
    queue.wake(params["d_id"])
    if not params["waits"]:
        execute(ON_DISK)


_gatherer = Gatherer(_store)


def _execute(params: dict[str, Any]) -> dict[str, Any]:
    try:
        return again(lambda: _ask(params))  # two batches that wake the same destinations may deadlock
    except OperationalError as e:
        if _waited_for_a_key(e.__cause__):
            raise Conflict(
                "concurrent_idempotent_requests",
                "A request with this Idempotency-Key is still running; ask again with the same key.",
                retry_after_s=2,
            ) from None
        raise
    except DatabaseError as e:
        if refused := quotas.refusal(e):
            raise refused from None
        raise


def _waited_for_a_key(cause: BaseException | None) -> bool:
    """Whether it was a request with the same key that held it up, and no lock of somebody else."""
    return isinstance(cause, psycopg.errors.LockNotAvailable) and "idempotency_key" in (cause.diag.context or "")


#: keys whose tenant had a quota the last time, of those that this process has seen; above _MOST_METERED it learns anew
_metered: set[bytes] = set()
_MOST_METERED = 10_000


def _ask(params: dict[str, Any]) -> dict[str, Any]:
    """The statement that does not count quotas stores nothing for a tenant that has one by now; it is asked again."""
    key, metered = params["secret_hash"], params["secret_hash"] in _metered
    row = _row(params, metered)
    if row["metered"] and not metered:
        if len(_metered) >= _MOST_METERED:
            _metered.clear()
        _metered.add(key)
        return _row(params, True)
    if metered and not row["metered"]:
        _metered.discard(key)
    return row


def _row(params: dict[str, Any], metered: bool) -> dict[str, Any]:
    keyed, files, reports = params["idem_key"] is not None, bool(params["a_id"]), bool(params["r_delivery"])
    row = execute(statement_for(files=files, keyed=keyed, metered=metered, reports=reports), params).fetchone()
    assert row is not None
    return row


def _replay(tenant_id: UUID, idempotency: Idempotency) -> Accepted:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT body_hash, answer FROM idempotency_key WHERE tenant_id = %s AND endpoint = %s AND key = %s",
            [tenant_id, idempotency.endpoint, idempotency.key],
        )
        found = cursor.fetchone()
    if found is None:  # expired between the two statements
        raise Conflict("concurrent_idempotent_requests", "Ask again with the same Idempotency-Key.", retry_after_s=1)
    if bytes(found[0]) != idempotency.body_hash:
        raise Conflict(
            "invalid_idempotent_request",
            "This Idempotency-Key was used within the last 24 hours for another body; use a new key for a new mail.",
        )
    if not connection.in_atomic_block:
        execute(ON_DISK)  # who stored it may be waiting still
    answer = found[1] if isinstance(found[1], dict) else json.loads(found[1])
    return Accepted(tuple(UUID(i) for i in answer["ids"]), replayed=True)


def _domain_faults(drafts: Sequence[Draft], refused: set[str], restricted: bool) -> list[Fault]:
    also = " This API key is restricted to one domain: send from that one." if restricted else ""
    return [
        Fault(
            "from",
            "domain_not_verified",
            f"The domain {draft.sender.domain} is not verified for this account, or is suspended; add it, publish its "
            f"DNS records and verify it, or send from a verified domain.{also}",
            index if len(drafts) > 1 else None,
        )
        for index, draft in enumerate(drafts)
        if draft.sender.domain in refused
    ]
