"""/v3/asm/…: who gets no mail at all, and who gets none of a group. A group is a stream of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import HttpResponse, JsonResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from deliveries.errors import BadInput, Fault
from deliveries.keys import Caller
from deliveries.mime.address import parse_address
from deliveries.mime.foreign import MOST_GROUP, group_stream
from deliveries.read import outbound
from deliveries.record import suppressions
from deliveries.states import ORDINARY_STREAM
from mailapi.compat.sendgrid.door import SendGrid
from mailapi.schemas.body import json_body

REASONS = ("unsubscribe", "manual", "import")
#: not a group's: who is taken off the list of all never asked for the group's mail
EVERYTHING = ("*", ORDINARY_STREAM)
_MOST_ADDED = 1_000


def taken_off(caller: Caller, rows: list[Any]) -> HttpResponse:
    suppressions.remove([row.id for row in rows], f"key:{caller.key_id}", caller.tenant_id)
    return HttpResponse(status=204)


class Unsubscribed(SendGrid):
    """Addresses of one stream, or of all."""

    def asked(self, request: Request) -> list[str]:
        """`recipient_emails` as they were read."""
        with json_body(request._request) as body:
            emails = body.value.get("recipient_emails") if isinstance(body.value, dict) and not body.faults else None
        if not isinstance(emails, list) or not 1 <= len(emails) <= _MOST_ADDED:
            why = f"Must be a list of 1 to {_MOST_ADDED} addresses."
            raise BadInput([Fault("recipient_emails", "wrong_type", why)])
        faults, addresses = [], []
        for i, email in enumerate(emails):
            try:
                addresses.append(parse_address(email).addr_spec if isinstance(email, str) else "")
            except ValueError as error:
                faults.append(Fault(f"recipient_emails[{i}]", "invalid_address", str(error)))
        if faults or "" in addresses:
            raise BadInput(faults or [Fault("recipient_emails", "wrong_type", "Must be a list of texts.")])
        return addresses

    def add(self, request: Request, stream: str) -> HttpResponse:
        addresses, caller = self.asked(request), self.caller()
        suppressions.add_many(caller.tenant_id, addresses, "unsubscribe", "", f"key:{caller.key_id}", stream)
        return JsonResponse({"recipient_emails": addresses}, status=201)

    def stream(self, group: int) -> str:
        if group > MOST_GROUP:
            raise NotFound("No group has such a number.")
        return group_stream(group)

    def found(self, *streams: str, address: str = "", addresses: Sequence[str] = ()) -> list[Any]:
        return outbound.suppressed(
            self.caller().tenant_id, REASONS, streams=streams, address=address, addresses=addresses
        )


class Global(Unsubscribed):
    """/v3/asm/suppressions/global: nobody of these gets any mail."""

    def post(self, request: Request) -> HttpResponse:
        return self.add(request, "*")


class GlobalOne(Unsubscribed):
    def get(self, request: Request, email: str) -> HttpResponse:
        rows = self.found(*EVERYTHING, address=email)
        return JsonResponse({"recipient_email": rows[0].address} if rows else {})

    def delete(self, request: Request, email: str) -> HttpResponse:
        return taken_off(self.caller(), self.found(*EVERYTHING, address=email))


class Group(Unsubscribed):
    """/v3/asm/groups/{id}/suppressions: nobody of these gets the group's mail."""

    def get(self, request: Request, group: int) -> HttpResponse:
        return JsonResponse([row.address for row in self.found(self.stream(group))], safe=False)

    def post(self, request: Request, group: int) -> HttpResponse:
        return self.add(request, self.stream(group))


class GroupSearch(Unsubscribed):
    """Those of the addresses that are on the group's list."""

    def post(self, request: Request, group: int) -> HttpResponse:
        rows = self.found(self.stream(group), addresses=self.asked(request))
        return JsonResponse([row.address for row in rows], safe=False)


class GroupOne(Unsubscribed):
    def delete(self, request: Request, group: int, email: str) -> HttpResponse:
        return taken_off(self.caller(), self.found(self.stream(group), address=email))
