"""Mailboxes that are polled for bounces, addresses that receive, and the handing on of what they received."""

from __future__ import annotations

import re
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.decorators import display
from unfold.widgets import UnfoldAdminPasswordWidget

from deliveries import addresses, forward, mailboxes
from deliveries.admin.access import access
from deliveries.admin.operate import actor
from deliveries.admin.tenant import TenantAdmin
from deliveries.feedback import ROLES
from deliveries.models import BounceMailbox, Handover, InboundRoute

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?|[0-9A-Fa-f:.]+")


def clean_host(host: str) -> str:
    """A name or an IP literal; nothing that a URL or a shell would read in another way."""
    host = host.strip().rstrip(".").lower()
    if not _HOST.fullmatch(host):
        raise forms.ValidationError("A host name, such as imap.example.com.")
    return host


def clean_port(port: int) -> int:
    if not 1 <= port <= 65_535:
        raise forms.ValidationError("A port is a number from 1 to 65535.")
    return port


#: who learns the password; nobody reads a kept one by naming a server of the own
_GOES_TO = ("protocol", "host", "port", "tls")


class MailboxForm(forms.ModelForm):
    secret = forms.CharField(
        label="Password",
        required=False,
        max_length=500,
        strip=False,
        widget=UnfoldAdminPasswordWidget(render_value=False),
        help_text="Left empty, the one that is kept stays, for the same server.",
    )

    class Meta:
        model = BounceMailbox
        fields = (
            "tenant", "protocol", "host", "port", "tls", "username", "folder", "delete_after", "enabled",
        )  # fmt: skip
        labels = {"tls": "TLS"}

    def clean_host(self) -> str:
        return clean_host(self.cleaned_data["host"])

    def clean_port(self) -> int:
        return clean_port(self.cleaned_data["port"])

    def clean(self) -> dict[str, Any] | None:
        data = super().clean() or self.cleaned_data
        if not data.get("secret"):
            if self.instance._state.adding:
                self.add_error("secret", "A mailbox has a password.")
            elif any(data.get(name) != self.initial.get(name) for name in _GOES_TO):
                self.add_error("secret", "Give the password again: the one that is kept goes to no other server.")
        for name in ("username", "secret", "folder"):
            if not (data.get(name) or "").isprintable():
                self.add_error(name, "Line breaks and control characters are not possible here.")
        return data


@admin.register(BounceMailbox)
class BounceMailboxAdmin(TenantAdmin):
    """Without a tenant it is the operator's, and may stand in our own network; a tenant's is on the Internet."""

    list_display = ("username", "host", "protocol", "state", "last_polled_at", "short_error")
    list_display_links = ("username", "host")
    form = MailboxForm
    actions = ("check_now", "remove")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("password")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        asked = ["tenant", "protocol", "host", "port", "tls", "username", "secret", "folder", "delete_after", "enabled"]
        if obj is not None:
            asked = [*asked[1:], "last_polled_at", "next_poll_at", "failures", "last_error"]
            if not self.has_change_permission(request, obj):
                asked.remove("secret")
        return [(None, {"fields": asked})]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("last_polled_at", "next_poll_at", "failures", "last_error")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        if "tenant" in form.base_fields:
            # without a tenant it would be the operator's
            form.base_fields["tenant"].required = not access(request).operator
        return form

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_act_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if isinstance(obj, BounceMailbox) and obj.tenant_id is None:
            return access(request).operator
        return self.has_act_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        if secret := form.cleaned_data.get("secret"):
            obj.password = secret.encode()
        super().save_model(request, obj, form, change)
        mailboxes.check_now(BounceMailbox.objects.filter(pk=obj.pk))
        self.audit(request, "mailbox.changed" if change else "mailbox.added", str(obj), obj.tenant_id)

    @display(description="State", label={"on": "success", "failing": "danger", "off": "warning", "new": "info"})
    def state(self, box: BounceMailbox) -> str:
        if not box.enabled:
            return "off"
        if box.failures:
            return "failing"
        return "on" if box.last_polled_at else "new"

    @display(description="What is wrong")
    def short_error(self, box: BounceMailbox) -> str:
        return box.last_error if len(box.last_error) <= 100 else box.last_error[:99] + "…"

    @admin.action(description="Check now", permissions=["act"])
    def check_now(self, request: HttpRequest, queryset: QuerySet[BounceMailbox]) -> None:
        count = mailboxes.check_now(self.acting(request, queryset))
        messages.success(request, f"{count} will be checked within ten seconds.")

    @admin.action(description="Remove", permissions=["act"])
    def remove(self, request: HttpRequest, queryset: QuerySet[BounceMailbox]) -> None:
        rows = list(self.acting(request, queryset).defer("password"))
        for box in rows:
            self.audit(request, "mailbox.removed", str(box), box.tenant_id)
        BounceMailbox.objects.filter(id__in=[box.pk for box in rows]).delete()
        messages.success(request, f"{len(rows)} removed. Mail that lies in them stays there.")


class RouteForm(forms.ModelForm):
    class Meta:
        model = InboundRoute
        fields = ("domain", "address", "forward", "host", "port")

    def clean_address(self) -> str:
        address: str = self.cleaned_data["address"].strip().lower().partition("@")[0]
        if address != addresses.ANY and not re.fullmatch(r"[^\s\"<>(),:;@\[\]\\*]{1,64}", address):
            raise forms.ValidationError("What stands before the @, such as support, or * for all.")
        if address in ROLES:
            raise forms.ValidationError(f"{address}@ of every domain goes to the operator (RFC 2142).")
        return address

    def clean(self) -> dict[str, Any] | None:
        data = super().clean() or self.cleaned_data
        if data.get("forward", InboundRoute.Forward.NONE) != InboundRoute.Forward.NONE:
            try:
                data["host"] = clean_host(data.get("host") or "")
                clean_port(data.get("port") or 0)
            except forms.ValidationError as e:
                self.add_error("host", e)
        return data


@admin.register(InboundRoute)
class InboundRouteAdmin(TenantAdmin):
    """Which addresses receive. Where mail is handed on to is the operator's affair: those servers stand inside."""

    list_display = ("address", "domain", "verified", "handed_on")
    list_select_related = ("domain",)
    form = RouteForm
    actions = ("remove",)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        asked = ["domain", "address"]
        if access(request).operator:
            asked += ["forward", "host", "port"]
        return [(None, {"fields": asked})]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("domain", "address") if obj else ()

    def get_list_select_related(self, request: HttpRequest) -> Any:
        return ("domain", "tenant")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_act_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access(request).operator

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        obj.tenant_id = obj.domain.tenant_id
        super().save_model(request, obj, form, change)
        what = "" if obj.forward == InboundRoute.Forward.NONE else f", on to {obj.forward}://{obj.host}:{obj.port}"
        self.audit(request, "address.changed" if change else "address.added", f"{obj}{what}", obj.tenant_id)

    def get_list_display(self, request: HttpRequest) -> Any:
        shown = super().get_list_display(request)
        # which servers stand inside is the operator's to know
        return shown if access(request).operator else [name for name in shown if name != "handed_on"]

    @display(description="Handed on to")
    def handed_on(self, route: InboundRoute) -> str:
        if route.forward == InboundRoute.Forward.NONE:
            return "nobody; it is kept here"
        return f"{route.get_forward_display()} {route.host}:{route.port}"

    @display(description="Domain verified", boolean=True)
    def verified(self, route: InboundRoute) -> bool:
        return route.domain.verified_at is not None

    @admin.action(description="Remove", permissions=["act"])
    def remove(self, request: HttpRequest, queryset: QuerySet[InboundRoute]) -> None:
        count = addresses.remove(self.acting(request, queryset).values_list("id", flat=True), actor(request))
        messages.success(request, f"{count} removed. Mail to them is refused from now on.")


class HandoverFilter(admin.SimpleListFilter):
    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(s.value, s.value) for s in Handover.State]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(state=self.value()) if self.value() else queryset


@admin.register(Handover)
class HandoverAdmin(TenantAdmin):
    list_display = ("created_at", "forward_path", "state_word", "tries", "reply")
    list_filter = (HandoverFilter,)
    fields = ("forward_path", "state_word", "tries", "due_at", "reply", "created_at", "inbound_id")
    readonly_fields = fields
    actions = ("send_again",)

    @display(description="State", label={"done": "success", "pending": "info", "failed": "danger"})
    def state_word(self, order: Handover) -> str:
        return order.state

    @admin.action(description="Hand on again", permissions=["act"])
    def send_again(self, request: HttpRequest, queryset: QuerySet[Handover]) -> None:
        rows = list(self.acting(request, queryset))
        count = forward.again([row.pk for row in rows])
        for row in rows:
            self.audit(request, "handover.again", row.forward_path, row.tenant_id)
        messages.success(request, f"{count} will be handed on again.")
