"""Opens, clicks and leaving a list: from the mail that went out to the event, over the real pump and the real views."""

from __future__ import annotations

import email
import email.policy
import random
import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from urllib.parse import urlsplit

import dkim
import pytest
from django.db import OperationalError
from django.test import Client
from django.utils import timezone

from deliveries import deliver, keys
from deliveries.accept import accept, of_raw
from deliveries.deliver import jobs
from deliveries.deliver.personal import links_url
from deliveries.mime import raw
from deliveries.models import Delivery, Event, Message, SendingDomain, Suppression, WebhookDelivery, WebhookEndpoint
from deliveries.read import emails
from deliveries.retry import Schedule
from deliveries.sandbox.lab import Lab
from deliveries.visits import Book, book
from tests.fakes.house import House, build, dkim_pair
from tests.fakes.labs import fresh_pump, running_lab
from tests.fakes.mail import domain as make_domain
from tests.fakes.mail import tenant as make_shop
from tests.steps.api import Client as Api
from tests.steps.api import make_tenant

pytestmark = pytest.mark.django_db(transaction=True)

BROWSER = {"HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36"}
TO = "delivered@simulator.test"
HTML = '<body><p>Hi <a href="https://shop.test/a?x=1&amp;y=2">A</a> <a href="mailto:x@y.test">M</a></p></body>'


@pytest.fixture
def lab(settings) -> Iterator[Lab]:
    with running_lab() as lab, fresh_pump():
        settings.MAIL_ROUTE, settings.SANDBOX_SMTP = "sandbox", lab.address
        settings.RETRY = Schedule(waits_s=(0.05,), max_age_s=3600, unknown_wait_s=0.3, jitter=0)
        settings.BASE_URL = "https://mail.test"
        jobs._kept.clear()
        jobs._sender_cache.clear()
        yield lab


def tracking(house: House, opens: bool = True, clicks: bool = True) -> None:
    SendingDomain.objects.filter(id=house.domain.id).update(open_tracking=opens, click_tracking=clicks)


def out(lab: Lab) -> list[tuple[bytes, str]]:
    """What arrived, in the order in which it was accepted: (octets, html)."""
    deliver.run()
    found = []
    for mail in lab.messages:
        message = email.message_from_bytes(mail.octets, policy=email.policy.default)
        part = message.get_body(("html",))
        found.append((str(message["message-id"]), mail.octets, part.get_content() if part else ""))
    return [(octets, html) for _, octets, html in sorted(found, key=lambda one: one[0])]


def hrefs(html: str) -> list[str]:
    return [unescape(h) for h in re.findall(r'href="([^"]*)"', html)]


def path(url: str) -> str:
    assert url.startswith("https://mail.test/")
    return urlsplit(url).path


def long_ago(delivery: Delivery) -> None:
    """As if it had been delivered a minute ago: what comes at once is a program's."""
    Delivery.objects.filter(id=delivery.id).update(settled_at=timezone.now() - timedelta(minutes=1))


def verified(octets: bytes) -> bool:
    record = f"v=DKIM1; k=rsa; p={dkim_pair()[1]}".encode()
    return bool(dkim.verify(octets, dnsfunc=lambda name, timeout=5: record))


def test_without_tracking_a_mail_leaves_as_it_was_written(lab: Lab) -> None:
    build().send(TO, html=HTML)
    ((octets, html),) = out(lab)
    assert hrefs(html) == ["https://shop.test/a?x=1&y=2", "mailto:x@y.test"] and "<img" not in html
    assert b"List-Unsubscribe" not in octets


def test_an_open_and_a_click_are_told_once_the_mail_was_looked_at(lab: Lab, client: Client) -> None:
    house = build()
    tracking(house)
    WebhookEndpoint.objects.create(tenant=house.tenant, url="https://hook.test/", secret=b"s", events=[])
    one, two = house.send(TO, "delivered+two@simulator.test", html=HTML)
    mails = out(lab)
    assert all(verified(octets) for octets, _ in mails) and mails[0][1] != mails[1][1]  # each has its own links
    for delivery in (one, two):
        long_ago(delivery)
    seen = set()
    for _, html in mails:
        click, other = hrefs(html)
        assert other == "mailto:x@y.test"
        (pixel,) = re.findall(r'<img src="([^"]*)"', html)
        answer = client.get(path(pixel), **BROWSER)
        assert (answer.status_code, answer["Content-Type"], answer.content[:6]) == (200, "image/gif", b"GIF89a")
        answer = client.get(path(click), **BROWSER)
        assert (answer.status_code, answer["Location"]) == (302, "https://shop.test/a?x=1&y=2")
        assert not answer.cookies and answer["Cache-Control"].startswith("no-store")
        seen.add(path(click))
    assert len(seen) == 2
    book.write()
    for delivery in (one, two):
        events = list(Event.objects.filter(delivery_id=delivery.id).order_by("place"))
        assert [e.type for e in events] == ["email.sent", "email.delivered", "email.opened", "email.clicked"]
        assert [e.place for e in events] == [1, 2, 3, 4]
        assert events[3].data == {
            "ip": "127.0.0.1", "user_agent": BROWSER["HTTP_USER_AGENT"], "link": "https://shop.test/a?x=1&y=2",
        }  # fmt: skip
        delivery.refresh_from_db()
        assert delivery.opened_at and delivery.clicked_at and delivery.events == 4
    assert emails.email(house.tenant.id, one.message_id)["last_event"] == "clicked"
    assert set(WebhookDelivery.objects.filter(tenant_id=house.tenant.id).values_list("type", flat=True)) >= {
        "email.opened", "email.clicked",
    }  # fmt: skip


def test_only_what_the_domain_asks_for_is_tracked(lab: Lab) -> None:
    house = build()
    tracking(house, opens=False)
    house.send(TO, html=HTML)
    tracking(house, clicks=False)
    house.send(TO, html=HTML)
    house.send(TO, text="https://shop.test/")
    clicks, opens, text = (html for _, html in out(lab))
    assert "/c/" in clicks and "/o/" not in clicks
    assert "/o/" in opens and "/c/" not in opens
    assert text == ""


def test_programs_are_marked_and_count_for_nobody(lab: Lab, client: Client) -> None:
    house = build()
    tracking(house)
    (delivery,) = house.send(TO, html=HTML)
    ((_, html),) = out(lab)
    click = path(hrefs(html)[0])
    client.get(click, **BROWSER)  # in the moment of its delivery
    book.write()
    long_ago(delivery)
    client.get(click, HTTP_USER_AGENT="curl/8.5.0")
    assert client.head(click, **BROWSER).status_code == 302
    book.write()
    delivery.refresh_from_db()
    assert delivery.clicked_at is None and delivery.opened_at is None
    told = Event.objects.filter(delivery_id=delivery.id, type="email.clicked").order_by("place")
    assert [(e.data["bot"], e.data["why"]) for e in told] == [(True, "early"), (True, "user_agent"), (True, "head")]
    assert emails.email(house.tenant.id, delivery.message_id)["last_event"] == "delivered"


def test_a_thousand_altered_links_lead_nowhere(lab: Lab, client: Client) -> None:
    house = build()
    tracking(house)
    (delivery,) = house.send(TO, html=HTML)
    ((_, html),) = out(lab)
    click = path(hrefs(html)[0])
    rng = random.Random(302)
    for number in range(1_000):
        octets = list(click)
        at = rng.randrange(3, len(octets))
        octets[at] = rng.choice([c for c in "ABCxyz019-_" if c != octets[at]])
        if number % 3 == 0:
            octets = octets[:at]
        if number % 5 == 0:
            octets += "AAAA"
        answer = client.get("".join(octets), **BROWSER)
        assert answer.status_code == 404 and "Location" not in answer
    for other in ("/c/https://evil.test", "/c/?url=https://evil.test", "/c/", click.replace("/c/", "/o/")):
        answer = client.get(other, **BROWSER)
        assert answer.status_code == 404 and "Location" not in answer
    assert client.post(click, **BROWSER).status_code == 405
    book.write()
    assert not Event.objects.filter(delivery_id=delivery.id, type__in=("email.opened", "email.clicked")).exists()


def leaving(octets: bytes) -> str:
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    url = message["List-Unsubscribe"]
    assert url.startswith("<https://") and url.endswith(">")
    return path(url[1:-1].replace(" ", ""))


def test_a_one_click_post_leaves_the_stream_and_a_get_does_not(lab: Lab) -> None:
    house = build()
    house.send(TO, stream="news", unsubscribe=True)
    ((octets, _),) = out(lab)
    signed = re.search(rb"h=([^;]*);", octets.partition(b"bh=")[0])
    assert signed and verified(octets)
    names = re.sub(rb"\s", b"", signed[1]).split(b":")
    assert b"list-unsubscribe" in names and b"list-unsubscribe-post" in names
    url = leaving(octets)
    client = Client(enforce_csrf_checks=True)
    for look in (client.get, client.head):
        answer = look(url, **BROWSER)
        assert answer.status_code == 200 and not answer.cookies
    assert b"<button>" in client.get(url).content
    assert not Suppression.objects.filter(tenant=house.tenant).exists()
    for _ in range(2):
        answer = client.post(url, "List-Unsubscribe=One-Click", content_type="application/x-www-form-urlencoded")
        assert (answer.status_code, "Location" in answer, dict(answer.cookies)) == (200, False, {})
    (row,) = Suppression.objects.filter(tenant=house.tenant)
    assert (row.address, row.stream, row.reason) == (TO, "news", "unsubscribe")
    (event,) = Event.objects.filter(tenant_id=house.tenant.id, type="email.unsubscribed")
    assert (event.recipient, event.data) == (TO, {"stream": "news"})
    assert house.send(TO, stream="news")[0].status == "suppressed"
    assert house.send(TO)[0].status == "queued"  # the other kinds of mail still come


def test_an_altered_link_to_leave_changes_nothing(lab: Lab, client: Client) -> None:
    house = build()
    house.send(TO, unsubscribe=True)
    url = leaving(out(lab)[0][0])
    for number in range(3, len(url)):
        altered = url[:number] + ("A" if url[number] != "A" else "B") + url[number + 1 :]
        assert client.post(altered).status_code == 404
    assert not Suppression.objects.filter(tenant=house.tenant).exists()


def test_a_sender_with_a_list_unsubscribe_of_its_own_keeps_it(lab: Lab) -> None:
    house = build()
    own = (("List-Unsubscribe", "<https://own.test/leave>"),)
    house.send(TO, unsubscribe=True, headers=own)
    ((octets, _),) = out(lab)
    assert octets.count(b"List-Unsubscribe") == 1 and b"own.test" in octets


def test_a_whole_mail_can_be_left_too(lab: Lab) -> None:
    house = build()
    mail = raw.read(f"From: {house.sender}\r\nTo: {TO}\r\nSubject: x\r\n\r\nText\r\n".encode())
    accept(keys.hash_of(house.secret), [of_raw(mail, unsubscribe=True)])
    ((octets, _),) = out(lab)
    assert leaving(octets) and verified(octets)


def test_a_tenants_own_host_is_used_once_its_cname_was_seen_and_it_is_served(lab: Lab, settings) -> None:
    house = build()
    tracking(house, opens=False)
    findings = {"tracking": {"status": "verified"}}
    SendingDomain.objects.filter(id=house.domain.id).update(findings=findings, tracking_label="links")
    house.send(TO, html=HTML)
    out(lab)
    settings.ALLOWED_HOSTS = [f".{house.domain.name}"]
    jobs._sender_cache.clear()
    house.send(TO, html=HTML)
    first, second = (hrefs(html)[0] for _, html in out(lab))
    assert first.startswith("https://mail.test/c/")
    assert second.startswith(f"https://links.{house.domain.name}/c/")


def test_the_html_of_a_whole_mail_is_tracked_where_no_signature_covers_it(lab: Lab, client: Client) -> None:
    house = build()
    tracking(house)
    html = HTML.replace("Hi", "Grüße").encode("iso-8859-1")
    part = b"Content-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + html
    head = f"From: {house.sender}\r\nTo: {TO}\r\nSubject: x\r\nMIME-Version: 1.0\r\n".encode()
    mixed = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nplain\r\n--b\r\n" + part + b"\r\n--b--\r\n"
    signed = mixed.replace(b"multipart/mixed", b"multipart/signed")
    for body in (part, mixed, signed, b"\r\nno html\r\n"):
        accept(keys.hash_of(house.secret), [of_raw(raw.read(head + body))])
    alone, inside, sealed, none = out(lab)
    for octets, found in (alone, inside):
        assert verified(octets) and "Grüße" in found and "/o/" in found
        click, other = hrefs(found)
        assert client.get(path(click), **BROWSER)["Location"] == "https://shop.test/a?x=1&y=2" and other[:6] == "mailto"
    assert sealed[0].endswith(signed.partition(b"\r\n\r\n")[2]) and none[0].endswith(b"\r\n\r\nno html\r\n")


def test_what_could_not_be_written_is_kept_and_written_later(lab: Lab, client: Client, monkeypatch) -> None:
    house = build()
    tracking(house)
    (delivery,) = house.send(TO, html=HTML)
    ((_, html),) = out(lab)
    long_ago(delivery)
    mine = Book()
    monkeypatch.setattr("mailapi.views.links.book", mine)
    monkeypatch.setattr(mine, "GAP_S", 0.0)

    def away(visits: object) -> None:
        raise OperationalError("connection refused")

    with monkeypatch.context() as patch:
        patch.setattr("deliveries.visits.record", away)
        assert client.get(path(hrefs(html)[0]), **BROWSER).status_code == 302
        with pytest.raises(OperationalError):
            mine.write()
    mine.write()
    assert Event.objects.filter(delivery_id=delivery.id, type="email.clicked").count() == 1


LEAVE = '<p><a href="{{{UNSUBSCRIBE_URL}}}">Leave</a> <a href="https://shop.test/">Shop</a></p>'


@pytest.mark.parametrize("tracked", [False, True])
def test_a_place_in_the_body_becomes_each_recipients_own_way_out(lab: Lab, client: Client, tracked: bool) -> None:
    house = build()
    tracking(house, tracked, tracked)
    two = "delivered+two@simulator.test"
    house.send(TO, two, html=LEAVE, text="Leave: {{{ UNSUBSCRIBE_URL }}}", stream="news")
    mails = out(lab)
    assert len(mails) == 2 and all(verified(octets) for octets, _ in mails)
    ways = set()
    for octets, html in mails:
        message = email.message_from_bytes(octets, policy=email.policy.default)
        (way, shop) = hrefs(html)
        text = message.get_body(("plain",)).get_content()
        assert message["List-Unsubscribe"] == f"<{way}>" and text.strip() == f"Leave: {way}"
        assert shop.startswith("https://mail.test/c/" if tracked else "https://shop.test/")
        ways.add(way)
    assert len(ways) == 2
    assert client.get(path(way)).status_code == 200 and not Suppression.objects.exists()
    assert client.post(path(way), {"List-Unsubscribe": "One-Click"}).status_code == 200
    assert Suppression.objects.get(tenant=house.tenant).stream == "news"


def test_a_mail_that_came_whole_keeps_the_words_of_the_place(lab: Lab) -> None:
    house = build()
    tracking(house)
    whole = f"From: {house.sender}\r\nTo: {TO}\r\nContent-Type: text/html\r\n\r\n{LEAVE}\r\n".encode()
    accept(keys.hash_of(house.secret), [of_raw(raw.read(whole))])
    ((octets, html),) = out(lab)
    assert hrefs(html)[0] == "{{{UNSUBSCRIBE_URL}}}" and "/c/" in hrefs(html)[1] and b"List-Unsubscribe" not in octets


def test_a_text_alone_may_show_the_way_out(lab: Lab) -> None:
    build().send(TO, html=None, text="{{{UNSUBSCRIBE_URL}}}")
    ((octets, html),) = out(lab)
    assert html == "" and b"https://mail.test/u/" in octets.split(b"\r\n\r\n", 1)[1].replace(b"=\r\n", b"")


def test_a_stream_that_its_domain_names_can_be_left_unless_the_mail_says_otherwise(lab: Lab) -> None:
    house = build()
    SendingDomain.objects.filter(id=house.domain.id).update(unsubscribe_streams=["news"])
    house.send(TO, subject="by stream", stream="news")
    house.send(TO, subject="not this one", stream="news", unsubscribe=False)
    house.send(TO, subject="another stream")
    whole = f"From: {house.sender}\r\nTo: {TO}\r\nSubject: whole\r\n\r\nHi\r\n".encode()
    accept(keys.hash_of(house.secret), [of_raw(raw.read(whole), stream="news")])
    found = {email.message_from_bytes(octets)["Subject"]: b"List-Unsubscribe: <" in octets for octets, _ in out(lab)}
    assert found == {"by stream": True, "not this one": False, "another stream": False, "whole": True}


def test_what_a_domain_and_a_mail_say_of_leaving_is_checked(lab: Lab) -> None:
    api = Api(make_tenant())
    (domain,) = api.get("/domains").json()["data"]
    where = f"/domains/{domain['id']}"
    assert api.patch(where, {"unsubscribe_streams": ["news", "offers", "news"]}).status_code == 200
    assert api.get(where).json()["unsubscribe_streams"] == ["news", "offers"]
    assert api.patch(where, {"unsubscribe_streams": ["No News"]}).json()["errors"][0]["field"] == (
        "unsubscribe_streams[0]"
    )
    refused = api.send(html=LEAVE, unsubscribe=False)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "unsubscribe")
    each = {"a@simulator.test": {"NAME": "Ann"}}
    merged = api.send(to=list(each), html="{{{NAME}}}" + LEAVE, merge=each)
    sent = [api.send(stream="news"), api.send(stream="other"), api.send(html=LEAVE), merged]
    told = [Message.objects.get(id=answer.json()["id"]).unsubscribe for answer in sent]
    assert told == [True, False, True, True]
    assert api.get(f"/emails/{merged.json()['id']}").json()["html"] == "Ann" + LEAVE
    assert api.patch(where, {"unsubscribe_streams": []}).status_code == 200
    assert api.get(where).json()["unsubscribe_streams"] == []


@pytest.mark.parametrize(
    ("changes", "host", "status"),
    [
        ({}, "links.{name}", 200),
        ({}, "LINKS.{name}.", 200),
        ({}, "other.{name}", 404),
        ({}, "{name}", 404),
        ({}, "", 404),
        ({}, "links.{name}\0", 404),
        ({}, "x" * 300 + ".{name}", 404),
        ({"findings": {}}, "links.{name}", 404),
        ({"findings": {"tracking": {"status": "pending"}}}, "links.{name}", 404),
        ({"verified_at": None}, "links.{name}", 404),
        ({"suspended_at": timezone.now()}, "links.{name}", 404),
    ],
)
def test_certificates_are_asked_for_only_where_links_of_a_verified_domain_lead_here(
    changes: dict[str, object], host: str, status: int
):
    own = make_domain(make_shop("Shop"), "shop.example")
    facts = {"findings": {"tracking": {"status": "verified"}}, "tracking_label": "links", **changes}
    SendingDomain.objects.filter(id=own.id).update(**facts)
    assert Client().get("/tls/ask", {"domain": host.format(name=own.name)}).status_code == status


def test_links_lead_to_a_seen_host_where_the_proxy_gets_certificates_by_itself(settings):
    settings.ALLOWED_HOSTS, settings.BASE_URL = ["mail.example.com"], "https://mail.example.com"
    assert links_url("links.shop.example") == ""
    settings.ON_DEMAND_TLS = True
    assert links_url("links.shop.example") == "https://links.shop.example"
    assert links_url(None) == ""
