"""Send mail, and ask where it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpResponse, JsonResponse
from rest_framework.request import Request

from deliveries.accept import Accepted, Draft, Idempotency, replayed
from deliveries.accept.most import accept_each, accept_most
from deliveries.accept.remote import File, fetch_files
from deliveries.errors import BadInput, Conflict, Fault
from deliveries.read import emails as read
from deliveries.record import schedule
from mailapi.schemas.body import Body, json_body
from mailapi.schemas.emails import (
    MAX_BATCH,
    MAX_MERGED,
    SendEmail,
    UpdateEmail,
    across_fields,
    change_of,
)
from mailapi.schemas.faults import Shape, check, merged, read_shape, refusal
from mailapi.schemas.openapi import describe_batch, describe_email, describe_email_cancel, describe_emails
from mailapi.schemas.sent import ListEmails
from mailapi.schemas.templates import with_templates
from mailapi.views.base import View, found, page_of, path_id, read_query, shape_of

_LONGEST_KEY = 256


@describe_emails
class Emails(View):
    open_to_sending = ("POST",)

    def get(self, request: Request) -> HttpResponse:
        rows = page_of(request, *ListEmails.model_fields)
        mails, following = read.page(self.caller().tenant_id, read_query(request, ListEmails).filters(), *rows)
        return JsonResponse({
            "object": "list", "has_more": following is not None, "data": mails,
            "next": str(following) if following else None,
        })  # fmt: skip

    def post(self, request: Request) -> HttpResponse:
        with json_body(request._request) as body:
            once = idempotency_of(request, "emails", body.digest)
            accepted = self._accepted(body, once)
        return replayable(JsonResponse(_told(accepted.ids)), accepted)

    def _accepted(self, body: Body, once: Idempotency | None) -> Accepted:
        caller = self.caller()
        try:
            mail = read_shape(with_templates(caller.tenant_id, body), SendEmail, across_fields)
            if mail.urls() and once and (earlier := replayed(caller.tenant_id, once)):
                return earlier
            files, gone = fetched({0: mail})
            if gone:
                raise refusal([replace(f, index=None) for f in gone])
            return _accept_one(caller.secret_hash, mail.drafts(files), once)
        except BadInput:
            # since the first request with this key a time may have passed, a file or a domain have gone
            if once and (earlier := replayed(caller.tenant_id, once)):
                return earlier
            raise


@describe_email
class Email(View):
    def get(self, request: Request, email_id: str) -> HttpResponse:
        return found(read.email(self.caller().tenant_id, path_id(email_id)))

    def patch(self, request: Request, email_id: str) -> HttpResponse:
        message_id = path_id(email_id)
        with json_body(request._request) as body:
            at = read_shape(body, UpdateEmail, change_of(message_id)).scheduled_at
        caller = self.caller()
        return _changed(message_id, schedule.reschedule(caller.tenant_id, message_id, at, f"key:{caller.key_id}"))


@describe_email_cancel
class Cancel(View):
    def post(self, request: Request, email_id: str) -> HttpResponse:
        message_id, caller = path_id(email_id), self.caller()
        shape_of(request, Shape)
        return _changed(message_id, schedule.cancel(caller.tenant_id, message_id, f"key:{caller.key_id}"))


@describe_batch
class Batch(View):
    open_to_sending = ("POST",)

    def post(self, request: Request) -> HttpResponse:
        permissive = _permissive(request)
        with json_body(request._request) as body:
            once = idempotency_of(request, "emails/batch", body.digest)
            accepted, faults, told = self._accepted(body, once, permissive)
        answer: dict[str, Any] = {"data": told}
        if permissive:
            answer["errors"] = [
                {"index": f.index, "message": f"{f.field}: {f.message}" if f.field else f.message} for f in faults
            ]
        return replayable(JsonResponse(answer), accepted)

    def _accepted(
        self, body: Body, once: Idempotency | None, permissive: bool
    ) -> tuple[Accepted, list[Fault], list[dict[str, Any]]]:
        caller = self.caller()
        mails, faults = _mails(with_templates(caller.tenant_id, body))
        doubtful = (faults and not permissive) or not mails or any(mail.urls() for mail in mails.values())
        if doubtful and once and (earlier := replayed(caller.tenant_id, once)):
            return earlier, faults, _mail_by_mail(earlier.ids, [mail.copies for mail in mails.values()])
        files, gone = fetched(mails)
        faults = [*faults, *gone]
        if faults and not permissive:
            raise refusal(faults)
        broken = {f.index for f in gone}
        drafts = {index: mail.drafts(files) for index, mail in mails.items() if index not in broken}
        if permissive:
            accepted, stored, refused = accept_most(caller.secret_hash, drafts, once)
        else:
            try:
                accepted, stored, refused = accept_each(caller.secret_hash, drafts, once), drafts, []
            except BadInput:
                # a domain that was good when an earlier request with this key was stored
                if not once or not (earlier := replayed(caller.tenant_id, once)):
                    raise
                accepted, stored, refused = earlier, drafts, []
        sizes = [len(parts) for parts in stored.values()]
        return accepted, [*faults, *refused], _mail_by_mail(accepted.ids, sizes)


def fetched(mails: Mapping[int, SendEmail]) -> tuple[dict[str, File], list[Fault]]:
    """The files of attachments by URL, and what is wrong with those that cannot be had, mail by mail."""
    own = sum(len(item.content or b"") for mail in mails.values() for item in mail.attachments)
    left = settings.MAX_BODY_OCTETS - own
    got = fetch_files((url for mail in mails.values() for url in mail.urls()), left)
    files = {url: file for url, file in got.items() if isinstance(file, File)}
    faults = []
    for index, mail in mails.items():
        for n, item in enumerate(mail.attachments):
            if item.path is None:
                continue
            why = got[item.path]
            if isinstance(why, File):
                # each mail that it goes along with stores it
                left -= len(why.content) * mail.copies
                why = f"all files of a request have more than {settings.MAX_BODY_OCTETS >> 20} MB" if left < 0 else ""
            if why:
                message = f"The file could not be had from its URL: {why}."
                faults.append(Fault(f"attachments[{n}].path", "not_fetched", message, index))
    return files, faults


def _changed(message_id: UUID, change: schedule.Change) -> HttpResponse:
    match change:
        case schedule.Change.NOT_SCHEDULED:
            message = (
                "Only a mail that is still scheduled can be changed or canceled; this one is leaving, or has ended."
            )
            raise Conflict("not_scheduled", message)
        case schedule.Change.AFTER_END:
            message = "Must be earlier than the mail's `deliver_before`, or the mail could only expire."
            raise BadInput([Fault("scheduled_at", "invalid_time", message)])
    return found({"object": "email", "id": str(message_id)} if change == schedule.Change.DONE else None)


def _permissive(request: Request) -> bool:
    mode = request.headers.get("x-batch-validation", "strict").lower()
    if mode not in ("strict", "permissive"):
        fault = Fault("x-batch-validation", "invalid_parameter", "The header must be strict or permissive.")
        raise BadInput([fault], "invalid_parameter", 422)
    return mode == "permissive"


def idempotency_of(request: Request, endpoint: str, digest: bytes) -> Idempotency | None:
    key = request.META.get("HTTP_IDEMPOTENCY_KEY")
    if key is None:
        return None
    if not 1 <= len(key) <= _LONGEST_KEY or not key.isprintable():
        message = f"The Idempotency-Key must have 1 to {_LONGEST_KEY} printable characters."
        raise BadInput([Fault("Idempotency-Key", "invalid_idempotency_key", message)], "invalid_idempotency_key", 400)
    return Idempotency(endpoint, key, digest)


def _told(ids: Sequence[UUID]) -> dict[str, Any]:
    """One mail of a request: its id, and those of all that merge data made of it."""
    return {"id": str(ids[0]), **({"ids": [str(i) for i in ids]} if len(ids) > 1 else {})}


def _mails(body: Body) -> tuple[dict[int, SendEmail], list[Fault]]:
    """The mails that can be sent by their position, and what is wrong with the others."""
    if not isinstance(body.value, list):
        fault = Fault("", "wrong_type", "The body must be a list of mails.")
        raise BadInput([fault], "validation_error", 400)
    if not 1 <= len(body.value) <= MAX_BATCH:
        message = f"The list has {len(body.value)} mails; 1 to {MAX_BATCH} are allowed."
        raise BadInput([Fault("", "too_many" if body.value else "too_short", message)], "validation_error", 422)
    mails: dict[int, SendEmail] = {}
    merged_octets = 0
    faults = [_indexed(f) for f in body.faults]
    broken = {f.index for f in faults}
    for index, value in enumerate(body.value):
        shape, wrong = check(value, SendEmail, across_fields, index)
        faults = merged(faults, wrong)
        if shape is None or index in broken:
            continue
        if shape.merge and (merged_octets := merged_octets + shape.most_octets()) > MAX_MERGED:
            message = f"The mails that `merge` makes may have more than {MAX_MERGED >> 20} MB; send fewer at once."
            faults.append(Fault("merge", "too_large", message, index))
            continue
        mails[index] = shape
    return mails, faults


def _indexed(fault: Fault) -> Fault:
    """`[3].html` → html of mail 3."""
    index, _, field = fault.field.removeprefix("[").partition("]")
    return Fault(field.removeprefix("."), fault.code, fault.message, int(index))


def _accept_one(secret_hash: bytes, drafts: list[Draft], once: Idempotency | None) -> Accepted:
    """One mail, and all that merge data made of it."""
    try:
        return accept_each(secret_hash, {0: drafts}, once)
    except BadInput as refused:
        raise BadInput([replace(f, index=None) for f in refused.faults], refused.name, refused.http_status) from None


def _mail_by_mail(ids: Sequence[UUID], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """The answers of a batch; each id by itself where an earlier request had stored fewer mails than this one would."""
    if sum(sizes) != len(ids):
        return [_told([i]) for i in ids]
    ends = list(accumulate(sizes))
    return [_told(ids[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


def replayable(response: HttpResponse, accepted: Accepted) -> HttpResponse:
    if accepted.replayed:
        response["Idempotent-Replayed"] = "true"
    return response
