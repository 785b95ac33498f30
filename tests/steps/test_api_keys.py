"""API keys over the API: what each may do, for how long, from where, and with whose mail."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from deliveries.models import ApiKey, AuditEntry, Delivery, Message, Queued, SendingDomain
from mailapi import auth
from mailapi.schemas.api_keys import ApiKeyChanged, ApiKeyCreated, ApiKeyDeleted, ApiKeyList
from tests.steps.api import Client, make_tenant, message_count

pytestmark = pytest.mark.django_db


@pytest.fixture
def other(db: None) -> Client:
    return Client(make_tenant())


def make(api: Client, status: int = 201, **fields: Any) -> dict[str, Any]:
    answer = api.post("/api-keys", {"name": "app", **fields})
    assert answer.status_code == status, answer.content
    found: dict[str, Any] = answer.json()
    return found


def holder(api: Client, **fields: Any) -> Client:
    """A client with a key that was made with these fields."""
    made = make(api, **fields)
    ApiKeyCreated.model_validate(made)
    return Client(api.tenant, made["token"], api.domain)


def faults(answer: dict[str, Any]) -> set[tuple[str, str]]:
    return {(e["field"], e["code"]) for e in answer["errors"]}


def test_a_key_is_shown_once_listed_without_its_secret_renamed_and_revoked(api: Client) -> None:
    made = make(api, name="Web shop")
    assert made["token"].startswith("re_")
    body = api.get("/api-keys").json()
    ApiKeyList.model_validate(body)
    line = next(k for k in body["data"] if k["id"] == made["id"])
    assert (line["name"], line["permission"], line["last_used_at"]) == ("Web shop", "full_access", None)
    assert made["token"] not in str(body) and made["token"].startswith(line["prefix"])
    changed = api.patch(f"/api-keys/{made['id']}", {"name": "Shop"})
    ApiKeyChanged.model_validate(changed.json())
    own = Client(api.tenant, made["token"], api.domain)
    assert own.send().status_code == 200
    gone = api.delete(f"/api-keys/{made['id']}")
    ApiKeyDeleted.model_validate(gone.json())
    assert api.delete(f"/api-keys/{made['id']}").status_code == 404
    # remembered by the door, and refused by the statement all the same
    assert own.send().json()["name"] == "invalid_api_key" and message_count(api) == 1
    auth.forget()
    assert own.get("/emails").status_code == 403
    assert made["id"] not in str(api.get("/api-keys").json())
    actions = AuditEntry.objects.filter(tenant=api.tenant).values_list("action", flat=True)
    assert set(actions) == {"key.created", "key.changed", "key.revoked"}


PATHS = ["/emails", "/domains", "/webhooks", "/suppressions", "/api-keys", "/events", "/emails/receiving"]


def test_a_key_for_reading_reads_everything_but_secrets_and_changes_nothing(api: Client) -> None:
    reader = holder(api, permission="read_access")
    hook = api.post("/webhooks", {"endpoint": "https://app.example.com/hook"}).json()
    assert {p: reader.get(p).status_code for p in PATHS} == dict.fromkeys(PATHS, 200)
    assert reader.get(f"/webhooks/{hook['id']}").json()["name"] == "restricted_api_key"
    answers = [
        reader.send(), reader.post("/domains", {"name": "x.example.com"}), reader.delete(f"/webhooks/{hook['id']}"),
        reader.post("/api-keys", {"name": "more"}), reader.patch(f"/webhooks/{hook['id']}", {"status": "disabled"}),
    ]  # fmt: skip
    assert {(a.status_code, a.json()["name"]) for a in answers} == {(401, "restricted_api_key")}
    assert message_count(api) == 0


def test_a_key_for_sending_sends_and_opens_nothing_else(api: Client) -> None:
    sender = holder(api, permission="sending_access")
    assert sender.send().status_code == 200
    assert {sender.get(p).status_code for p in PATHS} == {401}
    assert sender.post("/api-keys", {"name": "more"}).status_code == 401


def test_a_key_for_one_domain_sends_from_no_other(api: Client) -> None:
    second = SendingDomain.objects.create(
        tenant=api.tenant, name=f"{uuid4().hex[:9]}.example.com", verified_at=timezone.now()
    )
    bound = holder(api, permission="sending_access", domain_id=str(second.id))
    assert bound.send(**{"from": f"a@{second.name}"}).status_code == 200
    refused = bound.send()
    assert refused.status_code == 403 and "restricted to one domain" in refused.json()["message"]
    batch = bound.post("/emails/batch", [bound.mail(**{"from": f"a@{second.name}"}), bound.mail()])
    assert batch.status_code == 403 and message_count(api) == 1
    assert api.get("/api-keys").json()["data"][0]["domain_id"] == str(second.id)


def test_a_key_with_an_end_is_refused_from_then_on_in_the_middle_of_what_is_remembered(api: Client) -> None:
    brief = holder(api, expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    assert brief.send().status_code == 200
    past = timezone.now() - timedelta(seconds=1)
    ApiKey.objects.filter(expires_at__isnull=False).update(expires_at=past)
    # the door remembers the old end for five seconds; the statement asks the row
    assert brief.send().json()["name"] == "invalid_api_key" and message_count(api) == 1
    auth.forget()
    assert brief.get("/emails").json()["name"] == "invalid_api_key"


def test_the_end_is_kept_also_by_a_door_that_remembers_the_key(api: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    brief = holder(api, expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    assert brief.get("/emails").status_code == 200
    (held,) = [h for h in auth._callers.items() if h[1][0].expires_at]
    late = replace(held[1][0], expires_at=datetime.now(UTC) - timedelta(seconds=1))
    auth._callers[held[0]] = (late, held[1][1])
    ApiKey.objects.filter(expires_at__isnull=False).update(expires_at=late.expires_at)
    assert brief.get("/emails").status_code == 403


def from_(client: Client, address: str, forwarded: str = "") -> int:
    headers = {"REMOTE_ADDR": address, "HTTP_AUTHORIZATION": f"Bearer {client.secret}"}
    if forwarded:
        headers["HTTP_X_FORWARDED_FOR"] = forwarded
    status: int = client.http.get("/emails", **headers).status_code
    return status


def test_a_key_with_networks_is_used_from_there_alone(api: Client, settings: Any) -> None:
    settings.PROXIES = 0
    bound = holder(api, ip_allow=["203.0.113.7", "2001:db8::/32", "203.0.113.7/32"])
    assert ApiKey.objects.exclude(networks=[]).get().networks == ["203.0.113.7/32", "2001:db8::/32"]
    tried = ["203.0.113.7", "::ffff:203.0.113.7", "2001:db8:1::1", "203.0.113.8", "2001:db9::1", "", "unix:"]
    assert [from_(bound, a) for a in tried] == [200, 200, 200, 403, 403, 403, 403]
    # without a proxy of ours the header is the client's own word
    assert from_(bound, "198.51.100.1", "203.0.113.7") == 403
    refused = bound.http.get("/emails", REMOTE_ADDR="198.51.100.1", HTTP_AUTHORIZATION=f"Bearer {bound.secret}").json()
    assert refused["name"] == "restricted_api_key" and "198.51.100.1" in refused["message"]


def test_behind_a_proxy_the_address_counts_that_our_proxy_saw(api: Client, settings: Any) -> None:
    settings.PROXIES = 1
    bound = holder(api, ip_allow=["203.0.113.0/24"])
    assert from_(bound, "10.0.0.1", "203.0.113.9") == 200
    assert from_(bound, "10.0.0.1", "203.0.113.9, 198.51.100.1") == 403, "what stands further left is invented"
    assert from_(bound, "10.0.0.1", "198.51.100.1, 203.0.113.9") == 200
    settings.PROXIES = 2
    assert from_(bound, "10.0.0.1", "203.0.113.9, 10.0.0.2") == 200


def test_a_key_hands_on_no_more_than_it_has(api: Client, settings: Any) -> None:
    end = datetime.now(UTC) + timedelta(days=1)
    bound = holder(api, ip_allow=["127.0.0.0/8"], expires_at=end.isoformat(), test=True)
    more = make(bound, 422, ip_allow=["0.0.0.0/0"], expires_at=(end + timedelta(days=1)).isoformat())
    assert faults(more) == {("ip_allow", "beyond_own"), ("expires_at", "beyond_own")}
    made = ApiKey.objects.get(id=make(bound)["id"])
    assert (made.networks, made.expires_at, made.test) == (["127.0.0.0/8"], end, True)
    less = ApiKey.objects.get(id=make(bound, ip_allow=["127.0.0.1"])["id"])
    assert less.networks == ["127.0.0.1/32"]
    assert faults(bound.patch(f"/api-keys/{made.id}", {"ip_allow": ["::/0"]}).json()) == {("ip_allow", "beyond_own")}
    bound.patch(f"/api-keys/{made.id}", {"ip_allow": []})
    made.refresh_from_db()
    assert made.networks == ["127.0.0.0/8"], "an empty list would be everywhere"


def test_a_test_key_needs_no_verified_domain_and_its_mail_is_the_labs(api: Client, settings: Any) -> None:
    settings.MAIL_ROUTE, settings.SANDBOX_SMTP = "mx", ("127.0.0.1", 1)
    SendingDomain.objects.filter(tenant=api.tenant).update(verified_at=None)
    tester = holder(api, test=True)
    assert tester.secret.startswith("re_test_")
    sent = tester.send(to=["ann@real.example", "bob@elsewhere.example"]).json()
    rows = Queued.objects.filter(delivery_id__in=Delivery.objects.filter(message_id=sent["id"]).values("id"))
    assert {q.destination for q in rows} == {"sandbox"} and rows.count() == 2
    assert api.send().status_code == 403
    foreign = tester.send(**{"from": "a@somebody-else.example"})
    assert foreign.status_code == 403


def test_without_a_lab_a_test_key_is_refused_with_the_reason_and_nothing_is_stored(api: Client, settings: Any) -> None:
    tester = holder(api, test=True)
    settings.SANDBOX_SMTP = None
    answer = tester.send()
    assert answer.status_code == 403 and "this installation has none" in answer.json()["message"]
    assert not Message.objects.filter(tenant_id=api.tenant.id).exists()


def test_every_faulty_field_is_named(api: Client, other: Client) -> None:
    body = {
        "name": " ", "permission": "all", "ip_allow": ["1.2.3.4/8", "x", 5], "expires_at": "2001-01-01T00:00:00Z",
        "test": "yes", "domain": "x", "domain_id": "x",
    }  # fmt: skip
    answer = make(api, 422, **body)
    assert faults(answer) == {
        ("name", "invalid_parameter"), ("permission", "invalid_choice"), ("ip_allow[0]", "invalid_network"),
        ("ip_allow[1]", "invalid_network"), ("ip_allow[2]", "wrong_type"), ("expires_at", "invalid_time"),
        ("test", "wrong_type"), ("domain", "unknown_field"), ("domain_id", "invalid_id"),
        ("domain_id", "invalid_parameter"),
    }  # fmt: skip
    assert "has bits below its mask" in str(answer["errors"])
    assert faults(api.post("/api-keys", {}).json()) == {("name", "missing_required_field")}
    theirs = SendingDomain.objects.get(tenant=other.tenant)
    not_own = make(api, 422, permission="sending_access", domain_id=str(theirs.id))
    assert faults(not_own) == {("domain_id", "not_found")}
    assert faults(make(api, 422, domain_id=str(theirs.id))) == {("domain_id", "invalid_parameter")}
    assert ApiKey.objects.filter(tenant=api.tenant).count() == 1


def test_another_tenants_key_is_not_there(api: Client, other: Client) -> None:
    made = make(api)
    assert other.patch(f"/api-keys/{made['id']}", {"name": "mine"}).status_code == 404
    assert other.delete(f"/api-keys/{made['id']}").status_code == 404
    assert made["id"] not in str(other.get("/api-keys").json())
    assert ApiKey.objects.get(id=made["id"]).revoked_at is None


def test_a_removed_domain_takes_the_keys_that_were_for_it_alone(api: Client) -> None:
    made = api.post("/domains", {"name": f"{uuid4().hex[:9]}.example.com"}).json()
    bound = holder(api, permission="sending_access", domain_id=made["id"])
    assert api.delete(f"/domains/{made['id']}").status_code == 200
    assert bound.send().json()["name"] == "invalid_api_key"


def test_a_key_has_a_rate_of_its_own_that_is_set_shown_and_never_beyond_that_of_the_key_that_asks(
    api: Client, settings: Any
) -> None:
    settings.RATE_LIMIT = 100
    slow = make(api, rate_limit=3)

    def shown() -> Any:
        return next(k["rate_limit"] for k in api.get("/api-keys").json()["data"] if k["id"] == slow["id"])

    asking = Client(api.tenant, slow["token"], api.domain)
    assert shown() == 3 and asking.get("/emails")["ratelimit-limit"] == "3"
    auth.forget()
    assert api.patch(f"/api-keys/{slow['id']}", {"rate_limit": 9}).status_code == 200 and shown() == 9
    assert api.patch(f"/api-keys/{slow['id']}", {"name": "x"}).status_code == 200 and shown() == 9
    for wrong in (0, -1, 101, 1.5, "5", True, 10**30):
        (told,) = faults(make(api, 422, rate_limit=wrong))
        assert told[0] == "rate_limit" and told[1] in ("beyond_own", "wrong_type", "invalid_parameter"), wrong
    within = asking.patch(f"/api-keys/{slow['id']}", {"rate_limit": 10})
    assert within.status_code == 422 and faults(within.json()) == {("rate_limit", "beyond_own")}
    assert asking.patch(f"/api-keys/{slow['id']}", {"rate_limit": None}).status_code == 200 and shown() == 9
    assert asking.post("/api-keys", {"name": "more"}).status_code == 201
    assert api.get("/api-keys").json()["data"][0]["rate_limit"] == 9
    assert api.patch(f"/api-keys/{slow['id']}", {"rate_limit": None}).status_code == 200 and shown() is None
