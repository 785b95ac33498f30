"""/v3/{domain}/bounces, complaints, unsubscribes: who gets no mail of the account.

The list is the account's: every domain of it shows the same. Pages go by offset within their own links.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
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
from deliveries.states import ORDINARY_STREAM
from mailapi.compat.face import with_ignored
from mailapi.compat.mailgun.door import Mailgun
from mailapi.compat.mailgun.form import read_form
from mailapi.compat.query import Query
from mailapi.compat.reading import Fields, Reading
from mailapi.schemas.body import json_body

_MOST_ADDED = 1_000
_MAX_DETAIL = 500
_WHEN = {"created_at": "An address is on the list from now on."}
_FIELDS = {
    "bounces": Fields(frozenset({"address", "code", "error"}), _WHEN, {}),
    "complaints": Fields(frozenset({"address"}), _WHEN, {}),
    "unsubscribes": Fields(frozenset({"address", "tag", "tags"}), _WHEN, {}),
}


class Listed(Mailgun):
    """`kind` is the word of the path; `reasons` are ours for it, the first of them that of what is added."""

    kind: ClassVar[str] = "bounces"
    reasons: ClassVar[tuple[str, ...]] = ("bounce",)

    @property
    def fields(self) -> Fields:
        """Of what is added."""
        return _FIELDS[self.kind]

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
                # all mail of this face goes by the ordinary stream
                tag = "*" if row.stream == ORDINARY_STREAM else row.stream
                return {"address": row.address, "tags": [tag], "id": row.id.hex, "created_at": at}
        return {"address": row.address, "created_at": at}


class List(Listed):
    def get(self, request: Request, domain: str) -> HttpResponse:
        self.own(domain)
        # `page` stands in the links of this list, whose `skip` says the place
        query = Query(request.query_params, ("limit", "skip", "page"))
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
        rows = self._several(request) if many else [{k: v[-1] for k, v in read_form(request._request).fields.items()}]
        reading, added = Reading(), defaultdict[str, list[str]](list)
        for i, row in enumerate(rows):
            place = f"[{i}]." if many else ""
            reading.sort(row, self.fields, place)
            if (address := _address(f"{place}address", row.get("address"), reading)) is not None:
                added[_detail(row, place, reading)].append(address)
        if reading.faults:
            raise BadInput(reading.faults)
        for detail, addresses in added.items():
            suppressions.add_many(caller.tenant_id, addresses, self.reasons[0], detail, f"key:{caller.key_id}")
        if many:
            said = {"message": f"{len(rows)} addresses have been added to the {self.kind} table"}
        else:
            (said_address,) = next(iter(added.values()))
            said = {"message": f"Address has been added to the {self.kind} table", "address": said_address}
        return with_ignored(JsonResponse(said), reading.ignored)

    def delete(self, request: Request, domain: str) -> HttpResponse:
        self.own(domain)
        return self.remove(outbound.suppressed(self.caller().tenant_id, self.reasons), {})

    def _several(self, request: Request) -> list[dict[str, Any]]:
        with json_body(request._request) as body:
            rows = body.value if isinstance(body.value, list) and not body.faults else None
        if rows is None or not 1 <= len(rows) <= _MOST_ADDED or not all(isinstance(row, dict) for row in rows):
            raise BadInput([Fault("", "wrong_type", f"Send a list of 1 to {_MOST_ADDED} objects with an address.")])
        return rows


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


def _address(field: str, text: Any, reading: Reading) -> str | None:
    try:
        return parse_address(text if isinstance(text, str) else "").addr_spec
    except ValueError as error:
        reading.wrong(field, "invalid_address", str(error))
        return None


def _detail(row: Mapping[str, Any], place: str, reading: Reading) -> str:
    """Why an address bounced, in the words of the reply; and tags are looked at, which would bar more than they say."""
    tags = row.get("tags", row.get("tag"))
    if tags not in (None, "", "*", [], ["*"]):
        why = "Unsubscribing goes by stream here: leave it out to bar all mail, or post to /suppressions with a stream."
        reading.wrong(f"{place}{'tags' if 'tags' in row else 'tag'}", "not_available", why)
    error = reading.string(f"{place}error", row.get("error")) or ""
    code = str(row.get("code") or "")
    if code and not (code.isascii() and code.isdigit() and len(code) == 3):
        reading.wrong(f"{place}code", "invalid_parameter", "Must be a reply code such as 550.")
    return (error if error.startswith(code) else f"{code} {error}".strip())[:_MAX_DETAIL]
