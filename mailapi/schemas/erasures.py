"""POST /erasures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from mailapi.schemas.faults import Shape
from mailapi.schemas.suppressions import address_of


class Erase(Shape):
    """Take away what names an address."""

    email: Annotated[str, PlainValidator(address_of), WithJsonSchema({"type": "string", "format": "email"})]
    suppressions: Literal["keep", "drop"] = Field(
        default="keep", description="keep: as hashes, so that who complained is not written to again."
    )
