"""The files of a mail that was sent, and what became of a tenant's mail in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import F, Func, IntegerField

from deliveries.bounces.letter import read_letter
from deliveries.models import Attachment, Message
from deliveries.models.sql import execute
from deliveries.read import archive, receiving

# --- files --------------------------------------------------------------------------------------------------


def files(tenant_id: UUID, message_id: UUID) -> list[dict[str, Any]] | None:
    """The attachments in order, without their octets; None when the tenant has no such mail."""
    message = Message.objects.filter(tenant_id=tenant_id, id=message_id).first()
    if message is None:
        return None
    held = archive.fetched(message)
    content = held.content
    if content is not None and content.raw is not None:
        letter = read_letter(bytes(content.raw))
        return [receiving.described(file, receiving.file_id(message_id, n)) for n, file in enumerate(letter.files)]
    inline = content is not None and content.html is not None
    if message.archived_at is not None:
        rows = [(row, len(row.content)) for row in held.files]
    else:
        octets = Func(F("content"), function="octet_length", output_field=IntegerField())
        found = Attachment.objects.filter(message_id=message_id).defer("content").annotate(octets=octets)
        rows = [(row, row.octets) for row in found.order_by("position")]
    return [
        {
            "id": str(row.id),
            "filename": row.filename,
            "content_type": row.content_type,
            "content_id": row.content_id,
            # as it is composed: without html nothing could show it
            "content_disposition": "inline" if row.content_id and inline else "attachment",
            "size": size,
        }
        for row, size in rows
    ]


def file(message_id: UUID, file_id: UUID) -> tuple[bytes, str, str] | None:
    """(octets, media type, name) for whoever holds a signed address; None where it is no longer stored."""
    row = Attachment.objects.filter(message_id=message_id, id=file_id).first()
    if row is not None:
        return bytes(row.content), row.content_type, row.filename
    message = Message.objects.filter(id=message_id).first()
    held = archive.fetched(message) if message else archive.Kept(None)
    for row in held.files:
        if row.id == file_id:
            return bytes(row.content), row.content_type, row.filename
    content = held.content
    if content is None or content.raw is None:
        return None
    for n, found in enumerate(read_letter(bytes(content.raw)).files):
        if receiving.file_id(message_id, n) == file_id:
            return found.octets, found.content_type, found.filename or "attachment"
    return None


# --- numbers ------------------------------------------------------------------------------------------------

#: events that one request counts, the newest of its range; a few tenths of a second
MOST_EVENTS = 200_000


@dataclass(frozen=True, slots=True)
class Counted:
    """`rows`: period, domain_id, domain_name, email_id (None where not asked for), type, category of bounces, events,
    and the mails that they are of.

    `since`: the first moment that was counted, later than the range's where it had more than MOST_EVENTS.
    """

    rows: list[dict[str, Any]]
    since: datetime | None


def count(
    tenant_id: UUID,
    since: datetime,
    until: datetime,
    domains: list[UUID],
    mails: list[UUID],
    *,
    zone: str = "UTC",
    unit: str | None = None,
    by_domain: bool = False,
    by_mail: bool = False,
) -> Counted:
    """Events of the tenant's mail (of these domains and mails; none named: of all) by type, and by period (`unit` hour,
    day, week or month in `zone`), domain or mail."""
    params = {
        "tenant": tenant_id, "since": since, "until": until, "zone": zone, "unit": unit, "domain": by_domain,
        "mail": by_mail, "domains": domains, "mails": mails, "most": MOST_EVENTS,
    }  # fmt: skip
    rows = execute(_COUNT, params).fetchall()
    last = execute(_WHOLE, params).fetchone()
    return Counted(rows, last["created_at"] if last else None)


_RANGE = """
    FROM event e
   WHERE e.tenant_id = %(tenant)s::uuid AND e.created_at >= %(since)s::timestamptz
     AND e.created_at < %(until)s::timestamptz
   ORDER BY e.created_at DESC, e.id DESC
"""

_COUNT = f"""
WITH seen AS MATERIALIZED (
    SELECT e.type, e.message_id, e.created_at, e.data ->> 'category' AS category {_RANGE} LIMIT %(most)s
)
SELECT CASE WHEN %(unit)s::text IS NOT NULL
            THEN to_char(date_trunc(%(unit)s::text, s.created_at, %(zone)s::text) AT TIME ZONE %(zone)s::text,
                         'YYYY-MM-DD"T"HH24:MI:SS') END AS period,
       CASE WHEN %(domain)s::bool THEN m.domain_id END AS domain_id,
       CASE WHEN %(domain)s::bool THEN o.name END AS domain_name,
       CASE WHEN %(mail)s::bool THEN s.message_id END AS email_id,
       s.type, CASE WHEN s.type = 'email.bounced' THEN s.category END AS category,
       count(*) AS events, count(DISTINCT s.message_id) AS mails
  FROM seen s
  LEFT JOIN message m ON m.id = s.message_id AND (%(domain)s::bool OR cardinality(%(domains)s::uuid[]) > 0)
  LEFT JOIN sending_domain o ON o.id = m.domain_id
 WHERE (cardinality(%(domains)s::uuid[]) = 0 OR m.domain_id = ANY (%(domains)s::uuid[]))
   AND (cardinality(%(mails)s::uuid[]) = 0 OR s.message_id = ANY (%(mails)s::uuid[]))
 GROUP BY 1, 2, 3, 4, 5, 6
 ORDER BY 1, 3, 4
 LIMIT 20000
"""

_WHOLE = f"SELECT e.created_at {_RANGE} OFFSET %(most)s - 1 LIMIT 1"
