"""Every id of one tenant at every endpoint with another tenant's key, drawn from the OpenAPI: nothing is there.

A new endpoint is asked by itself. A path parameter without a sample, or a body without one, fails here.
"""

import json
import re

import pytest

from deliveries import operators, people
from deliveries.management.commands import smtpd
from deliveries.notify import feed
from mailapi import auth, noting
from mailapi.schemas.openapi import document
from tests.fakes.house import build
from tests.steps.api import Client, make_tenant
from tests.steps.test_receiving import claim, received

pytestmark = pytest.mark.django_db(transaction=True)

#: a body for each operation with an id that requires one; {} for those that take none
BODIES = {
    "updateApiKey": {"name": "x"},
    "updateDomain": {"open_tracking": True},
    "updateEmail": {"scheduled_at": "in 2 hours"},
    "updateTemplate": {"name": "x"},
    "previewTemplate": {"variables": {}},
    "updateWebhook": {"status": "disabled"},
    "replayWebhook": {"failed": True},
    "rotateSigningSecret": {"overlap_hours": 0},
    "updateTenant": {"name": "x"},
    "suspendTenant": {},
    "createTenantApiKey": {"name": "x"},
    "inviteMember": {"login": "spy@elsewhere.example", "role": "owner"},
    "updateMember": {"role": "viewer"},
}
FILE = {"filename": "a.txt", "content": "YQ=="}
#: addresses that are signed and need no key; what they lead to is not to be had by guessing them
SIGNED = "/files/{file_id}"


@pytest.fixture
def victim(settings, monkeypatch):
    settings.WEBHOOK_ALLOW_PRIVATE = True
    settings.RATE_LIMIT = 0
    monkeypatch.setattr(feed, "SETTLE_S", 0.0)
    monkeypatch.setattr(smtpd._Bell, "ring", lambda self: None)
    auth.forget()
    noting.logbook.cache_clear()
    house = build()
    client = Client(house.tenant, house.secret, house.domain.name)
    client.samples = samples(client, house)
    client.operator = operators.create("all", "full_access", "test")[1]
    return client


def samples(client, house):
    """Path parameter → an id of the victim's, by the beginning of the path where the word alone does not tell."""

    def made(path, body, name="id"):
        answer = client.post(path, body)
        assert answer.status_code in (200, 201, 202), answer.content
        return answer.json()[name]

    webhook = made("/webhooks", {"endpoint": "https://app.example.com/hook", "events": []})
    email = made("/emails", client.mail(scheduled_at="in 3 hours", attachments=[FILE]))
    template = made("/templates", {"name": "Secret template", "alias": "secret-alias", "html": "<p>x</p>"})
    client.post(f"/templates/{template}/publish", {})
    claim(house)
    mail = received(house)
    noting.logbook().flush()
    sent = client.get(f"/emails/{email}/attachments").json()["data"]
    files = client.get(f"/emails/receiving/{mail}/attachments").json()["data"]
    return {
        "email_id": email,
        "/emails/receiving email_id": mail,
        "/emails/{email_id}/attachments attachment_id": sent[0]["id"],
        "attachment_id": files[0]["id"],
        "file_id": files[0]["id"],
        "webhook_id": webhook,
        "event_id": client.get("/events").json()["data"][0]["id"],
        "/webhooks event_id": client.get(f"/webhooks/{webhook}/events").json()["data"][0]["id"],
        "template_id": template,
        "/domains/{domain_id}/claim domain_id": made("/domains/claim", {"name": "claimed.example"}, "domain_id"),
        "domain_id": str(house.domain.id),
        "key_id": made("/api-keys", {"name": "secret key"}),
        "suppression_id": made("/suppressions", {"email": "gone@elsewhere.example"}),
        "erasure_id": made("/erasures", {"email": "gone@elsewhere.example"}),
        "log_id": client.get("/logs").json()["data"][0]["id"],
        "tenant_id": str(house.tenant.id),
        "login": people.invite(house.tenant, "ann@elsewhere.example", "owner", "test")[0].user.username,
    }


def operations():
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def of_operators(operation):
    """Whether it takes an operator key, and no tenant's."""
    return operation.get("security") == [{"operator_key": []}]


def sample(client, path, name):
    found = [
        key for key in client.samples if " " in key and key.endswith(f" {name}") and path.startswith(key.split()[0])
    ]
    key = found[0] if found else name
    assert key in client.samples, f"{path}: give a sample for {{{name}}} in tests/steps/test_tenants_apart.py"
    return client.samples[key]


def ask(client, method, path, operation, secret=None):
    body = None
    if method in ("post", "patch", "put"):
        needs = operation.get("requestBody", {}).get("required", False)
        assert not needs or operation["operationId"] in BODIES, f"give a body for {operation['operationId']} here"
        body = json.dumps(BODIES.get(operation["operationId"], {}))
    headers = {"HTTP_AUTHORIZATION": f"Bearer {secret or client.secret}"}
    return client.http.generic(method.upper(), path, body or b"", "application/json", **headers)


def filled(client, path):
    return re.sub(r"\{(\w+)\}", lambda found: sample(client, path, found[1]), path)


def seen(client):
    """What the victim, or its operator, finds at each of its ids."""
    return {
        path: ask(
            client, "get", filled(client, path), operation, client.operator if of_operators(operation) else None
        ).content
        for method, path, operation in operations()
        if method == "get" and "{" in path and not path.endswith(SIGNED) and not path.startswith("/logs")
    }


def without_signatures(contents):
    moving = rb'"(download_url|expires_at|last_used_at)": "[^"]*"'
    return {path: re.sub(moving, b"", content) for path, content in contents.items()}


def test_an_id_of_another_tenant_is_not_there(victim):
    before, other, asked = seen(victim), Client(make_tenant()), 0
    for path, content in before.items():
        assert b'"statusCode"' not in content, f"the sample for {path} does not exist"
    for method, path, operation in operations():
        if "{" not in path:
            continue
        answer = ask(other, method, filled(victim, path), operation)
        asked += 1
        assert answer.status_code == (403 if of_operators(operation) else 404), (
            f"{method} {path} answered {answer.status_code}: {answer.content[:300]}"
        )
        told = answer.content.decode()
        assert not any(ident in told for ident in victim.samples.values()), f"{method} {path} tells an id"
    assert asked > 30 and without_signatures(seen(victim)) == without_signatures(before), "and nothing was changed"


def test_a_list_of_another_tenant_is_empty_of_them(victim):
    other = Client(make_tenant())
    for method, path, operation in operations():
        if method == "get" and "{" not in path and not path.startswith("/health") and not of_operators(operation):
            answer = ask(other, method, path, operation)
            assert answer.status_code == 200, f"{path}: {answer.content[:200]}"
            told = answer.content.decode()
            assert not any(ident in told for ident in victim.samples.values()), f"{path} tells an id"
            assert "secret" not in told.lower().replace("signing_secret", ""), f"{path} tells a name"


def test_ids_in_bodies_and_cursors_lead_nowhere(victim):
    other = Client(make_tenant())
    own = other.post("/webhooks", {"endpoint": "https://app.example.com/hook", "events": []}).json()["id"]
    s = victim.samples
    assert other.post(f"/webhooks/{own}/replay", {"event_id": s["event_id"]}).status_code in (404, 422)
    removed = other.post("/suppressions/batch/remove", {"ids": [s["suppression_id"]]})
    assert removed.json() == {"data": []}
    assert victim.get(f"/suppressions/{s['suppression_id']}").status_code == 200
    for ref in (s["template_id"], "secret-alias"):
        answer = other.post("/emails", other.mail(text=None, template={"id": ref}))
        assert answer.status_code == 422 and answer.json()["errors"][0]["code"] == "unknown_template"
    key = other.post("/api-keys", {"name": "x", "permission": "sending_access", "domain_id": s["domain_id"]})
    assert key.status_code in (404, 422)
    for path in ("/emails", "/webhooks", "/templates", "/logs", "/suppressions", "/domains", "/api-keys", "/events"):
        answer = other.get(f"{path}?after={s['email_id']}")
        assert answer.status_code == 200
        assert [name for name, ident in s.items() if ident in json.dumps(answer.json()["data"])] == [], path


def test_every_path_of_the_service_is_described_or_known_to_be_no_part_of_the_api():
    from django.urls import get_resolver

    known = {re.sub(r"\{\w+\}", "*", path).strip("/") for path in document()["paths"]}
    others = ("admin", "compat", "o/", "c/", "u/", "tls/", "metrics", "openapi.json", "docs")
    paths = {re.sub(r"<[^>]+>", "*", str(p.pattern)).strip("/") for p in get_resolver().url_patterns}
    assert {p for p in paths - known if p and not p.startswith(others)} == set()
