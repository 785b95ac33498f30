"""The JSON of an event, in Resend's shape; made once, then frozen, so that every try carries the same octets.

`{type, created_at, data}`. Of a mail, data names email_id, message_id, from, to, cc, subject, created_at, tags (an
object), metadata, stream, headers (the caller's own), recipient (whose fate it tells), attempt and sequence (its place
in the mail's story), and by type: bounce, suppressed, failed, complaint; category, code, enhanced, reply, host, late.

`sequence` is unique within a mail and rises with the story of each recipient, so that whoever hears
webhooks out of order keeps the highest. Every writer of an event takes its place in the delivery's story (event.place)
while it holds the delivery's row, where no two can take the same one; a counter per mail would make the recipients of
one mail wait for each other. With n addresses asked for, the k-th event of the recipient at position p (from 0) is
(k - 1) * n + p + 1: of a mail to one recipient 1, 2, 3 …, of one to several the same with gaps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from deliveries.models.sql import execute
from deliveries.notify import foreign, words
from deliveries.states import Category, EventType

#: category → (type, subType) as Amazon SES and Resend say it. Permanent only where the address is dead: applications
#: strike such addresses from their own lists, and a block list or a full mailbox is no reason for that
BOUNCE_TYPES: dict[Category, tuple[str, str]] = {
    Category.BAD_MAILBOX: ("Permanent", "NoEmail"),
    Category.BAD_DOMAIN: ("Permanent", "General"),
    Category.INACTIVE: ("Permanent", "General"),
    Category.MAILBOX_FULL: ("Transient", "MailboxFull"),
    Category.MESSAGE_TOO_LARGE: ("Transient", "MessageTooLarge"),
    Category.CONTENT_SPAM: ("Transient", "ContentRejected"),
    Category.POLICY_AUTH: ("Transient", "General"),
    Category.IP_REPUTATION: ("Transient", "General"),
    Category.RATE_LIMITED: ("Transient", "General"),
    Category.GREYLISTED: ("Transient", "General"),
    Category.RELAY_DENIED: ("Transient", "General"),
    Category.DNS_ERROR: ("Transient", "General"),
    Category.NETWORK: ("Transient", "General"),
    Category.TLS: ("Transient", "General"),
    Category.EXPIRED: ("Transient", "General"),
    Category.PROTOCOL: ("Transient", "General"),
    Category.AUTO_REPLY: ("Transient", "General"),
    Category.UNKNOWN: ("Undetermined", "Undetermined"),
}

#: of the event's own data, what stands in the body as it is
_TOLD = (
    "category",
    "code",
    "enhanced",
    "reply",
    "host",
    "late",
    "user_agent",
    "ip",
    "link",
    "stream",
    "reason",
    "scheduled_at",
    "bot",
    "why",
)


def bodies(event_ids: Iterable[UUID]) -> dict[UUID, str]:
    """The bodies of these events; one whose row is gone (retention) is missing."""
    return {row["id"]: body(row) for row in rows_of(event_ids)}


def bodies_as(wanted: Iterable[tuple[UUID, str]]) -> dict[tuple[UUID, str], str]:
    """The bodies by (event, format): endpoints of several formats may hear one event. One that is gone is missing."""
    pairs = set(wanted)
    rows = {row["id"]: row for row in rows_of({event for event, _ in pairs})}
    return {(event, form): body(rows[event], form) for event, form in pairs if event in rows}


def rows_of(event_ids: Iterable[UUID]) -> list[dict[str, Any]]:
    """What a body is made of: the event with its mail and its delivery."""
    return execute(_EVENTS, {"ids": list(event_ids)}).fetchall()


def body(row: Mapping[str, Any], form: str = "native") -> str:
    """ASCII, so that no framework on the way reads it in another charset than the one that was signed."""
    told = json.loads(row["data"])
    if form != "native":
        return foreign.body(form, row, told)
    whole = {"type": row["type"], "created_at": _iso(row["created_at"]), "data": _data(row, told)}
    return json.dumps(whole, ensure_ascii=True, separators=(",", ":"))


def _data(row: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    if row["message"] is None:  # about an address, a domain or an endpoint, not a mail
        return {**({"recipient": row["recipient"], "email": row["recipient"]} if row["recipient"] else {}), **told}
    data = {
        "email_id": str(row["message"]),
        "message_id": f"<{row['message_id']}>" if row["message_id"] else None,
        "from": row["from_header"],
        "to": _json(row["to"]),
        "subject": row["subject"] or "",
        "created_at": _iso(row["accepted_at"]) if row["accepted_at"] else None,
        "tags": {tag["name"]: tag["value"] for tag in _json(row["tags"])},
        "metadata": json.loads(row["metadata"]) if row["metadata"] else {},
        "stream": row["stream"],
        "headers": [{"name": name, "value": value} for name, value in _json(row["headers"])],
        "recipient": row["recipient"],
        "delivery_id": str(row["delivery_id"]) if row["delivery_id"] else None,
        # of an outcome its own, so that a body made later says the same
        "attempt": told.get("attempt", row["attempts"] or 0),
        "sequence": row["sequence"],
    }
    if cc := _json(row["cc"]):
        data["cc"] = cc
    data |= {name: told[name] for name in _TOLD if told.get(name) not in (None, "")}
    match row["type"]:
        case EventType.BOUNCED:
            data["bounce"] = bounce(told)
        case EventType.SUPPRESSED:
            message = f"The address is on the suppression list ({told.get('suppressed') or 'manual'})."
            data["suppressed"] = {"type": "OnAccountSuppressionList", "message": message}
        case EventType.FAILED | EventType.EXPIRED:
            data["failed"] = {"reason": told.get("reply") or told.get("rule") or ""}
        case EventType.CLICKED:
            data["click"] = {
                "ipAddress": told.get("ip") or "",
                "link": told.get("link") or "",
                "timestamp": _iso(row["created_at"]),
                "userAgent": told.get("user_agent") or "",
            }
        case EventType.COMPLAINED:
            data["complaint"] = {"feedback_type": told.get("feedback_type") or "abuse"}
    return data


def bounce(told: Mapping[str, Any]) -> dict[str, Any]:
    """Resend's bounce object: type Permanent, Transient or Undetermined, subType, message, diagnosticCode[]; and the
    `rule` that read the reply."""
    category = told.get("category")
    kind, sub = BOUNCE_TYPES[Category(category) if category else Category.UNKNOWN]
    if kind == "Permanent" and not words.dead(category, told.get("rule"), told.get("enhanced")):
        kind, sub = "Transient", "General"
    reply = told.get("reply") or ""
    made = {"type": kind, "subType": sub, "message": reply, "diagnosticCode": [f"smtp; {reply}"] if reply else []}
    return made | ({"rule": told["rule"]} if told.get("rule") else {})


def _json(text: str | None) -> Any:
    return json.loads(text) if text else []


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_EVENTS = """
SELECT e.id, e.type, e.data::text AS data, e.created_at, e.message_id AS message, e.delivery_id, e.recipient,
       m.message_id,
       m.from_header, m."to"::text AS "to", m.cc::text AS cc, m.subject, m.tags::text AS tags,
       m.metadata::text AS metadata, m.stream,
       m.created_at AS accepted_at, c.headers::text AS headers, d.attempts,
       -- places are given under the delivery's row lock; a fixed stride keeps recipients apart (see the docstring)
       CASE WHEN d.id IS NULL OR m.id IS NULL THEN e.place
            ELSE (e.place - 1) * (jsonb_array_length(m."to") + jsonb_array_length(m.cc) + jsonb_array_length(m.bcc))
                 + d.position + 1 END AS sequence
  FROM event e
  LEFT JOIN message m ON m.id = e.message_id
  LEFT JOIN message_content c ON c.id = e.message_id
  LEFT JOIN delivery d ON d.id = e.delivery_id
 WHERE e.id = ANY (%(ids)s::uuid[])
"""
