"""Mail that came to the tenant's addresses, and its files.

Files and whole mails are fetched from a signed address that is good for an hour and needs no key, as Resend's are: what
is signed is one file, so that the address opens nothing else. They go out as downloads, never as pages of this host.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

from django.conf import settings
from django.core import signing
from django.http import HttpResponse, JsonResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from deliveries.bounces.letter import File, read_letter
from deliveries.errors import BadInput, Fault
from deliveries.read import receiving as read
from deliveries.read.emails import iso
from mailapi.schemas.receiving import (
    describe_attachment,
    describe_attachments,
    describe_download,
    describe_received,
    describe_receiving,
)
from mailapi.views.base import View, found, listed, page_of, path_id, refuse_unknown

#: an address of a file
GOOD_FOR = timedelta(hours=1)
_RAW = "raw"
_SAFE = re.compile(r"[^A-Za-z0-9._ -]")


@describe_receiving
class Receiving(View):
    def get(self, request: Request) -> HttpResponse:
        return listed(*read.page(self.caller().tenant_id, *page_of(request)))


@describe_received
class Received(View):
    def get(self, request: Request, email_id: str) -> HttpResponse:
        refuse_unknown(request, "html_format")
        form = request.query_params.get("html_format", "data_uri")
        if form not in ("data_uri", "cid"):
            fault = Fault("html_format", "invalid_parameter", "Must be data_uri or cid.")
            raise BadInput([fault], "invalid_parameter", 422)
        inbound_id = path_id(email_id)
        mail = read.email(self.caller().tenant_id, inbound_id, form == "data_uri")
        if mail is not None:
            mail["raw"] = _address(inbound_id, _RAW)
        return found(mail)


@describe_attachments
class Attachments(View):
    def get(self, request: Request, email_id: str) -> HttpResponse:
        limit, after, before = page_of(request)
        inbound_id = path_id(email_id)
        files = _files(self.caller().tenant_id, inbound_id)
        ids = [identity for identity, _ in files]
        start = ids.index(after) + 1 if after in ids else 0
        end = ids.index(before) if before in ids else len(ids)
        if before in ids:
            start = max(0, end - limit)
        shown = files[start : min(end, start + limit)]
        more = start > 0 if before in ids else start + limit < len(files)
        return listed([_with_address(inbound_id, identity, file) for identity, file in shown], more)


@describe_attachment
class Attachment(View):
    def get(self, request: Request, email_id: str, attachment_id: str) -> HttpResponse:
        inbound_id, wanted = path_id(email_id), path_id(attachment_id)
        for identity, file in _files(self.caller().tenant_id, inbound_id):
            if identity == wanted:
                return JsonResponse({"object": "attachment", **_with_address(inbound_id, identity, file)})
        raise NotFound("There is no object with this id.")


@describe_download
class Download(View):
    """What a signed address opens; no key."""

    authentication_classes = ()
    permission_classes = ()

    def get(self, request: Request, email_id: str, file_id: str) -> HttpResponse:
        inbound_id = path_id(email_id)
        try:
            signed = _signer().unsign(request.query_params.get("signature", ""), max_age=GOOD_FOR)
        except signing.BadSignature:
            signed = ""
        octets = read.octets(inbound_id) if signed == f"{inbound_id}/{file_id}" else None
        if octets is None:
            raise NotFound("This address is wrong, or older than an hour; ask for the mail again.")
        if file_id == _RAW:
            return _download(octets, "message/rfc822", f"{inbound_id}.eml")
        for number, file in enumerate(read_letter(octets).files):
            if str(read.file_id(inbound_id, number)) == file_id:
                return _download(file.octets, file.content_type, file.filename or "attachment")
        raise NotFound("There is no such file.")


def _files(tenant_id: UUID, inbound_id: UUID) -> list[tuple[UUID, File]]:
    files = read.files(tenant_id, inbound_id)
    if files is None:
        raise NotFound("There is no object with this id.")
    return files


def _with_address(inbound_id: UUID, identity: UUID, file: File) -> dict[str, Any]:
    facts = {k: v for k, v in read.described(file, identity).items() if v is not None}
    return {**facts, **_address(inbound_id, str(identity))}


def _address(inbound_id: UUID, name: str) -> dict[str, Any]:
    signature = quote(_signer().sign(f"{inbound_id}/{name}"), safe="")
    return {
        "download_url": f"{settings.BASE_URL}/emails/receiving/{inbound_id}/files/{name}?signature={signature}",
        "expires_at": iso(datetime.now(UTC) + GOOD_FOR),
    }


def _signer() -> signing.TimestampSigner:
    return signing.TimestampSigner(salt="emails/receiving")


def _download(octets: bytes, content_type: str, filename: str) -> HttpResponse:
    response = HttpResponse(octets, content_type="application/octet-stream")
    if re.fullmatch(r"[a-z0-9][a-z0-9.+-]{0,60}/[a-z0-9][a-z0-9.+-]{0,60}", content_type):
        response["Content-Type"] = content_type
    plain = _SAFE.sub("_", filename)
    # RFC 6266 §4.3: the second for those who read it
    response["Content-Disposition"] = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response["Cache-Control"] = "private, no-store"
    return response
