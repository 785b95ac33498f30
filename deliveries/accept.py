"""Accept: one statement, one commit, and only then a 2xx.

The statement checks the key, the sender domains, the idempotency key and the suppressions, and inserts
messages, contents, attachments, deliveries, queue rows, events and outbox rows for one mail or a batch
of a hundred. When any check fails it inserts nothing and says which one failed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import psycopg.errors
from django.conf import settings
from django.db import OperationalError, connection

from deliveries import queue
from deliveries.errors import BadInput, Conflict, Fault, KeyRefused
from deliveries.mime.address import Address
from deliveries.mime.compose import Attachment
from deliveries.models.fields import uuid7
from deliveries.models.sql import execute
from deliveries.routing import static
from deliveries.states import EventType, Lane, Status

#: a deadlock between two batches that wake the same destinations: the loser tries again
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Draft:
    """A mail that passed every check that needs no database. `to` + `cc` + `bcc` is never empty."""

    sender: Address
    to: tuple[Address, ...]
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    subject: str = ""
    html: str | None = None
    text: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    attachments: tuple[Attachment, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    stream: str = "transactional"
    lane: Lane = Lane.NORMAL
    scheduled_at: datetime | None = None
    deliver_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Idempotency:
    """RFC-less, as Resend's: `key` of 1–256 characters, per tenant and `endpoint`, with the body's SHA-256."""

    endpoint: str
    key: str
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """The ids of the messages in the order of the drafts; `replayed` when an earlier request had made them."""

    ids: tuple[UUID, ...]
    replayed: bool = False


def accept(secret_hash: bytes, drafts: Sequence[Draft], idempotency: Idempotency | None = None) -> Accepted:
    """Store `drafts`, all or none, and ring the bell.

    Raises KeyRefused (unknown, revoked or suspended meanwhile), BadInput (a sender domain that is not the tenant's or
    not verified) and Conflict (idempotency key in use or used for another body); then nothing was stored.
    """
    ids = tuple(uuid7() for _ in drafts)
    params = _parameters(secret_hash, ids, drafts, idempotency)
    row = _execute(params)
    if not row["key_ok"]:
        raise KeyRefused("invalid_api_key", "This API key is unknown or was revoked.", 403)
    if row["suspended"]:
        raise KeyRefused(
            "account_suspended", "This account is suspended; nothing is accepted until it is released.", 403
        )
    if row["refused"]:
        raise BadInput(_domain_faults(drafts, set(row["refused"])), http_status=403)
    if not row["stored"]:
        assert idempotency is not None  # the only check left
        return _replay(row["tenant_id"], idempotency)
    queue.wake()
    return Accepted(ids)


def _execute(params: dict[str, Any]) -> dict[str, Any]:
    for left in reversed(range(_TRIES)):
        try:
            row = execute(STATEMENT, params).fetchone()
            assert row is not None
            return row
        except OperationalError as e:
            if isinstance(e.__cause__, psycopg.errors.LockNotAvailable):
                raise Conflict(
                    "concurrent_idempotent_requests",
                    "A request with this Idempotency-Key is still running; ask again with the same key.",
                    retry_after_s=2,
                ) from None
            if not left or not isinstance(e.__cause__, psycopg.errors.DeadlockDetected):
                raise
    raise AssertionError("unreachable")


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
    answer = found[1] if isinstance(found[1], dict) else json.loads(found[1])
    return Accepted(tuple(UUID(i) for i in answer["ids"]), replayed=True)


def _domain_faults(drafts: Sequence[Draft], refused: set[str]) -> list[Fault]:
    return [
        Fault(
            "from",
            "domain_not_verified",
            f"The domain {draft.sender.domain} is not verified for this account, or is suspended; add it, publish its "
            "DNS records and verify it, or send from a verified domain.",
            index if len(drafts) > 1 else None,
        )
        for index, draft in enumerate(drafts)
        if draft.sender.domain in refused
    ]


def _parameters(
    secret_hash: bytes, ids: Sequence[UUID], drafts: Sequence[Draft], idempotency: Idempotency | None
) -> dict[str, Any]:
    """Columns as arrays: m_* a mail each, d_* a forward-path each, a_* an attachment each."""
    names = (
        "m_id m_domain m_message_id m_from m_to m_cc m_bcc m_reply_to m_subject m_tags m_stream m_lane m_size m_files "
        "m_scheduled m_before m_html m_text m_headers d_id d_message d_position d_field d_recipient d_address "
        "d_destination d_event a_id a_message a_position a_name a_type a_cid a_content"
    ).split()
    p: dict[str, Any] = {name: [] for name in names}
    for message_id, draft in zip(ids, drafts, strict=True):
        p["m_id"].append(message_id)
        p["m_domain"].append(draft.sender.domain)
        p["m_message_id"].append(_message_id(message_id, draft))
        p["m_from"].append(draft.sender.header())
        for name in ("to", "cc", "bcc", "reply_to"):
            p[f"m_{name}"].append(json.dumps([a.header() for a in getattr(draft, name)]))
        p["m_subject"].append(draft.subject)
        p["m_tags"].append(json.dumps([{"name": n, "value": v} for n, v in draft.tags]))
        p["m_stream"].append(draft.stream)
        p["m_lane"].append(int(draft.lane))
        p["m_size"].append(_size(draft))
        p["m_files"].append(len(draft.attachments))
        p["m_scheduled"].append(draft.scheduled_at)
        p["m_before"].append(draft.deliver_before)
        p["m_html"].append(draft.html)
        p["m_text"].append(draft.text)
        p["m_headers"].append(json.dumps(draft.headers))
        for position, (field, address) in enumerate(_forward_paths(draft)):
            p["d_id"].append(uuid7())
            p["d_message"].append(message_id)
            p["d_position"].append(position)
            p["d_field"].append(field)
            p["d_recipient"].append(address.addr_spec)
            p["d_address"].append(address.addr_spec.lower())
            p["d_destination"].append(_home(address.domain))
            p["d_event"].append(uuid7())
        for position, attachment in enumerate(draft.attachments):
            p["a_id"].append(uuid7())
            p["a_message"].append(message_id)
            p["a_position"].append(position)
            p["a_name"].append(attachment.filename)
            p["a_type"].append(attachment.content_type)
            p["a_cid"].append(attachment.content_id)
            p["a_content"].append(attachment.content)
    p["secret_hash"] = secret_hash
    p["max_age_s"] = settings.RETRY.max_age_s
    p["idem_id"] = uuid7()
    p["idem_endpoint"] = idempotency.endpoint if idempotency else None
    p["idem_key"] = idempotency.key if idempotency else None
    p["idem_hash"] = idempotency.body_hash if idempotency else None
    p["idem_answer"] = json.dumps({"ids": [str(i) for i in ids]}) if idempotency else None
    return p


def _message_id(ident: UUID, draft: Draft) -> str:
    """Without angle brackets; a Message-ID among the sender's headers takes the place of ours, as in the mail."""
    own = [value.strip(" \t<>") for name, value in draft.headers if name.lower() == "message-id"]
    return own[-1] if own else f"{ident.hex}@{draft.sender.domain}"


def _forward_paths(draft: Draft) -> list[tuple[str, Address]]:
    """Each address once: a person who stands in To and Cc gets one copy (local parts are case-sensitive)."""
    seen: set[str] = set()
    paths = []
    for field in ("to", "cc", "bcc"):
        for address in getattr(draft, field):
            if address.addr_spec not in seen:
                seen.add(address.addr_spec)
                paths.append((field, address))
    return paths


def _home(domain: str) -> str:
    """Where the queue keeps mail for `domain`: its fixed route; else the domain, until its MX site is learned."""
    sandbox_domain = settings.SANDBOX_DOMAIN if settings.SANDBOX_SMTP else ""
    site = static.home(_routes(settings.MAIL_ROUTES), domain, settings.MAIL_ROUTE == "sandbox", sandbox_domain)
    return site or domain


@lru_cache(maxsize=4)
def _routes(text: str) -> dict[str, static.StaticRoute]:
    return static.parse(text)


def _size(draft: Draft) -> int:
    """Octets of content; base64 grows attachments by a third, headers are small beside it."""
    texts = len((draft.html or "").encode()) + len((draft.text or "").encode())
    return texts + sum(len(a.content) * 4 // 3 for a in draft.attachments) + 1024


STATEMENT = f"""
WITH api AS (
    SELECT k.id, k.tenant_id, t.suspended_at
      FROM api_key k JOIN tenant t ON t.id = k.tenant_id
     WHERE k.secret_hash = %(secret_hash)s AND k.revoked_at IS NULL AND k.suspended_at IS NULL
), asked AS (
    SELECT * FROM unnest(
        %(m_id)s::uuid[], %(m_domain)s::text[], %(m_message_id)s::text[], %(m_from)s::text[], %(m_to)s::text[],
        %(m_cc)s::text[], %(m_bcc)s::text[], %(m_reply_to)s::text[], %(m_subject)s::text[], %(m_tags)s::text[],
        %(m_stream)s::text[], %(m_lane)s::int[], %(m_size)s::int[], %(m_files)s::int[],
        %(m_scheduled)s::timestamptz[], %(m_before)s::timestamptz[], %(m_html)s::text[], %(m_text)s::text[],
        %(m_headers)s::text[]
    ) AS m(id, domain, message_id, from_header, "to", cc, bcc, reply_to, subject, tags, stream, lane, size, files,
           scheduled_at, deliver_before, html, text, headers)
), owned AS (
    SELECT d.id, d.name FROM sending_domain d, api
     WHERE d.tenant_id = api.tenant_id AND d.verified_at IS NOT NULL AND d.suspended_at IS NULL
       AND d.name = ANY (%(m_domain)s::text[])
), checked AS (
    SELECT api.* FROM api
     WHERE suspended_at IS NULL AND NOT EXISTS (SELECT FROM asked WHERE domain NOT IN (SELECT name FROM owned))
), idem AS (
    -- waits for a concurrent request with the same key, at most lock_timeout
    INSERT INTO idempotency_key (id, tenant_id, endpoint, key, body_hash, answer, created_at)
    SELECT %(idem_id)s, tenant_id, %(idem_endpoint)s::text, %(idem_key)s::text, %(idem_hash)s::bytea,
           %(idem_answer)s::jsonb, now()
      FROM checked WHERE %(idem_key)s::text IS NOT NULL
    ON CONFLICT (tenant_id, endpoint, key) DO NOTHING
    RETURNING 1
), go AS (
    SELECT * FROM checked WHERE %(idem_key)s::text IS NULL OR EXISTS (SELECT FROM idem)
), path AS (
    SELECT p.id, p.message, p.position, p.field, p.recipient, p.event, coalesce(mx.site, p.destination) AS destination,
           go.tenant_id, m.lane, m.size, greatest(m.scheduled_at, now()) AS due_at,
           coalesce(m.deliver_before, greatest(m.scheduled_at, now()) + make_interval(secs => %(max_age_s)s))
               AS expires_at,
           s.reason AS suppressed,
           CASE WHEN s.reason IS NOT NULL THEN '{Status.SUPPRESSED}'
                WHEN m.scheduled_at > now() THEN '{Status.SCHEDULED}'
                ELSE '{Status.QUEUED}' END AS status
      FROM unnest(
               %(d_id)s::uuid[], %(d_message)s::uuid[], %(d_position)s::int[], %(d_field)s::text[],
               %(d_recipient)s::text[], %(d_address)s::text[], %(d_destination)s::text[], %(d_event)s::uuid[]
           ) AS p(id, message, position, field, recipient, address, destination, event)
      JOIN asked m ON m.id = p.message
     CROSS JOIN go
      LEFT JOIN mx_site mx ON mx.domain = p.destination
      LEFT JOIN LATERAL (
           SELECT s.reason FROM suppression s
            WHERE s.tenant_id = go.tenant_id AND s.address = p.address AND s.stream IN ('*', m.stream)
              AND (s.expires_at IS NULL OR s.expires_at > now()) AND s.brake_id IS NULL
            LIMIT 1) s ON true
), message_rows AS (
    INSERT INTO message (id, tenant_id, api_key_id, domain_id, message_id, from_header, "to", cc, bcc, reply_to,
                         subject, tags, stream, lane, size, attachment_count, created_at, scheduled_at, deliver_before)
    SELECT m.id, go.tenant_id, go.id, owned.id, m.message_id, m.from_header, m."to"::jsonb, m.cc::jsonb, m.bcc::jsonb,
           m.reply_to::jsonb, m.subject, m.tags::jsonb, m.stream, m.lane, m.size, m.files, now(), m.scheduled_at,
           m.deliver_before
      FROM asked m JOIN owned ON owned.name = m.domain CROSS JOIN go
), content_rows AS (
    INSERT INTO message_content (id, html, text, headers)
    SELECT m.id, m.html, m.text, m.headers::jsonb FROM asked m CROSS JOIN go
), file_rows AS (
    INSERT INTO attachment (id, message_id, position, filename, content_type, content_id, content)
    SELECT a.* FROM unnest(%(a_id)s::uuid[], %(a_message)s::uuid[], %(a_position)s::int[], %(a_name)s::text[],
                           %(a_type)s::text[], %(a_cid)s::text[], %(a_content)s::bytea[]) AS a CROSS JOIN go
), delivery_rows AS (
    INSERT INTO delivery (id, message_id, tenant_id, position, field, recipient, status, reason, category, rule,
                          enhanced, reply, host, attempts, unknowns, late, duplicate_possible, created_at, expires_at,
                          next_attempt_at, settled_at, events)
    SELECT id, message, tenant_id, position, field, recipient, status,
           CASE WHEN suppressed IS NOT NULL
                THEN 'The address is on the suppression list (' || suppressed || ').' ELSE '' END,
           '', '', '', '', '', 0, 0, false, false, now(), expires_at,
           CASE WHEN suppressed IS NULL THEN due_at END, CASE WHEN suppressed IS NOT NULL THEN now() END, 1
      FROM path
), queued_rows AS (
    INSERT INTO queued (delivery_id, lane, destination, tenant_id, due_at, size)
    SELECT id, lane, destination, tenant_id, due_at, size FROM path WHERE suppressed IS NULL
), event_rows AS (
    INSERT INTO event (id, tenant_id, type, message_id, delivery_id, place, recipient, data, created_at)
    SELECT event, tenant_id,
           CASE status WHEN '{Status.SUPPRESSED}' THEN '{EventType.SUPPRESSED}'
                       WHEN '{Status.SCHEDULED}' THEN '{EventType.SCHEDULED}' ELSE '{EventType.SENT}' END,
           message, id, 1, recipient,
           CASE WHEN suppressed IS NULL THEN '{{}}'::jsonb ELSE jsonb_build_object('suppressed', suppressed) END,
           now()
      FROM path
    RETURNING id, tenant_id, type
), outbox_rows AS ({queue.OUTBOX_FROM.format(events="event_rows")}
), due AS (
    SELECT lane, destination AS name, min(due_at) AS due_at FROM path WHERE suppressed IS NULL
     GROUP BY lane, destination
), {queue.ANNOUNCE}
SELECT EXISTS (SELECT FROM api) AS key_ok,
       (SELECT tenant_id FROM api) AS tenant_id,
       EXISTS (SELECT FROM api WHERE suspended_at IS NOT NULL) AS suspended,
       ARRAY(SELECT DISTINCT domain FROM asked, api WHERE domain NOT IN (SELECT name FROM owned)) AS refused,
       EXISTS (SELECT FROM go) AS stored
"""
