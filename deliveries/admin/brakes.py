"""Brakes: what was held because too much of it was refused, and what the operator decides."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from unfold.decorators import display

from deliveries.admin.operate import actor
from deliveries.admin.tenant import OperatorAdmin
from deliveries.models import Brake, Suppression
from deliveries.record import brakes


@admin.register(Brake)
class BrakeAdmin(OperatorAdmin):
    """Open ones are decided by the actions: undo (the refusals were false) or confirm (they were true)."""

    list_display = ("at", "word", "site", "tenant", "reason", "provisional", "until", "decided_by")
    list_display_links = ("at",)
    list_select_related = ("tenant",)
    fields = (
        "word", "site", "tenant", "category", "reason", "refused", "provisional", "since", "at", "until", "decided_at",
        "decided_by",
    )  # fmt: skip
    readonly_fields = fields
    actions = ("undo", "confirm")

    @display(description="State", label={"open": "danger", "ended": "warning", "undone": "success"})
    def word(self, brake: Brake) -> str:
        return brake.state

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        of_brake = Suppression.objects.filter(brake_id=OuterRef("pk")).order_by().values("brake_id")
        count = Subquery(of_brake.annotate(n=Count("pk")).values("n"))
        return super().get_queryset(request).annotate(suppressions=Coalesce(count, 0))

    @display(description="Provisional suppressions")
    def provisional(self, brake: Any) -> int:
        return brake.suppressions

    @admin.action(description="Undo: the refusals were false", permissions=["act"])
    def undo(self, request: HttpRequest, queryset: QuerySet[Brake]) -> None:
        for brake in queryset:
            if brake.tenant_id is not None:
                count = brakes.release_tenant(brake.tenant_id, actor(request))
                messages.success(request, f"{brake.tenant} is released; {count} held mails are due now.")
                continue
            done = brakes.undo(brake.pk, actor(request))
            messages.success(
                request,
                f"{brake.site}: {done.removed} suppressions removed, mail goes on. {done.refused} or more mails "
                "bounced meanwhile and are not sent again.",
            )

    @admin.action(description="Confirm: the refusals were true", permissions=["act"])
    def confirm(self, request: HttpRequest, queryset: QuerySet[Brake]) -> None:
        for brake in queryset:
            if brake.tenant_id is not None:
                # nothing of a tenant's is in doubt: it stays held until it is released, which is what undo does
                messages.warning(request, f"{brake.tenant} stays held. Undo releases it; to keep it held do nothing.")
                continue
            count = brakes.confirm(brake.pk, actor(request))
            messages.success(request, f"{brake.site}: {count} suppressions stand, mail goes on.")
