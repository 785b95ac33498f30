"""/v3/{domain}/bounces, complaints, unsubscribes: who gets no mail of the account.

The list is the account's: every domain of it shows the same. Pages go by offset within their own links.
"""

from __future__ import annotations

from email.utils import format_datetime
from typing import Any, ClassVar

from django.conf import settings
from django.http import HttpResponse, JsonResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from deliveries.errors import BadInput, Fault
from deliveries.mime.address import parse_address
from deliveries.models import Suppression
from deliveries.notify import words
from deliveries.read import outbound
from deliveries.record import suppressions
from mailapi.compat.mailgun.door import Mailgun
from mailapi.compat.mailgun.form import read_form
from mailapi.compat.query import Query
from mailapi.schemas.body import json_body

_MOST_ADDED = 1_000


class Listed(Mailgun):
    """`kind` is the word of the path; `reasons` are ours for it, the first of them that of what is added."""

    kind: ClassVar[str] = "bounces"
    reasons: ClassVar[tuple[str, ...]] = ("bounce",)

    def remove(self, rows: list[Suppression], said: dict[str, str]) -> HttpResponse:
        caller = self.caller()
        suppressions.remove([row.id for row in rows], f"key:{caller.key_id}", caller.tenant_id)
        return JsonResponse({"message": "Addresses have been removed", **said})

    def line(self, row: Suppression) -> dict[str, Any]:
        at = format_datetime(row.created_at).replace("+0000", "UTC")
        match self.kind:
            case "bounces":
                code = words.codes(row.detail)[0] or "550"
                return {"address": row.address, "code": code, "error": row.detail, "created_at": at}
            case "unsubscribes":
                return {"address": row.address, "tags": [row.stream], "id": row.id.hex, "created_at": at}
        return {"address": row.address, "created_at": at}


class List(Listed):
    def get(self, request: Request, domain: str) -> HttpResponse:
        self.own(domain)
        query = Query(request.query_params)
        count = query.number("limit", 100, 1, 1_000)
        offset = query.number("skip", 0, 0, outbound.MOST)
        rows = outbound.suppressed(self.caller().tenant_id, self.reasons, count, offset)
        here = f"{settings.BASE_URL}{request.path}"
        paging = {
            "first": f"{here}?limit={count}&page=first",
            "last": f"{here}?limit={count}&page=last",
            "next": f"{here}?limit={count}&page=next&skip={offset + len(rows)}",
            "previous": f"{here}?limit={count}&page=previous&skip={max(offset - count, 0)}",
        }
        return JsonResponse({"items": [self.line(row) for row in rows], "paging": paging})

    def post(self, request: Request, domain: str) -> HttpResponse:
        """One address as a form, or a list of objects as JSON."""
        self.own(domain)
        caller, many = self.caller(), request.META.get("CONTENT_TYPE", "").startswith("application/json")
        addresses = (
            self._several(request) if many else [_address("address", read_form(request._request).last("address"))]
        )
        suppressions.add_many(caller.tenant_id, addresses, self.reasons[0], "", f"key:{caller.key_id}")
        if many:
            return JsonResponse({"message": f"{len(addresses)} addresses have been added to the {self.kind} table"})
        message = f"Address has been added to the {self.kind} table"
        return JsonResponse({"message": message, "address": addresses[0]})

    def delete(self, request: Request, domain: str) -> HttpResponse:
        self.own(domain)
        return self.remove(outbound.suppressed(self.caller().tenant_id, self.reasons), {})

    def _several(self, request: Request) -> list[str]:
        with json_body(request._request) as body:
            rows = body.value if isinstance(body.value, list) and not body.faults else None
        if rows is None or not 1 <= len(rows) <= _MOST_ADDED or not all(isinstance(row, dict) for row in rows):
            raise BadInput([Fault("", "wrong_type", f"Send a list of 1 to {_MOST_ADDED} objects with an address.")])
        return [_address(f"[{i}].address", row.get("address")) for i, row in enumerate(rows)]


class Entry(Listed):
    def get(self, request: Request, domain: str, address: str = "") -> HttpResponse:
        return JsonResponse(self.line(self.standing(domain, address)[0]))

    def delete(self, request: Request, domain: str, address: str = "") -> HttpResponse:
        return self.remove(self.standing(domain, address), {"address": address})

    def standing(self, domain: str, address: str) -> list[Suppression]:
        self.own(domain)
        rows = outbound.suppressed(self.caller().tenant_id, self.reasons, address=address)
        if not rows:
            raise NotFound(f"Address not found in {self.kind} table")
        return rows


def of(kind: str) -> dict[str, Any]:
    reasons = {"complaints": ("complaint",), "unsubscribes": ("unsubscribe", "manual", "import")}
    return {"kind": kind, "reasons": reasons.get(kind, ("bounce",))}


def _address(field: str, text: Any) -> str:
    try:
        return parse_address(text if isinstance(text, str) else "").addr_spec
    except ValueError as error:
        raise BadInput([Fault(field, "invalid_address", str(error))]) from None
