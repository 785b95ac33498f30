"""Bounce mailboxes in the panel: made by a form that never shows the password again."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.fernet import Fernet

from deliveries import mailboxes
from deliveries.models import AuditEntry, BounceMailbox, FetchedMail, InboundRoute
from tests.fakes import mail
from tests.fakes.person import login

pytestmark = pytest.mark.django_db

LIST = "/admin/deliveries/bouncemailbox/"
FORM = {
    "protocol": "imap", "host": "IMAP.example.com.", "port": "993", "tls": "implicit", "username": "b@example.com",
    "secret": "pass w ord ", "folder": "INBOX", "delete_after": "on", "enabled": "on",
}  # fmt: skip


def test_the_operator_adds_a_mailbox_of_the_installation_and_its_password_is_never_shown() -> None:
    client = login(mail.person("root", operator=True))
    assert client.post(LIST + "add/", FORM).status_code == 302
    box = BounceMailbox.objects.get()
    assert (box.tenant, box.host, bytes(box.password)) == (None, "imap.example.com", b"pass w ord ")
    page = client.get(f"{LIST}{box.pk}/change/").content.decode()
    assert "imap.example.com" in page and "pass w ord" not in page
    assert client.post(f"{LIST}{box.pk}/change/", {**FORM, "secret": "", "folder": "Bounces"}).status_code == 302
    box.refresh_from_db()
    assert (box.folder, bytes(box.password)) == ("Bounces", b"pass w ord ")
    for elsewhere in ({"host": "imap.evil.example"}, {"port": "143"}, {"tls": "none"}):
        answer = client.post(f"{LIST}{box.pk}/change/", {**FORM, "secret": "", **elsewhere})
        assert "Give the password again" in answer.content.decode(), "a kept password goes to the server it was for"
    assert list(AuditEntry.objects.order_by("id").values_list("action", flat=True)) == [
        "mailbox.added",
        "mailbox.changed",
    ]


def test_a_developer_adds_one_for_the_own_tenant_only_and_a_viewer_none() -> None:
    red, blue = mail.tenant("red"), mail.tenant("blue")
    client = login(mail.person("dora", red, role="developer"))
    for tenant in ("", str(blue.pk)):
        assert client.post(LIST + "add/", {**FORM, "tenant": tenant}).status_code == 200
    assert not BounceMailbox.objects.exists()
    assert client.post(LIST + "add/", {**FORM, "tenant": str(red.pk)}).status_code == 302
    box = BounceMailbox.objects.get()
    assert box.tenant == red
    viewer = login(mail.person("vera", red, role="viewer"))
    assert viewer.get(f"{LIST}{box.pk}/change/").status_code == 200
    assert viewer.post(LIST + "add/", {**FORM, "tenant": str(red.pk)}).status_code == 403
    assert viewer.post(f"{LIST}{box.pk}/change/", FORM).status_code == 403


def test_the_operators_mailbox_is_closed_to_members() -> None:
    box = BounceMailbox.objects.create(host="imap.example.com", username="b", password=b"x")
    client = login(mail.person("olga", mail.tenant("red"), role="owner"))
    assert "imap.example.com" not in client.get(LIST).content.decode()
    assert client.post(f"{LIST}{box.pk}/change/", FORM).status_code in (302, 403)
    client.post(LIST, {"action": "remove", "_selected_action": [str(box.pk)]})
    assert BounceMailbox.objects.get().host == "imap.example.com"


@pytest.mark.parametrize(
    "wrong",
    [{"host": "a b"}, {"host": "http://x/"}, {"port": "0"}, {"port": "70000"}, {"secret": ""}, {"secret": "a\r\nb"}],
)
def test_what_cannot_be_is_said_at_the_form(wrong: dict[str, str]) -> None:
    client = login(mail.person("root", operator=True))
    assert client.post(LIST + "add/", {**FORM, **wrong}).status_code == 200
    assert not BounceMailbox.objects.exists()


def test_check_now_asks_at_once_and_gives_a_mail_that_was_given_up_another_chance(settings: Any) -> None:
    client = login(mail.person("root", operator=True))
    client.post(LIST + "add/", FORM)
    box = BounceMailbox.objects.get()
    BounceMailbox.objects.update(next_poll_at="2099-01-01T00:00Z")
    FetchedMail.objects.create(mailbox=box, key="1:1", tries=5)
    client.post(LIST, {"action": "check_now", "_selected_action": [str(box.pk)]})
    box.refresh_from_db()
    assert box.next_poll_at.year < 2099 and FetchedMail.objects.get().tries == 0

    keys, lost = settings.FIELD_KEYS, Fernet.generate_key().decode()
    settings.FIELD_KEYS = lost
    box.save()
    settings.FIELD_KEYS = keys
    assert mailboxes.poll(box.pk) == 0
    assert "password cannot be read" in client.get(f"{LIST}{box.pk}/change/").content.decode()
    BounceMailbox.objects.get().save()  # what cannot be opened stays as it is
    settings.FIELD_KEYS = lost
    assert bytes(BounceMailbox.objects.get().password) == b"pass w ord "


# --- addresses that receive -----------------------------------------------------------------------------------------

ROUTES = "/admin/deliveries/inboundroute/"


def test_a_developer_claims_an_address_and_only_the_operator_says_where_its_mail_goes() -> None:
    red = mail.tenant("red")
    domain = mail.domain(red, "red.example")
    client = login(mail.person("dora", red, role="developer"))
    form = {
        "domain": str(domain.pk),
        "address": "Support@red.example",
        "forward": "lmtp",
        "host": "10.0.0.1",
        "port": "24",
    }
    assert client.post(ROUTES + "add/", form).status_code == 302
    route = InboundRoute.objects.get()
    assert (route.tenant, route.address, route.forward, route.host) == (red, "support", "none", "")
    assert client.post(f"{ROUTES}{route.pk}/change/", form).status_code == 403
    operator = login(mail.person("root", operator=True))
    assert operator.post(f"{ROUTES}{route.pk}/change/", form).status_code == 302
    route.refresh_from_db()
    assert (route.forward, route.host, route.port) == ("lmtp", "10.0.0.1", 24)
    client.post(ROUTES, {"action": "remove", "_selected_action": [str(route.pk)]})
    assert not InboundRoute.objects.exists()


def test_an_address_of_another_tenants_domain_and_a_role_address_cannot_be_claimed() -> None:
    red = mail.tenant("red")
    own, foreign = mail.domain(red, "red.example"), mail.domain(mail.tenant("blue"), "blue.example")
    client = login(mail.person("dora", red, role="owner"))
    for domain, address in ((foreign, "support"), (own, "postmaster"), (own, "a b"), (own, ""), (own, "*x")):
        form = {"domain": str(domain.pk), "address": address, "forward": "none", "port": "24"}
        assert client.post(ROUTES + "add/", form).status_code == 200, address
    assert not InboundRoute.objects.exists()
