"""/messages/outbound, /bounces, /deliverystats: what became of the mail, in Postmark's words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.http import HttpResponse, JsonResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from deliveries import suppress
from deliveries.errors import BadInput, Fault
from deliveries.mime.address import parse_address
from deliveries.models import Delivery, Event
from deliveries.notify import words
from deliveries.read import outbound
from deliveries.read.emails import iso
from deliveries.read.outbound import Mail, Wanted
from deliveries.record import suppressions
from deliveries.states import Category, EventType, Status, Tracking
from mailapi.compat.postmark import shapes
from mailapi.compat.postmark.door import Postmark
from mailapi.compat.query import Query

_WAITING = (Status.QUEUED, Status.DEFERRED, Status.SCHEDULED, Status.HELD, Status.UNKNOWN)
_STATUSES = {
    "sent": [str(s) for s in Status if s not in _WAITING],
    "processed": [str(s) for s in Status if s not in _WAITING],
    "queued": [str(s) for s in _WAITING],
    "scheduled": [str(Status.SCHEDULED)],
}
_EVENTS = {
    EventType.DELIVERED: "Delivered",
    EventType.DELIVERY_DELAYED: "Transient",
    EventType.BOUNCED: "Bounced",
    EventType.FAILED: "Bounced",
    EventType.EXPIRED: "Bounced",
    EventType.OPENED: "Opened",
    EventType.CLICKED: "LinkClicked",
    EventType.UNSUBSCRIBED: "SubscriptionChanged",
}

_PAGE = ("count", "offset")
_TIME = ("fromdate", "todate")
_MAIL = (*_PAGE, *_TIME, "recipient", "fromemail", "subject", "tag", "status", "messagestream", "metadata_*")
_BOUNCE = (*_PAGE, *_TIME, "type", "inactive", "emailFilter", "tag", "messageID", "messagestream")


def _paged(query: Query) -> tuple[int, int]:
    """count and offset: 500 at the most, and not beyond the 10,000th."""
    count = query.number("count", 100, 0, 500)
    return count, query.number("offset", 0, 0, outbound.MOST - count)


# --- messages -------------------------------------------------------------------------------------------------------


class Messages(Postmark):
    def get(self, request: Request) -> HttpResponse:
        query = Query(request.query_params, _MAIL)
        status = query.text("status").lower()
        if status and status not in _STATUSES:
            raise BadInput([Fault("status", "invalid_parameter", f"Must be one of {', '.join(_STATUSES)}.")])
        wanted = Wanted(
            recipient=query.text("recipient"),
            sender=query.text("fromemail"),
            subject=query.text("subject"),
            label=query.text("tag"),
            stream=shapes.ours(query.text("messagestream")),
            since=query.moment("fromdate"),
            until=query.moment("todate"),
            metadata=query.beginning("metadata_"),
            statuses=_STATUSES.get(status, ()),
        )
        found, total = outbound.mails(self.caller().tenant_id, wanted, *_paged(query))
        return JsonResponse({"TotalCount": min(total, outbound.MOST), "Messages": [_line(mail) for mail in found]})


class Details(Postmark):
    def get(self, request: Request, message_id: str) -> HttpResponse:
        mail = self.mail(message_id)
        content = mail.content
        return JsonResponse(
            {
                **_line(mail),
                "TextBody": (content.text if content else "") or "",
                "HtmlBody": (content.html if content else "") or "",
                "Body": "",
                "MessageEvents": [_event(event) for event in mail.events if event.type in _EVENTS],
            }
        )

    def mail(self, message_id: str) -> Mail:
        try:
            found = outbound.mail(self.caller().tenant_id, UUID(message_id))
        except ValueError:
            found = None
        if found is None:
            raise NotFound("There is no message with this id.")
        return found


class Dump(Details):
    """The source is composed anew for each recipient and kept nowhere."""

    def get(self, request: Request, message_id: str) -> HttpResponse:
        self.mail(message_id)
        return JsonResponse({"Body": ""})


def _line(mail: Mail) -> dict[str, Any]:
    message = mail.message
    open_ones = [d for d in mail.deliveries if d.status in _WAITING]
    scheduled = [d for d in open_ones if d.status == Status.SCHEDULED]
    return {
        "MessageID": str(message.id),
        "MessageStream": shapes.theirs(message.stream),
        "Tag": (words.labels(message.tags) or [""])[0],
        "To": [_person(text) for text in message.to],
        "Cc": [_person(text) for text in message.cc],
        "Bcc": [_person(text) for text in message.bcc],
        "Recipients": [d.recipient for d in mail.deliveries],
        "ReceivedAt": iso(message.created_at),
        "From": message.from_header,
        "Subject": message.subject,
        "Attachments": [],
        "Status": "Scheduled" if scheduled else "Queued" if open_ones else "Sent",
        "TrackOpens": bool(message.tracking & Tracking.OPENS),
        "TrackLinks": "HtmlOnly" if message.tracking & Tracking.CLICKS else "None",
        "Metadata": message.metadata,
        "Sandboxed": False,
    }


def _person(text: str) -> dict[str, str | None]:
    address = parse_address(text)
    return {"Email": address.addr_spec, "Name": address.display_name or None}


def _event(event: Event) -> dict[str, Any]:
    told = event.data
    details = {"DeliveryMessage": told.get("reply") or "", "DestinationServer": told.get("host") or ""}
    if _EVENTS[EventType(event.type)] == "Bounced":
        ident = words.number(event.delivery_id) if event.delivery_id else 0
        details = {"Summary": told.get("reply") or "", "BounceID": str(ident)}
    elif event.type == EventType.CLICKED:
        details = {"Summary": "Link clicked", "Link": told.get("link") or "", "ClickLocation": "HTML"}
    return {
        "Recipient": event.recipient,
        "Type": _EVENTS[EventType(event.type)],
        "ReceivedAt": iso(event.created_at),
        "Details": details,
    }


# --- bounces --------------------------------------------------------------------------------------------------------


class Refusals(Postmark):
    def lines(self, found: Sequence[Delivery]) -> list[dict[str, Any]]:
        asked: dict[str, list[str]] = {}
        for row in found:
            asked.setdefault(row.message.stream, []).append(row.recipient)
        barred = {
            (stream, address)
            for stream, addresses in asked.items()
            for address in suppress.find(self.caller().tenant_id, addresses, stream)
        }
        return [_bounce(row, (row.message.stream, row.recipient) in barred) for row in found]

    def one(self, bounce_id: str) -> Delivery:
        digits = bounce_id.isascii() and bounce_id.isdigit() and len(bounce_id) < 17
        found = outbound.bounce(self.caller().tenant_id, *words.span(int(bounce_id))) if digits else None
        if found is None:
            raise NotFound("There is no bounce with this id.")
        return found


class Bounces(Refusals):
    def get(self, request: Request) -> HttpResponse:
        query = Query(request.query_params, _BOUNCE)
        kind = query.text("type")
        wanted = Wanted(
            recipient=query.text("emailFilter"),
            label=query.text("tag"),
            stream=shapes.ours(query.text("messagestream")),
            message_id=query.ident("messageID"),
            since=query.moment("fromdate"),
            until=query.moment("todate"),
            categories=[str(c) for c in Category if words.postmark_type(c, "", "") == kind] or ["-"] if kind else (),
            unproven=kind == "SoftBounce",
            barred=query.flag("inactive"),
        )
        found, total = outbound.bounces(self.caller().tenant_id, wanted, *_paged(query))
        lines = self.lines(found)
        return JsonResponse({"TotalCount": min(total, outbound.MOST), "Bounces": lines})


class Bounce(Refusals):
    def get(self, request: Request, bounce_id: str) -> HttpResponse:
        return JsonResponse(self.lines([self.one(bounce_id)])[0])


class BounceDump(Refusals):
    def get(self, request: Request, bounce_id: str) -> HttpResponse:
        return JsonResponse({"Body": self.one(bounce_id).reply})


class Activate(Refusals):
    """The address gets mail again: it is taken off the suppression list."""

    http_method_names = ["put"]

    def put(self, request: Request, bounce_id: str) -> HttpResponse:
        caller, row = self.caller(), self.one(bounce_id)
        standing = outbound.suppressed(caller.tenant_id, ["bounce", "manual", "import"], address=row.recipient)
        suppressions.remove([s.id for s in standing], f"key:{caller.key_id}", caller.tenant_id)
        return JsonResponse({"Message": "OK", "Bounce": self.lines([row])[0]})


class Stats(Postmark):
    def get(self, request: Request) -> HttpResponse:
        Query(request.query_params, ())
        tenant_id = self.caller().tenant_id
        counts: dict[str, int] = {}
        for reading, count in outbound.readings(tenant_id).items():
            kind = words.postmark_type(*reading)
            counts[kind] = counts.get(kind, 0) + count
        told = [
            {"Type": kind, "TypeCode": words.POSTMARK_CODES[kind][0], "Name": words.POSTMARK_CODES[kind][1], "Count": n}
            for kind, n in sorted(counts.items())
        ]
        every = {"Name": "All", "Type": "All", "TypeCode": 0, "Count": sum(counts.values())}
        return JsonResponse(
            {
                "InactiveMails": len(outbound.suppressed(tenant_id, ())),
                "Bounces": [every, *told],
            }
        )


def _bounce(row: Delivery, barred: bool) -> dict[str, Any]:
    bounced = row.status == Status.BOUNCED
    kind = words.postmark_type(row.category, row.rule, row.enhanced) if bounced else "SpamComplaint"
    code, name = words.POSTMARK_CODES[kind]
    message = row.message
    return {
        "ID": words.number(row.id),
        "Type": kind,
        "TypeCode": code,
        "Name": name,
        "Tag": (words.labels(message.tags) or [""])[0],
        "MessageID": str(message.id),
        "ServerID": 0,
        "MessageStream": shapes.theirs(message.stream),
        "Description": row.reason or name,
        "Details": row.reply,
        "Email": row.recipient,
        "From": message.from_header,
        "BouncedAt": iso(row.settled_at or row.complained_at or row.created_at),
        "DumpAvailable": bool(row.reply),
        "Inactive": barred,
        "CanActivate": barred and kind != "SpamComplaint",
        "Subject": message.subject,
        "Content": "",
    }
