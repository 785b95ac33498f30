"""Mail to the addresses of a tenant: taken at the door, told by webhook, read over the API, handed on."""

from __future__ import annotations

import json
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from urllib.parse import urlsplit
from uuid import UUID

import pytest
import resend
from django.test import Client
from django.test import Client as DjangoClient

from deliveries import feedback
from deliveries.management.commands import smtpd
from deliveries.mime import verp
from deliveries.models import Event, InboundMessage, InboundRoute, SendingDomain, WebhookDelivery, WebhookEndpoint
from deliveries.models.fields import uuid7_floor
from deliveries.notify.body import bodies
from deliveries.record.receptions import received as record
from deliveries.record.reports import Reading
from mailapi.schemas import receiving as shapes
from tests.fakes import mail as people
from tests.fakes.house import House, build
from tests.fakes.returned import dsn, token
from tests.steps.test_feedback import delivered, told
from tests.steps.test_smtpd import asked, client, door

pytestmark = pytest.mark.django_db(transaction=True)

PNG = b"\x89PNG\r\n\x1a\n\x00\x00"


@pytest.fixture(autouse=True)
def _no_bell(monkeypatch) -> None:
    monkeypatch.setattr(smtpd._Bell, "ring", lambda self: None)


def claim(house: House, address: str = "support", **fields) -> InboundRoute:
    return InboundRoute.objects.create(tenant=house.tenant, domain=house.domain, address=address, **fields)


def letter(to: str, **headers: str) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "Änne Ünal <anne@one.test>"
    mail["To"] = f'"Support, First" <{to}>, other@else.test'
    mail["Cc"] = "Bob (from sales, too) <bob@one.test>"
    mail["Subject"] = "Re: Your receipt — größer"
    mail["Message-ID"] = "<1@one.test>"
    mail["Date"] = formatdate()
    for name, value in headers.items():
        mail[name.replace("_", "-")] = value
    mail.set_content("Grüße\n")
    mail.add_alternative('<p>Grüße <img src="cid:logo"></p>', subtype="html")
    mail.get_payload()[1].add_related(PNG, "image", "png", cid="<logo>", filename="logo.png")
    mail.add_attachment(b"%PDF-1.4", maintype="application", subtype="pdf", filename="Rechnung für Änne.pdf")
    return mail


def sent(where, mail: EmailMessage, *to: str) -> None:
    with client(where) as smtp:
        assert smtp.send_message(mail, "anne@one.test", list(to)) == {}


def api(house: House, path: str):
    return DjangoClient().get(path, HTTP_AUTHORIZATION=f"Bearer {house.secret}")


def received(house: House, *addresses: str) -> str:
    """One mail through the door and its reader; its id."""
    to = [f"{a}@{house.domain.name}" for a in (addresses or ("support",))]
    with door() as where:
        sent(where, letter(to[0]), *to)
    feedback.run()
    return str(InboundMessage.objects.get(tenant=house.tenant, state="received").id)


def test_only_claimed_addresses_of_verified_domains_are_taken() -> None:
    house, catch_all, unverified = build(), build(), build()
    claim(house)
    claim(catch_all, "*")
    claim(unverified)
    SendingDomain.objects.filter(id=unverified.domain.id).update(verified_at=None)
    SendingDomain.objects.filter(id=catch_all.domain.id).update(name=f"xn--bcher-kva.{catch_all.domain.name}")
    own, all_, not_ours = house.domain.name, f"bücher.{catch_all.domain.name}", unverified.domain.name
    with door() as where:
        good = asked(where, f"support@{own}", f"SUPPORT+17@{own.upper()}", f"anything@{all_}", f"postmaster@{all_}")
        unknown = asked(where, f"sales@{own}", f"supporter@{own}")
        relay = asked(
            where, f"support@{not_ours}", f"support@sub.{own}", f"x%else.test@{build().domain.name}", "a@b.test"
        )
    assert [code for code, _ in good] == [250] * 4
    assert {(code, text.split()[0]) for code, text in unknown} == {(550, "5.1.1")}
    assert {(code, text.split()[0]) for code, text in relay} == {(550, "5.7.1")}


def test_a_reply_is_received_told_and_read_through_resends_own_library(live_server) -> None:
    house = build()
    claim(house)
    WebhookEndpoint.objects.create(tenant=house.tenant, url="https://x.test/", secret=b"s")
    with door() as where:
        sent(where, letter(f"support@{house.domain.name}"), f"support@{house.domain.name}")
    assert feedback.run() == 1
    resend.api_url, resend.api_key = live_server.url, house.secret
    (line,) = resend.Emails.Receiving.list()["data"]
    assert line["from"] == "Änne Ünal <anne@one.test>" and line["subject"] == "Re: Your receipt — größer"
    assert line["to"] == [f'"Support, First" <support@{house.domain.name}>', "other@else.test"]
    assert line["cc"] == ["Bob (from sales, too) <bob@one.test>"] and line["message_id"] == "<1@one.test>"
    mail = resend.Emails.Receiving.get(line["id"])
    assert mail["text"] == "Grüße\n" and mail["received_for"] == [f"support@{house.domain.name}"]
    assert 'src="data:image/png;base64,iVBORw0KGgoAAA=="' in mail["html"]
    assert mail["headers"]["message-id"] == "<1@one.test>"
    assert 'src="cid:logo"' in resend.Emails.Receiving.get(line["id"], {"html_format": "cid"})["html"]
    files = resend.Emails.Receiving.Attachments.list(line["id"])["data"]
    assert [(f["filename"], f["content_type"], f["size"]) for f in files] == [
        ("logo.png", "image/png", len(PNG)),
        ("Rechnung für Änne.pdf", "application/pdf", 8),
    ]
    pdf = resend.Emails.Receiving.Attachments.get(line["id"], files[1]["id"])
    address = urlsplit(pdf["download_url"])
    response = DjangoClient().get(f"{address.path}?{address.query}")
    assert (response.status_code, response.content) == (200, b"%PDF-1.4")
    assert (
        response["Content-Disposition"].startswith("attachment;") and "sandbox" in response["Content-Security-Policy"]
    )
    raw = urlsplit(mail["raw"]["download_url"])
    assert DjangoClient().get(f"{raw.path}?{raw.query}").content.startswith(b"Received: from mx.one.test")

    (event,) = Event.objects.filter(tenant_id=house.tenant.id)
    assert event.type == "email.received" and WebhookDelivery.objects.get().type == "email.received"
    body = json.loads(bodies([event.id])[event.id])
    data = body["data"]
    assert body["type"] == "email.received" and data["email_id"] == line["id"]
    assert data["recipient"] == f"support@{house.domain.name}" and data["from"] == "Änne Ünal <anne@one.test>"
    assert [a["filename"] for a in data["attachments"]] == ["logo.png", "Rechnung für Änne.pdf"]
    shapes.ReceivedEmail.model_validate(api(house, f"/emails/receiving/{line['id']}").json())
    shapes.ReceivedList.model_validate(api(house, "/emails/receiving").json())
    shapes.FileOut.model_validate(api(house, f"/emails/receiving/{line['id']}/attachments/{files[0]['id']}").json())


def test_one_mail_to_two_addresses_of_a_tenant_is_one_and_to_two_tenants_two() -> None:
    house, other = build(), build()
    claim(house)
    claim(house, "sales")
    claim(other, "*")
    to = [f"support@{house.domain.name}", f"sales@{house.domain.name}", f"who@{other.domain.name}"]
    with door() as where:
        sent(where, letter(to[0]), *to)
    feedback.run()
    mails = {m.tenant_id: m for m in InboundMessage.objects.all()}
    assert len(mails) == 2 and {m.state for m in mails.values()} == {"received"}
    assert mails[house.tenant.id].received_for == to[:2] and mails[other.tenant.id].received_for == to[2:]


def test_received_mail_is_its_tenants_alone_and_a_signed_address_opens_one_file() -> None:
    house, other = build(), build()
    claim(house)
    mail_id = received(house)
    files = api(house, f"/emails/receiving/{mail_id}/attachments").json()["data"]
    for path in ("", "/attachments", f"/attachments/{files[0]['id']}"):
        assert api(house, f"/emails/receiving/{mail_id}{path}").status_code == 200
        assert api(other, f"/emails/receiving/{mail_id}{path}").status_code == 404
        assert DjangoClient().get(f"/emails/receiving/{mail_id}{path}").status_code == 401
    assert api(other, "/emails/receiving").json()["data"] == []
    good = urlsplit(files[0]["download_url"])
    for path, query in (
        (good.path, ""),
        (good.path, "signature=x"),
        (good.path.replace(files[0]["id"], files[1]["id"]), good.query),
        (good.path.replace(files[0]["id"], "raw"), good.query),
        (good.path, good.query[:-1] + ("A" if good.query[-1] != "A" else "B")),
    ):
        assert DjangoClient().get(f"{path}?{query}").status_code == 404


def test_files_are_paged() -> None:
    house = build()
    claim(house)
    mail_id = received(house)
    path = f"/emails/receiving/{mail_id}/attachments"
    first = api(house, f"{path}?limit=1").json()
    assert first["has_more"] is True and len(first["data"]) == 1
    second = api(house, f"{path}?limit=1&after={first['data'][0]['id']}").json()
    assert second["has_more"] is False and second["data"][0]["content_type"] == "application/pdf"
    back = api(house, f"{path}?limit=1&before={second['data'][0]['id']}").json()
    assert back["data"][0]["id"] == first["data"][0]["id"]
    assert api(house, f"/emails/receiving/{mail_id}?html_format=pdf").status_code == 422


def test_a_bounce_that_a_server_sent_to_the_from_address_acts_and_what_a_person_passes_on_is_a_letter() -> None:
    house = build()
    claim(house, "app")
    delivery = delivered(house)
    another = f"{verp.TOKEN_HEADER}: {token(delivered(house, 'bob@one.test'))}\n"
    with door() as where, client(where) as smtp:
        octets = dsn("ann@one.test", head=f"{verp.TOKEN_HEADER}: {token(delivery)}\n")
        smtp.sendmail("", [f"app@{house.domain.name}"], octets)
        smtp.sendmail("", [f"app@{house.domain.name}"], dsn("bob@one.test"))
        for subject, returned in (
            ("Fwd: Undelivered Mail", dsn("bob@one.test", head=another)),
            ("Customer complaint: wrong size", f"From: app@example.test\nTo: bob@one.test\n{another}\nHi".encode()),
        ):
            passed_on = letter(f"app@{house.domain.name}")
            passed_on.replace_header("Subject", subject)
            passed_on.add_attachment(message_from_bytes(returned, policy=SMTP))
            smtp.sendmail("bob@one.test", [f"app@{house.domain.name}"], passed_on.as_bytes(policy=SMTP))
    feedback.run()
    assert list(InboundMessage.objects.order_by("id").values_list("state", "tenant_id")) == [
        ("acted", house.tenant.id),
        *[("received", house.tenant.id)] * 3,
    ]
    assert told(house)[-5:] == ["email.bounced", "suppression.added", *["email.received"] * 3]


def test_a_mail_read_twice_is_told_once() -> None:
    house = build()
    claim(house)
    mail_id = received(house)
    assert record(Reading(UUID(mail_id), "ordinary"), house.tenant.id, ["a@b.test"], {}, []) is False
    assert told(house) == ["email.received"]


def test_received_text_is_never_html_in_the_panel() -> None:
    house = build()
    claim(house)
    with door() as where:
        mail = letter(f"support@{house.domain.name}", X_Evil="<script>alert(1)</script>")
        sent(where, mail, f"support@{house.domain.name}")
    feedback.run()
    browser = Client()
    browser.force_login(people.person("root", operator=True))
    row = InboundMessage.objects.get()
    page = browser.get(f"/admin/deliveries/inboundmessage/{row.pk}/change/").content.decode()
    assert "&lt;script&gt;alert(1)" in page and "<script>alert(1)" not in page
    for query, found in (("q=Support@", [row.pk]), (f"q={row.reverse_path[:4]}", [row.pk]), ("q=nobody@", [])):
        listed = browser.get(f"/admin/deliveries/inboundmessage/?period=week&{query}")
        assert [one.pk for one in listed.context["cl"].result_list] == found, query
    InboundMessage.objects.filter(pk=row.pk).update(id=uuid7_floor(1_700_000_000_000))
    listed = browser.get("/admin/deliveries/inboundmessage/?period=month")
    assert list(listed.context["cl"].result_list) == [], "that came in 2023"
