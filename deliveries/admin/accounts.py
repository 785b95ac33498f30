"""API keys, sending domains, memberships; for the operator also tenants and people."""

from __future__ import annotations

import secrets
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminTextInputWidget

from deliveries import keys, logins
from deliveries.admin.access import Role, access
from deliveries.admin.keyset import Rows
from deliveries.admin.operate import actor
from deliveries.admin.tenant import OperatorAdmin, TenantAdmin
from deliveries.models import ApiKey, DkimKey, Membership, SendingDomain, Tenant, User
from deliveries.record import brakes

admin.site.unregister(Group)  # roles are memberships; Django's groups would be a second, idle system


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


@admin.register(ApiKey)
class ApiKeyAdmin(Suspendable):
    list_display = ("name", "prefix", "scope", "state", "created_at", "last_used_at")
    list_filter = (_FilterByUse,)
    fields = ("tenant", "name", "scope")
    actions = ("revoke", "suspend", "release")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        shown = ("tenant", "name", "prefix", "scope", "created_at", "last_used_at", "suspended_at", "revoked_at")
        return shown if obj else self.fields

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_act_permission(request)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        made, secret = keys.create(obj.tenant, obj.name, obj.scope)
        obj.pk = made.pk
        request._secret = secret  # type: ignore[attr-defined]
        self.audit(request, "key.created", f"{obj.name} ({made.prefix}…)", obj.tenant_id)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        back = reverse("admin:deliveries_apikey_changelist")
        secret = request._secret  # type: ignore[attr-defined]
        return secret_page(request, self.admin_site, "API key", obj.name, secret, back)

    @display(description="State", label={"active": "success", "suspended": "danger", "revoked": "danger"})
    def state(self, key: ApiKey) -> str:
        return "revoked" if key.revoked_at else "suspended" if key.suspended_at else "active"

    @admin.action(description="Revoke", permissions=["act"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        ids = list(self.acting(request, queryset).values_list("id", flat=True))
        count = keys.revoke(ids, actor(request))
        messages.success(request, f"{count} revoked. Requests with them are refused from now on.")


@admin.register(SendingDomain)
class SendingDomainAdmin(Suspendable):
    list_display = ("name", "state", "verified_at", "created_at")
    search_fields = ("name__startswith",)
    search_help_text = "Beginning of the domain"
    fields = ("name", "tenant", "state", "verified_at", "created_at", "dns_records")
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # the private keys stay in the database
        public = DkimKey.objects.defer("private_key").order_by("selector")
        return super().get_queryset(request).prefetch_related(Prefetch("dkim_keys", queryset=public))

    @display(description="State", label={"verified": "success", "suspended": "danger", "not verified": "warning"})
    def state(self, domain: SendingDomain) -> str:
        if domain.suspended_at:
            return "suspended"
        return "verified" if domain.verified_at else "not verified"

    @display(description="DKIM records to publish")
    def dns_records(self, domain: SendingDomain) -> str:
        records = [
            f"{key}. TXT v=DKIM1; k=rsa; p={key.public_key}{'' if key.active else '  (retired: keep it for 7 days)'}"
            for key in domain.dkim_keys.all()
        ]
        return format_html('<pre class="panel-pre">{}</pre>', "\n\n".join(records)) if records else "none"


class MembershipForm(forms.ModelForm):
    login = forms.CharField(
        max_length=150,
        widget=UnfoldAdminTextInputWidget,
        help_text="An existing login, or a new one: then a first password is shown once.",
    )

    class Meta:
        model = Membership
        fields = ("tenant", "role")

    def clean_login(self) -> str:
        login: str = self.cleaned_data["login"].strip()
        User.username_validator(login)
        return login

    def clean(self) -> dict[str, Any] | None:
        data = super().clean() or self.cleaned_data
        known = "login" in data and "tenant" in data
        if known and Membership.objects.filter(user__username=data["login"], tenant=data["tenant"]).exists():
            raise forms.ValidationError("This person is a member already.")
        return data


@admin.register(Membership)
class MembershipAdmin(TenantAdmin):
    """The people of a tenant; only its owners see to them."""

    acts_from = Role.OWNER
    list_display = ("user", "role")
    list_select_related = ("user",)
    fields = ("tenant", "login", "role")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("tenant", "person", "role") if obj else self.fields

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = MembershipForm
        return super().get_form(request, obj, change, **kwargs)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("tenant", "tenant_name", "person") if obj else ()

    @display(description="Person")
    def person(self, membership: Membership) -> str:
        return membership.user.get_username()

    def keyset_rows(self, request: HttpRequest, cl: Any, after: Any, before: Any) -> Any:
        rows = list(cl.queryset.order_by("tenant_id", "user__username")[:1000])
        return Rows(rows, None, None, len(rows))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_act_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_act_permission(request, obj) and self._another(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_act_permission(request, obj) and self._another(request, obj)

    def _another(self, request: HttpRequest, obj: Any) -> bool:
        # nobody locks the own door from outside
        return access(request).operator or not isinstance(obj, Membership) or obj.user_id != request.user.pk

    def get_actions(self, request: HttpRequest) -> Any:
        return {}  # one person at a time, with a page that asks again

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        if not change:
            login = form.cleaned_data["login"]
            user = User.objects.filter(username=login).first()
            if user is None:
                request._secret = secrets.token_urlsafe(12)  # type: ignore[attr-defined]
                user = User.objects.create_user(login, password=request._secret, is_staff=True)  # type: ignore[attr-defined]
            obj.user = user
        super().save_model(request, obj, form, change)
        self.audit(request, "member.changed" if change else "member.added", str(obj), obj.tenant_id)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.audit(request, "member.removed", str(obj), obj.tenant_id)
        super().delete_model(request, obj)

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        if secret := getattr(request, "_secret", None):
            back = reverse("admin:deliveries_membership_changelist")
            return secret_page(request, self.admin_site, "First password", obj.user.username, secret, back)
        return super().response_add(request, obj, post_url_continue)


@admin.register(Tenant)
class TenantsAdmin(OperatorAdmin):
    list_display = ("name", "created_at", "suspended_at", "suspended_reason")
    search_fields = ("name__istartswith",)
    fields = ("name", "suspended_at", "suspended_reason")
    actions = ("suspend", "release")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return access(request).operator

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access(request).operator

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        super().save_model(request, obj, form, change)
        if change and "suspended_at" in form.changed_data and obj.suspended_at is None:
            self._release(request, obj)
        what = ", ".join(form.changed_data) or "nothing"
        self.audit(request, "tenant.changed" if change else "tenant.created", f"{obj.name}: {what}", obj.pk)

    @admin.action(description="Suspend", permissions=["act"])
    def suspend(self, request: HttpRequest, queryset: QuerySet[Tenant]) -> None:
        for tenant in queryset:
            brakes.hold_tenant(tenant.pk, f"Suspended by {actor(request)}.", actor(request), timezone.now())
        messages.success(request, "Suspended: nothing of theirs is accepted or sent until they are released.")

    @admin.action(description="Release", permissions=["act"])
    def release(self, request: HttpRequest, queryset: QuerySet[Tenant]) -> None:
        for tenant in queryset:
            self._release(request, tenant)

    def _release(self, request: HttpRequest, tenant: Tenant) -> None:
        count = brakes.release_tenant(tenant.pk, actor(request))
        messages.success(request, f"{tenant} is released; {count} held mails are due now.")


class MembershipInline(TabularInline):
    model = Membership
    extra = 0

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access(request).operator

    has_add_permission = has_change_permission = has_delete_permission = has_view_permission


@admin.register(User)
class PeopleAdmin(DjangoUserAdmin, ModelAdmin):
    """Logins; the operator's. Superusers are operators; others see what their memberships say."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    inlines = (MembershipInline,)
    list_display = ("username", "email", "is_superuser", "is_active", "last_login")
    list_filter = ()
    search_fields = ("username__istartswith", "email__istartswith")
    filter_horizontal = ()
    actions = ("forget_second_factor",)
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("Rights", {"fields": ("is_active", "is_staff", "is_superuser")}),
    )

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return self.inlines if obj else ()

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"is_staff": True}

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        if not change:
            obj.is_staff = True  # a login of this service is a login to the panel
        super().save_model(request, obj, form, change)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return False

    @admin.action(description="Remove the second factor", permissions=["change"])
    def forget_second_factor(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        count = sum(logins.remove(user, actor(request)) for user in queryset)
        messages.success(request, f"{count} removed. Their passwords alone open the panel until they set up a new one.")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return access(request).operator

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access(request).operator

    def has_add_permission(self, request: HttpRequest) -> bool:
        return access(request).operator

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access(request).operator

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access(request).operator and getattr(obj, "pk", None) != request.user.pk
