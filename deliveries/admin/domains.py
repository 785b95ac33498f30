"""Sending domains: added, their records with what DNS says of them, verified, given new keys, removed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextInputWidget

from deliveries import domains
from deliveries.admin.access import access
from deliveries.admin.accounts import Suspendable
from deliveries.admin.home import span
from deliveries.admin.operate import actor
from deliveries.errors import BadInput
from deliveries.models import DkimKey, SendingDomain
from deliveries.read import domains as read
from deliveries.routing.published import domain_name
from deliveries.states import REDACT_WORDS, STREAM

#: where a domain stands → its colour
STATES = {
    "verified": "success", "suspended": "danger", "failed": "danger", "temporary failure": "warning",
    "pending": "warning", "not started": "info",
}  # fmt: skip


#: rows of one kind that the page before a removal tells
_MOST_TOLD = 20


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


class MailForm(forms.Form):
    """What holds for the mail of a domain where a mail does not say otherwise."""

    open_tracking = forms.BooleanField(required=False, label="Count opens")
    click_tracking = forms.BooleanField(required=False, label="Count clicks")
    tls = forms.ChoiceField(
        label="Encryption on the way",
        choices=[("may", "where the receiver offers it"), ("must", "or not at all"),
                 ("verify", "with a certificate that names the MX, or not at all")],
    )  # fmt: skip
    unsubscribe_streams = forms.CharField(
        required=False, max_length=4000, label="Streams that one click ends", help_text="With commas: news, offers"
    )

    dkim_ed25519 = forms.BooleanField(
        required=False, label="Sign with Ed25519 as well, once the record of that second key is seen"
    )
    redact_streams = forms.CharField(
        required=False, max_length=4000, label="Streams that are redacted once a mail is finished",
        help_text="With commas: otp: everything, reset: content",
    )  # fmt: skip

    @staticmethod
    def of(domain: SendingDomain) -> dict[str, Any]:
        held = {name: getattr(domain, name) for name in ("open_tracking", "click_tracking", "dkim_ed25519", "tls")}
        redacted = ", ".join(f"{stream}: {what}" for stream, what in domain.redact_streams.items())
        return {
            **held, "unsubscribe_streams": ", ".join(domain.unsubscribe_streams), "redact_streams": redacted,
        }  # fmt: skip

    def clean_unsubscribe_streams(self) -> list[str]:
        named = sorted(set(self.cleaned_data["unsubscribe_streams"].replace(",", " ").split()))
        if wrong := [name for name in named if not STREAM.fullmatch(name)]:
            raise ValidationError(f"{wrong[0]}: a stream has 1 to 64 lower-case ASCII letters, digits, - and _.")
        if len(named) > domains.MOST_STREAMS:
            raise ValidationError(f"At most {domains.MOST_STREAMS} streams.")
        return named

    def clean_redact_streams(self) -> dict[str, str]:
        asked = {}
        for item in filter(None, (text.strip() for text in self.cleaned_data["redact_streams"].split(","))):
            stream, _, word = (part.strip() for part in item.partition(":"))
            if not STREAM.fullmatch(stream) or word not in REDACT_WORDS:
                raise ValidationError(f"{item}: write a stream and {' or '.join(REDACT_WORDS)}, as in otp: everything.")
            asked[stream] = word
        if len(asked) > domains.MOST_STREAMS:
            raise ValidationError(f"At most {domains.MOST_STREAMS} streams.")
        return asked


@admin.register(SendingDomain)
class SendingDomainAdmin(Suspendable):
    list_display = ("name", "state", "verified_at", "created_at")
    search_fields = ("name__startswith",)
    search_help_text = "Beginning of the domain"
    actions = ("verify", "rotate", "trust", "suspend", "release")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # the private keys stay in the database
        public = DkimKey.objects.defer("private_key").order_by("id")
        return super().get_queryset(request).prefetch_related(Prefetch("dkim_keys", queryset=public))

    fields = ("tenant", "name")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ()

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
        """Nobody needs a right of their own for what goes with it: that is the verb's affair."""
        kinds = [(obj, domains.goes_with(obj)) for obj in objs]
        told: list[Any] = []
        counts: dict[str, int] = {}
        for obj, kind in kinds:
            parts = ["its mail that still waits to be sent: it fails"]
            for name, rows in kind.items():
                parts += [f"{name}: {row}" for row in rows[:_MOST_TOLD]]
                parts += [f"{name}: {len(rows) - _MOST_TOLD} more"] if len(rows) > _MOST_TOLD else []
                counts[name] = counts.get(name, 0) + len(rows)
            told += [str(obj), parts]
        return told, {name: count for name, count in counts.items() if count}, set(), []

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        obj.pk = domains.create(obj.tenant_id, obj.name, actor(request))

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        domains.remove(obj.tenant_id, obj.pk, actor(request))

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        return HttpResponseRedirect(reverse("admin:deliveries_sendingdomain_change", args=[obj.pk]))

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        if object_id is not None:
            return self._page(request, object_id)
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except BadInput as refused:  # found by the verb: ours, there already, too many
            messages.error(request, refused.faults[0].message)
            return HttpResponseRedirect(request.get_full_path())

    def _page(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """A domain with its records; POST verb=verify|rotate, or `save` with what holds for its mail."""
        domain = self.get_object(request, object_id)
        if domain is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        may = self.has_act_permission(request, domain)
        form = MailForm(request.POST if request.POST.get("verb") == "save" else None, initial=MailForm.of(domain))
        if request.method == "POST":
            if not may:
                raise PermissionDenied
            if self._order(request, domain, form):
                return HttpResponseRedirect(request.get_full_path())
        now = timezone.now()
        context = {
            **self.admin_site.each_context(request), "opts": self.opts, "title": domain.name, "domain": domain,
            "state": self.state(domain), "tone": STATES[self.state(domain)], "may_act": may, "form": form,
            "records": read.shown(domain)["records"], "several": access(request).several,
            "has_view_permission": True,
            "checked": span(now, domain.checked_at) if domain.checked_at else "", "next_check": _next(domain, now),
            "list_url": reverse("admin:deliveries_sendingdomain_changelist"),
            "delete_url": reverse("admin:deliveries_sendingdomain_delete", args=[domain.pk]),
        }  # fmt: skip
        return TemplateResponse(request, "panel/domain.html", context)

    def _order(self, request: HttpRequest, domain: SendingDomain, form: MailForm) -> bool:
        """False where what was typed has to be shown again."""
        who = actor(request)
        match request.POST.get("verb"):
            case "verify":
                self._verify(request, domain)
            case "rotate":
                self._rotate(request, domain)
            case "save" if not form.is_valid():
                return False
            case "save":
                try:
                    domains.update(domain.tenant_id, domain.pk, who, **form.cleaned_data)
                except BadInput as refused:  # found by the verb: no new key of it would be seen
                    form.add_error(refused.faults[0].field, refused.faults[0].message)
                    return False
                messages.success(request, "Saved: it holds for mail that is accepted from now on.")
            case _:
                messages.error(request, "No such action.")
        return True

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        try:
            return super().delete_view(request, object_id, extra_context)
        except BadInput as refused:  # suspended
            messages.error(request, refused.faults[0].message)
            return HttpResponseRedirect(reverse("admin:deliveries_sendingdomain_changelist"))

    @display(description="State", label=STATES)
    def state(self, domain: SendingDomain) -> str:
        return "suspended" if domain.suspended_at else domain.status.replace("_", " ")

    @admin.action(description="Look at the records now", permissions=["act"])
    def verify(self, request: HttpRequest, queryset: QuerySet[SendingDomain]) -> None:
        for domain in self.acting(request, queryset):
            self._verify(request, domain)

    def _verify(self, request: HttpRequest, domain: SendingDomain) -> None:
        domains.verify(domain.tenant_id, domain.pk, actor(request))
        domain = SendingDomain.objects.get(pk=domain.pk)
        say = messages.success if domain.verified_at else messages.warning
        say(request, f"{domain} is {self.state(domain)}.")

    @admin.action(description="New DKIM key", permissions=["act"])
    def rotate(self, request: HttpRequest, queryset: QuerySet[SendingDomain]) -> None:
        for domain in self.acting(request, queryset):
            self._rotate(request, domain)

    def _rotate(self, request: HttpRequest, domain: SendingDomain) -> None:
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


def _next(domain: SendingDomain, now: datetime) -> str:
    due = domain.next_check_at
    return "" if due is None else "now" if due <= now else f"in {span(due, now)}"
