"""API keys, what may be suspended, and the keys of operators' programs."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.text import capfirst
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextInputWidget

from deliveries import keys, operators
from deliveries.admin.access import Access, access
from deliveries.admin.operate import actor
from deliveries.admin.tenant import OperatorAdmin, ReadOnly, TenantAdmin
from deliveries.models import ApiKey, Membership, OperatorKey
from deliveries.record import brakes


def secret_page(
    request: HttpRequest, site: admin.AdminSite, what: str, name: str, secret: str, back: str
) -> HttpResponse:
    """A secret, shown once: it stands in this answer alone; no session and no redirect carries it."""
    response = TemplateResponse(
        request,
        "panel/secret.html",
        {**site.each_context(request), "title": what, "name": name, "secret": secret, "back_url": back},
    )
    response.headers["Cache-Control"] = "no-store"
    return response


class _FilterByUse(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("active", "active"), ("revoked", "revoked")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() == "active":
            return queryset.filter(revoked_at=None)
        return queryset.exclude(revoked_at=None) if self.value() == "revoked" else queryset


class Suspendable(TenantAdmin):
    """Suspended and released by the operator alone: a tenant must not lift what was done to it."""

    actions: Any = ("suspend", "release")

    def has_operate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access(request).operator

    @admin.action(description="Suspend", permissions=["operate"])
    def suspend(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        count = brakes.suspend(queryset, actor(request))
        messages.success(request, f"{count} suspended: nothing is accepted by them, and what is queued is held.")

    @admin.action(description="Release", permissions=["operate"])
    def release(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        count = brakes.release(queryset, actor(request))
        messages.success(request, f"Released; {count} held mails are due now.")


class _LimitsForm(forms.ModelForm):
    """Where from and until when a key may be used."""

    allowed = forms.CharField(
        label="Networks",
        required=False,
        max_length=2000,
        widget=UnfoldAdminTextInputWidget,
        help_text="Addresses it may be used from, with commas: 203.0.113.7, 2001:db8::/32. Empty: all.",
    )

    def clean_allowed(self) -> list[str]:
        try:
            return [keys.network(word) for word in self.cleaned_data["allowed"].replace(",", " ").split()]
        except ValueError as e:
            raise ValidationError(str(e)) from None

    def clean_expires_at(self) -> Any:
        moment = self.cleaned_data["expires_at"]
        if moment and moment <= timezone.now():
            raise ValidationError("That time has passed.")
        return moment


class KeyForm(_LimitsForm):
    #: of the person who fills it in
    own: Access

    class Meta:
        model = ApiKey
        fields = ("tenant", "name", "scope", "domain", "expires_at", "rate_limit", "test")

    def clean_rate_limit(self) -> int | None:
        return _rate(self.cleaned_data["rate_limit"])

    def clean(self) -> dict[str, Any] | None:
        data = super().clean() or self.cleaned_data
        domain, tenant = data.get("domain"), data.get("tenant")
        if data.get("scope") == ApiKey.Scope.OWNER and not (tenant and self.own.may(Membership.Role.OWNER, tenant.pk)):
            self.add_error("scope", "Only an owner of the tenant makes a key that may erase people.")
        if domain and domain.tenant != data.get("tenant"):
            self.add_error("domain", "This domain is not the tenant's.")
        if domain and data.get("scope") != ApiKey.Scope.SENDING:
            self.add_error("domain", "Goes with a key for sending only.")
        return data


class KeyLimitForm(forms.ModelForm):
    """What can still be changed of a key in the panel."""

    class Meta:
        model = ApiKey
        fields = ("rate_limit",)

    def clean_rate_limit(self) -> int | None:
        return _rate(self.cleaned_data["rate_limit"])


def _rate(number: int | None) -> int | None:
    if number is not None and not 1 <= number <= keys.highest_rate():
        raise ValidationError(f"Must be from 1 to {keys.highest_rate()} requests a second, or empty.")
    return number


def rate_words(key: ApiKey) -> str:
    """`50 a second`; in brackets where RATE_LIMIT says so, since the key has no number of its own."""
    if key.rate_limit is not None:
        return f"{key.rate_limit} a second"
    return f"({settings.RATE_LIMIT} a second)" if settings.RATE_LIMIT else "any number"


#: how a key is shown in lists
_STATES = {"active": "success", "suspended": "danger", "revoked": "danger", "expired": "danger"}


class _Secrets(ReadOnly):
    """Of what has a secret, which `save_model` leaves in `request._secret`: shown once, its state from then on."""

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        back = reverse(f"admin:deliveries_{self.opts.model_name}_changelist")
        secret = request._secret  # type: ignore[attr-defined]
        return secret_page(request, self.admin_site, capfirst(str(self.opts.verbose_name)), obj.name, secret, back)

    @display(description="State", label=_STATES)
    def state(self, key: ApiKey | OperatorKey) -> str:
        if key.revoked_at or getattr(key, "suspended_at", None):
            return "revoked" if key.revoked_at else "suspended"
        return "expired" if key.expires_at and key.expires_at <= timezone.now() else "active"


@admin.register(ApiKey)
class ApiKeyAdmin(_Secrets, Suspendable):
    list_display = ("name", "prefix", "scope", "state", "rate", "created_at", "last_used_at")
    list_filter = (_FilterByUse,)
    fields = ("tenant", "name", "scope", "domain", "allowed", "expires_at", "rate_limit", "test")
    actions = ("revoke", "suspend", "release")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        limits = ("scope", "only_from", "networks", "expires_at", "rate_limit", "test")
        times = ("created_at", "last_used_at", "suspended_at", "revoked_at", "its_mail")
        return ("tenant", "name", "prefix", *limits, *times) if obj else self.fields

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        shown = [name for name in self.get_fields(request, obj) if name != "rate_limit"]
        return (*shown, "tenant_name") if obj else ()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        kwargs["form"] = KeyForm if obj is None else KeyLimitForm
        form = super().get_form(request, obj, change, **kwargs)
        form.own = access(request)  # the class is made anew for each request
        return form

    @display(description="Domain")
    def only_from(self, key: ApiKey) -> str:
        # as text: a link would be to a page that not every role may open
        return str(key.domain or "all that are verified")

    @display(description="Mail")
    def its_mail(self, key: ApiKey) -> str:
        url = reverse("admin:deliveries_message_changelist")
        return format_html('<a class="panel-link" href="{}?q=key:{}">what it posted</a>', url, key.pk)

    @display(description="Requests")
    def rate(self, key: ApiKey) -> str:
        return rate_words(key)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_act_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_act_permission(request, obj) and (obj is None or obj.revoked_at is None)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        if change:
            keys.limit(obj.pk, obj.rate_limit, actor(request))
            return
        limits = {
            "domain_id": obj.domain_id, "expires_at": obj.expires_at, "test": obj.test, "rate_limit": obj.rate_limit
        }  # fmt: skip
        networks = form.cleaned_data["allowed"]
        made, secret = keys.create(obj.tenant, obj.name, obj.scope, networks=networks, **limits)
        obj.pk = made.pk
        request._secret = secret  # type: ignore[attr-defined]
        self.audit(request, "key.created", f"{obj.name} ({made.prefix}…)", obj.tenant_id)

    @admin.action(description="Revoke", permissions=["act"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        ids = list(self.acting(request, queryset).values_list("id", flat=True))
        count = keys.revoke(ids, actor(request))
        messages.success(request, f"{count} revoked. Requests with them are refused from now on.")


class OperatorKeyForm(_LimitsForm):
    class Meta:
        model = OperatorKey
        fields = ("name", "scope", "expires_at")


@admin.register(OperatorKey)
class OperatorKeyAdmin(_Secrets, OperatorAdmin):
    form = OperatorKeyForm
    list_display = ("name", "prefix", "scope", "state", "created_at", "last_used_at")
    list_filter = (_FilterByUse,)
    actions = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ("name", "scope", "allowed", "expires_at")
        return ("name", "prefix", "scope", "networks", "expires_at", "created_at", "last_used_at", "revoked_at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return access(request).operator

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        made, secret = operators.create(
            obj.name, obj.scope, actor(request), form.cleaned_data["allowed"], obj.expires_at
        )
        obj.pk = made.pk
        request._secret = secret  # type: ignore[attr-defined]

    @admin.action(description="Revoke", permissions=["act"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[OperatorKey]) -> None:
        count = operators.revoke(list(queryset.values_list("id", flat=True)), actor(request))
        messages.success(request, f"{count} revoked. Requests with them are refused from now on.")
