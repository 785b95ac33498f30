"""/email/bulk: one message to many, each with their own words. All of it is accepted in one transaction, or none.

Its id finds it for as long as idempotency keys are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from django.http import HttpResponse, JsonResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from deliveries.accept import Draft, Idempotency, accept
from deliveries.errors import BadInput, BadTemplate, Fault
from deliveries.mime.template import Dialect, compiled
from deliveries.read import outbound
from deliveries.read.emails import iso
from mailapi.compat.filling import TooMuch, together
from mailapi.compat.postmark import shapes
from mailapi.compat.postmark.door import Postmark, Said
from mailapi.compat.reading import Reading
from mailapi.compat.templates import Templates
from mailapi.schemas.body import Body, json_body
from mailapi.schemas.emails import MAX_MERGED

_ENDPOINT = "postmark/bulk"
MAX_MESSAGES = 1_000
#: of each of Messages; all others are for all
_OWN = frozenset({"To", "Cc", "Bcc", "TemplateModel", "Metadata", "Headers"})


class Bulk(Postmark):
    open_to_sending = ("POST",)

    def post(self, request: Request) -> HttpResponse:
        with json_body(request._request) as body:
            return self.once(body, lambda: self._said(body))

    def _said(self, body: Body) -> Said:
        people = body.value.get("Messages") if isinstance(body.value, dict) else None
        if not isinstance(people, list) or not 1 <= len(people) <= MAX_MESSAGES:
            why = f"Must be a list of 1 to {MAX_MESSAGES} objects."
            raise BadInput([Fault("Messages", "wrong_type", why)])
        reading = Reading()
        try:
            drafts = together([] if body.faults else self._drafts(body.value, people, reading))
        except TooMuch:
            drafts = []
            why = f"The mails have more than {MAX_MERGED >> 20} MB together; send them in parts."
            reading.wrong("Messages", "too_large", why)
        if faults := [*body.faults, *reading.faults]:
            raise BadInput(faults)
        ident = str(uuid4())
        if not self.testing:
            accept(self.caller().secret_hash, drafts, Idempotency(_ENDPOINT, ident, body.digest))
        # one client reads ID, another Id
        said = {"ID": ident, "Id": ident, "Status": "Accepted", "SubmittedAt": iso(datetime.now(UTC))}
        told = {"TotalMessages": len(drafts), "PercentageCompleted": 0, "Subject": body.value.get("Subject") or ""}
        return Said({**said, **told}, 200, reading.ignored)

    def _drafts(self, value: dict[str, Any], people: list[Any], reading: Reading) -> Iterator[Draft | None]:
        common = {name: part for name, part in value.items() if name != "Messages"}
        templates = Templates(self.caller().tenant_id, [shapes.template_of(value)])
        for place, one in enumerate(people):
            mine = Reading()
            mail = _draft(common, one, templates, mine)
            reading.ignored += mine.ignored
            for fault in mine.faults:
                reading.wrong(f"Messages[{place}].{fault.field}", fault.code, fault.message)
            yield mail


class BulkStatus(Postmark):
    def get(self, request: Request, bulk_id: str) -> HttpResponse:
        try:
            found = outbound.together(self.caller().tenant_id, _ENDPOINT, str(UUID(bulk_id)))
        except ValueError:
            found = None
        if found is None:
            raise NotFound("There is no bulk request with this id, or it is older than a day.")
        whole = found.total == found.ended
        return JsonResponse(
            {
                "Id": bulk_id,
                "ID": bulk_id,
                "SubmittedAt": iso(found.at),
                "TotalMessages": found.mails,
                "PercentageCompleted": round(found.ended / found.total, 4) if found.total else 1,
                "Status": "Completed" if whole else "Processing",
                "Subject": found.subject,
            }
        )


def _draft(common: dict[str, Any], one: Any, templates: Templates, reading: Reading) -> Draft | None:
    if not isinstance(one, dict):
        reading.wrong("", "wrong_type", "Must be an object.")
        return None
    for name in one.keys() - _OWN:
        reading.wrong(name[:100], "unknown_field", f"Known here are {', '.join(sorted(_OWN))}.")
    whole = _together(common, {name: part for name, part in one.items() if name in _OWN and part is not None})
    if shapes.template_of(common) is not None:
        whole = shapes.rendered(whole, templates, reading)
    else:
        whole = _filled(whole, reading)
    return None if reading.faults else shapes.draft(whole, reading)


def _together(common: dict[str, Any], one: dict[str, Any]) -> dict[str, Any]:
    """Metadata and headers of all, and over them those of this one."""
    whole = common | one
    if isinstance(common.get("Metadata"), dict) and isinstance(one.get("Metadata"), dict):
        whole["Metadata"] = common["Metadata"] | one["Metadata"]
    if isinstance(common.get("Headers"), list) and isinstance(one.get("Headers"), list):
        whole["Headers"] = common["Headers"] + one["Headers"]
    return whole


def _filled(whole: dict[str, Any], reading: Reading) -> dict[str, Any]:
    """Subject and bodies are Mustachio too, as a template's are."""
    model = whole.pop("TemplateModel", None)
    parts = [whole.get(name) for name in ("HtmlBody", "TextBody", "Subject")]
    if model is None or not all(part is None or isinstance(part, str) for part in parts):
        return whole
    if not isinstance(model, dict):
        reading.wrong("TemplateModel", "wrong_type", "Must be an object.")
        return whole
    try:
        made = compiled(parts[0], parts[1], parts[2], Dialect.MUSTACHIO).render(model)
    except BadTemplate as bad:
        reading.wrong("TemplateModel", "template_failed", str(bad))
        return whole
    return whole | {"HtmlBody": made.html, "TextBody": made.text, "Subject": made.subject}
