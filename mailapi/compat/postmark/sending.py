"""/email and /email/batch. Each message is accepted or not by itself; a batch answers 200 and tells it item by item."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from django.http import HttpResponse
from rest_framework.request import Request

from deliveries.accept import Draft
from deliveries.accept.most import accept_most
from deliveries.errors import BadInput, Fault
from deliveries.keys import Caller
from deliveries.read.emails import iso
from mailapi.compat.postmark import errors, shapes
from mailapi.compat.postmark.door import Postmark, Said
from mailapi.compat.reading import Reading
from mailapi.compat.sending import inactive, recipients
from mailapi.compat.templates import Templates
from mailapi.schemas.body import Body, json_body


class Email(Postmark):
    open_to_sending = ("POST",)
    templated = False

    def post(self, request: Request) -> HttpResponse:
        with json_body(request._request) as body:
            return self.once(body, lambda: self._said(body))

    def _said(self, body: Body) -> Said:
        if not isinstance(body.value, dict):
            raise BadInput([Fault("", "wrong_type", "The body must be a JSON object.")])
        said = send(self.caller(), [body.value], body.faults, self.testing, self.templated)
        (item,) = said.body
        if item["ErrorCode"]:
            return Said(errors.body(item["ErrorCode"], item["Message"]), 422, said.ignored)
        return Said(item, 200, said.ignored)


class Batch(Postmark):
    open_to_sending = ("POST",)
    templated = False

    def post(self, request: Request) -> HttpResponse:
        with json_body(request._request) as body:
            return self.once(body, lambda: self._said(body))

    def _said(self, body: Body) -> Said:
        values = self.messages(body.value)
        if not isinstance(values, list):
            raise BadInput([Fault("", "wrong_type", "The body must be a list of messages.")])
        if len(values) > shapes.MAX_BATCH:
            why = f"The list has {len(values)} messages; {shapes.MAX_BATCH} are allowed."
            raise BadInput([Fault("", "too_many", why)])
        return send(self.caller(), values, body.faults, self.testing, self.templated)

    def messages(self, value: Any) -> Any:
        return value


class WithTemplate(Email):
    templated = True


class BatchWithTemplates(Batch):
    templated = True

    def messages(self, value: Any) -> Any:
        return value.get("Messages") if isinstance(value, dict) else None


def send(
    caller: Caller, values: Sequence[Any], unusable: Sequence[Fault], testing: bool, templated: bool = False
) -> Said:
    """A result per message, in their order. `unusable` are the body's own faults: text that nobody can store."""
    told: dict[int, list[Fault]] = {}
    for fault in unusable:
        told.setdefault(_index(fault.field), []).append(fault)
    drafts: dict[int, Draft] = {}
    ignored: list[str] = []
    given = [v for i, v in enumerate(values) if templated and isinstance(v, dict) and i not in told]
    templates = Templates(caller.tenant_id, (shapes.template_of(value) for value in given))
    for index, value in enumerate(values):
        reading, mail = Reading(index), None
        if index not in told:
            whole = shapes.rendered(value, templates, reading) if templated else value
            mail = shapes.draft(whole, reading) if not reading.faults else None
        ignored += reading.ignored
        if mail is not None:
            drafts[index] = mail
        elif reading.faults:
            told[index] = reading.faults
    ids, barred = _pretended(drafts) if testing else _accepted(caller, drafts, told)
    at = iso(datetime.now(UTC))
    return Said([_item(i, value, at, ids, told, barred) for i, value in enumerate(values)], 200, ignored)


def _pretended(drafts: dict[int, Draft]) -> tuple[dict[int, UUID], dict[int, list[str]]]:
    return {index: uuid4() for index in drafts}, {}


def _accepted(
    caller: Caller, drafts: dict[int, Draft], told: dict[int, list[Fault]]
) -> tuple[dict[int, UUID], dict[int, list[str]]]:
    """The ids of what was accepted, and which recipients are inactive; of a message of only such ones nothing is
    stored. What accept refuses goes to `told`."""
    inactives = inactive(caller.tenant_id, drafts.values())
    barred = {i: [a for a in recipients(d) if a in inactives[d.stream]] for i, d in drafts.items()}
    alive = {i: d for i, d in drafts.items() if len(barred[i]) < len(recipients(d))}
    accepted, stored, faults = accept_most(caller.secret_hash, {i: [draft] for i, draft in alive.items()})
    for fault in faults:
        told.setdefault(fault.index or 0, []).append(fault)
    return dict(zip(stored, accepted.ids, strict=True)), barred


def _item(
    index: int,
    value: Any,
    at: str | None,
    ids: dict[int, UUID],
    told: dict[int, list[Fault]],
    barred: dict[int, list[str]],
) -> dict[str, Any]:
    """All five fields in failed ones too: the official Python client cannot read an item without them."""
    to = value.get("To") if isinstance(value, dict) else None
    item = {"To": to if isinstance(to, str) else "", "SubmittedAt": at, "MessageID": str(ids.get(index, UUID(int=0)))}
    if index in ids:
        message = errors.inactive(barred[index], partly=True) if barred.get(index) else "OK"
        return {**item, "ErrorCode": errors.OK, "Message": message}
    if faults := told.get(index):
        return {**item, **errors.body(errors.code_of(faults), errors.sentence(faults))}
    return {**item, **errors.body(errors.INACTIVE, errors.inactive(barred[index]))}


def _index(field: str) -> int:
    """`[3].To` or `Messages[3].To` → 3; 0 where the message is the whole body."""
    _, opened, rest = field.partition("[")
    number = rest.partition("]")[0]
    return int(number) if opened and number.isdigit() and field.startswith(("[", "Messages[")) else 0
