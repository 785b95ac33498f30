"""Templates that a foreign request names: by our id, or by an alias, which may be the number or name from before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from deliveries import templating
from deliveries.errors import BadInput
from deliveries.mime.template import Rendered
from mailapi.compat.reading import Reading


class Templates:
    """Those of a request, looked up by one query when the first of them is needed."""

    def __init__(self, tenant_id: UUID, refs: Iterable[Any]) -> None:
        self._tenant_id = tenant_id
        self._refs = {ref for ref in map(reference, refs) if ref}
        self._found: dict[str, templating.Published | None] | None = None

    def render(self, reading: Reading, field: str, given: Any, data: Any, data_field: str) -> Rendered | None:
        """The parts of the template `given` with `data`; None where `reading` was told why there are none."""
        if self._found is None:
            self._found = templating.published(self._tenant_id, self._refs) if self._refs else {}
        if data is not None and not isinstance(data, Mapping):
            reading.wrong(data_field, "wrong_type", "Must be an object.")
            return None
        if (ref := reference(given)) not in self._found:
            why = "There is no template with this id or alias; give one of yours the number or name as its alias."
            reading.wrong(field, "unknown_template", why)
            return None
        if (found := self._found[ref]) is None:
            reading.wrong(field, "not_published", "The template was never published; publish it first.")
            return None
        try:
            return found.render(data or {}, data_field)
        except BadInput as bad:
            for fault in bad.faults:
                reading.wrong(fault.field, fault.code, fault.message)
            return None


def reference(value: Any) -> str:
    """A number or a text; empty where it is neither, or none that a database holds."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**18 else ""
    return value if isinstance(value, str) and "\0" not in value and len(value) <= 200 else ""
