"""The two kinds of model admin: TenantAdmin (a member sees only the own tenants') and OperatorAdmin.

Models hold facts: nothing is changed by a form unless the admin says so, and then through a verb.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import quote
from django.core.exceptions import ValidationError
from django.db.models import Field, ForeignKey, Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import capfirst
from unfold.admin import ModelAdmin, checkbox
from unfold.decorators import display

from deliveries.admin.access import RIGHTS, Rights, access
from deliveries.admin.keyset import KeysetChangeList, Rows, keyset_rows
from deliveries.models import AuditEntry, Tenant
from deliveries.read.panel import COUNT_LIMIT

#: tenants and domains offered in a filter; more are found by search
MAX_CHOICES = 200


class TenantFilter(admin.SimpleListFilter):
    """Whose rows; only where the person sees several tenants."""

    title = "tenant"
    parameter_name = "tenant"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        own = access(request)
        if not own.several:
            return []
        rows = Tenant.objects.order_by("name")
        if own.tenants is not None:
            rows = rows.filter(id__in=own.tenants)
        return [(str(pk), name) for pk, name in rows.values_list("id", "name")[:MAX_CHOICES]]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        if not value:
            return queryset
        return queryset.filter(tenant_id=as_uuid(value))


def as_uuid(value: str) -> UUID:
    """The id in a query string; a wrong one is the person's typing error, which the list answers kindly."""
    try:
        return UUID(value)
    except ValueError as e:
        raise admin.options.IncorrectLookupParameters(e) from e


#: a row's box with a hole for its key: made by the widget's template once, not fifty times a page
_HOLE = "00000000-row"
_BOX = checkbox.render(ACTION_CHECKBOX_NAME, _HOLE)


def ticked(request: HttpRequest, key: Field[Any, Any]) -> None:
    """Leave to an action the rows that the person saw and ticked, never a table of unknown size; and what is a key."""
    data = request.POST.copy()
    data["select_across"] = "0"
    data.setlist(ACTION_CHECKBOX_NAME, [k for k in map(str, data.getlist(ACTION_CHECKBOX_NAME)) if _is_key(k, key)])
    request.POST = data  # type: ignore[assignment]


def _is_key(text: str, key: Field[Any, Any]) -> bool:
    try:
        key.to_python(text)
    except ValidationError:
        return False
    return "\0" not in text


class ReadOnly(ModelAdmin):
    """No form writes; lists go by keyset; only declared filters are read from the address."""

    change_list_template = "panel/list.html"
    change_form_outer_before_template = "panel/orders.html"
    #: whether an order on a row's page takes a reason in words, `reason` in the form
    with_reason = False
    #: actions that nothing takes back; on a row's page, where one press is enough, they are asked about once more
    irrevocable: tuple[str, ...] = ("remove", "revoke", "rotate")
    list_filter_sheet = True
    list_disable_select_all = True
    list_per_page = 50
    show_full_result_count = False
    sortable_by: Any = ()
    ordering: Any = ("-pk",)
    show_facets = admin.ShowFacets.NEVER

    @display(description=ModelAdmin.action_checkbox.short_description)
    def action_checkbox(self, obj: Model) -> str:
        return format_html(_BOX.replace("{", "{{").replace("}", "}}").replace(_HOLE, "{}"), obj.pk)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return KeysetChangeList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        # no key of Postgres holds a NUL
        return None if "\0" in object_id else super().get_object(request, object_id, from_field)

    def get_paginator(self, request: HttpRequest, queryset: Any, *args: Any, **kwargs: Any) -> Any:
        # lists have their own; Django's autocomplete view counts what there is
        return super().get_paginator(request, queryset[:COUNT_LIMIT], *args, **kwargs)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        # one button: a secret is shown by the next page, and a row's own page is where its actions are
        only = {"show_save_and_add_another": False, "show_save_and_continue": False}
        orders = {"orders": self._orders(request, kwargs.get("obj")), "with_reason": self.with_reason}
        return super().render_change_form(request, {**context, **only, **orders}, *args, **kwargs)

    def _orders(self, request: HttpRequest, obj: Any) -> list[tuple[str, str, bool]]:
        """The list's actions that the person may do to this row: who found it here need not seek and tick it there."""
        if obj is None:
            return []

        def may(order: Any) -> bool:
            asked = getattr(order, "allowed_permissions", ())
            return all(getattr(self, f"has_{name}_permission")(request, obj) for name in asked)

        actions = self.get_actions(request).values()
        return [(name, words, name in self.irrevocable) for order, name, words in actions if may(order)]

    def keyset_rows(self, request: HttpRequest, cl: KeysetChangeList, after: UUID | None, before: UUID | None) -> Rows:
        """One page of the list; huge tables override it with a read model."""
        return keyset_rows(cl.queryset, self.list_per_page, after, before)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        # Django would filter by any column that the address names, secrets included
        declared = {f.parameter_name for f in self.get_list_filter(request) if hasattr(f, "parameter_name")}
        return lookup in declared

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if request.method == "POST":
            ticked(request, self.opts.pk)
        context = {"title": capfirst(self.opts.verbose_name_plural), **(extra_context or {})}
        answer = super().changelist_view(request, context)
        if isinstance(answer, HttpResponseRedirect) and "on_page" in request.POST:
            # ordered on the page of a row, and told there, unless the order took the row away
            row = self.get_object(request, request.POST["on_page"])
            if row is not None:
                at = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[quote(row.pk)])
                return HttpResponseRedirect(at)
        return answer

    def audit(self, request: HttpRequest, action: str, subject: str, tenant_id: UUID | None) -> None:
        """Who did what; for the verbs that do not write it themselves."""
        AuditEntry.objects.create(
            tenant_id=tenant_id, actor=request.user.get_username()[:200], action=action[:60], subject=subject[:300]
        )


class TenantAdmin(ReadOnly):
    """Rows of tenants. `tenant_field` is the path from the model to the tenant's id."""

    tenant_field = "tenant_id"

    @property
    def rights(self) -> Rights:
        return RIGHTS[self.model]

    def tenant_of(self, obj: Model) -> UUID | None:
        value: Any = obj
        for name in self.tenant_field.split("__"):
            value = getattr(value, name)
        return value if isinstance(value, UUID) else None

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        tenants = access(request).tenants_with(self.rights.reads)
        return rows if tenants is None else rows.filter(**{f"{self.tenant_field}__in": tenants})

    def acting(self, request: HttpRequest, queryset: QuerySet[Any], field: str = "") -> QuerySet[Any]:
        """Those of `queryset` on which the person may act, not only look; `field` where it is of another model."""
        tenants = access(request).tenants_with(self.rights.acts)
        return queryset if tenants is None else queryset.filter(**{f"{field or self.tenant_field}__in": tenants})

    def has_module_permission(self, request: HttpRequest) -> bool:
        return access(request).may(self.rights.reads)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        if obj is None:
            return self.has_module_permission(request)
        tenant_id = self.tenant_of(obj)
        own = access(request)
        return own.operator or (tenant_id is not None and own.may(self.rights.reads, tenant_id))

    def has_act_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """The permission "act" of actions: a button is shown to whom RIGHTS lets act, and taken from no other."""
        own = access(request)
        if obj is None or isinstance(obj, str):
            return own.may(self.rights.acts)
        tenant_id = self.tenant_of(obj)  # what has none is the operator's
        return own.operator or (tenant_id is not None and own.may(self.rights.acts, tenant_id))

    def formfield_for_foreignkey(self, db_field: ForeignKey, request: HttpRequest, **kwargs: Any) -> Any:
        remote = db_field.remote_field.model
        if remote is Tenant:
            tenants = access(request).tenants_with(self.rights.acts)
            kwargs["queryset"] = Tenant.objects.all() if tenants is None else Tenant.objects.filter(id__in=tenants)
            if tenants is not None and len(tenants) == 1:
                kwargs["initial"] = tenants[0]
        else:
            other = self.admin_site._registry.get(remote)
            if isinstance(other, TenantAdmin):
                # whoever reads a tenant's rows may not hang another's on them
                kwargs["queryset"] = self.acting(request, other.get_queryset(request), other.tenant_field)
            else:
                kwargs["queryset"] = remote._default_manager.none()
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """On the page of a row the tenant stands as a name: its own page is the operator's."""
        sets = super().get_fieldsets(request, obj)
        if obj is None or access(request).operator:
            return sets
        shown = ["tenant_name"] if access(request).several else []
        return [
            (title, {**options, "fields": [f for name in options["fields"] for f in _instead(name, shown)]})
            for title, options in sets
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return (*super().get_readonly_fields(request, obj), "tenant_name")

    @display(description="Tenant")
    def tenant_name(self, obj: Any) -> str:
        return str(obj.tenant or "")

    def get_list_display(self, request: HttpRequest) -> Any:
        shown = list(super().get_list_display(request))
        if access(request).several and "tenant" not in shown and self._has_tenant_column():
            shown.append("tenant")
        return shown

    def get_list_select_related(self, request: HttpRequest) -> Any:
        related = super().get_list_select_related(request)
        related = list(related) if isinstance(related, (list, tuple)) else []
        if access(request).several and self._has_tenant_column():
            related.append("tenant")
        return related or False

    def get_list_filter(self, request: Any) -> Any:
        declared = list(super().get_list_filter(request))
        if request is not None and self._has_tenant_column() and access(request).several:
            declared.append(TenantFilter)
        return declared

    def _has_tenant_column(self) -> bool:
        return any(f.name == "tenant" for f in self.opts.concrete_fields)


def _instead(name: Any, shown: list[str]) -> list[Any]:
    return shown if name == "tenant" else [name]


class OperatorAdmin(ReadOnly):
    """What belongs to the installation; members of tenants do not know that it exists."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return access(request).operator

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access(request).operator

    def has_act_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return access(request).operator
