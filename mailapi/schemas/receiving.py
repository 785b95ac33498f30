"""Shapes of received mail, and their description."""

from __future__ import annotations

from typing import Any, Literal

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from pydantic import Field

from mailapi.schemas.answers import Answer, Error
from mailapi.schemas.openapi import _PAGE as PAGE


class ReceivedFile(Answer):
    id: str
    filename: str | None
    content_type: str
    content_id: str | None
    content_disposition: Literal["inline", "attachment"]
    size: int


class ReceivedLine(Answer):
    id: str
    created_at: str
    from_: str = Field(alias="from")
    to: list[str]
    cc: list[str]
    bcc: list[str]
    reply_to: list[str]
    subject: str
    message_id: str
    attachments: list[ReceivedFile]


class SignedAddress(Answer):
    download_url: str = Field(description="Good for an hour, without a key.")
    expires_at: str


class ReceivedEmail(ReceivedLine):
    object: Literal["email"]
    html: str | None
    text: str | None
    headers: dict[str, str] = Field(description="Names in lower case, the first of each.")
    received_for: list[str] = Field(description="The addresses of yours that the mail came to.")
    raw: SignedAddress


class ReceivedList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[ReceivedLine]


class FileLine(SignedAddress):
    id: str
    filename: str = Field("", description="Missing where the mail names none.")
    content_type: str
    content_id: str = ""
    content_disposition: Literal["inline", "attachment"]
    size: int


class FileOut(FileLine):
    object: Literal["attachment"]


class FileList(Answer):
    object: Literal["list"]
    has_more: bool
    data: list[FileLine]


def _answers(good: Any, *errors: int) -> dict[Any, Any]:
    return {200: good, **dict.fromkeys((401, 403, *errors, 503), Error)}


_EMAIL_ID = OpenApiParameter("email_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
_TAG = ["receiving"]
describe_receiving = extend_schema_view(
    get=extend_schema(
        operation_id="listReceived", summary="List received mails, newest first", tags=_TAG, parameters=PAGE,
        request=None, responses=_answers(ReceivedList, 422),
    )
)  # fmt: skip
describe_received = extend_schema_view(
    get=extend_schema(
        operation_id="getReceived", summary="A received mail", tags=_TAG, request=None,
        parameters=[_EMAIL_ID, OpenApiParameter(
            "html_format", {"type": "string", "enum": ["data_uri", "cid"], "default": "data_uri"},
            description="data_uri: inline images stand in the HTML. cid: their references stay.",
        )],
        responses=_answers(ReceivedEmail, 404, 422),
    )
)  # fmt: skip
describe_attachments = extend_schema_view(
    get=extend_schema(
        operation_id="listReceivedAttachments", summary="The files of a received mail", tags=_TAG, request=None,
        parameters=[_EMAIL_ID, *PAGE], responses=_answers(FileList, 404, 422),
    )
)  # fmt: skip
describe_attachment = extend_schema_view(
    get=extend_schema(
        operation_id="getReceivedAttachment", summary="A file of a received mail", tags=_TAG, request=None,
        parameters=[_EMAIL_ID, OpenApiParameter("attachment_id", OpenApiTypes.UUID, OpenApiParameter.PATH)],
        responses=_answers(FileOut, 404),
    )
)  # fmt: skip
describe_download = extend_schema_view(
    get=extend_schema(
        operation_id="downloadReceived", summary="The octets of a file, or of the mail itself", tags=_TAG, request=None,
        auth=[],
        parameters=[
            _EMAIL_ID,
            OpenApiParameter("file_id", {"type": "string"}, OpenApiParameter.PATH, description="An id, or `raw`."),
            OpenApiParameter("signature", {"type": "string"}, required=True),
        ],
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY, 404: Error, 503: Error},
    )
)  # fmt: skip
