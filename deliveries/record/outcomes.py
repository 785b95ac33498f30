"""The only writer of outcomes: a whole batch of results in one transaction.

Attempts, statuses, queue rows, events, suppressions, outbox rows and destination due times change
together or not at all. Rows are locked in id order, so that two recorders never wait for each other in
a circle.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from django.conf import settings
from django.db import DataError, Error, transaction

from deliveries import queue
from deliveries.models.fields import uuid7
from deliveries.models.queue import NEVER
from deliveries.models.sql import execute
from deliveries.record import figures, paces, rests, tally, tls_sessions
from deliveries.record.settle import Change, Result, Row, Standing, Tried, settle
from deliveries.record.suppressions import SECOND_SIGHT, SUPPRESS_FROM, SUPPRESSED_TOLD
from deliveries.smtp.outcome import Broken, Replied, TlsFacts, Unable, Verdict
from deliveries.smtp.reply import clean
from deliveries.states import Status

log = logging.getLogger(__name__)

#: what stands in place of a transcript that Postgres refused
PARKED = "(The conversation could not be stored.)"


def record(results: Sequence[Result], again: bool = False) -> dict[Status, int]:
    """Write `results`, in one transaction where the data allow it; how many became which status.

    Raises OperationalError when Postgres is away or says "once more" (deadlock, lost connection). Whether the
    commit was reached is not known then: call with `again`, which leaves out what had been written.
    """
    if again:
        results = _unwritten(results)
    if not results:
        return {}
    try:
        return _record(results)
    except (DataError, UnicodeError) as e:
        if len(results) > 1:
            half = len(results) // 2
            counts = record(results[:half])
            for status, n in record(results[half:]).items():
                counts[status] = counts.get(status, 0) + n
            return counts
        ids = {"event": "transcript.parked", "delivery_id": results[0].delivery_id}
        log.error(
            "delivery %s: its transcript cannot be stored (%s); parked without it", results[0].delivery_id, e, extra=ids
        )
        return _record(results, parked=True)


def _record(results: Sequence[Result], parked: bool = False) -> dict[Status, int]:
    with transaction.atomic():
        now, standings = _lock(results)
        changes = []
        for result in results:
            if (at := standings.get(result.delivery_id)) is not None:
                changes.append((at, result, settle(at, result, now, settings.RETRY, settings.UNKNOWN_POLICY)))
        _write(changes, parked)
        if not parked:
            _learn(results, now)
    if not parked:
        figures.note(results)
        figures.flush()
        tls_sessions.flush()
    counts: dict[Status, int] = {}
    for _, _, change in changes:
        if change.status is not None:
            counts[change.status] = counts.get(change.status, 0) + 1
    return counts


def _learn(results: Sequence[Result], now: datetime) -> None:
    """What the batch says of sites and of our addresses. A mistake of ours in it costs no outcome: what is not recorded
    is told as unknown, and sent once more."""
    of_sites = partial(paces.learn, results, now)  # last: whoever waits for a site's row waits for nothing else of ours
    for learn in (partial(tally.count, results, now), partial(rests.learn, results), of_sites):
        try:
            learn()
        except (Error, UnicodeError):  # the transaction is over, and `record` knows what to do
            raise
        except Exception:
            log.exception("nothing was learned from %d results", len(results))


def _unwritten(results: Sequence[Result]) -> list[Result]:
    ids = [t.id for r in results for t in r.tries]
    written = {r["id"] for r in execute("SELECT id FROM attempt WHERE id = ANY (%(ids)s::uuid[])", {"ids": ids})}
    return [r for r in results if not any(t.id in written for t in r.tries)]


def _lock(results: Sequence[Result]) -> tuple[datetime, dict[Any, Standing]]:
    rows = execute(_LOCK, {"ids": [r.delivery_id for r in results]}).fetchall()
    standings = {
        r["id"]: Standing(
            id=r["id"],
            tenant_id=r["tenant_id"],
            message_id=r["message_id"],
            recipient=r["recipient"],
            status=Status(r["status"]),
            attempts=r["attempts"],
            unknowns=r["unknowns"],
            expires_at=r["expires_at"],
            queued=r["queued"],
            leased_by=r["lease_id"],
            started=r["started_at"] is not None,
            late=r["late"],
        )
        for r in rows
    }
    return (rows[0]["now"] if rows else NEVER), standings


_Changed = tuple[Standing, Result, Change]


def _write(changes: Sequence[_Changed], parked: bool) -> None:
    """Attempts and changes in one statement: where a mail comes alone, a statement costs more than what it writes."""
    if changes:
        execute(_WRITE, _attempts(changes, parked) | _changes([c for c in changes if c[2].status is not None], parked))


def _attempts(changes: Sequence[_Changed], parked: bool) -> dict[str, list[Any]]:
    rows = [_attempt(at, tried, at.attempts + 1, parked) for at, result, _ in changes for tried in result.tries]
    return {f"tried_{name}": [row[name] for row in rows] for name in _OF_ATTEMPT}


def _attempt(at: Standing, tried: Tried, number: int, parked: bool) -> dict[str, Any]:
    done, verdict = tried.attempted, tried.verdict
    match done.outcome:
        case Replied(stage=stage) | Broken(stage=stage) | Unable(stage=stage):
            reached = stage.value
        case _:
            reached = "dot"
    return {
        "id": tried.id,
        "delivery_id": at.id,
        "tenant_id": at.tenant_id,
        "number": number,
        "host": clean(done.hop.host),
        "address": done.hop.address,
        "port": done.hop.port,
        "tls": _tls_words(done.tls),
        "started_at": done.started_at,
        "finished_at": done.finished_at,
        "stage": reached,
        "status": verdict.status.value,
        "category": verdict.category.value if verdict.category else "",
        "rule": verdict.rule,
        "code": verdict.code,
        "enhanced": verdict.enhanced,
        "reply": "" if parked else clean(verdict.text),
        # line by line: a transcript keeps its lines
        "transcript": PARKED if parked else "\n".join(clean(line) for line in done.transcript.splitlines()),
    }


def _tls_words(tls: TlsFacts | None) -> str:
    if tls is None:
        return ""
    return f"{tls.version} {tls.cipher}, {'verified' if tls.verified else 'not verified'}"[:80]


def _changes(changes: Sequence[_Changed], parked: bool) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for at, result, change in changes:
        assert change.status is not None
        verdict = result.verdict
        reply = "" if parked else clean(verdict.text)
        columns["id"].append(at.id)
        columns["status"].append(change.status.value)
        columns["reason"].append("" if parked else clean(change.reason))
        columns["category"].append(verdict.category.value if verdict.category else "")
        columns["rule"].append(verdict.rule)
        columns["enhanced"].append(verdict.enhanced)
        columns["reply"].append(reply)
        columns["host"].append(clean(result.host))
        columns["attempts"].append(change.attempts)
        columns["unknowns"].append(change.unknowns)
        columns["next"].append(change.next_attempt_at)
        columns["settled"].append(change.settled)
        columns["duplicate"].append(change.duplicate_possible)
        columns["row"].append(change.row.name)
        columns["due"].append(change.next_attempt_at or NEVER)
        columns["event"].append(uuid7() if change.event else None)
        columns["event_type"].append(change.event.value if change.event else None)
        columns["event_data"].append(json.dumps(event_data(verdict, reply, result.host, change.attempts)))
        columns["suppress"].append(change.suppress)
        columns["kept"].append(change.kept)
        columns["site"].append(result.tries[-1].attempted.hop.site if result.tries else "")
    return columns


def event_data(verdict: Verdict, reply: str, host: str, attempt: int) -> dict[str, Any]:
    """What an event keeps of an outcome; the webhook's body is made from it."""
    data: dict[str, Any] = {"rule": verdict.rule, "host": host, "reply": reply, "attempt": attempt}
    if verdict.category:
        data["category"] = verdict.category.value
    if verdict.enhanced:
        data["enhanced"] = verdict.enhanced
    if verdict.code is not None:
        data["code"] = verdict.code
    return data


# each row as its lock finds it: read beside the lock it would be as it was before whoever held it
_LOCK = """
WITH locked AS (
    SELECT d.id, d.tenant_id, d.message_id, d.recipient, d.status, d.attempts, d.unknowns, d.expires_at, d.late
      FROM delivery d WHERE d.id = ANY (%(ids)s::uuid[]) ORDER BY d.id FOR UPDATE
), queue AS (
    SELECT q.delivery_id, q.lease_id, q.started_at FROM queued q
     WHERE q.delivery_id IN (SELECT id FROM locked) ORDER BY q.delivery_id FOR UPDATE
)
SELECT l.*, now() AS now, q.delivery_id IS NOT NULL AS queued, q.lease_id, q.started_at
  FROM locked l LEFT JOIN queue q ON q.delivery_id = l.id
"""

#: in the order of the statement's columns
_OF_ATTEMPT = {
    "id": "uuid", "delivery_id": "uuid", "tenant_id": "uuid", "number": "int", "host": "text", "address": "text",
    "port": "int", "tls": "text", "started_at": "timestamptz", "finished_at": "timestamptz", "stage": "text",
    "status": "text", "category": "text", "rule": "text", "code": "int", "enhanced": "text", "reply": "text",
    "transcript": "text",
}  # fmt: skip

_ATTEMPTS = f"""
    INSERT INTO attempt (id, delivery_id, tenant_id, number, host, address, port, tls, started_at, finished_at, stage,
                         status, category, rule, code, enhanced, reply, transcript)
    SELECT * FROM unnest({", ".join(f"%(tried_{name})s::{kind}[]" for name, kind in _OF_ATTEMPT.items())})
"""

_COLUMNS = (
    "id status reason category rule enhanced reply host attempts unknowns next settled duplicate row due event "
    "event_type event_data suppress kept site"
).split()

_WRITE = f"""
WITH tried AS ({_ATTEMPTS}), o AS (
    SELECT * FROM unnest(
        %(id)s::uuid[], %(status)s::text[], %(reason)s::text[], %(category)s::text[], %(rule)s::text[],
        %(enhanced)s::text[], %(reply)s::text[], %(host)s::text[], %(attempts)s::int[], %(unknowns)s::int[],
        %(next)s::timestamptz[], %(settled)s::bool[], %(duplicate)s::bool[], %(row)s::text[], %(due)s::timestamptz[],
        %(event)s::uuid[], %(event_type)s::text[], %(event_data)s::text[], %(suppress)s::bool[],
        %(kept)s::bool[], %(site)s::text[]
    ) AS o(id, status, reason, category, rule, enhanced, reply, host, attempts, unknowns, next, settled, duplicate,
           row, due, event, event_type, event_data, suppress, kept, site)
), counted AS (
    UPDATE delivery d SET attempts = o.attempts FROM o WHERE d.id = o.id AND o.kept
), changed AS (
    UPDATE delivery d
       SET status = o.status, reason = o.reason, category = o.category, rule = o.rule, enhanced = o.enhanced,
           reply = o.reply, host = o.host, attempts = o.attempts, unknowns = o.unknowns, next_attempt_at = o.next,
           duplicate_possible = d.duplicate_possible OR o.duplicate,
           settled_at = CASE WHEN o.settled THEN now() END,
           events = d.events + CASE WHEN o.event IS NULL THEN 0 ELSE 1 END
      FROM o WHERE d.id = o.id AND NOT o.kept
    RETURNING d.id, d.tenant_id, d.message_id, d.recipient, d.events
), ended AS (
    DELETE FROM queued q USING o WHERE q.delivery_id = o.id AND o.row = '{Row.DELETE.name}'
), moved AS (
    UPDATE queued q SET due_at = o.due, lease_id = NULL, leased_until = NULL, started_at = NULL
      FROM o WHERE q.delivery_id = o.id AND o.row = '{Row.MOVE.name}'
    RETURNING q.lane, q.destination, q.due_at
), wanted AS (
    SELECT DISTINCT ON (c.tenant_id, folded_address(c.recipient)) c.tenant_id, '*'::text AS stream,
           folded_address(c.recipient) AS address, 'bounce'::text AS reason, o.reply AS detail, o.event AS source_event,
           NULL::timestamptz AS expires_at, o.rule, o.category, o.site
      FROM o JOIN changed c ON c.id = o.id
     WHERE o.suppress OR (o.status = '{Status.BOUNCED}' AND {SECOND_SIGHT.format(category="o.category", c="c")})
     ORDER BY c.tenant_id, folded_address(c.recipient)
), suppressed AS ({SUPPRESS_FROM.format(wanted="wanted")}
), told AS (
    INSERT INTO event (id, tenant_id, type, message_id, delivery_id, place, recipient, data, created_at)
    SELECT o.event, c.tenant_id, o.event_type, c.message_id, c.id, c.events, c.recipient, o.event_data::jsonb, now()
      FROM o JOIN changed c ON c.id = o.id WHERE o.event IS NOT NULL
    UNION ALL
    {SUPPRESSED_TOLD}
    RETURNING id, tenant_id, type
), outbox AS ({queue.OUTBOX_FROM.format(events="told")}
), due AS (
    SELECT lane, destination AS name, min(due_at) AS due_at FROM moved WHERE due_at < '{NEVER.isoformat()}'
     GROUP BY lane, destination
), {queue.ANNOUNCE}
SELECT 1
"""
