"""Webhooks, domains, suppressions, health, the description of the API, and the wall between tenants."""

import re
from datetime import UTC, datetime
from functools import partial
from itertools import product

import pytest
from django.core import checks as django_checks
from django.db import connection

from deliveries.models import AuditEntry, Event, SendingDomain, Suppression, WebhookEndpoint
from mailapi import checks
from mailapi.schemas import answers
from mailapi.schemas.domains import DomainList
from mailapi.schemas.openapi import document
from mailapi.views import health
from tests.steps.api import Client, make_tenant

pytestmark = pytest.mark.django_db


# --- webhooks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["endpoint", "url"])
def test_a_webhook_is_made_listed_shown_and_removed(api, word):
    made = api.post("/webhooks", {word: "https://app.example.com/hook", "events": ["email.delivered"]})
    assert made.status_code == 201
    answers.WebhookCreated.model_validate(made.json())
    path = f"/webhooks/{made.json()['id']}"
    shown = api.get(path).json()
    answers.Webhook.model_validate(shown)
    assert shown["signing_secret"] == made.json()["signing_secret"] and shown["signing_secret"].startswith("whsec_")
    assert shown["endpoint"] == "https://app.example.com/hook" and shown["status"] == "enabled"
    listed = api.get("/webhooks").json()
    answers.WebhookList.model_validate(listed)
    assert [w["id"] for w in listed["data"]] == [made.json()["id"]]
    gone = api.delete(path)
    answers.WebhookDeleted.model_validate(gone.json())
    assert api.get(path).status_code == 404 and api.delete(path).status_code == 404
    actions = AuditEntry.objects.filter(tenant=api.tenant).order_by("id").values_list("action", flat=True)
    assert list(actions) == ["webhook.created", "webhook.removed"]


def test_the_secret_of_a_webhook_is_stored_encrypted(api):
    made = api.post("/webhooks", {"endpoint": "https://app.example.com/hook"}).json()
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM webhook_endpoint WHERE id = %s", [made["id"]])
        stored = bytes(cursor.fetchone()[0])
    assert made["signing_secret"].encode() not in stored


@pytest.mark.parametrize(
    ("body", "field", "code"),
    [
        ({}, "endpoint", "missing_required_field"),
        ({"endpoint": "https://a.example.com", "url": "https://a.example.com"}, "url", "invalid_parameter"),
        ({"endpoint": "https://a.example.com", "events": ["email.lost"]}, "events[0]", "unknown_event"),
        ({"endpoint": "https://a.example.com", "events": "email.sent"}, "events", "wrong_type"),
        ({"endpoint": 5}, "endpoint", "wrong_type"),
        ({"endpoint": "ftp://a.example.com"}, "endpoint", "invalid_url"),
        ({"endpoint": "https://user:pw@a.example.com"}, "endpoint", "invalid_url"),
        ({"endpoint": "https://a.example.com/\r\nX: y"}, "endpoint", "invalid_url"),
        ({"endpoint": "https://169.254.169.254/"}, "endpoint", "invalid_url"),
        ({"endpoint": "https://0x7f.1/"}, "endpoint", "invalid_url"),
        ({"endpoint": "x" * 2001}, "endpoint", "too_long"),
        ({"endpoint": "https://a.example.com/\0"}, "endpoint", "control_character"),
    ],
)
def test_a_webhook_that_can_never_be_reached_is_refused(api, settings, body, field, code):
    settings.WEBHOOK_ALLOW_PRIVATE = False
    answer = api.post("/webhooks", body)
    assert answer.status_code == 422, answer.content
    assert [(e["field"], e["code"]) for e in answer.json()["errors"]] == [(field, code)]
    assert not WebhookEndpoint.objects.filter(tenant=api.tenant).exists()


def test_a_tenant_has_a_bounded_number_of_webhooks(api):
    for _ in range(20):
        assert api.post("/webhooks", {"endpoint": "https://app.example.com/"}).status_code == 201
    assert api.post("/webhooks", {"endpoint": "https://app.example.com/"}).status_code == 422


# --- what the tenant has ------------------------------------------------------------------------------------


def test_domains_say_whether_they_are_verified(api):
    SendingDomain.objects.create(tenant=api.tenant, name="new.example.com")
    body = api.get("/domains").json()
    DomainList.model_validate(body)
    assert {(d["name"], d["status"]) for d in body["data"]} == {
        (api.domain, "verified"),
        ("new.example.com", "not_started"),
    }


def test_suppressions_are_listed_with_their_origin(api):
    for reason in ("bounce", "unsubscribe"):
        Suppression.objects.create(
            tenant=api.tenant, address=f"{reason}@x.example", reason=reason, created_at=datetime.now(UTC)
        )
    body = api.get("/suppressions").json()
    answers.SuppressionList.model_validate(body)
    assert [(s["email"], s["origin"]) for s in body["data"]] == [
        ("unsubscribe@x.example", "manual"),
        ("bounce@x.example", "bounce"),
    ]


def test_a_suppressed_recipient_is_told_in_the_mail(api):
    Suppression.objects.create(
        tenant=api.tenant, address="gone@simulator.test", reason="bounce", created_at=datetime.now(UTC)
    )
    body = api.get(f"/emails/{api.send(to='Gone@simulator.test').json()['id']}").json()
    assert body["last_event"] == "suppressed" and "suppression list" in body["deliveries"][0]["reason"]


# --- the wall between tenants -------------------------------------------------------------------------------


def test_no_endpoint_shows_anything_of_another_tenant(api):
    """Every path of the description, with every id of the other tenant, and every list."""
    other = Client(make_tenant())
    at = datetime.now(UTC)
    hook = other.post("/webhooks", {"endpoint": "https://app.example.com/"}).json()
    ids = {"email_id": other.send().json()["id"], "webhook_id": hook["id"]}
    ids["event_id"] = str(Event.objects.filter(tenant_id=other.tenant.id).latest("id").id)
    Suppression.objects.create(tenant=other.tenant, address="secret@x.example", reason="bounce", created_at=at)
    asked = 0
    for path, methods in document()["paths"].items():
        if path.startswith("/health"):
            continue
        names = re.findall(r"{(\w+)}", path)
        for method in set(methods) & ({"get", "delete", "put", "patch"} | ({"post"} if names else set())):
            call = getattr(api, method)
            if method == "post":
                call = partial(api.post, body={"failed": True} if path.endswith("{webhook_id}/replay") else {})
            if names:
                for values in product(ids.values(), repeat=len(names)):  # also ids of other kinds of objects
                    filled = re.sub(r"{\w+}", "{}", path).format(*values)
                    answer = call(filled)
                    assert answer.status_code == 404, (method, filled, answer.content)
                asked += 1
            else:
                body = call(path).content.decode()
                assert not any(value in body for value in [*ids.values(), other.domain, "secret@x.example"])
                asked += 1
    assert asked >= 20
    assert other.get(f"/webhooks/{hook['id']}").json()["signing_secret"] == hook["signing_secret"]


# --- health -------------------------------------------------------------------------------------------------


def test_the_process_is_there_without_a_key(client):
    answer = client.get("/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_readiness_names_the_part_that_does_not_answer(client, monkeypatch):
    monkeypatch.setattr(health, "_last", (-100.0, {}))
    monkeypatch.setattr(health, "look", lambda: {"database": "ok", "smtpd": "ConnectionRefusedError"})
    answer = client.get("/health/ready")
    answers.Ready.model_validate(answer.json())
    assert (answer.status_code, answer.json()["parts"]["smtpd"]) == (503, "ConnectionRefusedError")


def test_readiness_is_given_once_every_part_answers(client, monkeypatch):
    monkeypatch.setattr(health, "_last", (-100.0, {}))
    monkeypatch.setattr(health, "look", lambda: {"database": "ok"})
    assert client.get("/health/ready").status_code == 200


def test_parts_that_are_away_are_told_apart(settings, monkeypatch):
    settings.BROKER_URL = "redis://127.0.0.1:1/0"
    settings.SANDBOX, settings.SANDBOX_SMTP = True, ("127.0.0.1", 1)
    settings.SMTPD_INBOUND = None
    monkeypatch.setattr(health.metrics, "living", lambda roles: {"deliver"})
    parts = health.look()
    assert parts["database"] == parts["deliver"] == "ok"
    assert "smtpd" not in parts
    assert "ok" not in (parts["broker"], parts["jobs"], parts["sandbox"])


# --- the description ----------------------------------------------------------------------------------------


def test_the_description_is_openapi_3_1_and_names_every_path(client):
    answer = client.get("/openapi.json")
    assert answer.json()["openapi"].startswith("3.1")
    assert {"/emails", "/emails/batch", "/emails/{email_id}", "/webhooks", "/health/ready"} <= set(
        answer.json()["paths"]
    )


def test_requests_are_described_as_they_are_validated():
    shape = document()["components"]["schemas"]["SendEmail"]
    assert shape["required"] == ["from", "to", "subject"]
    assert shape["additionalProperties"] is False
    assert shape["properties"]["to"]["oneOf"][0]["type"] == "string"
    attachment = document()["components"]["schemas"]["AttachmentIn"]
    assert attachment["required"] == ["filename", "content"]
    kinds = [kind["type"] for kind in attachment["properties"]["content"]["oneOf"]]
    assert kinds == ["string", "array"]
    post = document()["paths"]["/emails"]["post"]
    assert post["security"] == [{"key": []}]
    assert {"200", "400", "401", "403", "409", "413", "422", "503"} <= set(post["responses"])


def test_every_reference_of_the_description_leads_somewhere():
    text = str(document())
    names = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert names <= set(document()["components"]["schemas"])


def test_the_docs_load_nothing_from_elsewhere_and_no_inline_script(client):
    page = client.get("/docs", HTTP_ACCEPT="text/html")
    assert page.status_code == 200
    html = page.content.decode()
    assert "http://" not in html and "https://" not in html
    assert not re.search(r"<script(?![^>]*\bsrc=)", html)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "script-src" not in policy
    for source in re.findall(r'(?:src|href)="([^"]+)"', html):
        assert client.get(source.replace("&amp;", "&")).status_code == 200, source


@pytest.mark.parametrize(("typed", "meant"), [("/", "/docs"), ("/docs/", "/docs"), ("/admin", "/admin/")])
def test_what_people_type_into_a_browser_leads_to_the_page_that_is_meant(client, typed, meant):
    answer = client.get(typed)
    assert (answer.status_code, answer.headers["Location"]) == (302, meant)


# --- what must be right before the start --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "id_"),
    [
        ("FIELD_KEYS", "not-a-key", "mailapi.E001"),
        ("FIELD_KEYS", "", "mailapi.E001"),
        ("VERP_KEYS", "", "mailapi.E002"),
        ("VERP_KEYS", "1:short", "mailapi.E002"),
        ("MAIL_ROUTES", "{", "mailapi.E003"),
        ("SANDBOX_SMTP", None, "mailapi.E004"),
    ],
)
def test_a_bad_setting_is_refused_with_a_hint(settings, name, value, id_):
    settings.SANDBOX, settings.SANDBOX_SMTP = True, ("127.0.0.1", 2525)
    setattr(settings, name, value)
    found = [m for m in django_checks.run_checks() if m.id == id_]
    assert len(found) == 1 and found[0].hint
    with pytest.raises(SystemExit, match="mailapi does not start"):
        checks.refuse_to_start(database=False)


def test_a_database_that_forgets_is_refused(api):
    assert checks.durable(databases=["default"]) == []
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")
    assert [m.id for m in checks.durable(databases=["default"])] == ["mailapi.E010"]


def test_too_few_connections_are_a_warning(api, settings):
    assert checks.enough_connections(databases=["default"]) == []
    settings.WEB_THREADS = 10_000
    assert [m.id for m in checks.enough_connections(databases=["default"])] == ["mailapi.W011"]
