"""Files behind signed addresses: good for an hour, without a key, as Resend's are.

What is signed is one file, so that the address opens nothing else. Files go out as downloads, never as pages of this
host.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

from django.conf import settings
from django.core import signing
from django.http import HttpResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from deliveries.read.emails import iso

#: an address of a file
GOOD_FOR = timedelta(hours=1)
_SAFE = re.compile(r"[^A-Za-z0-9._ -]")
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}/[a-z0-9][a-z0-9.+-]{0,60}")


def address(room: str, mail_id: UUID, name: str) -> dict[str, Any]:
    """Where the file `name` of a mail is fetched; `room` is the path before the mail's id, such as emails/receiving."""
    signature = quote(_signer(room).sign(f"{mail_id}/{name}"), safe="")
    return {
        "download_url": f"{settings.BASE_URL}/{room}/{mail_id}/files/{name}?signature={signature}",
        "expires_at": iso(datetime.now(UTC) + GOOD_FOR),
    }


def opened(room: str, mail_id: UUID, name: str, request: Request) -> None:
    """404 unless the request's signature opens that file."""
    try:
        signed = _signer(room).unsign(request.query_params.get("signature", ""), max_age=GOOD_FOR)
    except signing.BadSignature:
        signed = ""
    if signed != f"{mail_id}/{name}":
        raise NotFound("This address is wrong, or older than an hour; ask for the mail again.")


def part_of(rows: Sequence[Any], ids: Sequence[UUID], page: tuple[int, UUID | None, UUID | None]) -> tuple[Any, bool]:
    """(the page of a mail's few files, whether there are more); a cursor that is not among them means the start."""
    limit, after, before = page
    start = ids.index(after) + 1 if after in ids else 0
    end = ids.index(before) if before in ids else len(ids)
    if before in ids:
        start = max(0, end - limit)
    more = start > 0 if before in ids else start + limit < len(ids)
    return rows[start : min(end, start + limit)], more


def download(octets: bytes, content_type: str, filename: str) -> HttpResponse:
    response = HttpResponse(octets, content_type="application/octet-stream")
    if _MEDIA_TYPE.fullmatch(content_type):
        response["Content-Type"] = content_type
    plain = _SAFE.sub("_", filename)
    # RFC 6266 §4.3: the second for those who read it
    response["Content-Disposition"] = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
    response["Content-Security-Policy"] = "default-src 'none'; sandbox"
    response["Cache-Control"] = "private, no-store"
    return response


def _signer(room: str) -> signing.TimestampSigner:
    return signing.TimestampSigner(salt=room)
