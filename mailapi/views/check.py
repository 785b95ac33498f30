"""What would become of a mail, without sending it."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from deliveries.accept.rehearse import ERROR, rehearse
from deliveries.accept.ways import Way
from deliveries.read.emails import iso
from mailapi.schemas.body import json_body
from mailapi.schemas.check import describe_check
from mailapi.schemas.emails import SendEmail, across_fields
from mailapi.schemas.faults import read_shape, refusal
from mailapi.schemas.templates import with_templates
from mailapi.views.base import View
from mailapi.views.emails import fetched


def _route(way: Way) -> dict[str, Any]:
    last = way.last_tls
    told = {**asdict(last), "at": iso(last.at)} if last else None
    return {**asdict(way), "hosts": list(way.hosts), "last_tls": told}


@describe_check
class Check(View):
    open_to_sending = ("POST",)

    def post(self, request: Request) -> HttpResponse:
        caller = self.caller()
        with json_body(request._request) as body:
            mail = read_shape(with_templates(caller.tenant_id, body), SendEmail, across_fields)
            files, gone = fetched({0: mail})
            if gone:
                raise refusal([replace(f, index=None) for f in gone])
            found = rehearse(caller.tenant_id, mail.drafts(files), caller.test)
        return JsonResponse({
            "object": "email_check",
            "sendable": not any(o.level == ERROR for o in found.objections),
            "mails": found.mails,
            "size": found.size_octets,
            "recipients": [{"address": a, "field": field, "status": status} for a, field, status in found.recipients],
            "routes": [_route(way) for way in found.ways],
            "objections": [asdict(o) for o in found.objections],
        })  # fmt: skip
