"""Templates: the draft edited, looked at with sample data, published, and sent as a test."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextInputWidget

from deliveries import templating
from deliveries.accept import Draft, accept
from deliveries.accept.repeat import key_of
from deliveries.admin import preview
from deliveries.admin.access import Role, access
from deliveries.admin.operate import actor
from deliveries.admin.tenant import TenantAdmin
from deliveries.errors import BadInput, KeyRefused, OverQuota
from deliveries.mime.address import parse_address
from deliveries.mime.template import Dialect
from deliveries.mime.template.variables import MOST, TYPES, Variable, key_fault
from deliveries.models import SendingDomain, Template
from deliveries.states import REDACT_WORDS, Redact

#: characters of a part in the form; the API takes more
MAX_PART = 500_000
_PARTS = ("name", "alias", "sender", "subject", "html", "text", "language", "redact")


class NewTemplate(forms.ModelForm):
    name = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget, help_text="For people: Order confirmed.")

    class Meta:
        model = Template
        fields = ("tenant", "name")


@admin.register(Template)
class TemplateAdmin(TenantAdmin):
    list_display = ("name", "alias", "state", "updated_at")
    search_fields = ("name__istartswith", "alias__startswith")
    search_help_text = "Beginning of the name or the alias"
    form = NewTemplate
    fields = ("tenant", "name")

    def get_queryset(self, request: HttpRequest) -> Any:
        rows = super().get_queryset(request)
        return rows if "object_id" in getattr(request.resolver_match, "kwargs", {}) else rows.defer("html", "text")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_act_permission(request)

    @display(description="State", label={"published": "success", "changed": "warning", "draft": "info"})
    def state(self, row: Template) -> str:
        return "draft" if row.published_id is None else "changed" if row.changed else "published"

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: Any) -> None:
        try:
            obj.pk = templating.create(obj.tenant_id, obj.name, None, {}, actor(request)).pk
        except BadInput as refused:
            obj.pk = None
            messages.error(request, str(refused))

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        if obj.pk is None:
            return HttpResponseRedirect(reverse("admin:deliveries_template_changelist"))
        return HttpResponseRedirect(reverse("admin:deliveries_template_change", args=[obj.pk]))

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.preview_view)
        return [path("<uuid:pk>/preview/", view, name="deliveries_template_preview"), *super().get_urls()]

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        if object_id is None:
            return super().changeform_view(request, object_id, form_url, extra_context)
        row = self.get_object(request, object_id)
        if row is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        may = access(request).may(Role.DEVELOPER, row.tenant_id)
        shown, faults = {name: getattr(row, name) or "" for name in _PARTS}, []
        shown["variables"] = json.dumps(row.variables, indent=1, ensure_ascii=False) if row.variables else ""
        if request.method == "POST":
            if not may:
                raise PermissionDenied
            try:
                return self._act(request, row)
            except (BadInput, KeyRefused, OverQuota, ValueError) as refused:  # ValueError: no address, no JSON
                faults = [f.message for f in refused.faults] if isinstance(refused, BadInput) else [str(refused)]
                if request.POST.get("verb") == "save":  # what was typed is not thrown away
                    shown |= {name: request.POST.get(name, "") for name in shown}
        context = {
            **self.admin_site.each_context(request), "opts": self.opts, "title": row.name, "row": row, "shown": shown,
            "faults": faults, "may_act": may, "languages": [d.value for d in Dialect], "has_view_permission": True,
            "state": self.state(row), "sample": request.POST.get("data", "") or _sample(row),
            "preview_url": reverse("admin:deliveries_template_preview", args=[row.pk]),
            "list_url": reverse("admin:deliveries_template_changelist"),
        }  # fmt: skip
        return TemplateResponse(request, "panel/template.html", context)

    def _act(self, request: HttpRequest, row: Template) -> HttpResponse:
        who, ref = actor(request), str(row.pk)
        here = HttpResponseRedirect(reverse("admin:deliveries_template_change", args=[row.pk]))
        match request.POST.get("verb"):
            case "save":
                templating.update(row.tenant_id, ref, who, _changes(request))
                messages.success(request, "Saved. Mails are sent from it once it is published.")
            case "publish":
                templating.publish(row.tenant_id, ref, who)
                messages.success(request, "Published: the next mail that names it is made of this.")
            case "remove":
                templating.remove(row.tenant_id, ref, who)
                messages.success(request, f"{row.name} is removed.")
                return HttpResponseRedirect(reverse("admin:deliveries_template_changelist"))
            case "test":
                ident = self._send(request, row)
                messages.success(request, "The test is accepted; this is its page.")
                return HttpResponseRedirect(reverse("admin:deliveries_message_change", args=[ident]))
            case _:
                messages.error(request, "No such action.")
        return here

    def _send(self, request: HttpRequest, row: Template) -> UUID:
        """The draft with the sample data, as a mail to the address in the form."""
        sender = parse_address((request.POST.get("from", "").strip() or row.sender or "")[:700])
        to = parse_address(request.POST.get("address", "").strip()[:400])
        found = templating.preview(row.tenant_id, str(row.pk), _data(request))
        if found is None:
            raise Http404
        made = found[1]
        domain = SendingDomain.objects.filter(tenant_id=row.tenant_id, name=sender.domain).first()
        kept = REDACT_WORDS.get(row.redact, Redact.NOTHING)  # sample data may be of a person, too
        draft = Draft(sender, (to,), subject=made.subject or row.name, html=made.html, text=made.text, redact=kept)
        (ident,) = accept(key_of(row.tenant_id, domain.pk if domain else None), [draft]).ids
        self.audit(request, "template.tested", f"{row.name} as {ident} to {to.addr_spec}", row.tenant_id)
        return ident

    def preview_view(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """POST data=JSON: the draft's HTML (or text) with it, in the frame of its page, where it can do nothing."""
        if request.method != "POST":
            return HttpResponseNotAllowed(("POST",))
        row = self.get_object(request, str(pk))
        if row is None:
            raise Http404
        try:
            found = templating.preview(row.tenant_id, str(row.pk), _data(request))
        except (BadInput, ValueError) as refused:
            return preview.framed(str(refused), html=False)
        if found is None:
            raise Http404
        made = found[1]
        return preview.framed(made.html, html=True) if made.html else preview.framed(made.text or "", html=False)


def _changes(request: HttpRequest) -> dict[str, Any]:
    asked = {name: request.POST.get(name, "").replace("\r\n", "\n")[:MAX_PART] for name in (*_PARTS, "variables")}
    if "\0" in "".join(asked.values()):
        raise ValueError("The form holds a NUL, which no text may.")
    if not asked["name"].strip():
        raise ValueError("A template needs a name.")
    if asked["language"] not in {d.value for d in Dialect}:
        raise ValueError("No such language of templates.")
    if asked["redact"] not in ("", *REDACT_WORDS):
        raise ValueError(f"What is not kept is {' or '.join(REDACT_WORDS)}, or nothing of the kind.")
    if asked["sender"].strip():
        parse_address(asked["sender"].strip())
    return {
        "name": asked["name"].strip()[:200],
        "alias": asked["alias"].strip()[:100] or None,
        "sender": asked["sender"].strip()[:700] or None,
        "subject": " ".join(asked["subject"].split()) or None,
        "html": asked["html"] or None,
        "text": asked["text"] or None,
        "language": asked["language"],
        "redact": asked["redact"],
        "variables": _variables(asked["variables"]),
    }


def _variables(text: str) -> list[dict[str, Any]]:
    found = _json(text) if text.strip() else []
    if not isinstance(found, list) or not all(isinstance(v, dict) for v in found):
        raise ValueError('The variables are a list such as [{"key": "NAME", "type": "string"}].')
    for v in found:
        if fault := key_fault(str(v.get("key", ""))):
            raise ValueError(fault)
        if not isinstance(v.get("type"), str) or v["type"] not in TYPES or set(v) - {"key", "type", "fallback_value"}:
            raise ValueError(f"{v['key']}: give a type ({', '.join(TYPES)}) and perhaps a fallback_value.")
        if v.get("fallback_value") is not None and not Variable(v["key"], v["type"]).fits(v["fallback_value"]):
            raise ValueError(f"{v['key']}: the fallback_value is no {v['type']}.")
    if len(found) > MOST:
        raise ValueError(f"At most {MOST} variables.")
    return found


def _data(request: HttpRequest) -> dict[str, Any]:
    text = request.POST.get("data", "").strip()
    data = _json(text) if text else {}
    if not isinstance(data, dict):
        raise ValueError('The sample data are a JSON object such as {"NAME": "Anna"}.')
    return data


def _json(text: str) -> Any:
    """What the database and a mail can hold: escapes of JSON spell NUL and half characters, its numbers infinity."""
    try:
        value = json.loads(text)
        octets = json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except json.JSONDecodeError as e:
        raise ValueError(f"It is no JSON: {e}.") from None
    except (ValueError, RecursionError):
        raise ValueError("The JSON holds what no text or number may be, or is too deep.") from None
    if b"\\u0000" in octets:
        raise ValueError("The JSON holds a NUL, which no text may.")
    return value


def _sample(row: Template) -> str:
    """What the draft asks for, to be filled in."""
    return json.dumps({v["key"]: v.get("fallback_value") or v["key"] for v in row.variables}, indent=1)
