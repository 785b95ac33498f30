"""Nothing of one tenant is seen by another, in any list, page or action; outside text is never HTML."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deliveries import operators
from deliveries.admin.tenant import OperatorAdmin, TenantAdmin
from deliveries.models import (
    ApiKey,
    AuditEntry,
    Brake,
    Destination,
    Event,
    InboundMessage,
    Membership,
    Message,
    OperatorKey,
    PoolRule,
    QuotaUse,
    SendingDomain,
    Site,
    SourceAddress,
    SourcePool,
    Suppression,
    Tenant,
    User,
    WebhookEndpoint,
)
from deliveries.models.fields import uuid7_floor
from tests.fakes import mail
from tests.fakes.clock import DAY, stay_within
from tests.fakes.person import login

pytestmark = pytest.mark.django_db

#: what belongs to the installation; every other model admin is a TenantAdmin
OPERATORS = {Tenant, User, OperatorKey, Destination, Site, Brake, SourcePool, SourceAddress, PoolRule}
TENANTS = [m for m in admin.site._registry if m not in OPERATORS]


def url(model, name: str, *args) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=args)


@pytest.fixture
def three():
    """Three tenants with one of everything, marked by their names."""
    return {name: (own := mail.tenant(name), mail.everything(own, f"{name}mark")) for name in ("red", "green", "blue")}


def test_every_model_admin_is_a_tenant_admin_or_the_operators():
    for model, model_admin in admin.site._registry.items():
        if model in OPERATORS:
            assert isinstance(model_admin, OperatorAdmin) or model is User, model
        else:
            assert isinstance(model_admin, TenantAdmin), model
    assert {m.__name__ for m in TENANTS} == {
        "ApiKey", "AuditEntry", "BounceMailbox", "Erasure", "Handover", "InboundMessage", "InboundRoute", "Membership",
        "Message", "SendingDomain", "Suppression", "Template", "WebhookDelivery", "WebhookEndpoint",
    }  # fmt: skip


@pytest.mark.parametrize("model", TENANTS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("role", ["viewer", "owner"])
def test_a_list_and_a_page_show_only_the_own_tenant(three, model, role):
    client = login(mail.person("paul", three["red"][0], role=role))
    page = client.get(url(model, "changelist")).content.decode()
    assert "redmark" in page
    assert "greenmark" not in page and "bluemark" not in page
    response = client.get(url(model, "change", three["red"][1][model].pk))
    assert response.status_code == 200
    assert "/admin/deliveries/tenant/" not in response.content.decode(), "a link that answers 403"
    for other in ("green", "blue"):
        row = three[other][1][model]
        for name in ("change", "history", "delete"):
            response = client.get(url(model, name, row.pk))
            # Django answers an unknown id with a redirect to its index
            assert response.status_code in (302, 403, 404), (name, response.status_code)
            assert f"{other}mark" not in response.content.decode()
        assert model._default_manager.filter(pk=row.pk).exists()


@pytest.mark.parametrize("model", TENANTS, ids=lambda m: m.__name__)
def test_a_member_of_two_tenants_sees_both_and_the_operator_all(three, model):
    both = login(mail.person("bea", three["red"][0], three["green"][0]))
    page = both.get(url(model, "changelist")).content.decode()
    assert "redmark" in page and "greenmark" in page and "bluemark" not in page
    page = both.get(url(model, "changelist"), {"tenant": str(three["blue"][0].pk)}, follow=True).content.decode()
    assert "bluemark" not in page
    operator = login(mail.person("root", operator=True))
    page = operator.get(url(model, "changelist")).content.decode()
    assert "redmark" in page and "greenmark" in page and "bluemark" in page


@pytest.mark.parametrize("model", [m for m in TENANTS if admin.site._registry[m].actions], ids=lambda m: m.__name__)
def test_no_action_reaches_another_tenant_and_a_viewer_has_none(three, model):
    foreign, own = three["green"][1][model], three["red"][1][model]
    before = values(foreign), values(own)
    actions = admin.site._registry[model].actions
    viewer = login(mail.person("viewer", three["red"][0]))
    owner = login(mail.person("owner", three["red"][0], role="owner"))
    # who owns one tenant and reads another acts in the first alone
    mixed = login(mail.person("mixed", three["red"][0], role="owner"))
    Membership.objects.create(user=User.objects.get(username="mixed"), tenant=three["green"][0], role="viewer")
    for action in actions:
        data = {"action": action, "select_across": "1"}
        viewer.post(url(model, "changelist"), {**data, "_selected_action": [str(own.pk), str(foreign.pk)]})
        owner.post(url(model, "changelist"), {**data, "_selected_action": [str(foreign.pk)]})
        mixed.post(url(model, "changelist"), {**data, "_selected_action": [str(foreign.pk)]})
    assert (values(foreign), values(own)) == before
    assert not AuditEntry.objects.exclude(action="key.created").exists()
    for action in actions:
        owner.post(url(model, "changelist"), {"action": action, "_selected_action": [str(own.pk)]})
    assert values(foreign) == before[0]
    # domains are suspended and released by the operator alone
    assert model in (Message, SendingDomain) or values(own) != before[1], "what the owner may do is done"


def values(row) -> list:
    """The row as it stands in the database now; empty when it is gone."""
    return list(type(row)._default_manager.filter(pk=row.pk).values())


@pytest.mark.parametrize("model", sorted(OPERATORS, key=lambda m: m.__name__), ids=lambda m: m.__name__)
def test_what_belongs_to_the_installation_is_closed_to_members(three, model):
    mail.destination()
    mail.site(suspended_until=datetime.now(UTC) + timedelta(hours=1), reason="asked us to slow down", last_reply="421")
    at = datetime.now(UTC)
    Brake.objects.create(site="x.test", reason="x.test refused all", refused=60, since=at, at=at)
    pool = SourcePool.objects.create(name="news")
    SourceAddress.objects.create(address="192.0.2.9", pool=pool)
    PoolRule.objects.create(pool=pool)
    operators.create("billing", "read_access", "test")
    client = login(mail.person("olga", three["red"][0], role="owner"))
    row = model._default_manager.first()
    for name, args in (("changelist", ()), ("change", (row.pk,)), ("delete", (row.pk,))):
        assert client.get(url(model, name, *args)).status_code == 403
    operator = login(mail.person("root", operator=True))
    assert operator.get(url(model, "changelist")).status_code == 200
    assert operator.get(url(model, "change", row.pk)).status_code == 200


def test_the_operator_pauses_a_site_and_resumes_it(three):
    mail.site("slow.example")
    operator, member = (
        login(mail.person("root", operator=True)),
        login(mail.person("own", three["red"][0], role="owner")),
    )
    order = {"action": "pause", "_selected_action": ["slow.example"]}
    assert member.post(url(Site, "changelist"), order).status_code == 403
    operator.post(url(Site, "changelist"), order)
    assert Site.objects.get().paused_by == "root"
    page = operator.get(url(Site, "changelist")).content.decode()
    assert "it is resumed" in page and "paused" in page
    operator.post(url(Site, "changelist"), {**order, "action": "resume"})
    assert Site.objects.get().paused_by == ""


def test_the_operator_makes_tenants_and_logins_with_memberships(three):
    operator = login(mail.person("root", operator=True))
    for model in {Tenant, User}:
        assert operator.get(url(model, "add")).status_code == 200
    operator.post(url(Tenant, "add"), {"name": "purple"})
    purple = Tenant.objects.get(name="purple")
    password = {"password1": mail.PASSWORD, "password2": mail.PASSWORD, "usable_password": "true"}
    operator.post(url(User, "add"), {"username": "penny", **password})
    penny = User.objects.get(username="penny")
    page = operator.get(url(User, "change", penny.pk)).content.decode()
    assert penny.password not in page
    # memberships are told on the page of a login, and made where the rules of a tenant's people hold
    form = {
        "username": "penny", "is_active": "on", "is_staff": "on", "memberships-TOTAL_FORMS": "1",
        "memberships-INITIAL_FORMS": "0", "memberships-0-tenant": str(purple.pk), "memberships-0-role": "owner",
    }  # fmt: skip
    operator.post(url(User, "change", penny.pk), form)
    assert not penny.memberships.exists()
    operator.post(url(Membership, "add"), {"tenant": str(purple.pk), "login": "penny", "role": "owner"})
    assert penny.memberships.get().role == "owner"
    assert "purple" in operator.get(url(User, "change", penny.pk)).content.decode()
    rights = {"username": "penny", "is_active": "on", "is_staff": "on", "is_superuser": "on"}
    none = {"memberships-TOTAL_FORMS": "0", "memberships-INITIAL_FORMS": "0"}
    for change in ({}, {"is_superuser": ""}):
        operator.post(url(User, "change", penny.pk), rights | change | none)
    entries = AuditEntry.objects.filter(actor="root", action__startswith="login.").order_by("id")
    assert list(entries.values_list("action", "subject")) == [
        ("login.created", "penny"), ("login.changed", "penny: Operator"), ("login.changed", "penny: Operator"),
    ], "who was made an operator, and by whom, is told"  # fmt: skip
    browser = Client()
    answer = browser.post("/admin/login/?next=/admin/", {"username": "penny", "password": mail.PASSWORD})
    assert answer.status_code == 302 and answer["Location"] == "/admin/"
    assert browser.get(url(ApiKey, "changelist")).status_code == 200
    changed = {"name": "purple", "suspended_reason": "asked to", "daily_quota": "5", "monthly_quota": ""}
    operator.post(url(Tenant, "change", purple.pk), changed)
    stay_within(DAY)
    QuotaUse.objects.create(tenant_id=purple.pk, kind="day", starts=timezone.now().date(), used=3)
    assert "3 of 5 today" in operator.get(url(Tenant, "change", purple.pk)).content.decode()
    assert "3 of 5 today" in operator.get(url(Tenant, "changelist")).content.decode()
    ApiKey.objects.create(tenant=purple, name="fast", prefix="re_f", secret_hash=b"f" * 32, rate_limit=70)
    key = ApiKey.objects.create(tenant=purple, name="plain", prefix="re_p", secret_hash=b"p" * 32)
    page = operator.get(url(Tenant, "change", purple.pk)).content.decode()
    assert "70 a second" in page and "(5000 a second)" in page and url(ApiKey, "change", key.pk) in page
    operator.post(url(ApiKey, "change", key.pk), {"rate_limit": "9"})
    assert "9 a second" in operator.get(url(Tenant, "change", purple.pk)).content.decode()
    assert set(AuditEntry.objects.filter(tenant=purple, actor="root").values_list("action", flat=True)) == {
        "tenant.created", "tenant.changed", "member.added", "key.changed",
    }  # fmt: skip


def test_a_person_without_a_membership_sees_nothing(three):
    client = login(mail.person("nobody"))
    assert client.get("/admin/").status_code == 200
    for model in TENANTS:
        assert client.get(url(model, "changelist")).status_code == 403


def test_preview_and_files_are_the_tenants_own(three):
    row = mail.message(three["green"][0], "a@example.net", filename="x.pdf")
    file = row.attachment_count and __import__("deliveries.models", fromlist=["Attachment"]).Attachment.objects.get()
    addresses = [url(type(row), "preview", row.pk), url(type(row), "file", row.pk, file.pk)]
    for client, status in (
        (login(mail.person("ron", three["red"][0])), 404),
        (login(mail.person("gina", three["green"][0])), 200),
        (Client(), 302),
    ):
        for address in addresses:
            assert client.get(address).status_code == status
    assert login(User.objects.get(username="ron")).post(url(type(row), "act", row.pk)).status_code == 404


def test_a_new_key_is_shown_once_works_and_can_be_revoked(three):
    from deliveries import keys

    owner, _ = three["red"]
    client = login(mail.person("dev", owner, role="developer"))
    form = {"tenant": str(owner.pk), "name": "web shop", "scope": "sending_access"}
    response = client.post(url(ApiKey, "add"), form)
    secret = response.context["secret"]
    assert secret in response.content.decode() and "no-store" in response["Cache-Control"]
    caller = keys.find(secret)
    assert caller is not None and caller.tenant_id == owner.pk and caller.scope == "sending_access"
    made = ApiKey.objects.get(name="web shop")
    for address in (url(ApiKey, "changelist"), url(ApiKey, "change", made.pk)):
        assert secret not in client.get(address).content.decode()
    client.post(url(ApiKey, "changelist"), {"action": "revoke", "_selected_action": [str(made.pk)]})
    assert keys.find(secret) is None
    told = set(AuditEntry.objects.filter(actor="dev").values_list("action", "tenant_id"))
    assert told == {("key.created", owner.pk), ("key.revoked", owner.pk)}


def test_a_key_cannot_be_made_for_another_tenant_or_by_a_viewer(three):
    client = login(mail.person("dev", three["red"][0], role="developer"))
    form = {"tenant": str(three["green"][0].pk), "name": "stolen", "scope": "full_access"}
    assert client.post(url(ApiKey, "add"), form).status_code == 200
    viewer = login(mail.person("viewer", three["red"][0]))
    assert viewer.post(url(ApiKey, "add"), {**form, "tenant": str(three["red"][0].pk)}).status_code == 403
    # a viewer elsewhere cannot lend the developer's rights
    mixed = User.objects.get(username="dev")
    Membership.objects.create(user=mixed, tenant=three["green"][0], role="viewer")
    assert login(mixed).post(url(ApiKey, "add"), form).status_code == 200
    assert not ApiKey.objects.filter(name="stolen").exists()


def test_an_endpoint_is_made_by_its_verb_and_its_secret_shown_once(three):
    owner, _ = three["red"]
    client = login(mail.person("dev", owner, role="developer"))
    form = {"tenant": str(owner.pk), "url": "https://shop.example/in", "events": ["email.bounced"]}
    form["format"] = WebhookEndpoint.Format.NATIVE
    response = client.post(url(WebhookEndpoint, "add"), form)
    secret = response.context["secret"]
    assert secret.startswith("whsec_") and secret in response.content.decode()
    row = WebhookEndpoint.objects.get(url="https://shop.example/in")
    assert row.tenant_id == owner.pk and row.events == ["email.bounced"] and bytes(row.secret).decode() == secret
    assert secret not in client.get(url(WebhookEndpoint, "change", row.pk)).content.decode()
    assert AuditEntry.objects.get(action="webhook.created").actor == "dev"
    client.post(url(WebhookEndpoint, "changelist"), {"action": "remove", "_selected_action": [str(row.pk)]})
    assert not WebhookEndpoint.objects.filter(pk=row.pk).exists()


@pytest.mark.parametrize("address", ["http://[::1", "ftp://shop.example/", "hook"])
def test_an_endpoint_that_can_never_be_posted_to_is_refused_in_words(three, address):
    owner, _ = three["red"]
    client = login(mail.person("dev", owner, role="developer"))
    before = WebhookEndpoint.objects.count()
    response = client.post(
        url(WebhookEndpoint, "add"),
        {"tenant": str(owner.pk), "url": address, "format": WebhookEndpoint.Format.NATIVE},
        follow=True,
    )
    assert response.status_code == 200 and "secret" not in (response.context or {})
    assert WebhookEndpoint.objects.count() == before


def test_an_address_is_suppressed_and_freed_by_hand(three):
    owner, _ = three["red"]
    client = login(mail.person("dev", owner, role="developer"))
    client.post(url(Suppression, "add"), {"tenant": str(owner.pk), "address": " Anna@Example.NET ", "detail": "asked"})
    row = Suppression.objects.get(address="anna@example.net")
    for wrong in ({"address": "@"}, {"address": "a@" + "x" * 300}, {"address": "a@b.test", "stream": "No such"}):
        said = client.post(url(Suppression, "add"), {"tenant": str(owner.pk), **wrong})
        assert said.status_code == 200 and Suppression.objects.filter(tenant=owner).count() == 2, wrong
    assert (row.tenant_id, row.reason, row.stream, row.detail) == (owner.pk, "manual", "*", "asked")
    assert client.get(url(Suppression, "changelist"), {"q": "ANNA@"}).context["cl"].result_list == [row]
    client.post(url(Suppression, "changelist"), {"action": "remove", "_selected_action": [str(row.pk)]})
    assert not Suppression.objects.filter(pk=row.pk).exists()
    actions = AuditEntry.objects.filter(actor="dev").order_by("id").values_list("action", flat=True)
    assert list(actions) == ["suppression.added", "suppression.removed"]


def test_only_an_owner_sees_to_people_and_never_locks_the_own_door(three):
    owner, _ = three["red"]
    boss = mail.person("boss", owner, role="owner")
    client = login(boss)
    own = boss.memberships.get()
    assert client.post(url(Membership, "delete", own.pk), {"post": "yes"}).status_code == 403
    response = client.post(url(Membership, "add"), {"tenant": str(owner.pk), "login": "newbie", "role": "viewer"})
    password = response.context["secret"]
    entered = Client().post("/admin/login/", {"username": "newbie", "password": password, "next": "/admin/"})
    assert entered.status_code == 302
    client.post(url(Membership, "add"), {"tenant": str(owner.pk), "login": "newbie", "role": "owner"})
    assert Membership.objects.get(user__username="newbie").role == "viewer"
    client.post(url(Membership, "add"), {"tenant": str(three["blue"][0].pk), "login": "spy", "role": "owner"})
    assert not User.objects.filter(username="spy").exists()
    newbie = Membership.objects.get(user__username="newbie")
    developer = login(mail.person("dev", owner, role="developer"))
    assert developer.post(url(Membership, "change", newbie.pk), {"role": "owner"}).status_code == 403
    assert developer.post(url(Membership, "add"), {}).status_code == 403
    client.post(url(Membership, "change", newbie.pk), {"role": "developer"})
    newbie.refresh_from_db()
    assert newbie.role == "developer"
    client.post(url(Membership, "delete", newbie.pk), {"post": "yes"})
    assert not Membership.objects.filter(pk=newbie.pk).exists()


PAYLOADS = [
    "<script>window.hit=1</script>",
    '"><img src=x onerror=window.hit=1>',
    "</textarea></pre><svg onload=window.hit=1>",
    "{{ 7|add:7 }}{% debug %}",
    "' x-data x-init='window.hit=1",
    "<iframe srcdoc='<script>parent.hit=1</script>'>",
    "javascript:window.hit=1//<a href=javascript:hit>",
    "\u202egnp.exe<b>",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_from_outside_is_never_html(payload, django_assert_max_num_queries):
    own = mail.tenant(payload[:190])
    endpoint = WebhookEndpoint.objects.create(tenant=own, url="https://a.example/" + payload, secret=b"x")
    row = mail.message(
        own, f"{payload}@example.net", subject=payload, sender=payload, reply=payload, transcript=f"1 S: {payload}",
        filename=payload, text=payload, html=payload, tags=[{"name": payload, "value": payload}], status="bounced",
        category="unknown", rule=payload[:80], host=payload, reason=payload,
    )  # fmt: skip
    mail.post(endpoint, Event.objects.filter(message=row).first(), response=payload)
    common = {"tenant": own, "created_at": row.created_at}
    rows = [
        row,
        Suppression.objects.create(address=payload, reason="bounce", detail=payload, **common),
        InboundMessage.objects.create(
            tenant=own, received_at=row.created_at, peer=payload, helo=payload, reverse_path=payload,
            forward_path=payload, octets=payload.encode(), note=payload, state="unreadable",
        ),
        AuditEntry.objects.create(tenant=own, actor=payload, action=payload[:60], subject=payload),
        endpoint,
        endpoint.deliveries.get(),
        mail.domain(own, payload),
        ApiKey.objects.create(tenant=own, name=payload, prefix=payload[:8], secret_hash=payload.encode()),
    ]  # fmt: skip
    client = login(mail.person("root", operator=True))
    pages = ["/admin/", f"{url(type(row), 'changelist')}?q={payload}"]
    for one in rows:
        pages += [url(type(one), "changelist"), url(type(one), "change", one.pk)]
    for page in pages:
        response = client.get(page)
        assert response.status_code == 200, page
        html = response.content.decode()
        for raw in ("<script>window", "<img src=x", "<svg onload", "<iframe srcdoc", "<a href=javascript", "14{%"):
            assert raw not in html, (page, raw)
        assert "' x-data x-init='" not in html, page
        assert response["Content-Security-Policy"].count("unsafe-inline") == 1  # styles only


def test_the_preview_has_a_policy_of_its_own_and_files_are_downloads():
    own = mail.tenant("Shop")
    row = mail.message(
        own, "a@example.net", html='<img src="https://track.example/p.gif">', filename='in"voice\r\n.html'
    )
    client = login(mail.person("paul", own))
    response = client.get(url(type(row), "preview", row.pk))
    policy = response["Content-Security-Policy"]
    assert "sandbox;" in policy and "default-src 'none'" in policy and policy.endswith("img-src data:")
    assert "script" not in policy
    asked = client.get(url(type(row), "preview", row.pk), {"images": "1"})
    assert asked["Content-Security-Policy"] == policy + " http: https:"
    page = client.get(url(type(row), "change", row.pk)).content.decode()
    assert '<iframe class="panel-preview" id="preview" sandbox=""' in page
    file = page.split("/file/")[1].split("/")[0]
    download = client.get(url(type(row), "file", row.pk, file))
    assert download["Content-Type"] == "application/octet-stream"
    assert download["Content-Disposition"].startswith("attachment;") and "\n" not in download["Content-Disposition"]


def test_an_inline_image_travels_inside_the_preview():
    from deliveries.models import Attachment

    own = mail.tenant("Shop")
    row = mail.message(own, "a@example.net", html='<img src="cid:Logo@x"><img src="cid:evil">', filename="x")
    Attachment.objects.create(
        message_id=row.id, position=1, filename="logo.png", content_type="image/png", content_id="logo@x",
        content=b"\x89PNG",
    )  # fmt: skip
    Attachment.objects.create(
        message_id=row.id, position=2, filename="e.svg", content_type='image/svg+xml"><script>', content_id="evil",
        content=b"<svg/>",
    )  # fmt: skip
    html = login(mail.person("paul", own)).get(url(type(row), "preview", row.pk)).content.decode()
    assert '<img src="data:image/png;base64,iVBORw==">' in html
    assert 'src="cid:evil"' in html


def test_what_the_lab_received_is_shown_to_the_operator_alone(three, settings, tmp_path):
    import json

    facts = {
        "number": 7, "at": "2026-11-23T10:00:00Z", "subject": "<b>hit</b>", "forward_paths": ["a@b.test"],
        "behaviour": "delivered", "size_octets": 900, "tls": "", "copy": 2, "message_id": "x@y",
    }  # fmt: skip
    (tmp_path / "000000000007.json").write_text(json.dumps(facts))
    (tmp_path / "000000000007.eml").write_bytes(b"Subject: <b>hit</b>\r\n\r\n<script>1</script>\xff")
    (tmp_path / "000000000008.eml").write_bytes(b"half written")
    settings.SANDBOX_SPOOL = str(tmp_path)
    operator, member = login(mail.person("root", operator=True)), login(mail.person("own", three["red"][0]))
    page = operator.get("/admin/received/").content.decode()
    assert "&lt;b&gt;hit&lt;/b&gt;" in page and "copy 2" in page
    page = operator.get("/admin/received/7/").content.decode()
    assert "&lt;script&gt;1&lt;/script&gt;" in page
    assert operator.get("/admin/received/9/").status_code == 404
    assert member.get("/admin/received/").status_code == member.get("/admin/received/7/").status_code == 403
    assert "Received" not in member.get("/admin/").content.decode()
    settings.SANDBOX_SPOOL = ""
    assert operator.get("/admin/received/").status_code == 404


def test_the_audit_log_calls_a_key_by_its_name_and_finds_by_who_what_and_when(three):
    red = three["red"][0]
    key = ApiKey.objects.create(tenant=red, name="Till <3>", prefix="re_t", secret_hash=b"t" * 32)
    program = OperatorKey.objects.create(name="provisioning", prefix="op_p", secret_hash=b"o" * 32, scope="full_access")
    entries = [
        AuditEntry.objects.create(tenant=red, actor=actor, action=action, subject=subject)
        for actor, action, subject in (
            (f"key:{key.pk}", "domain.created", "shop.example"),
            (f"operator_key:{program.pk}", "tenant.held", "unpaid"),
            ("rosa", "suppression.removed", "ann@example.net"),
        )
    ]
    member, operator = login(mail.person("ron", red)), login(mail.person("root", operator=True))
    page = member.get(url(AuditEntry, "changelist")).content.decode()
    assert f"Till &lt;3&gt; (key:{key.pk})" in page and "provisioning" not in page, "that key is the operator's to know"
    assert "provisioning (operator_key:" in operator.get(url(AuditEntry, "changelist")).content.decode()
    assert "Till &lt;3&gt; (key:" in member.get(url(AuditEntry, "change", entries[0].pk)).content.decode()
    for query, found in (("q=rosa", 2), ("q=domain.", 0), ("q=ann%40", 2), ("q=key:", 0), ("period=week&q=unp", 1)):
        rows = member.get(url(AuditEntry, "changelist") + "?" + query).context["cl"].result_list
        assert [row.pk for row in rows] == [entries[found].pk], query
    AuditEntry.objects.filter(pk=entries[2].pk).update(id=uuid7_floor(1_700_000_000_000))
    rows = member.get(url(AuditEntry, "changelist") + "?period=month&q=rosa").context["cl"].result_list
    assert list(rows) == [], "that was in 2023"
