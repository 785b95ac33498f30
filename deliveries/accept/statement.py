"""The one statement of accept: checks and inserts, or inserts nothing and says which check failed.

Most of its cost is that Postgres sets up each part (CTE) of it, even one that then finds nothing to do. So
`statement_for` puts it together from the parts that a request needs.
"""

from __future__ import annotations

from functools import lru_cache

from deliveries import queue, quotas
from deliveries.models import ApiKey
from deliveries.models.erasure import HASHED
from deliveries.routing.static import SANDBOX_SITE
from deliveries.states import PRIVATE, REDACT_WORDS, EventType, Status

_MAY = "suspended_at IS NULL AND NOT labless"
_HASHED = HASHED.format(tenant="go.tenant_id", address="p.address")
_WORDS = " ".join(f"WHEN '{word}' THEN {int(bits)}" for word, bits in REDACT_WORDS.items())


@lru_cache
def statement_for(*, files: bool, keyed: bool, metered: bool, reports: bool) -> str:
    """The statement for mails with attachments (`files`), a request with an idempotency key (`keyed`), a tenant with
    quotas (`metered`), senders who want reports. Without `metered` it stores nothing for a tenant that has quotas, and
    says so in the column `metered`."""
    parts = [
        _CHECKED if metered else _UNMETERED,
        _KEYED if keyed else _GO,
        _PATH,
        *([quotas.COUNTED] if metered else []),
        _MESSAGES,
        *([_FILES] if files else []),
        _DELIVERIES,
        *([_REPORTS] if reports else []),
        _DUE,
    ]
    answer = f"{_ANSWER}, {quotas.KEPT} AS used" if metered else _ANSWER
    return f"WITH {', '.join(parts)} SELECT {answer} FROM (VALUES (true)) AS one LEFT JOIN api ON true"


_CHECKED = f"""
api AS (
    SELECT k.id, k.tenant_id, k.domain_id, k.test, t.suspended_at, t.daily_quota, t.monthly_quota,
           k.test AND NOT %(lab)s::bool AS labless, t.privacy OR %(private)s::bool AS private, t.erased
      FROM api_key k JOIN tenant t ON t.id = k.tenant_id
     WHERE k.secret_hash = %(secret_hash)s AND k.revoked_at IS NULL AND k.suspended_at IS NULL
       AND k.scope <> '{ApiKey.Scope.READING}' AND (k.expires_at IS NULL OR k.expires_at > now())
       -- a commit that does not wait leaves that to ON_DISK: the mail is under way meanwhile
       AND (SELECT set_config('synchronous_commit',
                              CASE WHEN %(waits)s::bool THEN current_setting('synchronous_commit') ELSE 'off' END,
                              true)) IS NOT NULL
), asked AS (
    SELECT * FROM unnest(
        %(m_id)s::uuid[], %(m_domain)s::text[], %(m_message_id)s::text[], %(m_from)s::text[], %(m_to)s::text[],
        %(m_cc)s::text[], %(m_bcc)s::text[], %(m_reply_to)s::text[], %(m_subject)s::text[], %(m_tags)s::text[],
        %(m_metadata)s::text[], %(m_stream)s::text[], %(m_lane)s::int[], %(m_size)s::int[], %(m_files)s::int[],
        %(m_scheduled)s::timestamptz[], %(m_before)s::timestamptz[], %(m_html)s::text[], %(m_text)s::text[],
        %(m_headers)s::text[], %(m_raw)s::bytea[], %(m_leave)s::bool[], %(m_redact)s::int[],
        %(m_untracked)s::int[]
    ) AS m(id, domain, message_id, from_header, "to", cc, bcc, reply_to, subject, tags, metadata, stream, lane, size,
           files, scheduled_at, deliver_before, html, text, headers, raw, leave, redact, untracked)
), owned AS (
    SELECT d.id, d.name, d.open_tracking::int + 2 * d.click_tracking::int AS tracking, d.unsubscribe_streams,
           d.redact_streams
      FROM sending_domain d, api
     WHERE d.tenant_id = api.tenant_id AND d.suspended_at IS NULL AND (d.verified_at IS NOT NULL OR api.test)
       AND (api.domain_id IS NULL OR d.id = api.domain_id) AND d.name = ANY (%(m_domain)s::text[])
), checked AS (
    SELECT api.* FROM api
     WHERE {_MAY}
       AND NOT EXISTS (SELECT FROM asked WHERE domain NOT IN (SELECT name FROM owned))
)
"""

#: a quota is counted only where there is one
_UNMETERED = _CHECKED.replace(_MAY, f"{_MAY} AND daily_quota IS NULL AND monthly_quota IS NULL")

_KEYED = """
idem AS (
    -- waits for a concurrent request with the same key, at most lock_timeout
    INSERT INTO idempotency_key (id, tenant_id, endpoint, key, body_hash, answer, created_at)
    SELECT %(idem_id)s, tenant_id, %(idem_endpoint)s::text, %(idem_key)s::text, %(idem_hash)s::bytea,
           %(idem_answer)s::jsonb, now()
      FROM checked
    ON CONFLICT (tenant_id, endpoint, key) DO NOTHING
    RETURNING 1
), go AS (
    SELECT * FROM checked WHERE EXISTS (SELECT FROM idem)
)
"""
_GO = "go AS (SELECT * FROM checked)"

_PATH = f"""
path AS (
    SELECT p.id, p.message, p.position, p.field, p.recipient, p.event,
           CASE WHEN go.test THEN '{SANDBOX_SITE}' ELSE coalesce(mx.site, p.destination) END AS destination,
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
            WHERE s.tenant_id = go.tenant_id AND s.address IN (p.address, CASE WHEN go.erased THEN {_HASHED} END)
              AND s.stream IN ('*', m.stream)
              AND (s.expires_at IS NULL OR s.expires_at > now()) AND s.brake_id IS NULL
            LIMIT 1) s ON true
)
"""

_MESSAGES = f"""
message_rows AS (
    INSERT INTO message (id, tenant_id, api_key_id, domain_id, message_id, from_header, "to", cc, bcc, reply_to,
                         subject, tags, metadata, stream, lane, size, attachment_count, created_at, scheduled_at,
                         deliver_before, tracking, unsubscribe, redact, test)
    SELECT m.id, go.tenant_id, go.id, owned.id, m.message_id, m.from_header, m."to"::jsonb, m.cc::jsonb, m.bcc::jsonb,
           m.reply_to::jsonb, m.subject, m.tags::jsonb, m.metadata::jsonb, m.stream, m.lane, m.size, m.files, now(),
           m.scheduled_at, m.deliver_before,
           CASE WHEN go.private OR (m.html IS NULL AND m.raw IS NULL) THEN 0 ELSE owned.tracking & ~m.untracked END,
           coalesce(m.leave, m.stream = ANY (owned.unsubscribe_streams)),
           CASE WHEN go.private THEN {int(PRIVATE)}
                ELSE m.redact | CASE owned.redact_streams ->> m.stream {_WORDS} ELSE 0 END END,
           go.test
      FROM asked m JOIN owned ON owned.name = m.domain CROSS JOIN go
), content_rows AS (
    INSERT INTO message_content (id, html, text, headers, raw)
    SELECT m.id, m.html, m.text, m.headers::jsonb, m.raw FROM asked m CROSS JOIN go
)
"""

_FILES = """
file_rows AS (
    INSERT INTO attachment (id, message_id, position, filename, content_type, content_id, content)
    SELECT a.* FROM unnest(%(a_id)s::uuid[], %(a_message)s::uuid[], %(a_position)s::int[], %(a_name)s::text[],
                           %(a_type)s::text[], %(a_cid)s::text[], %(a_content)s::bytea[]) AS a CROSS JOIN go
)
"""

_DELIVERIES = f"""
delivery_rows AS (
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
           CASE status WHEN '{Status.SUPPRESSED}' THEN jsonb_build_object('suppressed', suppressed)
                       WHEN '{Status.SCHEDULED}' THEN jsonb_build_object('scheduled_at', to_char(
                           due_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
                       ELSE '{{}}'::jsonb END,
           now()
      FROM path
    RETURNING id, tenant_id, type
), outbox_rows AS ({queue.OUTBOX_FROM.format(events="event_rows")}
)
"""

_DUE = f"""
due AS (
    SELECT lane, destination AS name, min(due_at) AS due_at FROM path WHERE suppressed IS NULL
     GROUP BY lane, destination
), {queue.ANNOUNCE}
"""

_ANSWER = """
       api.id IS NOT NULL AS key_ok, api.tenant_id, api.domain_id, api.labless,
       api.suspended_at IS NOT NULL AS suspended,
       api.daily_quota IS NOT NULL OR api.monthly_quota IS NOT NULL AS metered,
       ARRAY(SELECT DISTINCT domain FROM asked, api WHERE domain NOT IN (SELECT name FROM owned)) AS refused,
       EXISTS (SELECT FROM go) AS stored
"""

_REPORTS = """
report_rows AS (
    INSERT INTO report_request (delivery_id, tenant_id, message_id, return_to, envid, whole, notify, orcpt, told,
                                due_at, created_at)
    SELECT r.delivery, go.tenant_id, r.message, r.return_to, r.envid, r.whole, r.notify, r.orcpt, 0, now(), now()
      FROM unnest(%(r_delivery)s::uuid[], %(r_message)s::uuid[], %(r_return)s::text[], %(r_envid)s::text[],
                  %(r_whole)s::bool[], %(r_notify)s::smallint[], %(r_orcpt)s::text[])
           AS r(delivery, message, return_to, envid, whole, notify, orcpt)
     CROSS JOIN go
)"""

#: waits until all that was committed so far is on disk, and on a synchronous standby: the least that has a commit,
#: which stands behind them in the log
ON_DISK = "SELECT pg_logical_emit_message(true, 'mailapi', '')"
