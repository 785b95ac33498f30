"""POST /emails/mime: a whole mail, as `message/rfc822` or in JSON."""

from __future__ import annotations

from typing import Annotated

from drf_spectacular.utils import extend_schema, extend_schema_view
from pydantic import Field, PlainValidator, WithJsonSchema

from mailapi.schemas import answers
from mailapi.schemas.addresses import Recipients
from mailapi.schemas.attachments import read_octets
from mailapi.schemas.openapi import _IDEMPOTENCY
from mailapi.schemas.openapi import _answers as answers_of
from mailapi.schemas.options import Options


class SendMime(Options):
    """A whole mail (RFC 5322). Its header says whom it goes to unless `to` does; Bcc never leaves."""

    raw: Annotated[bytes, PlainValidator(read_octets), WithJsonSchema({"type": "string", "contentEncoding": "base64"})]
    to: Recipients | None = Field(None, description="The envelope: only they get it, whatever its header says.")


describe_mime = extend_schema_view(
    post=extend_schema(
        operation_id="sendMime", summary="Send a mail that is composed already", tags=["emails"],
        parameters=[_IDEMPOTENCY],
        request={"application/json": SendMime, "message/rfc822": {"type": "string", "format": "binary"}},
        responses=answers_of(answers.EmailAccepted, 400, 409, 413, 415, 422),
        description="It goes out as it came, signed, without Bcc and without the fields that speak to this service "
        "(X-Tags, X-Metadata-…, X-Stream, X-Idempotency-Key, X-Scheduled-At, X-Deliver-Before, X-Unsubscribe, "
        "X-Redact); a field of the JSON comes before them.",
    )
)  # fmt: skip
