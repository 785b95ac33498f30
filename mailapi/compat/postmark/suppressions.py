"""/message-streams/{stream}/suppressions: who gets no mail of a stream, and why."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from deliveries.errors import BadInput, Fault
from deliveries.mime.address import Address, parse_address
from deliveries.models import Suppression
from deliveries.read import outbound
from deliveries.read.emails import iso
from deliveries.record import suppressions
from mailapi.compat.postmark import shapes
from mailapi.compat.postmark.door import Postmark
from mailapi.compat.query import Query
from mailapi.compat.reading import Reading
from mailapi.schemas.body import json_body

MOST_SUPPRESSIONS = 50
_REASONS = {"bounce": "HardBounce", "complaint": "SpamComplaint"}
#: Node's client adds a page's words to a dump, which is whole
_WORDS = ("EmailAddress", "SuppressionReason", "Origin", "fromdate", "todate", "count", "offset")
_INVALID = "An invalid email address was provided."


class Dump(Postmark):
    def get(self, request: Request, stream: str) -> HttpResponse:
        query = Query(request.query_params, _WORDS)
        rows = outbound.suppressed(
            self.caller().tenant_id,
            (),
            streams=("*", stream_of(stream)),
            address=query.text("EmailAddress"),
            since=query.moment("fromdate"),
            until=query.moment("todate"),
        )
        told = [_suppression(row) for row in rows]
        for name in ("SuppressionReason", "Origin"):
            if value := query.text(name):
                told = [line for line in told if line[name].lower() == value.lower()]
        return JsonResponse({"Suppressions": told})


class Suppressions(Postmark):
    """Added to this stream alone."""

    def post(self, request: Request, stream: str) -> HttpResponse:
        caller = self.caller()
        told: list[dict[str, Any]] = []
        for text, address in self.asked(request):
            if address is None:
                told.append({"EmailAddress": text, "Status": "Failed", "Message": _INVALID})
                continue
            suppressions.add(
                caller.tenant_id, address.addr_spec, "manual", "", f"key:{caller.key_id}", stream_of(stream)
            )
            told.append({"EmailAddress": text, "Status": "Suppressed", "Message": None})
        return JsonResponse({"Suppressions": told})

    def asked(self, request: Request) -> list[tuple[str, Address | None]]:
        """Each address as it was written, and as it was read."""
        with json_body(request._request) as body:
            rows = body.value.get("Suppressions") if isinstance(body.value, dict) and not body.faults else None
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and isinstance(row.get("EmailAddress"), str) for row in rows
        ):
            raise BadInput([Fault("Suppressions", "wrong_type", "Must be a list of objects with EmailAddress.")])
        if len(rows) > MOST_SUPPRESSIONS:
            why = f"Has {len(rows)} elements; {MOST_SUPPRESSIONS} are allowed."
            raise BadInput([Fault("Suppressions", "too_many", why)])
        return [(row["EmailAddress"], _address(row["EmailAddress"])) for row in rows]


class Remove(Suppressions):
    def post(self, request: Request, stream: str) -> HttpResponse:
        caller = self.caller()
        told: list[dict[str, Any]] = []
        streams = ("*", stream_of(stream))
        for text, address in self.asked(request):
            if address is None:
                told.append({"EmailAddress": text, "Status": "Failed", "Message": _INVALID})
                continue
            rows = outbound.suppressed(caller.tenant_id, (), streams=streams, address=address.addr_spec)
            if any(row.reason == "complaint" for row in rows):
                why = "You do not have the required authority to change this suppression."
                told.append({"EmailAddress": text, "Status": "Failed", "Message": why})
                continue
            suppressions.remove([row.id for row in rows], f"key:{caller.key_id}", caller.tenant_id)
            told.append({"EmailAddress": text, "Status": "Deleted", "Message": None})
        return JsonResponse({"Suppressions": told})


def stream_of(name: str) -> str:
    """Ours for the path's; BadInput where no stream can have such a name."""
    reading = Reading()
    found = reading.stream("MessageStream", shapes.ours(name))
    if reading.faults:
        raise BadInput(reading.faults)
    return found


def _address(text: str) -> Address | None:
    try:
        return parse_address(text)
    except ValueError:
        return None


def _suppression(row: Suppression) -> dict[str, Any]:
    return {
        "EmailAddress": row.address,
        "SuppressionReason": _REASONS.get(row.reason, "ManualSuppression"),
        "Origin": "Customer" if row.reason in ("manual", "import") else "Recipient",
        "CreatedAt": iso(row.created_at),
    }
