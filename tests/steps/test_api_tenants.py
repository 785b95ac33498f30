"""Tenants, their keys and members by HTTP: the panel's orders, with an operator key, and with nothing else."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone
from pydantic import TypeAdapter

from deliveries import keys, operators
from deliveries.models import AuditEntry, OperatorKey, QuotaUse, Tenant, User
from mailapi import auth
from mailapi.schemas import tenants as shapes
from tests.fakes import clock, mail
from tests.fakes.person import login
from tests.steps.api import Client, make_tenant

pytestmark = pytest.mark.django_db

Scope = OperatorKey.Scope


class Operator(Client):
    """The same client, for a caller that has no tenant."""

    def __init__(self, scope=Scope.FULL, **limits):
        self.key, secret = operators.create("provisioning", scope, "test", **limits)
        super().__init__(None, secret, "none.example")


@pytest.fixture
def operator():
    auth.forget()
    return Operator()


def shown(answer, shape, status=200):
    assert answer.status_code == status, answer.content
    TypeAdapter(shape).validate_python(answer.json())
    return answer.json()


def fields(answer, status=422):
    assert answer.status_code == status, answer.content
    assert all(fault["message"] for fault in answer.json()["errors"])
    return {fault["field"]: fault["code"] for fault in answer.json()["errors"]}


def told(tenant_id):
    return list(AuditEntry.objects.filter(tenant_id=tenant_id).order_by("id").values_list("action", flat=True))


def test_a_program_makes_a_tenant_with_its_first_key_and_owner_who_both_come_in(operator):
    clock.stay_within(clock.DAY)
    made = shown(operator.post("/tenants", {"name": " Acme ", "daily_quota": 2}), shapes.Tenant, 201)
    assert (made["name"], made["daily_quota"], made["monthly_quota"], made["status"]) == ("Acme", 2, None, "active")
    path = f"/tenants/{made['id']}"
    key = shown(operator.post(f"{path}/api-keys", {"name": "first"}), shapes.ApiKeyCreated, 201)
    acme = Client(Tenant.objects.get(id=made["id"]), key["token"])
    assert acme.send().status_code == 200
    assert shown(operator.get(path), shapes.Tenant)["daily_used"] == 1
    owner = {"login": "ann@example.com", "role": "owner"}
    ann = shown(operator.post(f"{path}/members", owner), shapes.MemberInvited, 201)
    assert User.objects.get(username="ann@example.com").check_password(ann["first_password"])
    listed = shown(operator.get(f"{path}/api-keys"), shapes.ApiKeyList)["data"]
    assert [row["name"] for row in listed] == ["first"] and key["token"] not in json.dumps(listed)
    assert shown(operator.delete(f"{path}/api-keys/{key['id']}"), shapes.ApiKeyDeleted)["deleted"]
    assert operator.delete(f"{path}/api-keys/{key['id']}").status_code == 404
    auth.forget()
    assert acme.send().status_code == 403
    assert told(made["id"]) == ["tenant.created", "key.created", "member.added", "key.revoked"]
    assert AuditEntry.objects.filter(actor=f"operator_key:{operator.key.id}").count() == 4


def test_tenants_are_found_changed_suspended_and_resumed_twice_as_once(operator, caplog):
    clock.stay_within(clock.DAY)
    names = [f"tenant {n}" for n in range(3)]
    ids = [operator.post("/tenants", {"name": name}).json()["id"] for name in names]
    first = shown(operator.get("/tenants?limit=2"), shapes.TenantList)
    assert [row["name"] for row in first["data"]] == names[:0:-1] and first["has_more"]
    last = operator.get(f"/tenants?limit=2&after={ids[1]}").json()
    assert [row["id"] for row in last["data"]] == ids[:1] and not last["has_more"]
    assert [row["id"] for row in operator.get("/tenants?name=tenant 1").json()["data"]] == ids[1:2]
    path = f"/tenants/{ids[0]}"
    wishes = {"name": "Renamed", "daily_quota": 0, "monthly_quota": 9, "privacy": True}
    changed = shown(operator.patch(path, wishes), shapes.Tenant)
    assert changed.items() >= wishes.items() and changed["daily_used"] == 0
    assert operator.patch(path, {"daily_quota": None, "name": None}).json()["daily_quota"] is None
    acme = Client(Tenant.objects.get(id=ids[0]))
    for reason in ("unpaid", "again"):
        held = shown(operator.post(f"{path}/suspend", {"reason": reason}), shapes.Tenant)
        assert (held["status"], held["suspended_reason"]) == ("suspended", "unpaid")
    assert acme.send().status_code == 403
    assert [r.levelname for r in caplog.records if "is held by operator_key:" in r.getMessage()] == ["WARNING"]
    for body in (b"", b"{}"):
        assert shown(operator.raw(f"{path}/resume", body), shapes.Tenant)["status"] == "active"
    assert acme.send().status_code == 200
    assert told(ids[0])[:4] == ["tenant.created", "tenant.changed", "tenant.changed", "tenant.held"]
    assert QuotaUse.objects.filter(tenant_id=ids[0], kind="month").get().used == 1
    assert operator.delete(path).status_code == 405


def test_members_are_listed_by_login_and_the_last_owner_stays(operator):
    path = f"/tenants/{make_tenant().id}/members"
    for name, role in (("ann", "owner"), ("bob", "viewer"), ("cid", "developer")):
        operator.post(path, {"login": f"{name}@example.com", "role": role})
    page = shown(operator.get(f"{path}?limit=1&after=ann@example.com"), shapes.MemberList)
    assert [row["login"] for row in page["data"]] == ["bob@example.com"] and page["has_more"]
    back = operator.get(f"{path}?limit=5&before=cid@example.com").json()["data"]
    assert [row["role"] for row in back] == ["owner", "viewer"]
    ann = f"{path}/Ann%40example.com"
    assert fields(operator.patch(ann, {"role": "viewer"})) == fields(operator.delete(ann)) == {"role": "last_owner"}
    assert shown(operator.patch(f"{path}/bob@example.com", {"role": "owner"}), shapes.Member)["role"] == "owner"
    assert shown(operator.delete(ann), shapes.MemberRemoved)["login"] == "ann@example.com"
    assert operator.get(ann).status_code == operator.delete(ann).status_code == 404
    known = operator.post(path, {"login": "ann@example.com", "role": "viewer"}).json()
    assert known["first_password"] is None, "the login had stayed"
    assert fields(operator.post(path, {"login": "ann@example.com", "role": "viewer"})) == {"login": "already_exists"}
    # one person in another spelling of Unicode, whom Django keeps in one
    assert fields(operator.post(path, {"login": "ａnn@example.com", "role": "viewer"})) == {"login": "already_exists"}


def test_each_faulty_field_is_named_and_nothing_is_kept(operator):
    tenant = make_tenant()
    path, before = f"/tenants/{tenant.id}", AuditEntry.objects.count()
    wrong = {"name": "a\r\nb", "daily_quota": -1, "monthly_quota": 2**31, "privacy": "yes", "nmae": "x"}
    for answer in (operator.post("/tenants", wrong), operator.patch(path, wrong)):
        assert set(fields(answer)) == set(wrong) and "did you mean `name`" in answer.content.decode()
    for name, code in ((None, "missing_required_field"), ("", "too_short"), (" ", "invalid_parameter"),
                       ("x" * 201, "too_long"), (7, "wrong_type"), ("a\0", "control_character"),
                       (tenant.name, "already_exists")):  # fmt: skip
        assert fields(operator.post("/tenants", {"name": name})) == {"name": code}, name
    assert operator.post("/tenants", {"name": "taken"}).status_code == 201
    assert fields(operator.patch(path, {"name": "taken"})) == {"name": "already_exists"}
    assert fields(operator.post(f"{path}/suspend", {"reason": "x" * 301})) == {"reason": "too_long"}
    assert fields(operator.post(f"{path}/resume", {"now": 1})) == {"now": "unknown_field"}
    assert fields(operator.post(f"{path}/members", {"login": "a b"})) == {"role": "missing_required_field"}
    for text in ("a b", "x" * 151, "ﬃ" * 100, "a\0b"):
        assert set(fields(operator.post(f"{path}/members", {"login": text, "role": "owner"}))) == {"login"}, text
    assert fields(operator.post(f"{path}/members", {"login": "a", "role": "root"})) == {"role": "invalid_choice"}
    limits = {
        "name": "x",
        "ip_allow": ["10.0.0.1/8"],
        "expires_at": "2001-01-01T00:00:00Z",
        "domain_id": str(tenant.id),
    }
    assert set(fields(operator.post(f"{path}/api-keys", limits))) == {"ip_allow[0]", "expires_at", "domain_id"}
    for query in ("name=a%00", "name=a&name=b", "nmae=a", "limit=0", "after=x"):
        assert fields(operator.get(f"/tenants?{query}")), query
    for query in ("after=%00", "before=" + "x" * 151):
        assert fields(operator.get(f"{path}/members?{query}")), query
    for nothing in ("/tenants/x", f"/tenants/{operator.key.id}", f"{path}/members/a%00", f"{path}/members/nobody"):
        assert operator.get(nothing).status_code == 404
    assert operator.post(f"/tenants/{operator.key.id}/resume", {}).status_code == 404
    made = AuditEntry.objects.exclude(action="tenant.created").count()
    assert made == before and User.objects.count() == 0


def test_a_domain_of_another_tenant_is_none_of_the_keys(operator):
    other = Client(make_tenant())
    domain = other.tenant.domains.get()
    wish = {"name": "x", "permission": "sending_access", "domain_id": str(domain.id)}
    assert fields(operator.post(f"/tenants/{make_tenant().id}/api-keys", wish)) == {"domain_id": "not_found"}
    key = keys.create(other.tenant, "own")[0]
    assert operator.delete(f"/tenants/{make_tenant().id}/api-keys/{key.id}").status_code == 404
    assert shown(operator.post(f"/tenants/{other.tenant.id}/api-keys", wish), shapes.ApiKeyCreated, 201)


def test_each_kind_of_operator_key_does_what_it_is_for_and_opens_no_mail():
    tenant = make_tenant()
    path = f"/tenants/{tenant.id}"
    orders = {
        "look": lambda o: o.get(path),
        "change": lambda o: o.post(f"{path}/resume", {}),
        "key": lambda o: o.post(f"{path}/api-keys", {"name": "x"}),
        "member": lambda o: o.post(f"{path}/members", {"login": o.key.scope, "role": "viewer"}),
    }
    may = {
        Scope.FULL: {"look", "change", "key", "member"},
        Scope.TENANTS: {"look", "change"},
        Scope.READING: {"look"},
    }
    for scope, allowed in may.items():
        one = Operator(scope)
        done = {name: give(one) for name, give in orders.items()}
        assert {name for name, answer in done.items() if answer.status_code < 300} == allowed, scope
        refused = [answer for answer in done.values() if answer.status_code >= 300]
        assert all((r.status_code, r.json()["name"]) == (401, "restricted_api_key") for r in refused)
        for door in ("/emails", "/logs", "/api-keys", "/emails/receiving", "/webhooks"):
            assert "opens /tenants alone" in one.get(door).json()["message"]
        assert one.post("/emails", one.mail()).status_code == 403
        face = one.http.get("/compat/postmark/messages/outbound", HTTP_X_POSTMARK_SERVER_TOKEN=one.secret)
        assert face.status_code == 422 and keys.find(one.secret) is None, "nor by SMTP, which asks there"
    for scope in ("owner_access", "full_access", "read_access", "sending_access"):
        refused = Client(tenant, keys.create(tenant, "x", scope)[1], "x.example").get("/tenants")
        assert refused.status_code == 403 and "operator key" in refused.json()["message"]
    assert one.http.get("/tenants").status_code == 401


def test_an_operator_key_ends_by_time_by_network_and_at_once_when_revoked(operator, settings):
    soon = Operator(expires_at=timezone.now() + timedelta(hours=1))
    assert soon.get("/tenants").status_code == 200
    OperatorKey.objects.filter(id=soon.key.id).update(expires_at=timezone.now())
    elsewhere = Operator(networks=["203.0.113.0/24"])
    assert "127.0.0.1" in elsewhere.get("/tenants").json()["message"]
    assert elsewhere.http.get(
        "/tenants", HTTP_AUTHORIZATION=f"Bearer {elsewhere.secret}", REMOTE_ADDR="203.0.113.9"
    ).status_code == 200  # fmt: skip
    operators.revoke([operator.key.id], "test")
    for gone in (soon, operator, SimpleNamespace(http=operator.http, secret="op_" + "x" * 600)):
        answer = gone.http.get("/tenants", HTTP_AUTHORIZATION=f"Bearer {gone.secret}")
        assert (answer.status_code, answer.json()["name"]) == (403, "invalid_api_key")
    settings.RATE_LIMIT = 1
    fast = Operator()
    assert 429 in [fast.get("/tenants").status_code for _ in range(20)]


def test_an_operator_makes_and_revokes_them_in_the_panel_and_at_the_shell(operator):
    def at(name):
        return reverse(f"admin:deliveries_operatorkey_{name}")

    root = login(mail.person("root", operator=True))
    form = {"name": "billing", "scope": "read_access", "allowed": "203.0.113.7"}
    page = root.post(at("add"), form)
    key = OperatorKey.objects.get(name="billing")
    assert operators.find(page.context["secret"]).key_id == key.id and "no-store" in page["Cache-Control"]
    assert key.networks == ["203.0.113.7/32"] and bytes(key.secret_hash) == keys.hash_of(page.context["secret"])
    assert "has bits below" in root.post(at("add"), {**form, "allowed": "1.2.3.4/8"}).content.decode()
    root.post(at("changelist"), {"action": "revoke", "_selected_action": [str(key.id)]})
    assert operators.find(page.context["secret"]) is None
    owner = login(mail.person("olga", make_tenant(), role="owner"))
    assert owner.get(at("add")).status_code == owner.get(at("changelist")).status_code == 403

    def said(*words):
        out = StringIO()
        call_command("operator_key", *words, stdout=out)
        return out.getvalue()

    secret = said("create", "shell", "--from", "192.0.2.0/24", "--expires", "2999-01-01T00:00:00Z").strip()
    made = OperatorKey.objects.get(name="shell")
    assert operators.find(secret).scope == Scope.TENANTS and f"{made.prefix}…  shell  tenants_access" in said("list")
    assert said("revoke", made.prefix) == "Revoked.\n" and "shell" not in said("list")
    for wrong in (("create", "x", "--expires", "2001-01-01"), ("create", "a\nb"), ("revoke", made.prefix)):
        with pytest.raises(CommandError):
            said(*wrong)
    told = AuditEntry.objects.filter(tenant=None).values_list("action", flat=True)
    assert sorted(told) == ["operator_key.created"] * 3 + ["operator_key.revoked"] * 2
