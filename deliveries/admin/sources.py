"""IP pools, the addresses of the worker hosts, and whose mail goes by which pool: the operator's."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from unfold.decorators import display

from deliveries.admin.incoming import clean_host
from deliveries.admin.keyset import Rows
from deliveries.admin.tenant import OperatorAdmin
from deliveries.models import PoolRule, SourceAddress, SourcePool, SourceRest
from deliveries.models.sql import clock
from deliveries.read import pools

#: rows of one page; nobody has more
MAX_ROWS = 500


class _Kept(OperatorAdmin):
    """Rows that the operator makes, changes and removes; each change is audited."""

    word = ""
    actions: Any = ("remove",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_act_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_act_permission(request, obj)

    def keyset_rows(self, request: HttpRequest, cl: Any, after: Any, before: Any) -> Rows:
        return Rows(list(cl.queryset[:MAX_ROWS]), None, None, None)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs["queryset"] = db_field.remote_field.model._default_manager.order_by("name")
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        # workers count in the same row: what the person left alone is not written
        obj.save(update_fields=form.changed_data if change else None)
        self.audit(request, f"{self.word}.{'changed' if change else 'added'}", str(obj), None)

    @admin.action(description="Remove", permissions=["act"])
    def remove(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        rows = list(queryset)
        for row in rows:
            self.audit(request, f"{self.word}.removed", str(row), None)
            row.delete()
        messages.success(request, f"{len(rows)} removed.")


class PoolForm(forms.ModelForm):
    class Meta:
        model = SourcePool
        fields = ("name", "overflow")

    def clean_name(self) -> str:
        name: str = " ".join(self.cleaned_data["name"].split())
        if not name.isprintable():
            raise forms.ValidationError("Control characters are not possible here.")
        return name

    def clean_overflow(self) -> SourcePool | None:
        at, seen = self.cleaned_data["overflow"], {self.instance.pk}
        while at is not None:
            if at.pk in seen:
                raise forms.ValidationError("The overflows would run in a circle.")
            seen.add(at.pk)
            at = at.overflow
        return self.cleaned_data["overflow"]


@admin.register(SourcePool)
class SourcePoolAdmin(_Kept):
    """Each with how it stands now, and why nothing leaves by it."""

    word = "pool"
    form = PoolForm
    list_display = ("name", "state", "its_addresses", "overflow", "why")
    list_select_related = ("overflow",)
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).prefetch_related("addresses")

    def keyset_rows(self, request: HttpRequest, cl: Any, after: Any, before: Any) -> Rows:
        rows: list[Any] = super().keyset_rows(request, cl, after, before).objects
        standing = {one.name: one for one in pools.standing(clock())}
        # one that was made in between is shown by the next look
        return Rows([row for row in rows if _stands(row, standing)], None, None, None)

    @display(description="State", label={"sends": "success", "overflows": "warning", "waits": "danger"})
    def state(self, pool: Any) -> str:
        return pool.standing.word

    @display(description="Addresses")
    def its_addresses(self, pool: SourcePool) -> str:
        return ", ".join(a.address for a in pool.addresses.all()) or "–"

    @display(description="Why")
    def why(self, pool: Any) -> str:
        return pool.standing.why


def _stands(pool: Any, standing: dict[str, pools.Standing]) -> bool:
    pool.standing = standing.get(pool.name)
    return pool.standing is not None


class AddressForm(forms.ModelForm):
    class Meta:
        model = SourceAddress
        fields = ("address", "pool", "helo", "warm_from", "rests_until", "rests_why")

    def clean_helo(self) -> str:
        helo = self.cleaned_data["helo"]
        if not helo:
            return ""
        name = clean_host(helo)
        if "." not in name or ":" in name:
            raise forms.ValidationError("A whole host name, such as out1.example.com.")
        return name

    def clean_rests_why(self) -> str:
        why: str = " ".join(self.cleaned_data["rests_why"].split())
        if not why.isprintable():
            raise forms.ValidationError("Control characters are not possible here.")
        return why


@admin.register(SourceAddress)
class SourceAddressAdmin(_Kept):
    """Hosts write down what SOURCE_IPS gives them; here an address gets its pool, its name, its warm-up, a rest."""

    word = "address"
    form = AddressForm
    list_display = (
        "address", "state", "pool", "helo", "today", "rests_for", "seen_on", "seen_at", "rests_until", "rests_why",
    )  # fmt: skip
    actions = ("remove", "end_rests")
    list_select_related = ("pool",)
    ordering = ("address",)
    readonly_fields = ("seen_on", "seen_at")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # a host that has it says so

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ("address", *self.readonly_fields)

    @display(
        description="State", label={"sends": "success", "rests": "warning", "used up": "warning", "gone": "danger"}
    )
    def state(self, row: Any) -> str:
        return pools.word_of(row, row.looked_at)

    def keyset_rows(self, request: HttpRequest, cl: Any, after: Any, before: Any) -> Rows:
        rows: list[Any] = super().keyset_rows(request, cl, after, before).objects
        resting, now = pools.resting(), clock()
        for row in rows:
            row.looked_at, row.resting = now, resting.get(row.address, [])
        return Rows(rows, None, None, None)

    @display(description="Rests for")
    def rests_for(self, row: Any) -> str:
        return ", ".join(f"{rest.site} until {rest.until:%F %R} UTC: {rest.why}" for rest in row.resting)

    @admin.action(description="End rests for receivers", permissions=["act"])
    def end_rests(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        found = SourceRest.objects.filter(address__in=[row.address for row in queryset], until__gt=Now())
        for rest in found:
            self.audit(request, "address.rest_ended", str(rest), None)
        messages.success(request, f"{found.update(until=Now())} rests ended.")

    @display(description="Today")
    def today(self, row: Any) -> str:
        return pools.today_of(row, row.looked_at)


@admin.register(PoolRule)
class PoolRuleAdmin(_Kept):
    """The nearest rule counts: tenant and kind, then tenant, then kind, then all. What none names has no pool."""

    word = "rule"
    list_display = ("tenant_word", "kind_word", "pool")
    list_display_links = ("tenant_word", "kind_word")
    list_select_related = ("tenant", "pool")
    fields = ("tenant", "kind", "pool")
    ordering = ("tenant__name", "kind")

    @display(description="Tenant")
    def tenant_word(self, rule: PoolRule) -> str:
        return str(rule.tenant or "every tenant")

    @display(description="Mail")
    def kind_word(self, rule: PoolRule) -> str:
        return rule.get_kind_display()
