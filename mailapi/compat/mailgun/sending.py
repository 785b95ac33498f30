"""/v3/{domain}/messages and messages.mime. One id is answered, of the first mail where each recipient has one."""

from __future__ import annotations

from uuid import UUID, uuid4

from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from deliveries.accept import Draft, accept, message_id_of
from deliveries.errors import BadInput
from mailapi.compat.face import with_ignored
from mailapi.compat.mailgun import shapes
from mailapi.compat.mailgun.door import Mailgun
from mailapi.compat.mailgun.form import Form, read_form
from mailapi.compat.reading import Reading
from mailapi.compat.templates import Templates


class Messages(Mailgun):
    open_to_sending = ("POST",)

    def post(self, request: Request, domain: str) -> HttpResponse:
        self.own(domain)
        form, reading = read_form(request._request), Reading()
        drafts = self.drafts(form, reading)
        if reading.faults:
            raise BadInput(reading.faults)
        testing = shapes.yes(form, "o:testmode")
        ids = [uuid4()] if testing else list(accept(self.caller().secret_hash, drafts).ids)
        return with_ignored(_queued(ids[0], drafts[0]), reading.ignored)

    def drafts(self, form: Form, reading: Reading) -> list[Draft]:
        return shapes.drafts(form, Templates(self.caller().tenant_id, [form.last("template")]), reading)


class Mime(Messages):
    def drafts(self, form: Form, reading: Reading) -> list[Draft]:
        return shapes.whole(form, reading)


def _queued(ident: UUID, draft: Draft) -> JsonResponse:
    return JsonResponse({"id": f"<{message_id_of(ident, draft)}>", "message": "Queued. Thank you."})
