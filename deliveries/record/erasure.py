"""One person's data taken away: every row that names an address, table by table, a window of rows at a time.

A step looks at the rows of one table in the order of their ids and says what it found; `walk` goes from step to
step and may be stopped and taken up again at any row. What is queued for the person is canceled first. A mail to the
person alone goes whole; of a mail to others as well the person's delivery, place in the lists and the content go. A
mail that still waits for others is left until it is finished, for it must leave as it was accepted: then the order
stays open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from deliveries.models.erasure import hashed
from deliveries.models.sql import execute
from deliveries.record import operator
from deliveries.record.person import Person
from deliveries.record.redaction import forget_requests_of, take_content
from deliveries.record.retention import Time, batch, remove_mail, windows
from deliveries.states import Redact

_FIRST = UUID(int=0)


@dataclass(slots=True)
class Progress:
    """Where a walk stands, and what it found so far: by kind, and how many mails still wait for somebody else."""

    step: int = 0
    after: UUID = _FIRST
    found: dict[str, int] = field(default_factory=dict)
    waiting: int = 0

    def count(self, kind: str, n: int) -> None:
        if n:
            self.found[kind] = self.found.get(kind, 0) + n


def walk(person: Person, at: Progress, left: Time, actor: str, dry: bool = False) -> bool:
    """Go on from `at`, which is moved along; False where the time ran out before the last table's end. `dry`: only
    count what would go."""
    asked = person.params() | {"actor": actor, "keep": person.keep_suppressions}
    end = datetime.now(UTC) + timedelta(days=1)
    while at.step < len(_STEPS):
        table, step = _STEPS[at.step]
        for ids in windows(table, end, left, at.after, _OCTETS.get(table, "0")):
            step(asked | {"ids": ids}, at, dry)
            at.after = ids[-1]
        if not left.left():
            return False
        at.step, at.after = at.step + 1, _FIRST
    for kind, statement, find in _SMALL:
        rows = execute(find if dry else statement, asked)
        at.count(kind, len(rows.fetchall()) if dry else rows.rowcount)
    for table, columns in _SAID.items() if not dry else ():
        sets = ", ".join(f"{name} = {_put(name)}" for name in columns)
        execute(f"UPDATE {table} SET {sets} WHERE {' OR '.join(f'{name} ~* %(like)s' for name in columns)}", asked)
    return True


# --- mails ----------------------------------------------------------------------------------------------------------


def _mails(asked: dict[str, Any], at: Progress, dry: bool) -> None:
    rows = execute(_NAMING, asked).fetchall()
    if not rows:
        return
    own = asked | {"ids": [row["id"] for row in rows]}
    queued = [row["id"] for row in execute(_QUEUED, own)]
    if dry:
        at.count("canceled", len(queued))
    else:
        at.count("canceled", operator.cancel(queued, asked["actor"], asked["tenant"]))
        rows = execute(_NAMING, own).fetchall()
    waits = [row["id"] for row in rows if row["open"] and not (dry and row["others"] == 0)]
    whole = [row["id"] for row in rows if row["id"] not in waits and row["own"] and not row["others"]]
    parts = [row["id"] for row in rows if row["id"] not in waits and (row["others"] or not row["own"])]
    at.waiting += len(waits)
    at.count("mails", len(whole))
    at.count("mails to others as well", len(parts))
    if dry:
        return
    with batch():
        forget_requests_of(whole)
        execute("DELETE FROM inbound_message i USING delivery d WHERE d.message_id = ANY (%(ids)s::uuid[])"
                " AND i.delivery_id = d.id", {"ids": whole})  # fmt: skip
        remove_mail(whole)
    with batch():
        forget_requests_of(parts)
        take_content(parts)
        for statement in _STRIP:
            execute(statement, asked | {"ids": parts})


def _contents(asked: dict[str, Any], at: Progress, dry: bool) -> None:
    """Content that speaks of the person, in mails to others."""
    _of_content("message_content", _SPEAKING, asked, at, dry)


def _files(asked: dict[str, Any], at: Progress, dry: bool) -> None:
    _of_content("attachment", _FILES, asked, at, dry)


def _of_content(kind: str, statement: str, asked: dict[str, Any], at: Progress, dry: bool) -> None:
    rows = execute(statement, asked).fetchall()
    done = [row["id"] for row in rows if not row["open"]]
    at.waiting += len(rows) - len(done)
    at.count("contents", len(done))
    if done and not dry:
        with batch():
            take_content(done)
            execute(_MARK, {"ids": done})
            forget_requests_of(done)


# --- all else -------------------------------------------------------------------------------------------------------


def _goes(kind: str, table: str, where: str, *also: str, open_where: str = "false") -> Callable[..., None]:
    """Rows of `table` (t) that match go, after what `also` says of them; those that are still needed wait."""
    find = f"SELECT t.id, {open_where} AS open FROM {table} t WHERE t.id = ANY (%(ids)s::uuid[]) AND ({where})"

    def step(asked: dict[str, Any], at: Progress, dry: bool) -> None:
        rows = execute(find, asked).fetchall()
        ids = [row["id"] for row in rows if not row["open"]]
        at.waiting += len(rows) - len(ids)
        at.count(kind, len(ids))
        if ids and not dry:
            with batch():
                for statement in also:
                    execute(statement, {"ids": ids})
                execute(f"DELETE FROM {table} WHERE id = ANY (%(ids)s::uuid[])", {"ids": ids})

    return step


def _masked(kind: str, table: str, tenant: str, *columns: str) -> Callable[..., None]:
    """The address in texts of rows that are of others too."""
    named = " OR ".join(f"t.{name}::text ~* %(like)s" for name in columns)
    where = f"t.id = ANY (%(ids)s::uuid[]) AND ({tenant}) AND ({named})"
    sets = ", ".join(f"{name} = {_json('t.data') if name == 'data' else _put(f't.{name}')}" for name in columns)

    def step(asked: dict[str, Any], at: Progress, dry: bool) -> None:
        if dry:
            at.count(kind, len(execute(f"SELECT t.id FROM {table} t WHERE {where}", asked).fetchall()))
            return
        with batch():
            at.count(kind, execute(f"UPDATE {table} t SET {sets} WHERE {where}", asked).rowcount)

    return step


def _then(*steps: Callable[..., None]) -> Callable[..., None]:
    def step(asked: dict[str, Any], at: Progress, dry: bool) -> None:
        for one in steps:
            one(asked, at, dry)

    return step


def _suppressions(asked: dict[str, Any], at: Progress, dry: bool) -> None:
    rows = execute(_LISTED, asked).fetchall()
    kind = "suppressions kept as hashes" if asked["keep"] else "suppressions"
    at.count(kind, len(rows))
    if not rows or dry:
        return
    params = {"ids": [row["id"] for row in rows], "tenants": [row["tenant_id"] for row in rows],
              "hashes": [hashed(row["tenant_id"], row["address"]) for row in rows]}  # fmt: skip
    with batch():
        if asked["keep"]:
            execute(_HASH, params)
            execute("UPDATE tenant SET erased = true WHERE id = ANY (%(tenants)s::uuid[]) AND NOT erased", params)
        execute(_UNLIST, params)


def _put(column: str) -> str:
    return f"regexp_replace({column}, %(like)s, %(put)s, 'gi')"


def _json(column: str) -> str:
    return f"{_put(f'{column}::text')}::jsonb"


def _list(column: str) -> str:
    """A JSON list without the elements that name the person."""
    return (
        f"(SELECT coalesce(jsonb_agg(e.value ORDER BY e.place) FILTER (WHERE e.value #>> '{{}}' !~* %(like)s), '[]')"
        f" FROM jsonb_array_elements({column}) WITH ORDINALITY AS e(value, place))"
    )


_TENANT = "%(tenant)s::uuid IS NULL OR t.tenant_id = %(tenant)s::uuid"
_OPEN = "EXISTS (SELECT FROM delivery d JOIN queued q ON q.delivery_id = d.id WHERE d.message_id = {0})"
_OWN = "folded_address(d.recipient) = ANY (%(addresses)s::text[])"

_NAMING = f"""
SELECT t.id, {_OPEN.format("t.id")} AS open,
       (SELECT count(*) FROM delivery d WHERE d.message_id = t.id AND {_OWN}) AS own,
       (SELECT count(*) FROM delivery d WHERE d.message_id = t.id AND NOT {_OWN}) AS others
  FROM message t
 WHERE t.id = ANY (%(ids)s::uuid[]) AND ({_TENANT})
   AND (concat_ws(E'\\n', t.from_header, t."to", t.cc, t.bcc, t.reply_to, t.subject, t.tags, t.metadata, t.message_id)
            ~* %(like)s
        OR EXISTS (SELECT FROM delivery d WHERE d.message_id = t.id AND {_OWN}))
"""

_QUEUED = f"""
SELECT d.id FROM delivery d JOIN queued q ON q.delivery_id = d.id
 WHERE d.message_id = ANY (%(ids)s::uuid[]) AND {_OWN}
"""

# of mails to others as well; %(ids)s are the mails
_OWN_ROWS = f"SELECT d.id FROM delivery d WHERE d.message_id = ANY (%(ids)s::uuid[]) AND {_OWN}"
_STRIP = (
    f"""
WITH posts AS (
    DELETE FROM webhook_delivery w USING event e
     WHERE e.message_id = ANY (%(ids)s::uuid[]) AND e.delivery_id IN ({_OWN_ROWS}) AND w.event_id = e.id RETURNING w.id
)
DELETE FROM webhook_try t USING posts WHERE t.delivery_id = posts.id
""",
    f"DELETE FROM event WHERE message_id = ANY (%(ids)s::uuid[]) AND delivery_id IN ({_OWN_ROWS})",
    f"DELETE FROM attempt WHERE delivery_id IN ({_OWN_ROWS})",
    f"DELETE FROM report_request WHERE delivery_id IN ({_OWN_ROWS})",
    f"DELETE FROM inbound_message WHERE delivery_id IN ({_OWN_ROWS})",
    f"DELETE FROM delivery d WHERE d.message_id = ANY (%(ids)s::uuid[]) AND {_OWN}",
    f"""
UPDATE message SET redacted_at = coalesce(redacted_at, now()), redact = redact | {int(Redact.CONTENT)},
       "to" = {_list('"to"')}, cc = {_list("cc")}, bcc = {_list("bcc")}, reply_to = {_list("reply_to")},
       from_header = {_put("from_header")}, subject = {_put("subject")}, message_id = {_put("message_id")},
       tags = {_json("tags")}, metadata = {_json("metadata")}
 WHERE id = ANY (%(ids)s::uuid[])
""",
)

_SPEAKING = f"""
SELECT t.id, {_OPEN.format("t.id")} AS open
  FROM message_content t JOIN message m ON m.id = t.id
 WHERE t.id = ANY (%(ids)s::uuid[]) AND (%(tenant)s::uuid IS NULL OR m.tenant_id = %(tenant)s::uuid)
   AND (t.html ~* %(like)s OR t.text ~* %(like)s OR t.headers::text ~* %(like)s
        OR encode(t.raw, 'escape') ~* %(like)s)
"""

_FILES = f"""
SELECT DISTINCT t.message_id AS id, {_OPEN.format("t.message_id")} AS open
  FROM attachment t JOIN message m ON m.id = t.message_id
 WHERE t.id = ANY (%(ids)s::uuid[]) AND (%(tenant)s::uuid IS NULL OR m.tenant_id = %(tenant)s::uuid)
   AND (t.filename ~* %(like)s OR (t.content_type ~* '^(text/|message/|application/json)'
                                   AND encode(t.content, 'escape') ~* %(like)s))
"""

_MARK = f"""
UPDATE message SET redacted_at = coalesce(redacted_at, now()), redact = redact | {int(Redact.CONTENT)}
 WHERE id = ANY (%(ids)s::uuid[])
"""

_LISTED = f"""
SELECT t.id, t.tenant_id, t.address FROM suppression t
 WHERE t.id = ANY (%(ids)s::uuid[]) AND ({_TENANT}) AND t.address = ANY (%(addresses)s::text[])
"""

_HASH = """
INSERT INTO suppression (id, tenant_id, stream, address, reason, detail, rule, category, site, created_at, expires_at)
SELECT make_uuid7(), s.tenant_id, s.stream, h.hash, s.reason, '', s.rule, s.category, s.site, s.created_at, s.expires_at
  FROM unnest(%(ids)s::uuid[], %(hashes)s::text[]) AS h(id, hash) JOIN suppression s ON s.id = h.id
ON CONFLICT DO NOTHING
"""

_UNLIST = "DELETE FROM suppression WHERE id = ANY (%(ids)s::uuid[])"

# a report about a mail is the tenant's, though nobody claimed the address that it came to
_INBOUND = f"""
({_TENANT} OR EXISTS (SELECT FROM delivery d WHERE d.id = t.delivery_id AND d.tenant_id = %(tenant)s::uuid))
            AND (concat_ws(E'\\n', t.reverse_path, t.forward_path, t.note, t.received_for, t.letter) ~* %(like)s
                 OR encode(t.octets, 'escape') ~* %(like)s)
"""

#: tables of a few rows: kind, what is done, and what it would be done to
_ASKER = f"FROM report_request t WHERE ({_TENANT}) AND (t.return_to ~* %(like)s OR t.orcpt ~* %(like)s)"
_SMALL = (("reports asked for", f"DELETE {_ASKER}", f"SELECT t.delivery_id {_ASKER}"),)

#: the operator's own, with the words of servers that spoke of anybody's mail: not counted, for that would tell a tenant
#: of another's
_SAID = {"site": ("reason", "last_reply"), "source_rest": ("why",), "operator_alert": ("words",)}

#: of tables whose rows are large; of compressed ones too it costs no reading
_OCTETS = {
    "message_content": "coalesce(octet_length(html), 0) + coalesce(octet_length(text), 0)"
    " + coalesce(octet_length(raw), 0)",
    "attachment": "octet_length(content)",
    "inbound_message": "octet_length(octets)",
}

#: in this order: what is canceled tells an event and an audit entry, which later steps find
_STEPS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("message", _mails),
    ("message_content", _contents),
    ("attachment", _files),
    # a server may name whom it passes the mail on to
    ("delivery", _masked("deliveries of others", "delivery", _TENANT, "reply", "reason")),
    (
        "inbound_message",
        _goes(
            "received mails", "inbound_message", _INBOUND,
            "DELETE FROM handover WHERE inbound_id = ANY (%(ids)s::uuid[])", open_where="t.state = 'waiting'",
        ),
    ),
    ("handover", _masked("handovers", "handover", _TENANT, "reply", "forward_path")),
    (
        "webhook_delivery",
        _goes(
            "webhooks", "webhook_delivery", f"({_TENANT}) AND t.body ~* %(like)s",
            "DELETE FROM webhook_try WHERE delivery_id = ANY (%(ids)s::uuid[])",
        ),
    ),
    (
        "webhook_try",
        _masked(
            "tries of webhooks", "webhook_try",
            "%(tenant)s::uuid IS NULL OR EXISTS (SELECT FROM webhook_delivery w WHERE w.id = t.delivery_id"
            " AND w.tenant_id = %(tenant)s::uuid)",
            "response", "error",
        ),
    ),
    (
        "event",
        _then(
            _goes(
                "events", "event", f"({_TENANT}) AND folded_address(t.recipient) = ANY (%(addresses)s::text[])"
                " AND NOT EXISTS (SELECT FROM queued q WHERE q.delivery_id = t.delivery_id)",
                "DELETE FROM webhook_delivery WHERE event_id = ANY (%(ids)s::uuid[])",
            ),
            _masked("events of others", "event", _TENANT, "data"),
        ),
    ),
    ("attempt", _masked("conversations", "attempt", _TENANT, "transcript", "reply")),
    (
        "request_log",
        _masked(
            "requests", "request_log", _TENANT,
            "request_body", "response_body", "endpoint", "user_agent", "request_id",
        ),
    ),
    (
        "idempotency_key",
        _goes(
            "idempotency keys", "idempotency_key",
            f"({_TENANT}) AND (t.key ~* %(like)s OR t.answer::text ~* %(like)s)",
        ),
    ),
    ("suppression", _then(_suppressions, _masked("suppressions of others", "suppression", _TENANT, "detail"))),
    ("audit_entry", _masked("audit entries", "audit_entry", _TENANT, "subject")),
)  # fmt: skip
