"""The suppression list: search, add, remove; import with a preview, export, and undo of what was put there wrongly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core import signing
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.widgets import (
    UnfoldAdminFileFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from deliveries import imports
from deliveries.admin.access import access
from deliveries.admin.operate import actor
from deliveries.admin.tenant import TenantAdmin
from deliveries.mime.address import folded, parse_address
from deliveries.models import Event, Suppression, Tenant
from deliveries.record import suppressions
from deliveries.states import STREAM

#: of an import in the panel; longer lists go through manage.py import_suppressions
MAX_FILE_OCTETS = 8 * 1024 * 1024
MAX_IMPORT = 50_000
#: addresses and faults shown in a preview
MAX_SHOWN = 20
#: how long a preview may lie open
PREVIEW_S = 3600
#: counted before an undo; more says "or more"
MAX_COUNTED = 100_000


class ReasonFilter(admin.SimpleListFilter):
    title = parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(r, r) for r in ("bounce", "complaint", "unsubscribe", "manual", "import")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(reason=self.value()) if self.value() else queryset


class ImportForm(forms.Form):
    tenant = forms.ModelChoiceField(Tenant.objects.none(), widget=UnfoldAdminSelectWidget)
    form = forms.ChoiceField(
        label="Where it comes from", choices=[(f, f) for f in imports.FORMS], widget=UnfoldAdminSelectWidget
    )
    reason = forms.ChoiceField(
        label="Reason", required=False, widget=UnfoldAdminSelectWidget,
        choices=[("", "as the file says"), *((r, r) for r in imports.REASONS)],
    )  # fmt: skip
    file = forms.FileField(widget=UnfoldAdminFileFieldWidget)


class UndoForm(forms.Form):
    """What is to be undone; each field narrows it, and one of rule and site must be given."""

    rule = forms.CharField(
        required=False,
        max_length=80,
        widget=UnfoldAdminTextInputWidget,
        help_text="The rule that read the refusal, or import-postmark and the like.",
    )
    site = forms.CharField(
        required=False,
        max_length=253,
        widget=UnfoldAdminTextInputWidget,
        help_text="The provider, as it stands in the list: google.com.",
    )
    since = forms.DateTimeField(widget=UnfoldAdminTextInputWidget, help_text="UTC, 2026-01-31 09:00")
    until = forms.DateTimeField(widget=UnfoldAdminTextInputWidget, help_text="UTC")

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if not data.get("rule") and not data.get("site"):
            raise forms.ValidationError("Give a rule, a site, or both: an undo is for one mistake.")
        return data


class SuppressionForm(forms.ModelForm):
    address = forms.CharField(max_length=320, widget=UnfoldAdminTextInputWidget)
    detail = forms.CharField(
        required=False, max_length=500, widget=UnfoldAdminTextInputWidget, help_text="Why, for those who ask later."
    )
    stream = forms.CharField(
        required=False, max_length=64, initial="*", widget=UnfoldAdminTextInputWidget, help_text="* is every stream."
    )

    class Meta:
        model = Suppression
        fields = ("tenant", "address", "stream", "detail", "expires_at")

    def clean_address(self) -> str:
        try:
            address: str = folded(parse_address(self.cleaned_data["address"].strip()).addr_spec)
        except ValueError as e:
            raise forms.ValidationError(f"An address looks like name@example.com. {e}") from None
        return address

    def clean_stream(self) -> str:
        stream: str = self.cleaned_data["stream"].strip() or "*"
        if stream != "*" and not STREAM.fullmatch(stream):
            raise forms.ValidationError(
                "A stream has 1 to 64 lower-case ASCII letters, digits, - and _; * is every one."
            )
        return stream


#: where the progress stands in its page
_MARK = "<!-- progress -->"


def _progress(head: str, steps: Iterator[tuple[int, int]], count: int, tail: str) -> Iterator[str]:
    """The page, with a line after each piece that is on the disk; its style shows the last line alone."""
    yield head
    added = 0
    for done, added in steps:  # noqa: B007
        yield format_html(
            '<p class="panel-progress"><progress max="{}" value="{}"></progress> {} of {}</p>\n',
            count, done, f"{done:,}", f"{count:,}",
        )  # fmt: skip
    yield format_html(
        '<p class="panel-progress" id="done"><progress max="1" value="1"></progress> {} new; {} were on the list '
        "already.</p>\n",
        f"{added:,}", f"{count - added:,}",
    )  # fmt: skip
    yield tail


@admin.register(Suppression)
class SuppressionAdmin(TenantAdmin):
    list_display = ("address", "reason", "stream", "short_detail", "created_at", "expires_at")
    list_filter = (ReasonFilter,)
    search_fields = ("address__startswith",)
    search_help_text = "Address, or its beginning"
    form = SuppressionForm
    actions = ("remove",)
    irrevocable = ()
    actions_list = ("import_list", "undo_many", "export_list")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ("tenant", "address", "stream", "detail", "expires_at")
        shown = ("address", "tenant", "stream", "reason", "detail", "rule", "category", "site")
        return (*shown, "provisional", "led_here", "created_at", "expires_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return (*super().get_readonly_fields(request, obj), "provisional", "led_here")

    @display(description="What led here")
    def led_here(self, row: Suppression) -> str:
        """The event, with the way to its mail."""
        if row.source_event is None:
            return "-"
        event = Event.objects.filter(id=row.source_event, tenant_id=row.tenant_id).first()
        if event is None or event.message_id is None:
            return "a mail that is no longer kept"
        url = reverse("admin:deliveries_message_change", args=[event.message_id])
        return format_html('<a class="panel-link" href="{}">{} of its mail</a>', url, event.type)

    @display(description="Provisional", boolean=True)
    def provisional(self, row: Suppression) -> bool:
        return row.brake_id is not None

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        return super().get_search_results(request, queryset, folded(search_term.strip()))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_act_permission(request)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        obj.pk = suppressions.add(
            obj.tenant, obj.address, "manual", obj.detail, actor(request), obj.stream or "*", obj.expires_at
        ).pk

    @display(description="Detail")
    def short_detail(self, row: Suppression) -> str:
        text = row.detail if len(row.detail) <= 100 else row.detail[:99] + "…"
        by = ", ".join(part for part in (row.rule, row.site) if part)
        return format_html('<div>{} <span class="panel-dim">{}</span></div>', text, by) if by else text

    @admin.action(description="Remove from the list", permissions=["act"])
    def remove(self, request: HttpRequest, queryset: QuerySet[Suppression]) -> None:
        ids = list(self.acting(request, queryset).values_list("id", flat=True))
        count = suppressions.remove(ids, actor(request))
        messages.success(request, f"{count} removed. Mail to them is accepted again.")

    # --- import, undo, export ---------------------------------------------------------------------------------

    def _tenants(self, request: HttpRequest) -> QuerySet[Tenant]:
        own = access(request).tenants_with(self.rights.acts)
        return Tenant.objects.order_by("name") if own is None else Tenant.objects.filter(id__in=own).order_by("name")

    def _page(self, request: HttpRequest, template: str, **context: Any) -> HttpResponse:
        back = reverse("admin:deliveries_suppression_changelist")
        whole = {**self.admin_site.each_context(request), "opts": self.opts, "back_url": back, **context}
        return TemplateResponse(request, template, whole)

    @action(description="Import", url_path="import", permissions=["act"])
    def import_list(self, request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
        """A file first becomes a preview; what was previewed, signed, is what is imported."""
        if "confirmed" in request.POST:
            return self._import(request)
        form = ImportForm(request.POST or None, request.FILES or None)
        form.fields["tenant"].queryset = own = self._tenants(request)  # type: ignore[attr-defined]
        form.fields["tenant"].initial = own[0] if len(own[:2]) == 1 else None
        context: dict[str, Any] = {"title": "Import suppressions", "form": form}
        if request.method == "POST" and form.is_valid():
            reading = self._read(form)
            if reading is not None:
                context |= self._preview(form.cleaned_data, reading, request)
        return self._page(request, "panel/suppressions_import.html", **context)

    def _read(self, form: ImportForm) -> imports.Reading | None:
        data = form.cleaned_data
        if data["file"].size > MAX_FILE_OCTETS:
            form.add_error("file", "It is too large for the panel; use manage.py import_suppressions.")
            return None
        try:
            reading = imports.read(data["file"].read(), data["form"], data["reason"])
        except ValueError as e:
            form.add_error("file", str(e))
            return None
        if len(reading.entries) > MAX_IMPORT:
            form.add_error("file", f"It has more than {MAX_IMPORT} addresses; use manage.py import_suppressions.")
            return None
        return reading

    def _preview(self, data: dict[str, Any], reading: imports.Reading, request: HttpRequest) -> dict[str, Any]:
        tenant: Tenant = data["tenant"]
        addresses = {e.address for e in reading.entries}
        known = Suppression.objects.filter(tenant=tenant, address__in=addresses).count() if addresses else 0
        rows = [
            (e.address, e.reason, e.detail, e.stream, e.expires_at.isoformat() if e.expires_at else None)
            for e in reading.entries
        ]
        signed = signing.dumps(
            {"tenant": str(tenant.pk), "form": data["form"], "rows": rows, "by": str(request.user.pk)},
            salt="suppressions", compress=True,
        )  # fmt: skip
        return {
            "reading": reading, "tenant": tenant, "known": known, "by_reason": sorted(reading.by_reason().items()),
            "shown": reading.entries[:MAX_SHOWN], "faults": reading.faults[:MAX_SHOWN], "signed": signed,
        }  # fmt: skip

    def _import(self, request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
        here = HttpResponseRedirect(reverse("admin:deliveries_suppression_changelist"))
        try:
            asked = signing.loads(request.POST["confirmed"], salt="suppressions", max_age=PREVIEW_S)
        except signing.BadSignature:
            messages.error(request, "The preview is too old; choose the file once more.")
            return here
        tenant = self._tenants(request).filter(id=asked["tenant"]).first()
        if tenant is None or asked["by"] != str(request.user.pk):
            messages.error(request, "Your role in this tenant allows reading only.")
            return here
        entries = [
            imports.Entry(address, reason, detail, stream, datetime.fromisoformat(ends) if ends else None)
            for address, reason, detail, stream, ends in asked["rows"]
        ]
        page = render_to_string(
            "panel/suppressions_progress.html",
            {**self.admin_site.each_context(request), "opts": self.opts, "title": "Import suppressions",
             "back_url": here.url},
            request,
        )  # fmt: skip
        head, _, tail = page.partition(_MARK)
        steps = imports.load(tenant.id, entries, asked["form"], actor(request))
        response = StreamingHttpResponse(_progress(head, steps, len(entries), tail))
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"  # a proxy that gathers would show it only at the end
        return response

    @action(description="Undo in bulk", url_path="undo", permissions=["act"])
    def undo_many(self, request: HttpRequest) -> HttpResponse:
        """By rule, site and time; the count is shown before anything is removed."""
        now = timezone.now()
        first = {"since": f"{now - timedelta(days=1):%Y-%m-%d %H:%M}", "until": f"{now:%Y-%m-%d %H:%M}"}
        form = UndoForm(request.POST or None, initial=first)
        context: dict[str, Any] = {"title": "Undo suppressions in bulk", "form": form, "count": None}
        if request.method == "POST" and form.is_valid():
            data = form.cleaned_data
            mistake = suppressions.Mistake(
                data["since"], data["until"], data["rule"], data["site"],
                tenants=access(request).tenants_with(self.rights.acts),
            )  # fmt: skip
            counted = "|".join(str(data[name]) for name in ("rule", "site", "since", "until"))
            if request.POST.get("confirmed") == counted:  # else the form was changed since: what goes was not counted
                removed = suppressions.undo(mistake, actor(request))
                messages.success(request, f"{removed} removed. Mail to them is accepted again.")
                return HttpResponseRedirect(reverse("admin:deliveries_suppression_changelist"))
            context |= {
                "counted": counted,
                "count": mistake.rows()[:MAX_COUNTED].count(),
                "shown": mistake.rows()[:MAX_SHOWN],
            }
        return self._page(request, "panel/suppressions_undo.html", **context)

    @action(description="Export CSV", url_path="export")
    def export_list(self, request: HttpRequest) -> StreamingHttpResponse:
        """Everything that the person may see, as it stands."""
        rows: Iterable[Any] = self.get_queryset(request).order_by("pk").iterator(chunk_size=2_000)
        response = StreamingHttpResponse(imports.export(rows), content_type="text/csv; charset=utf-8")
        response.headers["Content-Disposition"] = 'attachment; filename="suppressions.csv"'
        response.headers["Cache-Control"] = "no-store"
        return response
