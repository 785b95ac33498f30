"""Tenants and their people: the rights of every role on every page, invitations, the last owner, the commands."""

from __future__ import annotations

import threading
from io import StringIO
from typing import Any

import pytest
from django.contrib import admin
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone

from deliveries import keys, people
from deliveries.admin.access import RIGHTS, Role
from deliveries.errors import BadInput
from deliveries.models import ApiKey, AuditEntry, InboundRoute, Membership, SendingDomain, Tenant, User
from tests.fakes import mail
from tests.fakes.person import login

pytestmark = pytest.mark.django_db

ROLES = ["nobody", *Role.values, "operator"]
_RANK = {"nobody": -1, **{role: i for i, role in enumerate(["viewer", "developer", "owner"])}}


def url(model: Any, name: str, *args: Any) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=args)


def a(role: str, own: Tenant) -> User:
    if role == "operator":
        return mail.person("root", operator=True)
    return mail.person(role, *([] if role == "nobody" else [own]), role=role)


def allowed(role: str, least: Role | None) -> bool:
    return role == "operator" or (least is not None and _RANK[role] >= _RANK[least])


# --- the table of rights ------------------------------------------------------------------------------------------


def test_every_page_of_the_panel_stands_in_the_table_of_rights() -> None:
    assert set(RIGHTS) == set(admin.site._registry)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("model", list(RIGHTS), ids=lambda m: m.__name__)
def test_each_role_reads_and_acts_as_the_table_says(model: Any, role: str) -> None:
    own = mail.tenant("own")
    rows = mail.everything(own, "mark")
    user = a(role, own)
    client, model_admin, rights = login(user), admin.site._registry[model], RIGHTS[model]
    assert client.get(url(model, "changelist")).status_code == (200 if allowed(role, rights.reads) else 403)
    if model in rows:
        page = client.get(url(model, "change", rows[model].pk)).status_code
        assert (page == 200) is allowed(role, rights.reads)
    request = RequestFactory().get("/")
    request.user = user
    acting = set(model_admin.get_actions(request)) - {"suspend", "release", "undo", "confirm"}
    may_act = allowed(role, rights.acts) or (role == "operator")
    assert not acting or may_act, acting
    adds = client.get(url(model, "add")).status_code
    assert adds == 403 or may_act
    if model in (ApiKey, SendingDomain, Membership):
        assert (adds == 200) is may_act


# --- members ------------------------------------------------------------------------------------------------------


def test_an_owner_invites_by_mail_address_and_the_person_comes_in_with_the_role() -> None:
    own = mail.tenant("own")
    owner = login(mail.person("olga", own, role="owner"))
    form = {"tenant": str(own.pk), "login": "dev@example.com", "role": "developer"}
    shown = owner.post(url(Membership, "add"), form)
    password = shown.context["secret"]
    made = User.objects.get(username="dev@example.com")
    assert made.email == "dev@example.com" and made.check_password(password) and not made.is_superuser
    assert made.memberships.get().role == "developer" and "no-store" in shown["Cache-Control"]
    browser = Client()
    entered = browser.post("/admin/login/?next=/admin/", {"username": "dev@example.com", "password": password})
    assert entered.status_code == 302 and browser.get(url(ApiKey, "add")).status_code == 200
    again = owner.post(url(Membership, "add"), {**form, "login": "Dev@Example.com"})
    assert "is a member already" in again.content.decode()
    assert "Enter a mail address" in owner.post(url(Membership, "add"), {**form, "login": "a b"}).content.decode()
    for role in ("viewer", "developer"):
        other = login(mail.person(role, own, role=role))
        assert other.post(url(Membership, "add"), {**form, "login": "x@example.com"}).status_code == 403
    assert not User.objects.filter(username="x@example.com").exists()


def test_a_login_that_another_tenant_made_is_added_by_the_operator_alone() -> None:
    own, other = mail.tenant("own"), mail.tenant("other")
    mallory, olga = (mail.person(name, t, role="owner") for name, t in (("mallory", other), ("olga", own)))
    name = {"login": "ann@own.example", "role": "owner"}
    # who knows the first password, and could be in by it before ann hears of the panel
    assert login(mallory).post(url(Membership, "add"), {**name, "tenant": str(other.pk)}).context["secret"]
    for gone in (False, True):  # a membership that was taken back leaves the login, and its password
        said = login(olga).post(url(Membership, "add"), {**name, "tenant": str(own.pk)}).content.decode()
        assert "others may know its password" in said and not own.memberships.exclude(user=olga).exists()
        if not gone:
            people.remove(other.memberships.get(user__username=name["login"]).pk, "test")
    login(mail.person("root", operator=True)).post(url(Membership, "add"), {**name, "tenant": str(own.pk)})
    assert own.memberships.filter(user__username=name["login"]).exists()
    second = mail.tenant("second")
    Membership.objects.create(user=olga, tenant=second, role="owner")
    login(olga).post(url(Membership, "add"), {**name, "tenant": str(second.pk)})
    assert second.memberships.filter(user__username=name["login"]).exists(), "she knows her own people"


def test_the_last_owner_stays_whoever_asks() -> None:
    own = mail.tenant("own")
    olga = mail.person("olga", own, role="owner")
    last = olga.memberships.get()
    operator = login(mail.person("root", operator=True))
    operator.post(url(Membership, "change", last.pk), {"role": "viewer"})
    page = operator.post(url(Membership, "delete", last.pk), {"post": "yes"}, follow=True).content.decode()
    last.refresh_from_db()
    assert last.role == "owner" and "this is the last owner" in page
    with pytest.raises(BadInput, match="last owner"):
        people.remove(last.pk, "test")
    second = mail.person("otto", own, role="owner").memberships.get()
    login(olga).post(url(Membership, "change", second.pk), {"role": "viewer"})
    second.refresh_from_db()
    assert second.role == "viewer"
    with pytest.raises(BadInput, match="last owner"):
        people.set_role(last.pk, "developer", "test")
    assert people.set_role(second.pk, "owner", "test") and people.remove(last.pk, "test")
    told = AuditEntry.objects.filter(tenant=own, actor="test").values_list("action", flat=True)
    assert sorted(told) == ["member.changed", "member.removed"]


@pytest.mark.parametrize("role", ["viewer", "developer", "owner", "operator"])
@pytest.mark.parametrize("page", ["queue", "doctor", "settings"])
def test_the_pages_of_the_installation_are_the_operators(page, role) -> None:
    at, member = reverse(f"admin:{page}"), role != "operator"
    client = login(mail.person(role, mail.tenant("own"), role=role) if member else mail.person(role, operator=True))
    assert client.get(at).status_code == (200 if role == "operator" else 403)
    assert (f'href="{at}"' in client.get("/admin/").content.decode()) is (role == "operator"), "an entry of the menu"
    if member:
        assert client.post(at, {"verb": "pause", "site": "x"}).status_code == 403


def test_a_login_whose_person_is_a_last_owner_stays_and_is_removed_one_at_a_time() -> None:
    own, other = mail.tenant("own"), mail.tenant("other")
    olga = mail.person("olga", own, role="owner")
    Membership.objects.create(user=olga, tenant=other, role="viewer")
    operator = login(mail.person("root", operator=True))
    bulk = {"action": "delete_selected", "_selected_action": [str(olga.pk)], "post": "yes"}
    operator.post(url(User, "changelist"), bulk)
    page = operator.post(url(User, "delete", olga.pk), {"post": "yes"}, follow=True).content.decode()
    assert "olga at own: this is the last owner" in page.replace("&quot;", '"')
    inline = {
        "username": "olga", "is_active": "on", "is_staff": "on", "memberships-TOTAL_FORMS": "2",
        "memberships-INITIAL_FORMS": "2", "memberships-MIN_NUM_FORMS": "0", "memberships-MAX_NUM_FORMS": "1000",
    }  # fmt: skip
    for n, member in enumerate(olga.memberships.order_by("id")):
        inline |= {f"memberships-{n}-id": str(member.pk), f"memberships-{n}-user": str(olga.pk),
                   f"memberships-{n}-tenant": str(member.tenant_id), f"memberships-{n}-role": "viewer",
                   f"memberships-{n}-DELETE": "on"}  # fmt: skip
    operator.post(url(User, "change", olga.pk), inline)
    assert sorted(olga.memberships.values_list("role", flat=True)) == ["owner", "viewer"]
    mail.person("otto", own, role="owner")
    operator.post(url(User, "delete", olga.pk), {"post": "yes"})
    assert not User.objects.filter(pk=olga.pk).exists() and Membership.objects.filter(role="owner").count() == 1
    told = AuditEntry.objects.filter(actor="root").values_list("action", "tenant__name")
    assert sorted(told, key=str) == [("login.removed", None), ("member.removed", "other"), ("member.removed", "own")]


@pytest.mark.django_db(transaction=True)
def test_two_owners_who_remove_each_other_at_once_leave_one() -> None:
    for _ in range(5):
        own = Tenant.objects.create(name="pair")
        members = [mail.person(name, own, role="owner").memberships.get() for name in ("ada", "bob")]
        both = threading.Barrier(2)
        refused: list[BadInput] = []

        def let_go(ident: int) -> None:
            both.wait(60)
            try:
                people.remove(ident, "test")
            except BadInput as e:
                refused.append(e)
            finally:
                connection.close()

        threads = [threading.Thread(target=let_go, args=(m.pk,)) for m in members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Membership.objects.filter(tenant=own, role="owner").count() == 1 and len(refused) == 1
        User.objects.all().delete()
        own.delete()


# --- keys and domains in the panel --------------------------------------------------------------------------------


def test_a_key_made_in_the_panel_has_the_limits_that_were_asked_for() -> None:
    own = mail.tenant("own")
    other = mail.tenant("other")
    domain = SendingDomain.objects.create(tenant=own, name="own.example.com")
    theirs = SendingDomain.objects.create(tenant=other, name="theirs.example.com")
    client = login(mail.person("dev", own, role="developer"))
    form = {"tenant": str(own.pk), "name": "app", "scope": "sending_access", "domain": str(domain.pk), "test": "on"}
    form["rate_limit"] = "50"
    shown = client.post(url(ApiKey, "add"), {**form, "allowed": "203.0.113.7, 2001:db8::/32"})
    caller = keys.find(shown.context["secret"])
    assert caller and caller.test and caller.domain_id == domain.pk
    assert caller.networks == ("203.0.113.7/32", "2001:db8::/32") and caller.rate_limit == 50
    page = client.get(url(ApiKey, "change", caller.key_id)).content.decode()
    assert "own.example.com" in page and "203.0.113.7/32" in page
    for wrong, words in (
        ({"allowed": "1.2.3.4/8"}, "has bits below its mask"),
        ({"domain": str(theirs.pk)}, "Select a valid choice"),
        ({"scope": "full_access"}, "Goes with a key for sending only"),
        ({"scope": "owner_access", "domain": ""}, "Only an owner of the tenant makes"),
        ({"rate_limit": "999999"}, "requests a second, or empty"),
        ({"expires_at_0": "2001-01-01", "expires_at_1": "00:00"}, "That time has passed"),
    ):
        assert words in client.post(url(ApiKey, "add"), {**form, **wrong}).content.decode(), wrong
    assert ApiKey.objects.filter(tenant=own).count() == 1
    wrong_rate = client.post(url(ApiKey, "change", caller.key_id), {"rate_limit": "0"}).content.decode()
    assert "requests a second, or empty" in wrong_rate
    client.post(url(ApiKey, "change", caller.key_id), {"rate_limit": "7", "name": "other", "scope": "full_access"})
    key = ApiKey.objects.get(id=caller.key_id)
    assert (key.rate_limit, key.name, key.scope) == (7, "app", "sending_access")
    owner = login(mail.person("owner", own, role="owner"))
    made = owner.post(url(ApiKey, "add"), {"tenant": str(own.pk), "name": "erases", "scope": "owner_access"})
    assert keys.find(made.context["secret"]).scope == "owner_access"
    viewer = login(mail.person("viewer", own, role="viewer"))
    viewer.post(url(ApiKey, "change", caller.key_id), {"rate_limit": "9"})
    key.refresh_from_db()
    assert key.rate_limit == 7


def test_a_domain_is_added_looked_at_turned_and_removed_in_the_panel(settings: Any) -> None:
    from tests.fakes.dns import FakeDns

    own = mail.tenant("own")
    client = login(mail.person("dev", own, role="developer"))
    with FakeDns() as dns:
        settings.DNS_NAMESERVERS = (dns.address,)
        page = client.post(url(SendingDomain, "add"), {"tenant": str(own.pk), "name": "Shop.example.com"}, follow=True)
        domain = SendingDomain.objects.get(tenant=own)
        key = domain.dkim_keys.get()
        text = page.content.decode()
        assert key.public_key in text and f"{key.selector}._domainkey.shop.example.com" in text
        dns.set(f'{key.selector}._domainkey.shop.example.com TXT "p={key.public_key[:200]}" "{key.public_key[200:]}"')
        order = {"_selected_action": [str(domain.pk)]}
        done = client.post(url(SendingDomain, "changelist"), {**order, "action": "verify"}, follow=True)
        assert "shop.example.com is verified" in done.content.decode()
        client.post(url(SendingDomain, "changelist"), {**order, "action": "rotate"})
        assert domain.dkim_keys.count() == 2
        viewer = login(mail.person("vera", own))
        viewer.post(url(SendingDomain, "changelist"), {**order, "action": "rotate"})
        assert viewer.post(url(SendingDomain, "delete", domain.pk), {"post": "yes"}).status_code == 403
    again = client.post(url(SendingDomain, "add"), {"tenant": str(own.pk), "name": "shop.example.com"}, follow=True)
    assert "among your domains already" in again.content.decode()
    bad = client.post(url(SendingDomain, "add"), {"tenant": str(own.pk), "name": "co.uk"})
    assert "public suffix" in bad.content.decode()
    keys.create(own, "till", "sending_access", domain_id=domain.pk)
    InboundRoute.objects.create(tenant=own, domain=domain, address="help")
    asks = client.get(url(SendingDomain, "delete", domain.pk)).content.decode()
    for gone in (f"selector {key.selector}", "help@shop.example.com", "till (", "still waits to be sent"):
        assert gone in asks, gone
    client.post(url(SendingDomain, "delete", domain.pk), {"post": "yes"})
    assert not SendingDomain.objects.filter(pk=domain.pk).exists()
    told = AuditEntry.objects.filter(tenant=own, actor="dev").values_list("action", flat=True)
    assert sorted(told) == ["domain.checked", "domain.created", "domain.key_made", "domain.removed", "key.revoked"]


def test_a_suspended_domain_stays_in_the_panel_too() -> None:
    own = mail.tenant("own")
    domain = SendingDomain.objects.create(tenant=own, name="bad.example.com", suspended_at=timezone.now())
    client = login(mail.person("dev", own, role="developer"))
    page = client.post(url(SendingDomain, "delete", domain.pk), {"post": "yes"}, follow=True).content.decode()
    assert "is suspended by the operator" in page and SendingDomain.objects.filter(pk=domain.pk).exists()


# --- the commands -------------------------------------------------------------------------------------------------


def said(*words: str) -> str:
    out = StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


def test_the_operator_sees_to_tenants_and_members_at_the_shell() -> None:
    made = said("tenant", "create", "Acme", "--owner", "ann@example.com", "--key", "first")
    secret = made.split("API key")[1].strip()
    assert keys.find(secret) and "first password" in made
    tenant = Tenant.objects.get(name="Acme")
    assert f"{tenant.id}  Acme  active  (1 members, 0 verified domains, 1 keys)" in said("tenant", "list")
    assert "bob in Acme (viewer)  first password" in said("member", "add", "Acme", "bob", "--role", "viewer")
    assert "bob in Acme (owner)" in said("member", "role", str(tenant.id), "BOB", "owner")
    assert said("member", "list", "Acme").splitlines() == ["ann@example.com  owner", "bob  owner"]
    assert "is no member of Acme any more" in said("member", "remove", "Acme", "ann@example.com")
    with pytest.raises(CommandError, match="last owner"):
        said("member", "remove", "Acme", "bob")
    with pytest.raises(CommandError, match="There is a tenant named Acme already"):
        said("tenant", "create", "Acme")
    with pytest.raises(CommandError, match="There is no tenant 'Nobody'"):
        said("member", "list", "Nobody")
    assert said("tenant", "quota", "Acme") == "Acme has no quota.\n"
    assert said("tenant", "quota", "Acme", "--daily", "5", "--monthly", "90") == "0 of 5 today, 0 of 90 this month\n"
    assert said("tenant", "quota", "Acme", "--daily", "any") == "0 of 90 this month\n"
    assert said("tenant", "list").splitlines()[-1].endswith("0 of 90 this month")
    with pytest.raises(CommandError, match="neither `any` nor a number"):
        said("tenant", "quota", "Acme", "--daily", "-1")
    said("tenant", "suspend", "Acme", "--reason", "unpaid")
    tenant.refresh_from_db()
    assert tenant.suspended_at and tenant.suspended_reason == "unpaid" and "suspended: unpaid" in said("tenant", "list")
    assert "is released" in said("tenant", "release", "Acme")
    tenant.refresh_from_db()
    assert tenant.suspended_at is None
    assert AuditEntry.objects.filter(tenant=tenant, actor__startswith="shell:").count() >= 5
