"""Webhook endpoints, what they were told, and every try."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from unfold.decorators import display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from deliveries import endpoints
from deliveries.admin.accounts import secret_page
from deliveries.admin.operate import actor
from deliveries.admin.tenant import TenantAdmin, as_uuid
from deliveries.errors import BadInput, Fault
from deliveries.models import WebhookDelivery, WebhookEndpoint, WebhookTry
from deliveries.notify import ask, replay
from deliveries.states import EventType

#: how a post is shown in lists
_STATUS = {"success": "success", "pending": "info", "attempting": "warning", "failed": "danger"}
#: posts shown on the page of an endpoint, with their last tries
MAX_POSTS = 30


class EndpointForm(forms.ModelForm):
    events = forms.MultipleChoiceField(
        choices=[(e.value, e.value) for e in EventType],
        required=False,
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="None chosen: all but the opt-in ones.",
    )

    #: what the verb found: the URL's address, the number of endpoints
    refused: Sequence[Fault] = ()

    class Meta:
        model = WebhookEndpoint
        fields = ("tenant", "url", "format", "events")
        labels = {"url": "URL"}
        help_texts = {
            "url": "A user and a password in it (https://user:password@…) are kept apart, and sent as Basic "
            "authentication.",
        }

    def clean(self) -> dict[str, Any] | None:
        data = super().clean() or self.cleaned_data
        for fault in self.refused:
            self.add_error("url" if fault.field == "endpoint" else None, fault.message)
        return data


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(TenantAdmin):
    list_display = ("address", "format", "state", "failing_since", "created_at")
    change_form_outer_after_template = "panel/endpoint_posts.html"
    actions = ("send_test", "send_failed", "switch_on", "switch_off", "rotate", "remove")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("secret", "previous_secret", "credentials")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return ("tenant", "url", "format", "events")
        about = ("disabled_reason", "failing_since", "previous_until", "created_at")
        return ("address", "password", "format", "tenant", "state", "told_of", *about)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return (*self.get_fields(request, obj), "tenant_name") if obj else ()

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is None:
            kwargs["form"] = EndpointForm
        form = super().get_form(request, obj, change, **kwargs)
        form.refused = getattr(request, "_refused", ())  # the class is made anew for each request
        return form

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_act_permission(request)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        made, secret = endpoints.create(obj.tenant_id, obj.url, obj.events, actor(request), obj.format)
        obj.pk, obj.url = made.pk, made.url
        request._secret = secret  # type: ignore[attr-defined]

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        back = reverse("admin:deliveries_webhookendpoint_changelist")
        secret = request._secret  # type: ignore[attr-defined]
        what = "Public key" if obj.format == WebhookEndpoint.Format.SENDGRID else "Signing secret"
        return secret_page(request, self.admin_site, what, obj.url, secret, back)

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        context = dict(extra_context or {})
        if object_id is None:
            try:
                return super().changeform_view(request, object_id, form_url, context)
            except BadInput as refused:
                # once more, for the form with what was typed and what is wrong with it
                request._refused = refused.faults  # type: ignore[attr-defined]
                return super().changeform_view(request, object_id, form_url, context)
        if object_id:
            endpoint = self.get_object(request, object_id)
            if endpoint is not None:
                log = WebhookTry.objects.order_by("-id")
                context["posts"] = list(
                    WebhookDelivery.objects.filter(endpoint_id=endpoint.pk)
                    .defer("body")
                    .order_by("-id")
                    .prefetch_related(Prefetch("log", queryset=log))[:MAX_POSTS]
                )
        return super().changeform_view(request, object_id, form_url, context)

    @display(description="State", label={"on": "success", "failing": "warning", "off": "danger"})
    def state(self, endpoint: WebhookEndpoint) -> str:
        if not endpoint.enabled:
            return "off"
        return "failing" if endpoint.failing_since else "on"

    @admin.action(description="Send a test", permissions=["act"])
    def send_test(self, request: HttpRequest, queryset: QuerySet[WebhookEndpoint]) -> None:
        self._each(request, queryset, lambda e: bool(ask.test(e.tenant_id, e.pk, actor(request))), "will hear a test")

    @admin.action(description="Send again all that failed", permissions=["act"])
    def send_failed(self, request: HttpRequest, queryset: QuerySet[WebhookEndpoint]) -> None:
        def again(endpoint: WebhookEndpoint) -> bool:
            done = ask.replay_failed(endpoint.tenant_id, endpoint.pk, actor(request))
            if done is None:
                return False
            more = " There are more: choose this again once they are told." if done.more else ""
            messages.info(request, f"{endpoint.url}: {done.count} will be sent again, with the same ids.{more}")
            return True

        self._each(request, queryset, again, "looked through for what failed")

    @admin.action(description="Switch on", permissions=["act"])
    def switch_on(self, request: HttpRequest, queryset: QuerySet[WebhookEndpoint]) -> None:
        self._switch(request, queryset, True)

    @admin.action(description="Switch off", permissions=["act"])
    def switch_off(self, request: HttpRequest, queryset: QuerySet[WebhookEndpoint]) -> None:
        self._switch(request, queryset, False)

    @admin.action(description="New signing secret", permissions=["act"])
    def rotate(self, request: HttpRequest, queryset: QuerySet[WebhookEndpoint]) -> HttpResponse | None:
        rows = list(self.acting(request, queryset)[:2])
        if len(rows) != 1:
            messages.warning(request, "Choose one: its new secret is shown on the next page, once.")
            return None
        secret = endpoints.rotate(rows[0].tenant_id, rows[0].pk, actor(request))
        if secret is None:  # removed meanwhile
            return None
        back = reverse("admin:deliveries_webhookendpoint_change", args=(rows[0].pk,))
        return secret_page(request, self.admin_site, "New signing secret", rows[0].url, secret, back)

    def _switch(self, request: HttpRequest, queryset: QuerySet[WebhookEndpoint], on: bool) -> None:
        def change(endpoint: WebhookEndpoint) -> bool:
            return endpoints.update(endpoint.tenant_id, endpoint.pk, actor(request), enabled=on)

        self._each(request, queryset, change, f"switched {'on' if on else 'off'}")

    def _each(
        self,
        request: HttpRequest,
        queryset: QuerySet[WebhookEndpoint],
        verb: Callable[[WebhookEndpoint], bool],
        done: str,
    ) -> None:
        count = 0
        for endpoint in self.acting(request, queryset):
            try:
                count += verb(endpoint)
            except BadInput as refused:
                messages.error(request, f"{endpoint.url}: {refused.faults[0].message}")
        if count:
            messages.success(request, f"{count} {done}.")

    @admin.action(description="Remove", permissions=["act"])
    def remove(self, request: HttpRequest, queryset: QuerySet[WebhookEndpoint]) -> None:
        rows = list(self.acting(request, queryset).values_list("tenant_id", "id"))
        count = sum(endpoints.remove(tenant_id, pk, actor(request)) for tenant_id, pk in rows)
        messages.success(request, f"{count} removed. What still waited for them is not sent any more.")

    @display(description="URL")
    def address(self, endpoint: WebhookEndpoint) -> str:
        # as text: a click would not be a signed post
        return endpoint.url

    @display(description="Basic authentication")
    def password(self, endpoint: WebhookEndpoint) -> str:
        return "no" if endpoint.credentials is None else "with the user and password that were given"

    @display(description="Events")
    def told_of(self, endpoint: WebhookEndpoint) -> str:
        return ", ".join(endpoint.events) or "all but the opt-in ones"


class StateFilter(admin.SimpleListFilter):
    title, parameter_name = "status", "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("pending", "pending or attempting"), ("delivered", "success"), ("failed", "failed")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(state=self.value()) if self.value() else queryset


class EndpointFilter(admin.SimpleListFilter):
    title = parameter_name = "endpoint"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        other = model_admin.admin_site._registry[WebhookEndpoint]
        return [(str(e.pk), e.url) for e in other.get_queryset(request)[:50]]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value()
        return queryset.filter(endpoint_id=as_uuid(value)) if value else queryset


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(TenantAdmin):
    list_display = ("created_at", "type", "state_word", "tries", "endpoint")
    list_filter = (EndpointFilter, StateFilter)
    list_select_related = ("endpoint",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return (
            super()
            .get_queryset(request)
            .defer("body", "endpoint__secret", "endpoint__previous_secret", "endpoint__credentials")
        )

    fields = ("type", "endpoint", "state_word", "tries", "next_try_at", "created_at", "event_id", "signed_body")
    readonly_fields = fields
    change_form_outer_after_template = "panel/post_tries.html"
    actions = ("send_again",)

    @display(description="Status", label=_STATUS)
    def state_word(self, row: WebhookDelivery) -> str:
        return row.status

    @display(description="Body, as it is signed")
    def signed_body(self, row: WebhookDelivery) -> str:
        return format_html('<pre class="panel-pre">{}</pre>', row.body) if row.body else "written at the first try"

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        context = dict(extra_context or {})
        post = self.get_object(request, object_id) if object_id else None
        if post is not None:
            context["tries"] = list(WebhookTry.objects.filter(delivery_id=post.pk).order_by("-id")[:100])
        return super().changeform_view(request, object_id, form_url, context)

    @admin.action(description="Send again", permissions=["act"])
    def send_again(self, request: HttpRequest, queryset: QuerySet[WebhookDelivery]) -> None:
        rows = list(self.acting(request, queryset).order_by())
        count = replay([row.pk for row in rows])
        for row in rows:
            self.audit(request, "webhook.replayed", f"{row.pk} {row.type}", row.tenant_id)
        if count:
            messages.success(request, f"{count} will be sent again, with the same id and body.")
        else:
            messages.warning(request, "Nothing to send: what was chosen still waits, or its endpoint is off.")
