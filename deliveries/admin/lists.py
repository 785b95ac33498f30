"""Inbound mail, destinations, sites, the audit log."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.db.models.functions import Length
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import display

from deliveries.admin.access import access
from deliveries.admin.keyset import Rows
from deliveries.admin.messages import PERIOD_WORDS, PERIODS
from deliveries.admin.operate import actor, said
from deliveries.admin.tenant import OperatorAdmin, TenantAdmin
from deliveries.models import ApiKey, AuditEntry, Destination, InboundMessage, OperatorKey, Site
from deliveries.models.fields import uuid7_floor
from deliveries.models.queue import NEVER
from deliveries.record import sites
from deliveries.states import Lane

#: octets of an inbound mail's source shown on its page
MAX_SOURCE = 256 * 1024
#: sites and destinations on their one page
MAX_SITES = 200


class InboundFilter(admin.SimpleListFilter):
    title = parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(s.value, str(s.label)) for s in InboundMessage.State]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(state=self.value()) if self.value() else queryset


class WhenFilter(admin.SimpleListFilter):
    title = "in the last"
    parameter_name = "period"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return PERIOD_WORDS

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        # ids are UUIDv7: a time is an id
        since_s = PERIODS.get(self.value() or "")
        return queryset.filter(pk__gte=uuid7_floor(int((time.time() - since_s) * 1000))) if since_s else queryset


@admin.register(InboundMessage)
class InboundMessageAdmin(TenantAdmin):
    """What came back to us. Mail that matched nobody belongs to the operator."""

    list_display = ("received_at", "state_word", "kind", "reverse_path", "forward_path", "short_note")
    list_display_links = ("received_at", "forward_path")
    list_filter = (InboundFilter, WhenFilter)  # no index knows paths: a time bounds the search
    search_fields = ("reverse_path__istartswith", "forward_path__istartswith")
    search_help_text = "From or to whom in the envelope, or its beginning"
    fields = (
        "received_at", "state_word", "kind", "note", "peer", "helo", "reverse_path", "forward_path", "tries",
        "size", "source",
    )  # fmt: skip
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("octets").annotate(octets_length=Length("octets"))

    @display(
        description="State",
        label={"acted": "success", "waiting": "info", "unmatched": "warning", "unreadable": "danger"},
    )
    def state_word(self, mail: InboundMessage) -> str:
        return mail.state

    @display(description="Note")
    def short_note(self, mail: InboundMessage) -> str:
        return mail.note if len(mail.note) <= 80 else mail.note[:79] + "…"

    @display(description="Octets")
    def size(self, mail: Any) -> int:
        return mail.octets_length or 0

    @display(description="Source")
    def source(self, mail: InboundMessage) -> str:
        octets = bytes(mail.octets)
        cut = f"\n… ({len(octets) - MAX_SOURCE} more octets)" if len(octets) > MAX_SOURCE else ""
        text = octets[:MAX_SOURCE].decode("utf-8", "replace").replace("\r\n", "\n")
        return format_html('<pre class="panel-pre">{}</pre>', text + cut)


@admin.register(Destination)
class DestinationAdmin(OperatorAdmin):
    """Lane × site: when its next mail is due."""

    list_display = ("name", "priority", "due")
    fields = list_display
    readonly_fields = fields
    search_fields = ("name__startswith",)
    search_help_text = "Beginning of the destination"
    ordering = ("name",)

    def keyset_rows(self, request: HttpRequest, cl: Any, after: Any, before: Any) -> Rows:
        # ids are numbers; what is due first stands first, and nobody reads further than that
        rows = list(cl.queryset.order_by("lane", "next_due")[:MAX_SITES])
        return Rows(rows, None, None, None)

    @display(description="Priority")
    def priority(self, destination: Destination) -> str:
        return Lane(destination.lane).name.lower()

    @display(description="Next due (UTC)")
    def due(self, destination: Destination) -> str:
        return "nothing waits" if destination.next_due >= NEVER else f"{destination.next_due:%Y-%m-%d %H:%M:%S}"


@admin.register(Site)
class SiteAdmin(OperatorAdmin):
    """How each receiver takes our mail: what rests, until when and why stands first."""

    list_display = ("name", "state", "rests_until", "places", "most_places", "reason", "last_words")
    search_fields = ("name__startswith",)
    search_help_text = "Beginning of the site's name"
    actions = ("pause", "resume")
    with_reason = True

    def keyset_rows(self, request: HttpRequest, cl: Any, after: Any, before: Any) -> Rows:
        # by site_resting, then by the primary key; the rest is found by search
        resting = list(cl.queryset.filter(suspended_until__isnull=False).order_by("-suspended_until")[:MAX_SITES])
        others = list(cl.queryset.filter(suspended_until=None).order_by("name")[:MAX_SITES])
        return Rows([*resting, *others], None, None, None)

    @display(
        description="State", label={"rests": "warning", "slowed": "warning", "paused": "danger", "well": "success"}
    )
    def state(self, site: Site) -> str:
        if site.paused_by:
            return "paused"
        if site.suspended_until and site.suspended_until > timezone.now():
            return "rests"
        return "slowed" if site.strikes or site.misses else "well"

    @display(description="Rests until")
    def rests_until(self, site: Site) -> str:
        if site.suspended_until is None:
            return "-"
        return "it is resumed" if site.suspended_until >= NEVER else f"{site.suspended_until:%Y-%m-%d %H:%M:%S}"

    @admin.action(description="Pause", permissions=["act"])
    def pause(self, request: HttpRequest, queryset: QuerySet[Site]) -> None:
        who, why = actor(request), said(request)
        for name in queryset.values_list("name", flat=True):
            sites.pause_site(name, f"Paused by {who}: {why}" if why else "", who)
        messages.success(request, "Paused: mail for there waits until a person resumes it.")

    @admin.action(description="Resume", permissions=["act"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Site]) -> None:
        for name in queryset.values_list("name", flat=True):
            sites.resume_site(name, actor(request))
        messages.success(request, "Resumed: what waited for there is due as before.")

    @display(description="Last reply")
    def last_words(self, site: Site) -> str:
        return site.last_reply if len(site.last_reply) <= 100 else site.last_reply[:99] + "…"


@admin.register(AuditEntry)
class AuditEntryAdmin(TenantAdmin):
    """Who did what. Programs stand in it by the id of their key, which is shown by its name."""

    list_display = ("at", "who", "action", "subject")
    list_filter = (WhenFilter,)
    search_fields = ("actor__istartswith", "action__istartswith", "subject__icontains")
    search_help_text = "Who (a login, key:), what (domain., suppression.removed), or a part of the subject"
    fields = ("at", "who", "action", "subject", "tenant")
    readonly_fields = ("who",)

    def keyset_rows(self, request: HttpRequest, cl: Any, after: Any, before: Any) -> Rows:
        rows = super().keyset_rows(request, cl, after, before)
        self._name(request, rows.objects)
        return rows

    @display(description="Who")
    def who(self, entry: Any) -> str:
        return f"{entry.key_name} ({entry.actor})" if getattr(entry, "key_name", "") else entry.actor

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        entry = super().get_object(request, object_id, from_field)
        if entry is not None:
            self._name(request, [entry])
        return entry

    def _name(self, request: HttpRequest, entries: list[Any]) -> None:
        """Look the keys up; those of the operator's programs are nobody else's to know."""
        asked: dict[str, list[UUID]] = {"key": [], "operator_key": []}
        for entry in entries:
            kind, _, ident = entry.actor.partition(":")
            with suppress(KeyError, ValueError):  # a person's login
                asked[kind].append(UUID(ident))
        keys = ApiKey.objects.filter(id__in=asked["key"])
        known = {(f"key:{pk}", tenant): name for pk, tenant, name in keys.values_list("id", "tenant_id", "name")}
        names = {}
        if access(request).operator:
            theirs = OperatorKey.objects.filter(id__in=asked["operator_key"]).values_list("id", "name")
            names = {f"operator_key:{pk}": name for pk, name in theirs}
        for entry in entries:
            entry.key_name = known.get((entry.actor, entry.tenant_id)) or names.get(entry.actor, "")
