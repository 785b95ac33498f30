"""What the views share: ids of paths, pages by keyset. A view reads, calls a verb, answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from django.http import JsonResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from deliveries.errors import BadInput, Fault
from mailapi.door import View as View
from mailapi.schemas.body import json_body
from mailapi.schemas.faults import MOST_FAULTS, Shape, check, no_such, read_shape

S = TypeVar("S", bound=Shape)
C = TypeVar("C")

#: rows of a page
LIMIT = 20
MOST = 100
#: words of a query that may stand in it several times
_SEVERAL = frozenset({"types"})


def path_id(text: str) -> UUID:
    """An id from a path; what is no UUID does not exist."""
    try:
        return UUID(text)
    except ValueError:
        raise NotFound("There is no such object; ids are UUIDs.") from None


def found(value: Any) -> JsonResponse:
    """200 with the object; 404 also for another tenant's, so that ids tell nothing."""
    if value is None:
        raise NotFound("There is no object with this id.")
    return JsonResponse(value)


def refuse_unknown(request: Request, *known: str) -> None:
    """BadInput where the query has other words: a filter that is misspelt must not show everything."""
    if faults := _unknown(request, known):
        raise BadInput(faults, "invalid_parameter", 422)


def _unknown(request: Request, known: Sequence[str]) -> list[Fault]:
    query = request.query_params
    unknown = [word for word in query if word not in known]
    twice = [word for word in query if word in known and word not in _SEVERAL and len(query.getlist(word)) > 1]
    faults = [Fault(word, "unknown_parameter", no_such("parameter", word, known)) for word in unknown[:MOST_FAULTS]]
    # one of them would be left out in silence
    return faults + [Fault(word, "duplicate_parameter", "Stands twice in the query; keep one.") for word in twice]


def page_of(request: Request, *more: str) -> tuple[int, UUID | None, UUID | None]:
    """limit, after, before of a list's query; BadInput names what is wrong. `more` are the list's own words."""
    return page_by(UUID, request, *more)


def page_by(cursor: Callable[[str], C], request: Request, *more: str) -> tuple[int, C | None, C | None]:
    """The same where the cursors are no UUIDs; `cursor` raises ValueError for what is none."""
    faults = _unknown(request, ("limit", "after", "before", *more))
    query = request.query_params
    raw = query.get("limit", str(LIMIT))
    limit = int(raw) if raw.isascii() and raw.isdigit() and len(raw) < 4 else 0
    if not 1 <= limit <= MOST:
        faults.append(Fault("limit", "invalid_parameter", f"Must be a number from 1 to {MOST}."))
    cursors: dict[str, C | None] = {"after": None, "before": None}
    for name in cursors:
        if text := query.get(name):
            try:
                cursors[name] = cursor(text)
            except ValueError:
                faults.append(Fault(name, "invalid_parameter", "Must be an id from an earlier page."))
    if query.get("after") and query.get("before"):
        faults.append(Fault("after", "invalid_parameter", "Use either after or before."))
    if faults:
        raise BadInput(faults, "invalid_parameter", 422)
    return limit, cursors["after"], cursors["before"]


def read_query(request: Request, shape: type[S]) -> S:
    """The words of the query that `shape` knows; BadInput names what is wrong with them. Empty ones count as absent."""
    given = {name: value for name, value in request.query_params.items() if value and name in shape.model_fields}
    asked, faults = check(given, shape)
    if asked is None:
        named = [Fault(f.field, "invalid_parameter", f.message) for f in faults]
        raise BadInput(named, "invalid_parameter", 422)
    return asked


def listed(data: list[dict[str, Any]], has_more: bool) -> JsonResponse:
    return JsonResponse({"object": "list", "has_more": has_more, "data": data})


def shape_of(request: Request, shape: type[S]) -> S:
    """A body that may be missing (neither Content-Length nor Transfer-Encoding) or `{}`, as the SDKs send it."""
    meta = request.META
    if (meta.get("CONTENT_LENGTH") or "0") == "0" and "HTTP_TRANSFER_ENCODING" not in meta:
        return shape()
    with json_body(request._request) as body:
        return read_shape(body, shape)
