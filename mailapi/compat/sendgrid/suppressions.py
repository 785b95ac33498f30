"""/v3/suppression/…: who gets no mail, in SendGrid's lists. Blocks are refusals of the last mails; they bar nobody."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse, JsonResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from deliveries.errors import BadInput, Fault
from deliveries.notify import words
from deliveries.read import outbound
from deliveries.read.outbound import Wanted
from deliveries.states import SUPPRESSING, Category
from mailapi.compat.query import Query
from mailapi.compat.sendgrid.door import SendGrid
from mailapi.compat.sendgrid.unsubscribes import EVERYTHING, REASONS, taken_off
from mailapi.schemas.body import json_body

#: list → reasons of ours
_LISTS = {
    "bounces": ("bounce",),
    "spam_reports": ("complaint",),
    "unsubscribes": REASONS,
    "invalid_emails": ("-",),  # an address that cannot be read is refused when it is sent to
}
_MOST = 500
_MOST_NAMED = 1_000


class Listed(SendGrid):
    def get(self, request: Request, kind: str) -> HttpResponse:
        query = Query(request.query_params, ("limit", "offset", "start_time", "end_time"))
        count = query.number("limit", _MOST, 1, _MOST)
        offset = query.number("offset", 0, 0, outbound.MOST)
        since, until = query.moment("start_time"), query.moment("end_time")
        tenant_id = self.caller().tenant_id
        if kind == "blocks":
            living = [str(c) for c in Category if c not in SUPPRESSING]
            wanted = Wanted(since=since, until=until, categories=living, unproven=True)
            found, _ = outbound.bounces(tenant_id, wanted, count, offset)
            return JsonResponse([_block(row) for row in found], safe=False)
        rows = outbound.suppressed(
            tenant_id, _reasons(kind), count, offset, streams=_streams(kind), since=since, until=until
        )
        return JsonResponse([_line(row) for row in rows], safe=False)

    def delete(self, request: Request, kind: str) -> HttpResponse:
        """Some, or all of a list."""
        with json_body(request._request) as body:
            asked = body.value if isinstance(body.value, dict) and not body.faults else {}
        emails = asked.get("emails")
        if asked.get("delete_all") is True and not emails:
            rows = outbound.suppressed(self.caller().tenant_id, _reasons(kind), streams=_streams(kind))
        elif isinstance(emails, list) and 0 < len(emails) <= _MOST_NAMED and all(isinstance(e, str) for e in emails):
            rows = [row for email in emails for row in self.standing(kind, email)]
        else:
            why = f"Name 1 to {_MOST_NAMED} emails, or set delete_all to true."
            raise BadInput([Fault("emails", "missing_required_field", why)])
        return taken_off(self.caller(), rows)

    def standing(self, kind: str, email: str) -> list[Any]:
        return outbound.suppressed(self.caller().tenant_id, _reasons(kind), streams=_streams(kind), address=email)


class One(Listed):
    def get(self, request: Request, kind: str, email: str = "") -> HttpResponse:
        return JsonResponse([_line(row) for row in self.standing(kind, email)], safe=False)

    def delete(self, request: Request, kind: str, email: str = "") -> HttpResponse:
        if not (rows := self.standing(kind, email)):
            raise NotFound("This address is not on the list.")
        return taken_off(self.caller(), rows)


def _streams(kind: str) -> tuple[str, ...]:
    return EVERYTHING if kind == "unsubscribes" else ()


def _reasons(kind: str) -> tuple[str, ...]:
    if kind not in _LISTS:
        raise NotFound(f"There is no such list; there are {', '.join(_LISTS)} and blocks.")
    return _LISTS[kind]


def _line(row: Any) -> dict[str, Any]:
    line = {"created": int(row.created_at.timestamp()), "email": row.address}
    if row.reason == "bounce":
        line |= {"reason": row.detail, "status": words.codes(row.detail)[1]}
    elif row.reason == "complaint":
        line |= {"ip": ""}
    return line


def _block(row: Any) -> dict[str, Any]:
    at = row.settled_at or row.created_at
    return {"created": int(at.timestamp()), "email": row.recipient, "reason": row.reply, "status": row.enhanced}
