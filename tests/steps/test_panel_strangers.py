"""Every address of the panel, walked by who should not be there: other tenants' members, viewers, and long lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, reverse

from deliveries.admin.tenant import TenantAdmin
from deliveries.models import (
    ApiKey,
    Attachment,
    Brake,
    InboundRoute,
    Membership,
    Message,
    PoolRule,
    SendingDomain,
    SourceAddress,
    SourcePool,
    Suppression,
    User,
)
from tests.fakes import mail
from tests.fakes.person import login

pytestmark = pytest.mark.django_db

VERBS = (
    "save",
    "retry",
    "cancel",
    "again_to",
    "unsuppress",
    "correct",
    "publish",
    "remove",
    "test",
    "rotate",
    "verify",
)
#: what says nothing of tenants, ends the session, or is the person's own
_APART = ("logout", "jsi18n", "view_on_site", "received_one", "password_change", "second_factor", "app_list")


def addresses(rows: dict[type, Any]) -> list[str]:
    """The panel's addresses, with the ids of these rows where one is asked for."""
    found = set()
    for pattern in flat(admin.site.get_urls()):
        if not pattern.name or pattern.name.startswith(_APART):
            continue
        model = next((m for m in rows if pattern.name.startswith(f"deliveries_{m._meta.model_name}_")), Message)
        given = dict.fromkeys(pattern.pattern.converters, rows[model].pk)
        if "file" in given:
            given["file"] = Attachment.objects.get(message_id=given["pk"]).pk
        found.add(reverse(f"admin:{pattern.name}", kwargs=given))
    return sorted(found)


def flat(patterns: Iterable[Any]) -> Iterator[URLPattern]:
    for pattern in patterns:
        yield from flat(pattern.url_patterns) if isinstance(pattern, URLResolver) else [pattern]


def everything() -> dict[str, list[Any]]:
    """All that the database holds of the service, but for who logged in when."""
    return {
        m.__name__: sorted(map(repr, m._default_manager.values()))
        for m in apps.get_app_config("deliveries").get_models()
        if m is not User and m._meta.managed
    }


def of(name: str) -> dict[type, Any]:
    own = mail.tenant(name)
    rows = mail.everything(own, f"{name}mark")
    Message.objects.filter(pk=rows[Message].pk).update(attachment_count=1)
    Attachment.objects.create(message_id=rows[Message].pk, position=0, filename=f"{name}mark", content=b"greenmark")
    return rows


def test_no_address_of_the_panel_tells_a_member_of_another_tenant_anything() -> None:
    red, green = of("red"), of("green")
    member = login(mail.person("olga", red[Message].tenant, role="owner"))
    asked = addresses(green)
    assert len(asked) > 90
    for address in asked:
        found = [{}, {"q": "green", "tenant": str(green[Message].tenant_id)}] if address.count("/") == 4 else [{}]
        for query in found:
            answer = member.get(address, query)
            assert answer.status_code in (200, 302, 400, 403, 404, 405), (address, answer.status_code)
            told = b"".join(answer) if answer.streaming else answer.content
            assert b"greenmark" not in told, (address, query)
    words = {"app_label": "deliveries", "model_name": "delivery", "field_name": "message", "term": "mark"}
    offered = member.get(reverse("admin:autocomplete"), words).content.decode()
    assert str(red[Message].pk) in offered and str(green[Message].pk) not in offered


def test_a_viewer_changes_nothing_at_any_address() -> None:
    rows = of("red")
    viewer = login(mail.person("vera", rows[Message].tenant))
    words = {
        "tenant": str(rows[Message].tenant_id), "name": "x", "address": "x@example.net", "host": "x.example",
        "person": "redmark@example.net", "login": "newbie", "role": "owner", "url": "https://x.example/", "data": "{}",
        "delivery": str(rows[Message].deliveries.get().pk), "suppression": str(rows[Suppression].pk), "rule": "x",
        "since": "2020-01-01 00:00", "until": "2099-01-01 00:00", "confirmed": "1", "post": "yes", "rate_limit": "1",
    }  # fmt: skip
    before = everything()
    for address in addresses(rows):
        acts = address.endswith("/act/") or "/template/" in address or "/sendingdomain/" in address
        for verb in VERBS if acts else ("",):
            assert viewer.post(address, {**words, "verb": verb}).status_code < 500, (address, verb)
    assert everything() == before


def test_whoever_reads_a_tenant_hangs_nothing_of_another_on_it() -> None:
    red, green = of("red"), of("green")
    client = login(mail.person("bea", red[Message].tenant, role="developer"))
    Membership.objects.create(user=User.objects.get(username="bea"), tenant=green[Message].tenant, role="viewer")
    before = everything()
    theirs = str(green[SendingDomain].pk)
    for model, form in (
        (InboundRoute, {"domain": theirs, "address": "spy"}),
        (ApiKey, {"tenant": str(red[Message].tenant_id), "name": "x", "scope": "sending_access", "domain": theirs}),
    ):
        answer = client.post(reverse(f"admin:deliveries_{model._meta.model_name}_add"), form)
        assert answer.status_code == 200 and "greenmark.example" not in answer.content.decode()
    assert everything() == before


def test_every_list_asks_as_often_for_many_rows_as_for_few() -> None:
    client = login(mail.person("root", operator=True))
    asked: dict[str, list[int]] = {}
    for numbers in (range(1, 3), range(3, 8)):
        for n in numbers:
            row_of_each(n)
        for model in admin.site._registry:
            address = reverse(f"admin:deliveries_{model._meta.model_name}_changelist")
            with CaptureQueriesContext(connection) as queries:
                assert client.get(address).status_code == 200
            asked.setdefault(address, []).append(len(queries))
    assert {address: counts for address, counts in asked.items() if counts[0] != counts[1]} == {}


def row_of_each(n: int) -> None:
    own, at = mail.tenant(f"t{n}"), datetime.now(UTC)
    mail.everything(own, f"mark{n}")
    Brake.objects.create(site=f"x{n}.test", reason="x", refused=60, since=at, at=at)
    pool = SourcePool.objects.create(name=f"p{n}")
    SourceAddress.objects.create(address=f"192.0.2.{n}", pool=pool)
    PoolRule.objects.create(pool=pool, tenant=own)
    mail.site(f"s{n}.example")
    mail.destination(f"s{n}.example")


def test_no_form_that_is_filled_in_by_hand_is_an_error_of_ours() -> None:
    rows = of("red")
    member = login(mail.person("olga", rows[Message].tenant, role="owner"))
    root = login(mail.person("root", operator=True))
    before = everything()
    for model in admin.site._registry:
        model_admin = admin.site._registry[model]
        client = member if isinstance(model_admin, TenantAdmin) else root
        for action in model_admin.actions or ():
            address = reverse(f"admin:deliveries_{model._meta.model_name}_changelist")
            chosen = {"action": action, "_selected_action": ["nonsense", "a\0b"], "on_page": "nonsense"}
            assert client.post(address, chosen).status_code < 500, (address, action)
    assert everything() == before
    stranger = Client(REMOTE_ADDR="192.0.2.77")
    said = stranger.post(reverse("admin:login"), {"username": "x" * 10_000, "password": "x"})
    assert said.status_code == 200 and "correct username" in said.content.decode()


@pytest.mark.parametrize(
    "address",
    [
        "search/?s=mes&page=zzz", "search/?s=mes&page=99", "deliveries/webhookdelivery/?state=%00",
        "deliveries/inboundmessage/?state=a%00", "deliveries/site/a%00b/change/", "deliveries/message/?q=tag:%00",
    ],
)  # fmt: skip
def test_no_address_that_a_person_types_is_an_error_of_ours(address: str) -> None:
    assert login(mail.person("root", operator=True)).get(f"/admin/{address}").status_code < 500
