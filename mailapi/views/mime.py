"""Send a mail that somebody else composed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from deliveries.accept import Draft, Idempotency, accept, of_raw, replayed
from deliveries.accept.whole import fields_of, once
from deliveries.errors import BadInput, Fault
from deliveries.mime import raw
from deliveries.mime.address import Address
from deliveries.mime.control import read_control
from mailapi.schemas.addresses import MAX_RECIPIENTS
from mailapi.schemas.body import json_body, read
from mailapi.schemas.faults import read_shape
from mailapi.schemas.mime import SendMime, describe_mime
from mailapi.views.base import View
from mailapi.views.emails import idempotency_of, replayable

_ENDPOINT = "emails/mime"
_WHOLE, _JSON = "message/rfc822", "application/json"


@describe_mime
class Mime(View):
    open_to_sending = ("POST",)

    def post(self, request: Request) -> HttpResponse:
        kind = (request.content_type or "").partition(";")[0].strip().lower()
        given: Idempotency | None = None
        own: Idempotency | None = None
        try:
            if kind == _WHOLE:
                octets = read(request._request, raw.MAX_OCTETS, ends_itself=False)
                given = idempotency_of(request, _ENDPOINT, hashlib.sha256(octets).digest())
                draft, own, late = _draft(octets, (), {}, "")
            elif kind == _JSON:
                with json_body(request._request) as body:
                    given = idempotency_of(request, _ENDPOINT, body.digest)
                    asked = read_shape(body, SendMime)
                    options = {name: v for name, v in asked.options().items() if name in _said(asked)}
                    draft, own, late = _draft(asked.raw, asked.to or (), options, "raw")
            else:
                message = f"Send the mail as {_WHOLE}, or base64 in the field `raw` of {_JSON}."
                raise BadInput([Fault("Content-Type", "unsupported_media_type", message)], "validation_error", 415)
            if late:
                raise BadInput(late)
            accepted = accept(self.caller().secret_hash, [draft], given or own)
        except BadInput:
            # since the first request with this key a time may have passed, or a domain have gone
            earlier = replayed(self.caller().tenant_id, key) if (key := given or own) else None
            if earlier is None:
                raise
            accepted = earlier
        return replayable(JsonResponse({"id": str(accepted.ids[0])}), accepted)


def _said(asked: SendMime) -> set[str]:
    """The options that the JSON brings, as a Draft calls them; the others are the control fields' to say."""
    return {"lane" if name == "priority" else name for name in asked.model_fields_set}


def _draft(
    octets: bytes, envelope: Sequence[Address], options: dict[str, Any], place: str
) -> tuple[Draft, Idempotency | None, list[Fault]]:
    """The mail, by which key of its own it is the same again, and what is wrong if it is not; faults are told as those
    of the field `place`."""
    late: list[Fault] = []
    if b"\r" not in octets:  # read from a text file
        octets = octets.replace(b"\n", b"\r\n")
    try:
        mail = raw.read(octets)
        control = read_control(mail.control, datetime.now(UTC), late)
    except BadInput as refused:
        raise BadInput(_told(refused.faults, place), refused.name, refused.http_status) from None
    recipients = tuple(envelope) or (*mail.to, *mail.cc, *mail.bcc)
    faults = []
    if not envelope:
        faults = [
            Fault(
                place,
                "invalid_address",
                f"The address {text[:100]!r} of the header cannot be read; mend it, or name `to`.",
            )
            for text in mail.unread
        ]
    if not recipients and not faults:
        faults = [Fault("to", "missing_required_field", "Neither the header nor `to` names a recipient.")]
    if len({a.addr_spec for a in recipients}) > MAX_RECIPIENTS:
        message = f"The mail has {len(recipients)} recipients; {MAX_RECIPIENTS} are allowed."
        faults.append(Fault("to", "too_many_recipients", message))
    if faults:
        raise BadInput(faults)
    draft = of_raw(mail, envelope, **{**fields_of(control), **options})
    if draft.deliver_before and draft.scheduled_at and draft.deliver_before <= draft.scheduled_at:
        raise BadInput([Fault("deliver_before", "invalid_time", "Must be later than `scheduled_at`.")])
    return draft, once(_ENDPOINT, control, mail, recipients), _told(late, place)


def _told(faults: Sequence[Fault], place: str) -> list[Fault]:
    return [Fault(".".join(filter(None, (place, f.field))), f.code, f.message) for f in faults]
