"""The body of an event as Postmark, SendGrid and Mailgun would send it, for endpoints that were written for them.

Each is a total function of the event's row (deliveries.notify.body): what a format has no word for keeps ours, so that
a replay never fails. Mailgun's is the `event-data` alone: the signature around it is made at each POST.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from deliveries.mime.foreign import stream_group
from deliveries.notify import words
from deliveries.states import Category, EventType

Row = Mapping[str, Any]
Told = Mapping[str, Any]

_SUPPRESSIONS = {"bounce": "HardBounce", "complaint": "SpamComplaint"}
_NO_MESSAGE = "00000000-0000-0000-0000-000000000000"


def body(form: str, row: Row, told: Told) -> str:
    """ASCII, as the native body is."""
    return json.dumps(_FORMATS[form](row, told), ensure_ascii=True, separators=(",", ":"))


def _at(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- Postmark: one flat object, told apart by RecordType ------------------------------------------------------------


def _postmark(row: Row, told: Told) -> dict[str, Any]:
    kind, at = row["type"], _at(row["created_at"])
    common = {
        "MessageID": str(row["message"] or _NO_MESSAGE),
        "ServerID": 0,
        "MessageStream": words.postmark_stream(row["stream"] or told.get("stream")),
        "Tag": (words.labels(row["tags"]) or [""])[0],
        "Metadata": words.metadata(row),
    }
    client = {"Client": {}, "OS": {}, "Geo": {"IP": told.get("ip") or ""}, "Platform": "Unknown"}
    heard = {"Recipient": row["recipient"], "UserAgent": told.get("user_agent") or "", "ReceivedAt": at}
    match kind:
        case EventType.DELIVERED:
            details = {"Recipient": row["recipient"], "DeliveredAt": at, "Details": told.get("reply") or ""}
            return {"RecordType": "Delivery", **details, **common}
        case EventType.BOUNCED:
            bounce = words.postmark_type(told.get("category"), told.get("rule"), told.get("enhanced"))
            return _postmark_bounce("Bounce", bounce, at, row, told, common)
        case EventType.DELIVERY_DELAYED:
            return _postmark_bounce("Bounce", "Transient", at, row, told, common)
        case EventType.FAILED:
            return _postmark_bounce("Bounce", "SMTPApiError", at, row, told, common)
        case EventType.EXPIRED:
            return _postmark_bounce("Bounce", "SoftBounce", at, row, told, common)
        case EventType.SUPPRESSED:
            return _postmark_bounce("Bounce", "ManuallyDeactivated", at, row, told, common)
        case EventType.COMPLAINED:
            return _postmark_bounce("SpamComplaint", "SpamComplaint", at, row, told, common)
        case EventType.OPENED:
            return {"RecordType": "Open", "FirstOpen": True, **heard, **client, **common}
        case EventType.CLICKED:
            click = {"OriginalLink": told.get("link") or "", "ClickLocation": "HTML"}
            return {"RecordType": "Click", **click, **heard, **client, **common}
        case EventType.UNSUBSCRIBED | EventType.SUPPRESSION_ADDED | EventType.SUPPRESSION_REMOVED:
            reason = _SUPPRESSIONS.get(told.get("reason") or "", "ManualSuppression")
            gone = kind != EventType.SUPPRESSION_REMOVED
            change = {
                "RecordType": "SubscriptionChange",
                "Recipient": row["recipient"],
                "Origin": "Customer" if told.get("reason") in ("manual", "import") else "Recipient",
                "SuppressSending": gone,
                "SuppressionReason": reason if gone else None,
                "ChangedAt": at,
            }
            return change | common
    return {"RecordType": kind, "Recipient": row["recipient"], "ReceivedAt": at, **common}


def _postmark_bounce(record: str, kind: str, at: str, row: Row, told: Told, common: dict[str, Any]) -> dict[str, Any]:
    code, name = words.POSTMARK_CODES[kind]
    # a domain must be seen missing twice before its address goes on the list; then SubscriptionChange tells
    inactive = (
        kind in ("HardBounce", "SpamComplaint", "ManuallyDeactivated") and told.get("category") != Category.BAD_DOMAIN
    )
    return {
        "RecordType": record,
        "ID": words.number(row["delivery_id"]) if row["delivery_id"] else 0,
        "Type": kind,
        "TypeCode": code,
        "Name": name,
        "Description": told.get("rule") or name,
        "Details": told.get("reply") or "",
        "Email": row["recipient"],
        "From": row["from_header"] or "",
        "BouncedAt": at,
        "DumpAvailable": False,
        "Inactive": inactive,
        "CanActivate": inactive and kind != "SpamComplaint",
        "Subject": row["subject"] or "",
        "Content": "",
        **common,
    }


# --- SendGrid: a list of one event, the sender's arguments beside its own fields --------------------------------------

_SENDGRID = {
    EventType.SENT: "processed",
    EventType.SCHEDULED: "processed",
    EventType.DELIVERY_DELAYED: "deferred",
    EventType.DELIVERED: "delivered",
    EventType.BOUNCED: "bounce",
    EventType.EXPIRED: "bounce",
    EventType.FAILED: "dropped",
    EventType.SUPPRESSED: "dropped",
    EventType.COMPLAINED: "spamreport",
    EventType.OPENED: "open",
    EventType.CLICKED: "click",
    EventType.UNSUBSCRIBED: "unsubscribe",
}
_DROPPED = {
    "bounce": "Bounced Address",
    "complaint": "Spam Reporting Address",
    "unsubscribe": "Unsubscribed Address",
}


def _sendgrid(row: Row, told: Told) -> list[dict[str, Any]]:
    event = {
        **words.metadata(row),
        "email": row["recipient"],
        "timestamp": int(row["created_at"].timestamp()),
        "event": _SENDGRID.get(row["type"], row["type"]),
        "sg_event_id": row["id"].hex,
        "sg_message_id": str(row["message"] or ""),
        "category": words.labels(row["tags"]),
    }
    if (group := stream_group(row["stream"] or told.get("stream") or "")) is not None:
        event["asm_group_id"] = group
        if row["type"] == EventType.UNSUBSCRIBED:
            event["event"] = "group_unsubscribe"
    if row["message_id"]:
        event["smtp-id"] = f"<{row['message_id']}>"
    reply = told.get("reply") or ""
    match row["type"]:
        case EventType.DELIVERED:
            event["response"] = reply
        case EventType.DELIVERY_DELAYED:
            event |= {"response": reply, "attempt": str(told.get("attempt") or row["attempts"] or 0)}
        case EventType.BOUNCED:
            dead = words.dead(told.get("category"), told.get("rule"), told.get("enhanced"))
            status = {"status": told["enhanced"]} if told.get("enhanced") else {}
            event |= {"type": "bounce" if dead else "blocked", "reason": reply, **status}
        case EventType.EXPIRED:
            event |= {"type": "expired", "reason": reply or "The mail was given up for its age."}
        case EventType.FAILED:
            event["reason"] = reply or told.get("rule") or "Invalid"
        case EventType.SUPPRESSED:
            event["reason"] = _DROPPED.get(told.get("suppressed") or "", "Bounced Address")
        case EventType.OPENED | EventType.CLICKED:
            event |= {"useragent": told.get("user_agent") or "", "ip": told.get("ip") or ""}
            if row["type"] == EventType.CLICKED:
                event["url"] = told.get("link") or ""
    return [event]


# --- Mailgun: event-data --------------------------------------------------------------------------------------------

MAILGUN_EVENTS = {
    EventType.SENT: "accepted",
    EventType.SCHEDULED: "accepted",
    EventType.DELIVERED: "delivered",
    EventType.DELIVERY_DELAYED: "failed",
    EventType.BOUNCED: "failed",
    EventType.FAILED: "failed",
    EventType.EXPIRED: "failed",
    EventType.SUPPRESSED: "failed",
    EventType.COMPLAINED: "complained",
    EventType.OPENED: "opened",
    EventType.CLICKED: "clicked",
    EventType.UNSUBSCRIBED: "unsubscribed",
}
_REASONS = {EventType.DELIVERY_DELAYED: "generic", EventType.BOUNCED: "bounce", EventType.EXPIRED: "old"}


def mailgun_severity(kind: Any) -> str:
    """Of a failure; empty for what is none."""
    if MAILGUN_EVENTS.get(kind) != "failed":
        return ""
    return "temporary" if kind == EventType.DELIVERY_DELAYED else "permanent"


def mailgun(row: Row, told: Told) -> dict[str, Any]:
    """Also what GET /v3/{domain}/events shows."""
    event = MAILGUN_EVENTS.get(row["type"], row["type"])
    to = json.loads(row["to"]) if row["to"] else []
    made = {
        "event": event,
        "id": row["id"].hex,
        "timestamp": row["created_at"].timestamp(),
        "log-level": "error" if event == "failed" else "info",
        "recipient": row["recipient"],
        "recipient-domain": row["recipient"].rpartition("@")[2],
        "tags": words.labels(row["tags"]),
        "user-variables": words.metadata(row),
        "campaigns": [],
        "flags": {"is-routed": False, "is-authenticated": True, "is-system-test": False, "is-test-mode": False},
        "message": {
            "headers": {
                "message-id": row["message_id"] or "",
                "from": row["from_header"] or "",
                "to": ", ".join(to),
                "subject": row["subject"] or "",
            },
            "attachments": [],
        },
    }
    if event in ("failed", "delivered"):
        made["delivery-status"] = {
            "code": told.get("code"),
            "message": told.get("reply") or "",
            "description": told.get("rule") or "",
            "attempt-no": told.get("attempt") or row["attempts"] or 0,
            "mx-host": told.get("host") or "",
        }
    if event == "failed":
        made["severity"] = mailgun_severity(row["type"])
        reason = _REASONS.get(row["type"], "generic")
        if row["type"] == EventType.SUPPRESSED:
            known = told.get("suppressed") or "bounce"
            reason = f"suppress-{known if known in ('complaint', 'unsubscribe') else 'bounce'}"
        made["reason"] = reason
    if row["type"] in (EventType.OPENED, EventType.CLICKED):
        made |= {"client-info": {"user-agent": told.get("user_agent") or ""}, "ip": told.get("ip") or ""}
        if row["type"] == EventType.CLICKED:
            made["url"] = told.get("link") or ""
    return made


_FORMATS: dict[str, Callable[[Row, Told], Any]] = {"postmark": _postmark, "sendgrid": _sendgrid, "mailgun": mailgun}
