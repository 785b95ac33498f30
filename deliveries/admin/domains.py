"""Sending domains: added, their records with what DNS says of them, verified, given new keys, removed."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextInputWidget

from deliveries import domains
from deliveries.admin.accounts import Suspendable
from deliveries.admin.operate import actor
from deliveries.errors import BadInput
from deliveries.models import DkimKey, SendingDomain
from deliveries.read import domains as read
from deliveries.routing.published import domain_name


class DomainForm(forms.ModelForm):
    name = forms.CharField(
        max_length=253,
        widget=UnfoldAdminTextInputWidget,
        help_text="Such as example.com. The next page tells which DNS records to publish.",
    )

    class Meta:
        model = SendingDomain
        fields = ("tenant", "name")

    def clean_name(self) -> str:
        try:
            return domain_name(self.cleaned_data["name"], invented=settings.SANDBOX)
        except ValueError as e:
            raise ValidationError(str(e)) from None

    def clean(self) -> dict[str, Any] | None:
        data = super().clean() or self.cleaned_data
        name = data.get("name")
        if name and SendingDomain.objects.filter(tenant=data.get("tenant"), name=name).exists():
            self.add_error("name", f"{name} is among your domains already.")
        return data


@admin.register(SendingDomain)
class SendingDomainAdmin(Suspendable):
    list_display = ("name", "state", "verified_at", "created_at")
    search_fields = ("name__startswith",)
    search_help_text = "Beginning of the domain"
    change_form_outer_after_template = "panel/domain_records.html"
    actions = ("verify", "rotate", "trust", "suspend", "release")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # the private keys stay in the database
        public = DkimKey.objects.defer("private_key").order_by("id")
        return super().get_queryset(request).prefetch_related(Prefetch("dkim_keys", queryset=public))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ("tenant", "name")
        times = ("verified_at", "missing_since", "checked_at", "next_check_at", "created_at")
        return ("name", "tenant", "state", *times, "return_path", "tls", "open_tracking", "click_tracking", "one_click")

    @display(description="Left with one click")
    def one_click(self, domain: SendingDomain) -> str:
        return ", ".join(domain.unsubscribe_streams) or "only where a mail asks for it"

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return (*self.get_fields(request, obj), "tenant_name") if obj else ()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = DomainForm
        return super().get_form(request, obj, change, **kwargs)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_act_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_act_permission(request, obj)

    def get_actions(self, request: HttpRequest) -> Any:
        # removing asks again, on the page of one
        return {name: action for name, action in super().get_actions(request).items() if name != "delete_selected"}

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What goes with it is the verb's affair: its keys, receiving addresses and restricted API keys."""
        return [str(obj) for obj in objs], {}, set(), []

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        obj.pk = domains.create(obj.tenant_id, obj.name, actor(request))

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        domains.remove(obj.tenant_id, obj.pk, actor(request))

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:deliveries_sendingdomain_change", args=[obj.pk]))

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        context = dict(extra_context or {})
        domain = self.get_object(request, object_id) if object_id else None
        if domain is not None:
            context["records"] = read.shown(domain)["records"]
        try:
            return super().changeform_view(request, object_id, form_url, context)
        except BadInput as refused:  # found by the verb: ours, there already, too many
            messages.error(request, refused.faults[0].message)
            return HttpResponseRedirect(request.get_full_path())

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        try:
            return super().delete_view(request, object_id, extra_context)
        except BadInput as refused:  # suspended
            messages.error(request, refused.faults[0].message)
            return HttpResponseRedirect(reverse("admin:deliveries_sendingdomain_changelist"))

    @display(
        description="State",
        label={
            "verified": "success", "suspended": "danger", "failed": "danger", "temporary failure": "warning",
            "pending": "warning", "not started": "info",
        },
    )  # fmt: skip
    def state(self, domain: SendingDomain) -> str:
        return "suspended" if domain.suspended_at else domain.status.replace("_", " ")

    @admin.action(description="Look at the records now", permissions=["act"])
    def verify(self, request: HttpRequest, queryset: QuerySet[SendingDomain]) -> None:
        for domain in self.acting(request, queryset):
            domains.verify(domain.tenant_id, domain.pk, actor(request))
            domain = SendingDomain.objects.get(pk=domain.pk)
            say = messages.success if domain.verified_at else messages.warning
            say(request, f"{domain} is {self.state(domain)}.")

    @admin.action(description="New DKIM key", permissions=["act"])
    def rotate(self, request: HttpRequest, queryset: QuerySet[SendingDomain]) -> None:
        for domain in self.acting(request, queryset):
            try:
                domains.rotate(domain.tenant_id, domain.pk, actor(request))
            except BadInput as refused:
                messages.error(request, f"{domain}: {refused.faults[0].message}")
            else:
                messages.success(request, f"{domain} has a new key; it signs once its record is published and seen.")

    @admin.action(description="Verify by your word", permissions=["operate"])
    def trust(self, request: HttpRequest, queryset: QuerySet[SendingDomain]) -> None:
        count = domains.trust(list(queryset.values_list("id", flat=True)), actor(request))
        messages.success(request, f"{count} verified without DNS; their records are not looked at from now on.")
