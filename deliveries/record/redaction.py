"""Redaction: what a finished mail was asked not to keep goes, and `redacted_at` says when.

Asked for at accept (message.redact) by the mail, its template, its stream or the tenant's privacy mode. A mail is
finished once none of its deliveries is queued any more: what may still be tried is never touched, nor what somebody
asked a report about that is still to be written (RFC 3461 returns the mail's header). With the content goes what the
log of requests kept of the request that brought it. Webhooks that are told after it have an empty subject where that
was to go.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from deliveries.models.sql import execute
from deliveries.record.retention import BATCH, Time, batch, bury, first_id, pause
from deliveries.states import Redact

#: a request is noted with an id made when it came, and its mails' ids are made while it is answered
_REQUEST_S = 60
_FIRST = UUID(int=0)
_after = _FIRST


def redact(left: Time) -> int:
    """What is due, from where the pass before stopped; how many mails."""
    global _after
    gone = 0
    while left.left():
        with pause():  # a backlog that still waits is looked through as well
            rows = execute(_ASKED, {"after": _after, "batch": BATCH}).fetchall()
            _after = rows[-1]["id"] if rows else _FIRST
            if not rows:
                break
            if ids := [row["id"] for row in rows if not row["open"]]:
                gone += _redact(ids)
    return gone


def _redact(ids: list[UUID]) -> int:
    with batch():
        # a reader who sees no content sees why as well
        done = execute(_MARK, {"ids": ids}).fetchall()
        marked = [row["id"] for row in done]
        take_content(marked)
        if spoken := [row["id"] for row in done if row["redact"] & Redact.ADDRESSES]:
            for statement in _UNSPEAK:
                execute(statement, {"ids": spoken})
        forget_requests_of(marked)
    return len(done)


def take_content(ids: list[UUID]) -> int:
    """html, text, header fields, raw and attachments of these mails; how many had any."""
    bury(ids)
    execute("DELETE FROM attachment WHERE message_id = ANY (%(ids)s::uuid[])", {"ids": ids})
    return execute("DELETE FROM message_content WHERE id = ANY (%(ids)s::uuid[])", {"ids": ids}).rowcount


def forget_requests_of(ids: list[UUID]) -> None:
    """What the log of requests kept of the bodies that brought these mails, found by the ids in the answers."""
    if ids:
        lows, highs = zip(*_spans(ids), strict=True)
        execute(_REQUESTS, {"ids": ids, "lows": [*lows], "highs": [*highs]})


def _spans(ids: list[UUID]) -> list[tuple[UUID, UUID]]:
    """Between which ids the requests of these mails are, in order. Times that touch are one; what lies between others
    is not read: one mail may have waited for days and another have come a minute ago."""
    spans: list[tuple[UUID, UUID]] = []
    for ident in sorted(ids):
        low = first_id(moment_of(ident) - timedelta(seconds=_REQUEST_S))
        if spans and low <= spans[-1][1]:
            low, _ = spans.pop()
        spans.append((low, ident))
    return spans


def moment_of(ident: UUID) -> datetime:
    """When a UUIDv7 was made (RFC 9562 §5.7)."""
    return datetime.fromtimestamp((ident.int >> 80) / 1000, UTC)


_ASKED = """
SELECT m.id, EXISTS (SELECT FROM delivery d JOIN queued q ON q.delivery_id = d.id WHERE d.message_id = m.id)
          OR EXISTS (SELECT FROM delivery d JOIN report_request r ON r.delivery_id = d.id
                      WHERE d.message_id = m.id) AS open
  FROM message m
 WHERE m.redact > 0 AND m.redacted_at IS NULL AND m.id > %(after)s
 ORDER BY m.id LIMIT %(batch)s
"""

_MARK = f"""
UPDATE message SET redacted_at = now(),
       subject = CASE WHEN redact & {int(Redact.SUBJECT)} > 0 THEN '' ELSE subject END,
       metadata = CASE WHEN redact & {int(Redact.SUBJECT)} > 0 THEN '{{}}'::jsonb ELSE metadata END
 WHERE id = ANY (%(ids)s::uuid[]) AND redacted_at IS NULL
RETURNING id, redact
"""

#: whatever looks like an address, in the words of the other side and in ours
_UNSPOKEN = r"""regexp_replace({0}, '[^\s<>:;,"]+@[^\s<>:;,"]+', '(address)', 'g')"""

_UNSPEAK = (
    f"""
UPDATE attempt a SET transcript = {_UNSPOKEN.format("a.transcript")}, reply = {_UNSPOKEN.format("a.reply")}
  FROM delivery d WHERE d.message_id = ANY (%(ids)s::uuid[]) AND a.delivery_id = d.id
""",
    f"""
UPDATE delivery SET reply = {_UNSPOKEN.format("reply")}, reason = {_UNSPOKEN.format("reason")}
 WHERE message_id = ANY (%(ids)s::uuid[]) AND reply || reason LIKE '%%@%%'
""",
    f"""
UPDATE event SET data = data || jsonb_build_object('reply', {_UNSPOKEN.format("data ->> 'reply'")})
 WHERE message_id = ANY (%(ids)s::uuid[]) AND data ->> 'reply' LIKE '%%@%%'
""",
)

# the requests of each tenant in those times are read once, whatever the number of mails
_REQUESTS = """
WITH m AS (
    SELECT id, tenant_id FROM message WHERE id = ANY (%(ids)s::uuid[])
), span AS (
    SELECT DISTINCT m.tenant_id, s.low, s.high
      FROM unnest(%(lows)s::uuid[], %(highs)s::uuid[]) AS s(low, high) JOIN m ON m.id BETWEEN s.low AND s.high
), named AS (
    SELECT r.id AS request, found[1]::uuid AS message
      FROM span JOIN request_log r ON r.tenant_id = span.tenant_id AND r.id BETWEEN span.low AND span.high
     CROSS JOIN LATERAL regexp_matches(r.response_body,
           '"([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12})"', 'g') AS found
     WHERE r.request_body IS NOT NULL AND r.response_body IS NOT NULL
)
UPDATE request_log SET request_body = '"[redacted]"'
 -- as an array: the planner cannot know how few these are, and would read the whole log for a join
 WHERE id = ANY (ARRAY(SELECT DISTINCT named.request FROM named JOIN m ON m.id = named.message))
"""
