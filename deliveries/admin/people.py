"""The people of a tenant, whom its owners invite; for the operator also tenants and logins."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html_join
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminTextInputWidget

from deliveries import logins, people, quotas
from deliveries.admin.access import Access, access
from deliveries.admin.accounts import rate_words, secret_page
from deliveries.admin.keyset import Rows
from deliveries.admin.operate import actor, said
from deliveries.admin.tenant import MAX_CHOICES, OperatorAdmin, TenantAdmin, ticked
from deliveries.errors import BadInput
from deliveries.models import ApiKey, AuditEntry, Membership, Tenant, User
from deliveries.record import brakes

admin.site.unregister(Group)  # roles are memberships; Django's groups would be a second, idle system


class MembershipForm(forms.ModelForm):
    #: of the person who fills it in
    own: Access

    login = forms.CharField(
        max_length=150,
        label="Mail address",
        widget=UnfoldAdminTextInputWidget,
        help_text="Or a login that a tenant of yours has. A new one gets a first password, shown once: hand it over.",
    )

    class Meta:
        model = Membership
        fields = ("tenant", "role")

    def clean_login(self) -> str:
        login: str = self.cleaned_data["login"].strip()
        try:
            User.username_validator(login)
        except ValidationError:
            raise ValidationError("Enter a mail address, or a login of letters, digits and @ . + - _") from None
        return login

    def clean(self) -> dict[str, Any] | None:
        data = super().clean() or self.cleaned_data
        known = "login" in data and "tenant" in data
        if known and people.member_of(data["tenant"].pk, data["login"]):
            raise ValidationError("This person is a member already.")
        owned = self.own.tenants_with(Membership.Role.OWNER)
        if known and owned is not None and people.elsewhere(data["login"], owned):
            raise ValidationError(
                "This login exists, and no tenant of yours has it: others may know its password. The operator adds it."
            )
        return data


@admin.register(Membership)
class MembershipAdmin(TenantAdmin):
    """Only owners see to them, and nobody to the own membership."""

    list_display = ("user", "role")
    list_select_related = ("user",)
    fields = ("tenant", "login", "role")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("tenant", "person", "role") if obj else self.fields

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = MembershipForm
        form = super().get_form(request, obj, change, **kwargs)
        form.own = access(request)  # the class is made anew for each request
        return form

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
        if change:
            people.set_role(obj.pk, obj.role, actor(request))
            return
        made, password = people.invite(obj.tenant, form.cleaned_data["login"], obj.role, actor(request))
        obj.pk, obj.user = made.pk, made.user
        request._secret = password  # type: ignore[attr-defined]

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        people.remove(obj.pk, actor(request))

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        return self._kept(request, lambda: super(MembershipAdmin, self).changeform_view(
            request, object_id, form_url, extra_context
        ))  # fmt: skip

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        return self._kept(request, lambda: super(MembershipAdmin, self).delete_view(request, object_id, extra_context))

    def _kept(self, request: HttpRequest, view: Any) -> Any:
        try:
            return view()
        except BadInput as refused:  # the last owner
            messages.error(request, refused.faults[0].message)
            return HttpResponseRedirect(reverse("admin:deliveries_membership_changelist"))

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        if secret := getattr(request, "_secret", None):
            back = reverse("admin:deliveries_membership_changelist")
            return secret_page(request, self.admin_site, "First password", obj.user.username, secret, back)
        return super().response_add(request, obj, post_url_continue)


@admin.register(Tenant)
class TenantsAdmin(OperatorAdmin):
    list_display = ("name", "used", "created_at", "suspended_at", "suspended_reason")
    search_fields = ("name__istartswith",)
    fields = ("name", "daily_quota", "monthly_quota", "used", "rates", "suspended_at", "suspended_reason")
    # a form that wrote the date would hold mail without a word to the tenant, and at once whatever date it names
    readonly_fields = ("used", "rates", "suspended_at", "suspended_reason")
    actions = ("suspend", "release")
    with_reason = True

    def keyset_rows(self, request: HttpRequest, cl: Any, after: Any, before: Any) -> Rows:
        rows = super().keyset_rows(request, cl, after, before)
        told = quotas.told(rows.objects)
        for tenant in rows.objects:
            tenant.quota_words = told.get(tenant.pk, "")
        return rows

    @display(description="Recipients of its quotas")
    def used(self, tenant: Any) -> str:
        if not hasattr(tenant, "quota_words"):
            tenant.quota_words = quotas.told([tenant]).get(tenant.pk, "") if tenant.pk else ""
        return tenant.quota_words or "no quota"

    @display(description="Requests a second of its keys")
    def rates(self, tenant: Tenant) -> str:
        """Each leads to the key's page, where it is set."""
        keys = ApiKey.objects.filter(tenant_id=tenant.pk, revoked_at=None).order_by("name")[:MAX_CHOICES]
        lines = [
            (reverse("admin:deliveries_apikey_change", args=[key.pk]), key.name, key.prefix, rate_words(key))
            for key in keys
        ]
        line = '<p><a class="panel-link panel-among" href="{}">{}</a> {}…: {}</p>'
        return format_html_join("", line, lines) or "no key"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return access(request).operator

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access(request).operator

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        super().save_model(request, obj, form, change)
        what = ", ".join(form.changed_data) or "nothing"
        self.audit(request, "tenant.changed" if change else "tenant.created", f"{obj.name}: {what}", obj.pk)

    @admin.action(description="Suspend", permissions=["act"])
    def suspend(self, request: HttpRequest, queryset: QuerySet[Tenant]) -> None:
        who, why = actor(request), said(request)
        reason = f"Suspended by {who}: {why}" if why else f"Suspended by {who}."
        for tenant in queryset:
            if brakes.hold_tenant(tenant.pk, reason, who, timezone.now()):
                messages.success(request, f"{tenant} is suspended: nothing of theirs is accepted or sent from now on.")
            else:
                messages.warning(request, f"{tenant} was suspended before: {tenant.suspended_reason}")

    @admin.action(description="Release", permissions=["act"])
    def release(self, request: HttpRequest, queryset: QuerySet[Tenant]) -> None:
        for tenant in queryset:
            self._release(request, tenant)

    def _release(self, request: HttpRequest, tenant: Tenant) -> None:
        count = brakes.release_tenant(tenant.pk, actor(request))
        messages.success(request, f"{tenant} is released; {count} held mails are due now.")


#: the flags of a login in the words of this service: label and what it does
_RIGHTS = {
    "is_active": ("Active", "Off: it opens nothing; its name and what it did stay."),
    "is_staff": ("Panel", "Off: it cannot log in here."),
    "is_superuser": ("Operator", "Sees and does everything, in every tenant."),
}


class MembershipInline(TabularInline):
    """Told here, and changed under Members, where the rules of a tenant's people hold."""

    model = Membership
    extra = 0
    show_change_link = True

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access(request).operator

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(User)
class PeopleAdmin(DjangoUserAdmin, ModelAdmin):
    """Logins; the operator's. Superusers are operators; others see what their memberships say."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    inlines = (MembershipInline,)
    list_display = ("username", "email", "operator", "is_active", "last_login")
    list_filter = ()
    search_fields = ("username__istartswith", "email__istartswith")
    filter_horizontal = ()
    actions = ("forget_second_factor",)
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("Rights", {"fields": ("is_active", "is_staff", "is_superuser")}),
    )

    @display(description="Operator", boolean=True)
    def operator(self, user: User) -> bool:
        return user.is_superuser

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None and db_field.name in _RIGHTS:
            field.label, field.help_text = _RIGHTS[db_field.name]
        return field

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return self.inlines if obj else ()

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"is_staff": True}

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        if not change:
            obj.is_staff = True  # a login of this service is a login to the panel
        super().save_model(request, obj, form, change)

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if request.method == "POST":
            ticked(request, self.opts.pk)
        return super().changelist_view(request, extra_context)

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        self._audit(request, "login.created", obj.username)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        # called for the form of the password, too
        parts = [part.get("changed", {}) for part in message if isinstance(part, dict)]
        if what := ", ".join(name for part in parts for name in part.get("fields", ())):
            self._audit(request, "login.changed", f"{obj.username}: {what}")
        return super().log_change(request, obj, message)

    def _audit(self, request: HttpRequest, action: str, subject: str) -> None:
        AuditEntry.objects.create(tenant_id=None, actor=actor(request)[:200], action=action, subject=subject[:300])

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return False

    def get_actions(self, request: HttpRequest) -> Any:
        # one login at a time, with a page that asks again
        return {name: action for name, action in super().get_actions(request).items() if name != "delete_selected"}

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        people.remove_login(obj.pk, actor(request))

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        try:
            return super().delete_view(request, object_id, extra_context)
        except BadInput as refused:  # the last owner of a tenant
            messages.error(request, refused.faults[0].message)
            return HttpResponseRedirect(reverse("admin:deliveries_user_changelist"))

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
