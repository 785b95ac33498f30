"""Pages of messages for the panel: newest first, by keyset, over tables of any size.

A search is answered from the index that fits it best:

- status: `delivery_status`, read tenant by tenant (LATERAL) and merged, so that the page costs
  tenants × log n, however many rows have that status; a category so by `delivery_category`;
- recipient: `delivery_recipient`, exact or by prefix;
- subject words, tag: the newest mails, which soon have enough of what is common; else `message_subject` and
  `message_tags` (GIN), whose cost is linear in what they find;
- nothing: `message_tenant`, tenant by tenant; for the operator the primary key;
- a Message-ID of the sender's own: `message_msgid`;
- sender: the addresses that fit (read.senders), and of each its newest mails by `message_sender`, merged;
- stream, domain and API key have no index of their own: the newest mails are walked, within `WALK_DAYS` unless a time
  is given.

The cursor is the id of the row that the page is ordered by: a delivery's in the first two cases, else a message's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import connection

from deliveries.models.fields import uuid7_floor
from deliveries.models.messages import SENDER
from deliveries.states import Category, Status, worst

#: rows of a bounded count; one more is shown as "1000+"
COUNT_LIMIT = 1001
#: mails looked through for a page of common words or of a common tag before an index is asked for them
NEWEST = 2_000
#: how far back a search without an index looks when no time is given
WALK_DAYS = 30
#: statuses of deliveries that something stands in the way of; the others have no category
_HAS_CATEGORY = (Status.BOUNCED, Status.DEFERRED, Status.EXPIRED, Status.FAILED, Status.HELD, Status.UNKNOWN)
_SENDER = SENDER.format("m.")
#: the expression of the index message_subject
_SUBJECT = "to_tsvector('simple'::regconfig, COALESCE(m.subject, ''))"


@dataclass(frozen=True, slots=True)
class Search:
    """What to show. `tenants` None = every tenant (the operator); an empty collection = nothing."""

    tenants: Collection[UUID] | None
    ident: UUID | None = None  #: of a message or of a delivery
    message_id: str = ""  #: without <>, as the sender gave it
    recipient: str = ""  #: an address or its beginning
    words: str = ""  #: of the subject, all of them
    senders: Sequence[tuple[UUID, str]] | None = None  #: (tenant, address in From), from read.senders; empty: nobody
    tag: str = ""  #: the value of any tag
    stream: str = ""
    keys: Sequence[UUID] | None = None  #: ids of the API keys that posted it; empty: nothing
    status: Status | None = None
    category: Category | None = None
    domain_id: UUID | None = None
    complained: bool = False  #: the recipient reported it as spam
    given_up: bool = False  #: failed or expired
    since_ms: int | None = None  #: Unix milliseconds; accepted from then on

    @property
    def walks(self) -> bool:
        """True when no index answers: then nothing is counted, and the time is bounded."""
        walking = self.stream or self.domain_id or self.keys or (self.senders and self.by_delivery)
        return bool(walking) and not self.selective

    @property
    def selective(self) -> bool:
        """True when an index finds what is asked for among all mail."""
        return bool(self.recipient or self.words or self.tag or self.ident or self.message_id)

    @property
    def by_sender(self) -> bool:
        return self.senders is not None and not (self.selective or self.by_delivery)

    @property
    def by_words(self) -> bool:
        """True when a GIN index answers, which finds all before the first."""
        return bool(self.words or self.tag) and not (self.by_delivery or self.ident or self.message_id)

    @property
    def by_delivery(self) -> bool:
        return bool(self.recipient or self.status or self.category or self.complained or self.given_up)


@dataclass(frozen=True, slots=True)
class Page:
    """`ids` of messages, newest first; the cursors are None where that side has no more.

    `count`: how many there are on all pages, at most COUNT_LIMIT; None where it was not counted.
    """

    ids: list[UUID]
    newer: UUID | None  #: pass as `before`
    older: UUID | None  #: pass as `after`
    count: int | None = None


def page(search: Search, now_ms: int, limit: int, after: UUID | None = None, before: UUID | None = None) -> Page:
    """One page: after `after` (older), before `before` (newer), or the newest."""
    if search.by_words:
        rows = _rows(*_among_newest(search, limit + 1, after, before))
        if len(rows) > limit:
            return _page(rows, limit, after, before, None)
    counted = count(search, now_ms)
    # the planner takes rare words for common ones, or the reverse
    fenced = search.by_words and counted is not None and counted < COUNT_LIMIT
    rows = _rows(*_statement(search, now_ms, limit + 1, after, before, fenced=fenced))
    return _page(rows, limit, after, before, counted)


def _rows(statement: str, params: dict[str, Any]) -> list[tuple[UUID, UUID]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return list(cursor.fetchall())


def _page(
    rows: list[tuple[UUID, UUID]], limit: int, after: UUID | None, before: UUID | None, counted: int | None
) -> Page:
    """Of `rows` in the order of the statement, of which one more than `limit` was asked for."""
    more = len(rows) > limit
    rows = rows[:limit]
    if before and not after:
        rows.reverse()
        has_newer, has_older = more, bool(rows)
    else:
        has_newer, has_older = after is not None, more
    if not rows:
        return Page([], None, None, counted)
    newer, older = rows[0][0] if has_newer else None, rows[-1][0] if has_older else None
    return Page([message for _, message in rows], newer, older, counted)


def count(search: Search, now_ms: int) -> int | None:
    """How many messages, at most COUNT_LIMIT; None where counting would mean a walk through the table."""
    if search.walks:
        return None
    statement, params = _statement(search, now_ms, COUNT_LIMIT, None, None, ordered=False)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM ({statement}) counted", params)
        return int(cursor.fetchone()[0])


def _among_newest(search: Search, limit: int, after: UUID | None, before: UUID | None) -> tuple[str, dict[str, Any]]:
    """Those that fit among the NEWEST mails from the cursor on, by message_tenant or the primary key."""
    p: dict[str, Any] = {"limit": limit, "newest": NEWEST}
    fits, _ = _conditions(search, p)
    bounds, direction = _bounds("m.id", search.since_ms, after, before, p)
    newest = f"{' AND '.join(['true', *bounds])} ORDER BY m.id {direction} LIMIT %(newest)s"
    if search.tenants is None:
        looked = f"SELECT * FROM message m WHERE {newest}"
    else:
        p["tenants"] = list(search.tenants)
        looked = (
            "SELECT m.* FROM unnest(%(tenants)s::uuid[]) AS t(id) CROSS JOIN LATERAL "
            f"(SELECT * FROM message m WHERE m.tenant_id = t.id AND {newest}) m ORDER BY m.id {direction} "
            "LIMIT %(newest)s"
        )
    order = f"ORDER BY m.id {direction} LIMIT %(limit)s"
    return f"SELECT m.id AS key, m.id AS message FROM ({looked}) m WHERE {' AND '.join(fits)} {order}", p


def _bounds(
    key: str, since_ms: int | None, after: UUID | None, before: UUID | None, p: dict[str, Any]
) -> tuple[list[str], str]:
    """The conditions of time and cursor, and the order; `after` goes before `before`."""
    where: list[str] = []
    if since_ms is not None:
        # ids are UUIDv7: a time is an id
        p["since"] = uuid7_floor(since_ms)
        where.append(f"{key} >= %(since)s")
    if after:
        p["after"] = after
        where.append(f"{key} < %(after)s")
    elif before:
        p["before"] = before
        where.append(f"{key} > %(before)s")
    return where, "ASC" if before and not after else "DESC"


def _statement(
    search: Search,
    now_ms: int,
    limit: int,
    after: UUID | None,
    before: UUID | None,
    *,
    ordered: bool = True,
    fenced: bool = False,
) -> tuple[str, dict[str, Any]]:
    """Every value is a parameter; only the constants of this module stand in the text.

    Not `ordered`: for counting, which may stop at any rows. `fenced`: the index that finds is used, not the
    one that sorts.
    """
    p: dict[str, Any] = {"limit": limit}
    key = "d.id" if search.by_delivery else "m.id"
    where, same = _conditions(search, p)
    since_ms = search.since_ms
    if since_ms is None and search.walks:
        since_ms = now_ms - WALK_DAYS * 86_400_000
    bounds, direction = _bounds(key, since_ms, after, before, p)
    where += bounds
    order = f"ORDER BY {key} {direction}" if ordered else ""
    outer = f"ORDER BY key {direction}" if ordered else ""

    if search.by_delivery:
        table = "delivery d"
        if any(
            (
                search.words,
                search.senders is not None,
                search.keys is not None,
                search.tag,
                search.stream,
                search.domain_id,
                search.message_id,
            )
        ):
            table += " JOIN message m ON m.id = d.message_id"
        # a message stands in the list once, for its newest forward-path that fits
        where.append(
            "NOT EXISTS (SELECT FROM delivery n WHERE n.message_id = d.message_id AND n.id > d.id"
            + "".join(f" AND {c}" for c in same)
            + ")"
        )
        columns, owner = "d.id AS key, d.message_id AS message", "d.tenant_id"
    else:
        table, columns, owner = "message m", "m.id AS key, m.id AS message", "m.tenant_id"

    if search.tenants is not None:
        p["tenants"] = list(search.tenants)
    if search.by_sender:
        p["owners"] = [tenant for tenant, _ in search.senders or ()]
        groups = "unnest(%(owners)s::uuid[], %(senders)s::text[]) AS t(id, sender)"
        where[0:1] = [f"{owner} = t.id", f"{_SENDER} = t.sender"]
        return _merged(groups, columns, table, where, order, outer), p
    if search.selective or (search.tenants is None and not search.by_delivery):
        if search.tenants is not None:
            where.append(f"{owner} = ANY (%(tenants)s::uuid[])")
        found = f"SELECT {columns} FROM {table} WHERE {' AND '.join(where)}"
        if fenced:
            return f"SELECT key, message FROM ({found} OFFSET 0) found {outer} LIMIT %(limit)s", p
        return f"{found} {order} LIMIT %(limit)s", p

    groups = "(SELECT id FROM tenant)" if search.tenants is None else "unnest(%(tenants)s::uuid[])"
    groups += " AS t(id)"
    if search.given_up and not search.category:
        groups += " CROSS JOIN unnest(%(given_up)s::text[]) AS s(status)"
        where.insert(1, "d.status = s.status")
    where.insert(0, f"{owner} = t.id")
    if search.category and not search.status:
        p["hindered"] = [s.value for s in _HAS_CATEGORY]
        where.insert(1, "d.category <> '' AND d.status = ANY (%(hindered)s::text[])")
    return _merged(groups, columns, table, where, order, outer), p


def _merged(groups: str, columns: str, table: str, where: Sequence[str], order: str, outer: str) -> str:
    """The first rows of each group, and of these the first."""
    found = f"SELECT {columns} FROM {table} WHERE {' AND '.join(where)} {order} LIMIT %(limit)s"
    return f"SELECT key, message FROM {groups} CROSS JOIN LATERAL ({found}) found {outer} LIMIT %(limit)s"


def _conditions(search: Search, p: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The conditions, and those about the delivery once more, for a sibling `n` of the same message."""
    where: list[str] = ["true"]
    same: list[str] = []
    if search.ident:
        p["ident"] = search.ident
        found = "(SELECT message_id FROM delivery WHERE id = %(ident)s)"
        where.append(f"d.message_id IN (%(ident)s, {found})" if search.by_delivery else f"m.id IN (%(ident)s, {found})")
    if search.recipient:
        # local parts are kept as given; people search in lower case
        p["recipient"], p["recipient_lower"] = prefix(search.recipient), prefix(search.recipient.lower())
        both = "({0}.recipient LIKE %(recipient)s OR {0}.recipient LIKE %(recipient_lower)s)"
        where.append(both.format("d"))
        same.append(both.format("n"))
    for name in ("status", "category"):
        if value := getattr(search, name):
            p[name] = str(value)
            where.append(f"d.{name} = %({name})s")
            same.append(f"n.{name} = %({name})s")
    if search.given_up:
        p["given_up"] = [Status.FAILED.value, Status.EXPIRED.value]
        where.append("d.status = ANY (%(given_up)s::text[])")
        same.append("n.status = ANY (%(given_up)s::text[])")
    if search.complained:
        where.append("d.complained_at IS NOT NULL")
        same.append("n.complained_at IS NOT NULL")
    if search.words:
        p["words"] = search.words
        where.append(f"{_SUBJECT} @@ plainto_tsquery('simple'::regconfig, %(words)s)")
    if search.senders is not None:
        p["senders"] = [address for _, address in search.senders]
        if not search.by_sender:
            where.append(f"{_SENDER} = ANY (%(senders)s::text[])")
    if search.tag:
        p["tag"] = search.tag
        # the second part is the index' condition
        where.append("m.tags @> jsonb_build_array(jsonb_build_object('value', %(tag)s::text)) AND NOT (m.tags = '[]')")
    if search.message_id:
        p["message_id"] = search.message_id
        where.append("m.message_id = %(message_id)s")
    if search.keys is not None:
        p["keys"] = list(search.keys)
        where.append("m.api_key_id = ANY (%(keys)s::uuid[])")
    if search.stream:
        p["stream"] = search.stream
        where.append("m.stream = %(stream)s")
    if search.domain_id:
        p["domain"] = search.domain_id
        where.append("m.domain_id = %(domain)s")
    return where, same


def prefix(text: str) -> str:
    """What begins with `text`, as a pattern of LIKE."""
    return text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%"


@dataclass(frozen=True, slots=True)
class Summary:
    """A message in one row of the list."""

    status: Status
    counts: dict[Status, int] = field(default_factory=dict)
    recipient: str = ""  #: the first forward-path
    recipients: int = 0
    complained: bool = False
    attempts: int = 0


def summaries(ids: Sequence[UUID]) -> dict[UUID, Summary]:
    """The rows of one page, one query; messages without deliveries are missing."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT message_id, status, count(*), (array_agg(recipient ORDER BY position))[1], min(position),
                   bool_or(complained_at IS NOT NULL), max(attempts)
              FROM delivery WHERE message_id = ANY (%s::uuid[]) GROUP BY message_id, status
            """,
            [list(ids)],
        )
        rows = cursor.fetchall()
    grouped: dict[UUID, list[Any]] = {}
    for row in rows:
        grouped.setdefault(row[0], []).append(row)
    return {
        message: Summary(
            status=worst([Status(r[1]) for r in group]),
            counts={Status(r[1]): r[2] for r in group},
            recipient=min(group, key=lambda r: r[4])[3],
            recipients=sum(r[2] for r in group),
            complained=any(r[5] for r in group),
            attempts=max(r[6] for r in group),
        )
        for message, group in grouped.items()
    }
