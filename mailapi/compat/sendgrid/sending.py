"""/v3/mail/send: all personalizations in one transaction, or none."""

from __future__ import annotations

from uuid import uuid4

from django.http import HttpResponse
from rest_framework.request import Request

from deliveries.accept import accept
from deliveries.errors import BadInput, Fault
from mailapi.compat.face import with_ignored
from mailapi.compat.reading import Reading
from mailapi.compat.sendgrid import shapes
from mailapi.compat.sendgrid.door import SendGrid
from mailapi.compat.templates import Templates
from mailapi.schemas.body import json_body


class Send(SendGrid):
    open_to_sending = ("POST",)

    def post(self, request: Request) -> HttpResponse:
        with json_body(request._request) as body:
            if not isinstance(body.value, dict):
                raise BadInput([Fault("", "wrong_type", "The body must be a JSON object.")])
            reading = Reading()
            templates = Templates(self.caller().tenant_id, [body.value.get("template_id")])
            drafts = [] if body.faults else shapes.drafts(body.value, templates, reading)
            if faults := [*body.faults, *reading.faults]:
                raise BadInput(faults)
            if shapes.sandbox(body.value):
                return _answer(200, str(uuid4()), reading)
            try:
                accepted = accept(self.caller().secret_hash, drafts)
            except BadInput as refused:
                raise BadInput([_whole(f) for f in refused.faults][:1], refused.name, refused.http_status) from None
        return _answer(202, str(accepted.ids[0]), reading)


def _answer(status: int, ident: str, reading: Reading) -> HttpResponse:
    """Without a body. The id is the first personalization's mail; each has its own, which its events name."""
    response = HttpResponse(status=status)
    del response["Content-Type"]
    response["X-Message-Id"] = ident
    return with_ignored(response, reading.ignored)


def _whole(fault: Fault) -> Fault:
    where = f"personalizations[{fault.index}].from" if fault.index else fault.field
    return Fault(where, fault.code, fault.message)
