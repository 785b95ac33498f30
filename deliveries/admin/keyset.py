"""Lists of huge tables: keyset pages (?after=, ?before=) and a bounded count. No COUNT(*), no OFFSET."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg.errors
from django.contrib import messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.templatetags.admin_urls import add_preserved_filters
from django.contrib.admin.utils import lookup_field
from django.core.exceptions import ObjectDoesNotExist
from django.core.paginator import Paginator
from django.db import OperationalError
from django.db.models import ForeignKey, Model, QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.templatetags.unfold_list import CHECKBOX_CLASSES, LINK_CLASSES, ROW_CLASSES, result_headers
from unfold.utils import display_for_field, display_for_label, display_for_value
from unfold.views import ChangeList

from deliveries.read.panel import COUNT_LIMIT

AFTER, BEFORE = "after", "before"


@dataclass(frozen=True, slots=True)
class Rows:
    """A page of objects; cursors are None where that side has no more; `count` is None when not counted.

    `instead`: what the list says in place of a count.
    """

    objects: list[Any]
    newer: UUID | None
    older: UUID | None
    count: int | None
    instead: str = ""


class KeysetPaginator(Paginator):
    """What the list's footer needs; it never asks the database anything."""

    template_name = "panel/pagination.html"

    def __init__(self, newer_url: str, older_url: str, count: str) -> None:
        super().__init__([], 1)
        self.newer_url = newer_url
        self.older_url = older_url
        self.count_words = count


class KeysetChangeList(ChangeList):
    """Django's change list with the page taken by key instead of by number."""

    def get_filters_params(self, params: dict[str, Any] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = super().get_filters_params(params)
        if any("\0" in value for values in found.values() for value in values):
            raise IncorrectLookupParameters  # no text of Postgres holds it
        return {k: v for k, v in found.items() if k not in (AFTER, BEFORE)}

    def get_query_string(self, new_params: Any = None, remove: Any = None) -> str:
        # a changed filter starts at the newest page again
        new = {AFTER: None, BEFORE: None, **(new_params or {})}
        return str(super().get_query_string(new, remove))

    def cursor(self, request: HttpRequest, name: str) -> UUID | None:
        raw = request.GET.get(name)
        if not raw:
            return None
        try:
            return UUID(raw)
        except ValueError as e:
            raise IncorrectLookupParameters(e) from e

    def get_results(self, request: HttpRequest) -> None:
        after, before = self.cursor(request, AFTER), self.cursor(request, BEFORE)
        try:
            rows = self.model_admin.keyset_rows(request, self, after, before)
        except OperationalError as e:
            if not isinstance(e.__cause__, psycopg.errors.QueryCanceled):
                raise
            messages.error(
                request,
                "This search took too long and was stopped. Narrow it: by a recipient, a status or a shorter time.",
            )
            rows = Rows([], None, None, 0)
        self.result_list = rows.objects
        self.result_count = self.full_result_count = rows.count if rows.count is not None else len(rows.objects)
        self.show_full_result_count = False
        self.show_admin_actions = bool(rows.objects)
        self.can_show_all = self.multi_page = self.show_all = False
        self.paginator = KeysetPaginator(
            self.get_query_string({BEFORE: rows.newer}) if rows.newer else "",
            self.get_query_string({AFTER: rows.older}) if rows.older else "",
            count_words(rows.count, self.opts.verbose_name, self.opts.verbose_name_plural) or rows.instead,
        )

    # --- the table: the theme's own tag draws the headers anew for every row, with a template for the box of each ---

    @cached_property
    def headers(self) -> list[dict[str, Any]]:
        return list(result_headers(self))

    def lines(self) -> Iterator[list[SafeString]]:
        """The cells of each row, as the theme draws them."""
        linked = self.list_display_links or ()
        query = ""
        if self.result_list:
            kept = {"preserved_filters": self.preserved_filters, "opts": self.opts}
            query = add_preserved_filters(kept, self.url_for_result(self.result_list[0])).partition("?")[2]
        columns = [
            (name, CHECKBOX_CLASSES, "Select record")
            if name == "action_checkbox"
            else (name, [f"field-{name}", *ROW_CLASSES], header["text"])
            for name, header in zip(self.list_display, self.headers, strict=True)
        ]
        heading = next((name for name in self.list_display if name in linked), "")
        for row in self.result_list:
            url = f"{self.url_for_result(row)}{'?' if query else ''}{query}"
            cells = []
            for name, classes, label in columns:
                shown = self._shown(row, name)
                if name in linked:
                    shown = format_html('<a href="{}" class="{}">{}</a>', url, " ".join(LINK_CLASSES), shown)
                tag = "th" if name == heading else "td"
                cells.append(
                    format_html('<{} class="{}" data-label="{}">{}</{}>', tag, " ".join(classes), label, shown, tag)
                )
            yield cells

    def _shown(self, row: Model, name: str) -> Any:
        empty = self.model_admin.get_empty_value_display()
        try:
            field, attr, value = lookup_field(name, row, self.model_admin)
        except ObjectDoesNotExist:  # it named a row that is gone
            return empty
        empty = getattr(attr, "empty_value_display", empty)
        if field is None:
            if label := getattr(attr, "label", None):
                return display_for_label(value, empty, label)
            return display_for_value(value, empty, getattr(attr, "boolean", False))
        if isinstance(field, ForeignKey):
            return empty if value is None else value
        return display_for_field(value, field, empty)


def count_words(count: int | None, one: Any, many: Any) -> str:
    """`1 message`, `37 messages`, `1000+ messages`; empty when nothing was counted."""
    if count is None:
        return ""
    if count >= COUNT_LIMIT:
        return f"{COUNT_LIMIT - 1}+ {many}"
    return f"{count} {one if count == 1 else many}"


def keyset_rows(queryset: QuerySet[Any], per_page: int, after: UUID | None, before: UUID | None) -> Rows:
    """A page of `queryset` by -pk, whose primary keys are UUIDv7."""
    newest_first = queryset.order_by("-pk")
    count = queryset.order_by()[:COUNT_LIMIT].count()
    if before and not after:
        objects = list(queryset.filter(pk__gt=before).order_by("pk")[: per_page + 1])
        has_newer, has_older = len(objects) > per_page, True
        objects = objects[:per_page][::-1]
    else:
        objects = list((newest_first.filter(pk__lt=after) if after else newest_first)[: per_page + 1])
        has_newer, has_older = after is not None, len(objects) > per_page
        objects = objects[:per_page]
    if not objects:
        return Rows([], None, None, count)
    return Rows(objects, objects[0].pk if has_newer else None, objects[-1].pk if has_older else None, count)
