"""The page of a sending domain: who may press what, and what holds for its mail."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from deliveries.models import AuditEntry, SendingDomain
from tests.fakes import mail
from tests.fakes.person import login

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop():
    return mail.tenant("Shop")


@pytest.fixture
def domain(shop):
    return mail.domain(shop, "shop.example")


def at(domain) -> str:
    return reverse("admin:deliveries_sendingdomain_change", args=[domain.pk])


def by(shop, role: str) -> Client:
    return login(mail.person(role, shop, role=role))


MAIL = {"verb": "save", "open_tracking": "on", "tls": "must", "unsubscribe_streams": "offers,news  news"}


def test_a_developer_says_what_holds_for_its_mail(shop, domain):
    client = by(shop, "developer")
    assert (
        "it holds for mail that is accepted from now on" in client.post(at(domain), MAIL, follow=True).content.decode()
    )
    row = SendingDomain.objects.get(pk=domain.pk)
    assert (row.open_tracking, row.click_tracking, row.tls) == (True, False, "must")
    assert row.unsubscribe_streams == ["news", "offers"]
    assert AuditEntry.objects.filter(actor="developer", action="domain.changed").count() == 1
    assert 'value="news, offers"' in client.get(at(domain)).content.decode()
    refused = client.post(at(domain), MAIL | {"dkim_ed25519": "on"}).content.decode()
    assert "so no new key would be seen" in refused, "the operator's word verified it"
    SendingDomain.objects.filter(pk=domain.pk).update(next_check_at=timezone.now())
    page = client.post(at(domain), MAIL | {"dkim_ed25519": "on"}, follow=True).content.decode()
    assert "v=DKIM1; k=ed25519; p=" in page and 'name="dkim_ed25519" ' in page
    assert domain.dkim_keys.get().key_type == "ed25519"
    client.post(at(domain), MAIL | {"unsubscribe_streams": ""})
    assert not domain.dkim_keys.exists()
    assert SendingDomain.objects.get(pk=domain.pk).unsubscribe_streams == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"unsubscribe_streams": "news, No-News"}, "No-News: a stream has"),
        ({"unsubscribe_streams": "<b>x</b>"}, "&lt;b&gt;x&lt;/b&gt;: a stream has"),
        ({"unsubscribe_streams": " ".join(f"s{n}" for n in range(51))}, "At most 50 streams"),
        ({"tls": "perhaps"}, "not one of the available choices"),
    ],
)
def test_what_cannot_be_is_said_at_the_form_and_nothing_changes(shop, domain, changed, said):
    page = by(shop, "developer").post(at(domain), MAIL | changed)
    assert page.status_code == 200 and said in page.content.decode()
    row = SendingDomain.objects.get(pk=domain.pk)
    assert row.unsubscribe_streams == [] and not row.open_tracking


@pytest.mark.parametrize("verb", ["save", "verify", "rotate"])
def test_a_viewer_reads_and_presses_nothing(shop, domain, verb):
    client = by(shop, "viewer")
    page = client.get(at(domain)).content.decode()
    assert "DNS records to publish" in page and "Check now" not in page and "<fieldset disabled" in page
    assert client.post(at(domain), MAIL | {"verb": verb}).status_code == 403
    stranger = by(mail.tenant("Other"), "owner")
    assert stranger.post(at(domain), MAIL | {"verb": verb}).status_code in (302, 404)
    row = SendingDomain.objects.get(pk=domain.pk)
    assert not row.open_tracking and row.checked_at is None and row.dkim_keys.count() <= 1
