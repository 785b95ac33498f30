"""Messages: the list, the page of one, its preview and files, and what a person may do with it."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import display

from deliveries.admin import operate, preview
from deliveries.admin.access import access
from deliveries.admin.keyset import KeysetChangeList, Rows
from deliveries.admin.tenant import MAX_CHOICES, TenantAdmin, as_uuid
from deliveries.models import ApiKey, Delivery, Message, SendingDomain
from deliveries.read import panel
from deliveries.read.archive import files
from deliveries.read.searching import HELP, found, parse
from deliveries.read.story import Story, story
from deliveries.record import corrections
from deliveries.states import Category, Redact, Status

#: the colour of a status; its word is always beside it
TONE: dict[Status, str] = {
    Status.SCHEDULED: "info",
    Status.QUEUED: "info",
    Status.DEFERRED: "warning",
    Status.UNKNOWN: "warning",
    Status.HELD: "warning",
    Status.DELIVERED: "success",
    Status.BOUNCED: "danger",
    Status.FAILED: "danger",
    Status.EXPIRED: "danger",
    Status.SUPPRESSED: "default",
    Status.CANCELED: "default",
}

#: stands among the statuses of the filter, though it is a flag: a delivered mail that was reported
COMPLAINED = "complained"
#: the two statuses of a mail that will not arrive, though nobody refused it
GIVEN_UP = "given-up"

PERIODS = {"hour": 3600, "day": 86_400, "week": 7 * 86_400, "month": 30 * 86_400}
PERIOD_WORDS = [("hour", "hour"), ("day", "24 hours"), ("week", "7 days"), ("month", "30 days")]


class _Read(admin.SimpleListFilter):
    """A filter whose value goes into the read model, not into a queryset."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset


class StatusFilter(_Read):
    title = parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            *((s.value, s.value) for s in Status),
            (GIVEN_UP, "failed or expired"),
            (COMPLAINED, "reported as spam"),
        ]


class CategoryFilter(_Read):
    title = "bounce category"
    parameter_name = "category"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(c.value, c.value.replace("_", " ")) for c in Category]


class PeriodFilter(_Read):
    title = "accepted in the last"
    parameter_name = "period"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return PERIOD_WORDS


class DomainFilter(_Read):
    title = "sender domain"
    parameter_name = "domain"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        rows = SendingDomain.objects.order_by("name")
        tenants = access(request).tenants
        if tenants is not None:
            rows = rows.filter(tenant_id__in=tenants)
        return [(str(pk), name) for pk, name in rows.values_list("id", "name")[:MAX_CHOICES]]


@admin.register(Message)
class MessageAdmin(TenantAdmin):
    list_display = ("state", "to_whom", "subject_line", "sender", "accepted")
    list_display_links = ("to_whom", "subject_line")
    list_filter = (StatusFilter, PeriodFilter, DomainFilter, CategoryFilter)
    search_fields = ("subject",)  # shows the box; admin.search reads it
    search_help_text = HELP
    actions = ("retry_now", "hold", "release", "cancel")

    # --- the list --------------------------------------------------------------------------------------------

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).select_related("tenant")

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> tuple[Any, bool]:
        return queryset, False  # the read model searches

    def keyset_rows(self, request: HttpRequest, cl: KeysetChangeList, after: UUID | None, before: UUID | None) -> Rows:
        now_ms = int(time.time() * 1000)
        search = self.search(request, cl, now_ms)
        page = found(search, now_ms, self.list_per_page, after, before)
        by_id = {m.id: m for m in self.get_queryset(request).filter(id__in=page.ids)}
        summaries = panel.summaries(page.ids) if page.ids else {}
        rows = [by_id[i] for i in page.ids if i in by_id]
        for row in rows:
            row.summary = summaries.get(row.id)
        # else an older mail that fits would seem not to be there
        walked = search.walks and search.since_ms is None
        instead = (
            f"looked through the last {panel.WALK_DAYS} days; a recipient or words find older mail" if walked else ""
        )
        return Rows(rows, page.newer, page.older, page.count, instead)

    def search(self, request: HttpRequest, cl: KeysetChangeList, now_ms: int) -> panel.Search:
        asked = {f.parameter_name: f.value() for f in cl.filter_specs if f.value()}
        tenants = access(request).tenants
        if wanted := asked.get("tenant"):
            own = as_uuid(wanted)
            tenants = [own] if tenants is None or own in tenants else []
        try:
            word = asked.get("status")
            status = Status(word) if word and word not in (COMPLAINED, GIVEN_UP) else None
            category = Category(asked["category"]) if "category" in asked else None
            since = now_ms - PERIODS[asked["period"]] * 1000 if "period" in asked else None
        except (ValueError, KeyError) as e:
            raise IncorrectLookupParameters(e) from e
        domain_id = as_uuid(asked["domain"]) if "domain" in asked else None
        search = panel.Search(
            tenants, status=status, category=category, domain_id=domain_id, since_ms=since,
            complained=word == COMPLAINED, given_up=word == GIVEN_UP,
        )  # fmt: skip
        return parse(cl.query, search)

    @display(description="Status")
    def state(self, message: Any) -> str:
        if message.summary is None:
            return "-"
        return format_html(
            '<span class="panel-status panel-{}">{}</span>{}',
            TONE[message.summary.status],
            message.summary.status.value,
            format_html('<span class="panel-note">{}</span>', note) if (note := _note(message.summary)) else "",
        )

    @display(description="To")
    def to_whom(self, message: Any) -> str:
        if message.summary is None:
            return "-"
        rest = message.summary.recipients - 1
        return (
            f"{_short(message.summary.recipient, 48)} and {rest} more"
            if rest
            else _short(message.summary.recipient, 60)
        )

    @display(description="Subject")
    def subject_line(self, message: Message) -> str:
        return _short(message.subject, 80) or _no_subject(message)

    @display(description="From")
    def sender(self, message: Message) -> str:
        return _short(message.from_header, 50)

    @display(description="Accepted (UTC)")
    def accepted(self, message: Message) -> str:
        return format_html('<span class="panel-nowrap">{}</span>', f"{message.created_at:%Y-%m-%d %H:%M:%S}")

    # --- the page --------------------------------------------------------------------------------------------

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(("GET", "HEAD"))
        if object_id is None:
            raise PermissionDenied  # messages come in by the API
        message = self.get_object(request, object_id)
        if message is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        now = timezone.now()
        only = request.GET.get("delivery")
        try:
            narrowed = UUID(only) if only else None
        except ValueError:
            narrowed = None
        told = story(message, now, narrowed)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": message.subject or _no_subject(message),
            "message_row": message,
            "api_key": ApiKey.objects.filter(pk=message.api_key_id).first() if message.api_key_id else None,
            "metadata": list(message.metadata.items()),  # in a template .items would be a key of that name
            "several": access(request).several,
            "operator": access(request).operator,
            "story": told,
            "gone": "" if told.content_kept else preview.gone_words(message),
            "narrowed": narrowed,
            "may_act": access(request).may(self.rights.acts, message.tenant_id),
            "verbs": operate.LABELS,
            "categories": list(Category) if access(request).operator and _bounced(told) else [],
            "offered": {v for r in told.recipients for v in r.verbs},
            "typed": request.GET.get("address", ""),
            "ended": all(r.row.final for r in told.recipients),
            "any_attempt": any(r.attempts for r in told.recipients),
            "has_view_permission": True,
            "preview_url": reverse("admin:deliveries_message_preview", args=[message.id]),
            "act_url": reverse("admin:deliveries_message_act", args=[message.id]),
            "list_url": reverse("admin:deliveries_message_changelist"),
            "now": now,
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "panel/message.html", context)

    def get_urls(self) -> list[Any]:
        wrap = self.admin_site.admin_view
        return [
            path("<uuid:pk>/preview/", wrap(self.preview_view), name="deliveries_message_preview"),
            path("<uuid:pk>/source/", wrap(self.source_view), name="deliveries_message_source"),
            path("<uuid:pk>/file/<uuid:file>/", wrap(self.file_view), name="deliveries_message_file"),
            path("<uuid:pk>/act/", wrap(self.act_view), name="deliveries_message_act"),
            *super().get_urls(),
        ]

    def _own(self, request: HttpRequest, pk: UUID) -> Message:
        message = self.get_object(request, str(pk))
        if message is None:
            raise Http404
        return message

    def preview_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """The HTML part alone, under its own policy; see admin.preview."""
        return preview.html(self._own(request, pk), with_images=request.GET.get("images") == "1")

    def source_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        return preview.source(self._own(request, pk))

    def file_view(self, request: HttpRequest, pk: UUID, file: UUID) -> HttpResponse:
        message = self._own(request, pk)
        row = next((f for f in files(message) if f.id == file), None)
        if row is None:
            raise Http404
        return preview.download(row)

    def act_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """POST verb=…&delivery=… (several): one of the operator's verbs for forward-paths of this message."""
        if request.method != "POST":
            return HttpResponseNotAllowed(("POST",))
        message = self._own(request, pk)
        here = HttpResponseRedirect(reverse("admin:deliveries_message_change", args=[message.id]))
        if not access(request).may(self.rights.acts, message.tenant_id):
            messages.error(request, "Your role in this tenant allows reading only.")
            return here
        asked = set(request.POST.getlist("delivery"))
        rows = Delivery.objects.filter(message_id=message.id, tenant_id=message.tenant_id)
        chosen = [d for d in rows.order_by("position") if str(d.id) in asked]
        ids = [d.id for d in chosen]
        match request.POST.get("verb", ""):
            case "correct":
                self._correct(request, ids)
            case verb if verb in operate.AGAIN:
                made = operate.send_again(request, message, verb, [d.recipient for d in chosen])
                if made is not None:
                    return HttpResponseRedirect(reverse("admin:deliveries_message_change", args=[made]))
                if typed := request.POST.get("address", "").strip()[:400]:  # may want a letter more
                    return HttpResponseRedirect(f"{here.url}?{urlencode({'address': typed})}")
            case "unsuppress":
                operate.unsuppress(request, request.POST.getlist("suppression"), message.tenant_id)
            case verb:
                operate.run(request, verb, ids, message.tenant_id)
        return here

    def _correct(self, request: HttpRequest, ids: list[UUID]) -> None:
        """What a bounce meant, said by the operator: rules are the installation's, not a tenant's."""
        if not access(request).operator or request.POST.get("category") not in set(Category):
            messages.error(request, "Only the operator corrects what a bounce meant, to one of the categories.")
            return
        category = Category(request.POST["category"])
        count = sum(corrections.correct(i, category, operate.actor(request)) for i in ids)
        messages.success(request, f"{count} of {len(ids)} corrected to {category}.")

    # --- actions of the list ---------------------------------------------------------------------------------

    def _act(self, request: HttpRequest, queryset: QuerySet[Message], verb: str) -> None:
        allowed = self.acting(request, queryset).values_list("id", flat=True)
        ids = list(Delivery.objects.filter(message_id__in=list(allowed)).values_list("id", flat=True))
        operate.run(request, verb, ids)

    @admin.action(description="Send now", permissions=["act"])
    def retry_now(self, request: HttpRequest, queryset: QuerySet[Message]) -> None:
        self._act(request, queryset, "retry")

    @admin.action(description="Hold", permissions=["act"])
    def hold(self, request: HttpRequest, queryset: QuerySet[Message]) -> None:
        self._act(request, queryset, "hold")

    @admin.action(description="Release", permissions=["act"])
    def release(self, request: HttpRequest, queryset: QuerySet[Message]) -> None:
        self._act(request, queryset, "release")

    @admin.action(description="Cancel", permissions=["act"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Message]) -> None:
        self._act(request, queryset, "cancel")


def _bounced(told: Story) -> bool:
    return any(r.row.status == Status.BOUNCED for r in told.recipients)


def _note(summary: panel.Summary) -> str:
    """`2 of 3`, `attempt 4`, `spam report`: what the one word leaves out."""
    notes = []
    if summary.recipients > 1 and len(summary.counts) > 1:
        notes.append(f"{summary.counts[summary.status]} of {summary.recipients}")
    if summary.status in (Status.DEFERRED, Status.UNKNOWN) and summary.attempts:
        notes.append(f"{summary.attempts} {'try' if summary.attempts == 1 else 'tries'}")
    if summary.complained:
        notes.append("spam report")
    return ", ".join(notes)


def _no_subject(message: Message) -> str:
    return "(redacted)" if message.redacted_at and message.redact & Redact.SUBJECT else "(no subject)"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
