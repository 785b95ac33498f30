"""One person's data taken away, or what would go, by the owner of a tenant; `manage.py erase` is for all tenants."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextInputWidget

from deliveries import erase
from deliveries.admin.operate import actor
from deliveries.admin.tenant import TenantAdmin
from deliveries.mime.address import parse_address
from deliveries.models import Erasure


class ErasureForm(forms.ModelForm):
    person = forms.CharField(
        max_length=320,
        label="Mail address",
        widget=UnfoldAdminTextInputWidget,
        help_text="What names it goes, for good; what is queued for it is canceled.",
    )

    class Meta:
        model = Erasure
        fields = ("tenant", "keep_suppressions", "rehearsal")
        labels = {"rehearsal": "Only look"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "tenant" in self.fields:
            self.fields["tenant"].required = True  # all tenants at once: manage.py erase

    def clean_person(self) -> str:
        try:
            return parse_address(self.cleaned_data["person"].strip()).addr_spec
        except ValueError as e:
            raise ValidationError(str(e)) from None


@admin.register(Erasure)
class ErasureAdmin(TenantAdmin):
    list_display = ("asked_at", "asked_by", "state", "outcome", "done_at")
    form = ErasureForm

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ("tenant", "person", "keep_suppressions", "rehearsal")
        return ("tenant", "state", "outcome", "keep_suppressions", "asked_by", "asked_at", "done_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return (*self.get_fields(request, obj), "tenant_name") if obj else ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_act_permission(request)

    @display(
        description="State",
        label={"done": "success", "rehearsed": "info", "waiting": "warning", "running": "info", "asked": "info"},
    )
    def state(self, row: Erasure) -> str:
        return row.status

    @display(description="Found")
    def outcome(self, row: Erasure) -> str:
        found = [f"{kind}: {count}" for kind, count in row.found.items()]
        if row.waiting:
            found.append(f"{row.waiting} wait for others, or to be read")
        told = ", ".join(found) or ("nothing" if row.done_at else "")
        return f"would go: {told}; nothing was changed" if row.rehearsal and told else told

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        data = form.cleaned_data
        who, keep, look = actor(request), data["keep_suppressions"], data["rehearsal"]
        obj.pk = erase.order(obj.tenant_id, data["person"], who, keep, look).pk
        messages.success(request, "It is worked off within minutes; this page tells what was found.")

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:deliveries_erasure_change", args=[obj.pk]))
