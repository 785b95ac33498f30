"""What a person may do with an endpoint in the panel: a test, on and off, a new secret, again what failed."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deliveries import endpoints
from deliveries.models import AuditEntry, Membership, User, WebhookDelivery, WebhookEndpoint
from deliveries.models.fields import uuid7
from tests.steps.api import make_tenant

pytestmark = pytest.mark.django_db

LIST = reverse("admin:deliveries_webhookendpoint_changelist")


@pytest.fixture
def tenant(settings):
    settings.WEBHOOK_ALLOW_PRIVATE = True
    return make_tenant()


def person(tenant, role: str) -> Client:
    user = User.objects.create_user(f"{role}-{tenant.pk}", is_staff=True)
    Membership.objects.create(user=user, tenant=tenant, role=role)
    client = Client()
    client.force_login(user)
    return client


def do(client: Client, action: str, *rows: WebhookEndpoint):
    return client.post(LIST, {"action": action, "_selected_action": [str(r.pk) for r in rows]}, follow=True)


def test_an_endpoint_is_tested_switched_off_and_on_again(tenant) -> None:
    client = person(tenant, "developer")
    row, _ = endpoints.create(tenant.id, "https://app.example.com/", [], "test")
    assert "1 will hear a test" in do(client, "send_test", row).content.decode()
    assert WebhookDelivery.objects.get(endpoint=row).type == "webhook.test"
    do(client, "switch_off", row)
    row.refresh_from_db()
    assert not row.enabled and row.disabled_reason.startswith("Switched off by developer-")
    assert "switched off; switch it on first" in do(client, "send_test", row).content.decode()
    WebhookEndpoint.objects.filter(pk=row.pk).update(failing_since=timezone.now() - timedelta(days=6))
    do(client, "switch_on", row)
    row.refresh_from_db()
    assert row.enabled and row.failing_since is None and row.disabled_reason == ""
    actions = list(AuditEntry.objects.filter(tenant=tenant).order_by("id").values_list("action", flat=True))
    assert actions == ["webhook.created", "webhook.tested", "webhook.changed", "webhook.changed"]


def test_a_new_secret_is_shown_once_and_only_one_at_a_time(tenant) -> None:
    client = person(tenant, "developer")
    row, first = endpoints.create(tenant.id, "https://app.example.com/", [], "test")
    other, _ = endpoints.create(tenant.id, "https://app.example.com/two", [], "test")
    page = do(client, "rotate", row)
    row.refresh_from_db()
    secret = bytes(row.secret).decode()
    assert secret != first and secret in page.content.decode() and "no-store" in page.headers["Cache-Control"]
    assert bytes(row.previous_secret).decode() == first
    assert "Choose one" in do(client, "rotate", row, other).content.decode()
    shown = client.get(reverse("admin:deliveries_webhookendpoint_change", args=(row.pk,))).content.decode()
    assert secret not in shown and first not in shown


def test_what_failed_is_sent_again(tenant) -> None:
    client = person(tenant, "developer")
    row, _ = endpoints.create(tenant.id, "https://app.example.com/", [], "test")
    now = timezone.now()
    for state in ("failed", "failed", "delivered"):
        WebhookDelivery.objects.create(
            tenant_id=tenant.id, endpoint=row, event_id=uuid7(), type="email.sent", body="{}", state=state, tries=8,
            next_try_at=now, created_at=now,
        )  # fmt: skip
    WebhookDelivery.objects.create(
        tenant_id=tenant.id, endpoint=row, event_id=uuid7(), type="email.sent", body="{}", state="pending", tries=2,
        next_try_at=now, created_at=now,
    )  # fmt: skip
    words = sorted(post.status for post in WebhookDelivery.objects.all())
    assert words == ["attempting", "failed", "failed", "success"], "the words of the API"
    page = client.get(reverse("admin:deliveries_webhookendpoint_change", args=(row.pk,))).content.decode()
    assert all(f">{word}</span>" in page for word in words) and ">delivered<" not in page
    assert "2 will be sent again" in do(client, "send_failed", row).content.decode()
    assert WebhookDelivery.objects.filter(endpoint=row, state="pending", tries=0).count() == 2


@pytest.mark.parametrize("action", ["send_test", "send_failed", "switch_on", "switch_off", "rotate"])
def test_a_viewer_and_another_tenant_can_do_none_of_it(tenant, action) -> None:
    row, secret = endpoints.create(tenant.id, "https://app.example.com/", [], "test")
    for client in (person(tenant, "viewer"), person(make_tenant(), "owner")):
        do(client, action, row)
    row.refresh_from_db()
    assert row.enabled and bytes(row.secret).decode() == secret
    assert not WebhookDelivery.objects.filter(endpoint=row).exists()
    assert AuditEntry.objects.filter(tenant=tenant).count() == 1


def test_a_person_chooses_the_format_and_a_password_that_no_page_shows(tenant) -> None:
    client = person(tenant, "developer")
    add = reverse("admin:deliveries_webhookendpoint_add")
    given = {"tenant": tenant.pk, "url": "https://shop:s3cret@app.example.com/hook", "format": "postmark"}
    pages = [client.get(add), client.post(add, given)]
    row = WebhookEndpoint.objects.get(tenant=tenant)
    assert (row.url, row.format, bytes(row.credentials)) == ("https://app.example.com/hook", "postmark", b"shop:s3cret")
    assert row.events and "email.delivered" in row.events  # what the format has words for
    pages += [client.get(LIST), client.get(reverse("admin:deliveries_webhookendpoint_change", args=(row.pk,)))]
    shown = [page.content.decode() for page in pages]
    assert all(f'value="{form}"' in shown[0] for form in ("native", "postmark", "sendgrid", "mailgun"))
    assert "whsec_" in shown[1] and "Postmark" in shown[2] and "Postmark" in shown[3]
    assert "Basic authentication" in shown[3] and "s3cret" not in "".join(shown)
    client.post(add, given | {"url": "https://app.example.com/two", "format": "sendgrid"})
    client.post(add, given | {"format": "gopher"})
    typed = {"url": "https://app.example.com:25/typed", "format": "mailgun", "events": ["email.bounced"]}
    refused = client.post(add, given | typed).content.decode()
    assert "port 25 is not one for HTTP" in refused and 'value="https://app.example.com:25/typed"' in refused
    assert re.search(r'value="email.bounced"[^>]* checked', refused), "what was typed stays"
    assert set(WebhookEndpoint.objects.filter(tenant=tenant).values_list("format", flat=True)) == {
        "postmark", "sendgrid",
    }  # fmt: skip
    assert "s3cret" not in str(list(AuditEntry.objects.filter(tenant=tenant).values_list()))
