"""/erasures: what is asked, and its description."""

from __future__ import annotations

from typing import Annotated, Literal

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from pydantic import Field, PlainValidator, WithJsonSchema

from mailapi.schemas.answers import Erasure, ErasureList
from mailapi.schemas.faults import Shape
from mailapi.schemas.openapi import _answers as answers
from mailapi.schemas.openapi import _list as listing
from mailapi.schemas.suppressions import address_of


class Erase(Shape):
    """Take away what names an address."""

    email: Annotated[str, PlainValidator(address_of), WithJsonSchema({"type": "string", "format": "email"})]
    suppressions: Literal["keep", "drop"] = Field(
        default="keep", description="keep: as hashes, so that who complained is not written to again."
    )


describe_erasures = extend_schema_view(
    get=listing("orders to erase a person", "listErasures", ErasureList, "erasures"),
    post=extend_schema(
        operation_id="erasePerson", summary="Erase one person's data", tags=["erasures"], request=Erase,
        responses=answers(Erasure, 400, 413, 422, status=202),
        description="Everything of the account that names the address; what is queued for it is canceled. "
        "Takes an API key with owner_access.",
    ),
)  # fmt: skip
describe_erasure = extend_schema_view(
    get=extend_schema(
        operation_id="getErasure", summary="How far an erasure is", tags=["erasures"], request=None,
        parameters=[OpenApiParameter("erasure_id", OpenApiTypes.UUID, OpenApiParameter.PATH)],
        responses=answers(Erasure, 404),
    ),
)  # fmt: skip
