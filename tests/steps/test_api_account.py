"""Webhooks, domains, suppressions, health, the description of the API, and the wall between tenants."""

import itertools
import re
from datetime import UTC, datetime

import pytest
from django.core import checks as django_checks
from django.db import connection
from django.test import Client as DjangoClient

from deliveries.models import AuditEntry, SendingDomain, Suppression, WebhookEndpoint
from mailapi import checks
from mailapi.schemas import answers
from mailapi.schemas.domains import DomainList
from mailapi.schemas.openapi import document
from mailapi.views import health

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
        ({"endpoint": "http://user:pw@a.example.com"}, "endpoint", "invalid_url"),
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
    assert shape["required"] == ["to"]  # a template may bring the rest
    assert shape["additionalProperties"] is False
    assert shape["properties"]["to"]["oneOf"][0]["type"] == "string"
    attachment = document()["components"]["schemas"]["AttachmentIn"]
    assert attachment["required"] == ["filename"]  # and the file as `content`, or where it is as `path`
    octets, null = attachment["properties"]["content"]["anyOf"]
    assert [kind["type"] for kind in octets["oneOf"]] == ["string", "array"] and null == {"type": "null"}
    post = document()["paths"]["/emails"]["post"]
    assert post["security"] == [{"key": []}]
    assert {"200", "400", "401", "403", "409", "413", "422", "503"} <= set(post["responses"])


def test_every_reference_of_the_description_leads_somewhere_and_drawing_it_complains_of_nothing(capsys):
    drawn = document.__wrapped__()
    names = set(re.findall(r"#/components/schemas/(\w+)", str(drawn)))
    assert names <= set(drawn["components"]["schemas"])
    assert capsys.readouterr().err == "", "it would stand in the log of each web process"


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


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *itertools.product(
            ["post", "delete"], ["/docs", "/openapi.json", "/", "/docs/", "/admin", "/metrics", "/o/token"]
        ),
        *itertools.product(["options", "trace"], ["/docs", "/", "/docs/", "/admin"]),
    ],
)
def test_pages_refuse_other_methods_as_every_path_does(path, method):
    answer = getattr(DjangoClient(enforce_csrf_checks=True), method)(path)
    answers.Error.model_validate(answer.json())
    assert answer.status_code == 405 and answer.headers["Allow"] == "GET, HEAD"


def test_a_form_of_the_panel_without_its_token_is_refused_in_the_words_of_who_asks():
    client = DjangoClient(enforce_csrf_checks=True)
    told = client.post("/admin/login/")
    answers.Error.model_validate(told.json())
    page = client.post("/admin/login/", HTTP_ACCEPT="text/html")
    assert told.status_code == page.status_code == 403 and page["Content-Type"].startswith("text/html")


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
