"""Mail that came to the tenant's addresses, and its files."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpResponse, JsonResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from deliveries.bounces.letter import File, read_letter
from deliveries.errors import BadInput, Fault
from deliveries.read import receiving as read
from mailapi.schemas.receiving import (
    describe_attachment,
    describe_attachments,
    describe_download,
    describe_received,
    describe_receiving,
)
from mailapi.views import files
from mailapi.views.base import View, found, listed, page_of, path_id, refuse_unknown

_ROOM = "emails/receiving"
_RAW = "raw"


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
            mail["raw"] = files.address(_ROOM, inbound_id, _RAW)
        return found(mail)


@describe_attachments
class Attachments(View):
    def get(self, request: Request, email_id: str) -> HttpResponse:
        page, inbound_id = page_of(request), path_id(email_id)
        found_files = _files(self.caller().tenant_id, inbound_id)
        shown, more = files.part_of(found_files, [identity for identity, _ in found_files], page)
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
        files.opened(_ROOM, inbound_id, file_id, request)
        octets = read.octets(inbound_id)
        if octets is None:
            raise NotFound("There is no object with this id.")
        if file_id == _RAW:
            return files.download(octets, "message/rfc822", f"{inbound_id}.eml")
        for number, file in enumerate(read_letter(octets).files):
            if str(read.file_id(inbound_id, number)) == file_id:
                return files.download(file.octets, file.content_type, file.filename or "attachment")
        raise NotFound("There is no such file.")


def _files(tenant_id: UUID, inbound_id: UUID) -> list[tuple[UUID, File]]:
    found_files = read.files(tenant_id, inbound_id)
    if found_files is None:
        raise NotFound("There is no object with this id.")
    return found_files


def _with_address(inbound_id: UUID, identity: UUID, file: File) -> dict[str, Any]:
    facts = {k: v for k, v in read.described(file, identity).items() if v is not None}
    return {**facts, **files.address(_ROOM, inbound_id, str(identity))}
