"""From the page of a message: off the suppression list, and sent again, as a new message that is accepted like any."""

from __future__ import annotations

import pytest
from django.urls import reverse
from django.utils import timezone

from deliveries.models import (
    ApiKey,
    Attachment,
    AuditEntry,
    Delivery,
    Event,
    Message,
    MessageContent,
    Suppression,
    Tenant,
)
from deliveries.read.contents import of
from deliveries.states import Status
from tests.fakes import mail
from tests.fakes.person import login, sending

pytestmark = pytest.mark.django_db


@pytest.fixture
def shop():
    return sending("example.org")


@pytest.fixture
def bounced(shop):
    row = mail.message(shop, "anna@example.net", "bob@example.net", status=Status.BOUNCED, filename="invoice.pdf",
                       reply="550 5.1.1 no <such> user", tags=[{"name": "kind", "value": "receipt"}])  # fmt: skip
    Suppression.objects.create(
        tenant=shop, address="anna@example.net", reason="bounce", detail="550 5.1.1 no <such> user",
        created_at=timezone.now(),
    )  # fmt: skip
    return row


def act(client, message, **asked):
    return client.post(reverse("admin:deliveries_message_act", args=[message.pk]), asked, follow=True)


def chosen(message, *recipients) -> list[str]:
    return [str(d.id) for d in Delivery.objects.filter(message=message, recipient__in=recipients)]


def test_the_page_says_what_keeps_mail_from_a_recipient_and_a_button_takes_it_off(shop, bounced):
    client = login(mail.person("dora", shop, role="developer"))
    page = client.get(reverse("admin:deliveries_message_change", args=[bounced.pk])).content.decode()
    assert "On the suppression list" in page and "550 5.1.1 no &lt;such&gt; user" in page
    entry = Suppression.objects.get()
    page = act(client, bounced, verb="unsuppress", suppression=entry.pk).content.decode()
    assert "1 taken off the suppression list" in page and "On the suppression list" not in page
    assert AuditEntry.objects.filter(actor="dora", action="suppression.removed", subject="anna@example.net").exists()
    assert Event.objects.filter(type="suppression.removed", tenant_id=shop.id).exists()
    assert "Nothing was changed" in act(client, bounced, verb="unsuppress", suppression=entry.pk).content.decode()


def test_a_mail_is_sent_again_to_one_recipient_with_all_its_content(shop, bounced):
    Suppression.objects.all().delete()
    client = login(mail.person("dora", shop, role="developer"))
    answer = act(client, bounced, verb="again", delivery=chosen(bounced, "anna@example.net"))
    made = Message.objects.exclude(id=bounced.id).get()
    assert answer.redirect_chain[-1][0] == reverse("admin:deliveries_message_change", args=[made.pk])
    assert "Sent again, as 1 new message." in answer.content.decode()
    assert made.to == ["anna@example.net"] and made.subject == bounced.subject and made.tags == bounced.tags
    assert made.message_id != bounced.message_id and made.tenant_id == shop.id
    content = MessageContent.objects.get(id=made.id)
    assert content.html == "<p>Thank you</p>" and content.headers == [["X-Campaign", "spring"]]
    file = Attachment.objects.get(message_id=made.id)
    assert (file.filename, bytes(file.content)) == ("invoice.pdf", b"<script>1</script>")
    assert Delivery.objects.get(message=made).status == "queued"
    entry = AuditEntry.objects.get(action="message.sent_again")
    assert entry.actor == "dora" and entry.subject == f"{bounced.id} as {made.id} to anna@example.net"


def test_several_recipients_get_a_message_each_and_the_list_holds_for_them(shop, bounced):
    client = login(mail.person("dora", shop, role="developer"))
    act(client, bounced, verb="again", delivery=chosen(bounced, "anna@example.net", "bob@example.net"))
    made = Delivery.objects.exclude(message=bounced).order_by("recipient").values_list("recipient", "status")
    assert list(made) == [("anna@example.net", "suppressed"), ("bob@example.net", "queued")]
    assert all(len(m.to) == 1 for m in Message.objects.exclude(id=bounced.id))


def test_a_copy_goes_to_oneself_or_to_another_address(shop, bounced):
    dora = mail.person("dora", shop, role="developer")
    client = login(dora)
    assert "Your login has no address" in act(client, bounced, verb="again_me").content.decode()
    dora.email = "dora@example.com"
    dora.save()
    act(client, bounced, verb="again_me")
    act(client, bounced, verb="again_to", address=" Eve <eve@bücher.example> ")
    made = Delivery.objects.exclude(message=bounced).order_by("id").values_list("recipient", flat=True)
    assert list(made) == ["dora@example.com", "eve@xn--bcher-kva.example"]


@pytest.mark.parametrize(
    "asked",
    [
        {"verb": "again"},
        {"verb": "again_to"},
        {"verb": "again_to", "address": "nonsense"},
        {"verb": "again_to", "address": "a@b.example\r\nBcc: c@d.example"},
        {"verb": "again_to", "address": "a@b.example, c@d.example"},
        {"verb": "again_to", "address": "x" * 4000 + "@example.net"},
        {"verb": "again_to", "address": "a\0@example.net"},
        {"verb": "unsuppress", "suppression": "nonsense"},
        {"verb": "unsuppress"},
        {"verb": "again", "delivery": "01900000-0000-7000-8000-000000000000"},
        {"verb": ""},
    ],
)
def test_nonsense_sends_nothing_and_is_answered_in_words(shop, bounced, asked):
    client = login(mail.person("dora", shop, role="developer"))
    answer = act(client, bounced, **asked)
    assert answer.status_code in (200, 302) and Message.objects.count() == 1 and Suppression.objects.count() == 1


def test_what_the_service_would_refuse_it_refuses_here_too(shop, bounced):
    client = login(mail.person("dora", shop, role="developer"))

    def again() -> str:
        return act(client, bounced, verb="again_to", address="eve@example.net").content.decode()

    Tenant.objects.filter(id=shop.id).update(daily_quota=0)
    refused = again()
    assert "Not sent: " in refused and 'value="eve@example.net"' in refused, "what was typed stays"
    Tenant.objects.filter(id=shop.id).update(daily_quota=None)
    ApiKey.objects.update(revoked_at=timezone.now())
    assert "no API key that may send" in again()
    ApiKey.objects.update(revoked_at=None)
    shop.domains.update(verified_at=None)
    assert "is not verified for this account" in again()
    shop.domains.update(verified_at=timezone.now())
    type(shop).objects.update(suspended_at=timezone.now())
    assert "This account is suspended" in again()
    type(shop).objects.update(suspended_at=None)
    MessageContent.objects.all().delete()
    assert "no longer kept" in again()
    assert Message.objects.count() == 1


def test_a_viewer_and_another_tenant_do_none_of_it(shop, bounced):
    entry = Suppression.objects.get()
    viewer = login(mail.person("vera", shop))
    page = viewer.get(reverse("admin:deliveries_message_change", args=[bounced.pk])).content.decode()
    assert "On the suppression list" in page and "Take it off the list" not in page and 'value="again' not in page
    other = mail.tenant("Other")
    stranger = login(mail.person("eve", other, role="owner"))
    own = mail.message(other, "x@example.net")
    for client, message in ((viewer, bounced), (stranger, bounced), (stranger, own)):
        act(client, message, verb="unsuppress", suppression=entry.pk)
        act(client, message, verb="again", delivery=chosen(bounced, "anna@example.net"))
    assert Suppression.objects.count() == 1 and Message.objects.count() == 2
    source = reverse("admin:deliveries_message_source", args=[bounced.pk])
    assert stranger.get(source).status_code == 404 and viewer.get(source).status_code == 200


def test_the_source_is_the_mail_as_it_leaves_and_only_text(shop):
    row = mail.message(shop, "anna@example.net", html="<script>alert(1)</script>", subject="Grüße")
    answer = login(mail.person("vera", shop)).get(reverse("admin:deliveries_message_source", args=[row.pk]))
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert (
        answer.headers["X-Content-Type-Options"] == "nosniff" and "sandbox" in answer.headers["Content-Security-Policy"]
    )
    assert answer.content == of(row).composed().octets
    assert b"Subject: =?utf-8?" in answer.content and b"Message-ID: <" in answer.content


def test_a_mail_that_came_whole_is_shown_by_its_parts_and_sent_again_as_it_is(shop):
    row = mail.message(shop, "anna@example.net", html=None, text=None)
    whole = (
        b"From: Shop <shop@example.org>\r\nTo: anna@example.net\r\nSubject: Whole\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/alternative; boundary="b"\r\n\r\n'
        b"--b\r\nContent-Type: text/plain\r\n\r\nplain words\r\n"
        b"--b\r\nContent-Type: text/html\r\n\r\n<p>rich words</p>\r\n--b--\r\n"
    )
    MessageContent.objects.filter(id=row.id).update(raw=whole, headers=[])
    client = login(mail.person("dora", shop, role="developer"))
    page = client.get(reverse("admin:deliveries_message_change", args=[row.pk])).content.decode()
    assert "plain words" in page and 'id="preview"' in page
    preview = client.get(reverse("admin:deliveries_message_preview", args=[row.pk]))
    assert "rich words" in preview.content.decode()
    act(client, row, verb="again_to", address="eve@example.net")
    made = Delivery.objects.get(recipient="eve@example.net")
    assert b"rich words" in bytes(MessageContent.objects.get(id=made.message_id).raw)
