"""The files of mail that was sent, and what became of it in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from django.http import HttpResponse, JsonResponse
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from deliveries.errors import BadInput, Fault
from deliveries.notify.body import bounce
from deliveries.read import sent as read
from deliveries.read.emails import iso
from mailapi.schemas import sent as shapes
from mailapi.views import files
from mailapi.views.base import View, listed, page_of, path_id, read_query, refuse_unknown

_ROOM = "emails"


@shapes.describe_sent_files
class Attachments(View):
    def get(self, request: Request, email_id: str) -> HttpResponse:
        page, message_id = page_of(request), path_id(email_id)
        rows = _files(self.caller().tenant_id, message_id)
        shown, more = files.part_of(rows, [UUID(row["id"]) for row in rows], page)
        return listed([_with_address(message_id, row) for row in shown], more)


@shapes.describe_sent_file
class Attachment(View):
    def get(self, request: Request, email_id: str, attachment_id: str) -> HttpResponse:
        message_id, wanted = path_id(email_id), str(path_id(attachment_id))
        for row in _files(self.caller().tenant_id, message_id):
            if row["id"] == wanted:
                return JsonResponse({"object": "attachment", **_with_address(message_id, row)})
        raise NotFound("There is no object with this id.")


@shapes.describe_sent_download
class Download(View):
    """What a signed address opens; no key."""

    authentication_classes = ()
    permission_classes = ()

    def get(self, request: Request, email_id: str, file_id: str) -> HttpResponse:
        message_id = path_id(email_id)
        files.opened(_ROOM, message_id, file_id, request)
        found = read.file(message_id, path_id(file_id))
        if found is None:
            raise NotFound("The file is no longer stored.")
        return files.download(*found)


@shapes.describe_metrics
class Metrics(View):
    def get(self, request: Request) -> HttpResponse:
        refuse_unknown(request, *shapes.AskMetrics.model_fields)
        asked = read_query(request, shapes.AskMetrics)
        if why := asked.too_long():
            raise BadInput([Fault("start_date", "invalid_parameter", why)], "invalid_parameter", 422)
        start, end = asked.span()
        tenant_id, only = self.caller().tenant_id, (list(asked.domain_id), list(asked.email_id))
        counted = read.count(tenant_id, start, end, *only)
        answer: dict[str, Any] = {
            "object": "metrics", "start_date": iso(start), "end_date": iso(end), "metrics": list(asked.metrics),
            "dimensions": list(asked.dimensions), "granularity": asked.granularity,
            "totals": _numbers(counted.rows, asked.metrics), "counted_since": iso(counted.since or start),
        }  # fmt: skip
        if asked.dimensions:
            # counted anew: a mail that was opened on two days is one in the totals
            rows = read.count(
                tenant_id, start, end, *only, zone=asked.timezone,
                unit=shapes.UNITS[asked.granularity] if "period" in asked.dimensions else None,
                by_domain="domain" in asked.dimensions, by_mail="email" in asked.dimensions,
            ).rows  # fmt: skip
            answer["data"] = [
                {**keys, **_numbers(found, asked.metrics)} for keys, found in _by_dimensions(rows, asked.dimensions)
            ]
        return JsonResponse(answer)


def _files(tenant_id: UUID, message_id: UUID) -> list[dict[str, Any]]:
    rows = read.files(tenant_id, message_id)
    if rows is None:
        raise NotFound("There is no object with this id.")
    return rows


def _with_address(message_id: UUID, row: Mapping[str, Any]) -> dict[str, Any]:
    return {**{k: v for k, v in row.items() if v is not None}, **files.address(_ROOM, message_id, row["id"])}


_KEYS = {"period": ("period",), "domain": ("domain_id", "domain_name"), "email": ("email_id",)}


def _by_dimensions(
    rows: Iterable[Mapping[str, Any]], dimensions: Iterable[str]
) -> list[tuple[dict[str, Any], list[Mapping[str, Any]]]]:
    names = [key for dimension in dimensions for key in _KEYS[dimension]]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return [
        ({name: str(v) if isinstance(v, UUID) else v for name, v in zip(names, values, strict=True)}, found)
        for values, found in groups.items()
    ]


def _numbers(rows: Iterable[Mapping[str, Any]], wanted: Iterable[str]) -> dict[str, float | None]:
    events: Counter[tuple[str, str | None]] = Counter()
    mails: Counter[str] = Counter()
    for row in rows:
        events[row["type"], None] += row["events"]
        mails[row["type"]] += row["mails"]
        if row["type"] == "email.bounced":
            events[row["type"], bounce({"category": row["category"]})["type"]] += row["events"]
    counts: dict[str, int] = {name: events[key] for name, key in shapes.EVENTS.items()}
    counts |= {name: mails[kind] for name, kind in shapes.UNIQUE.items()}
    return {
        name: counts[name] if name in counts else _per_cent(*(counts[part] for part in shapes.RATES[name]))
        for name in wanted
    }


def _per_cent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 2) if whole else None
