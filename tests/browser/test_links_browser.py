"""A mail looked at in a real browser: it opens, its link leads on, and its button leaves the list."""

from __future__ import annotations

import email
import email.policy
import re
from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from deliveries import queue
from deliveries.deliver import jobs
from deliveries.models import Delivery, Event, SendingDomain, Suppression
from deliveries.visits import book
from tests.fakes.house import House, build

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def house(settings, live_server) -> House:
    settings.BASE_URL = live_server.url
    house = build()
    SendingDomain.objects.filter(id=house.domain.id).update(open_tracking=True, click_tracking=True)
    jobs._kept.clear()
    return house


def sent(house: House, html: str) -> tuple[Delivery, str, str]:
    """(delivery, html as it leaves, where it can be left), the mail delivered a minute ago."""
    (delivery,) = house.send("ann@one.test", html=html, stream="news", unsubscribe=True)
    lease = uuid4()
    (job,), _ = jobs.load(queue.claim(lease, 100, 1 << 26, {}).rows, lease)
    leave = re.search(rb"<([^>]*)>", job.fields[0])
    part = email.message_from_bytes(job.prepared.header + b"\r\n" + job.prepared.body, policy=email.policy.default)
    Delivery.objects.filter(id=delivery.id).update(status="delivered", settled_at=timezone.now() - timedelta(minutes=1))
    return delivery, part.get_body(("html",)).get_content(), leave[1].decode()


def test_a_mail_that_is_opened_and_clicked_in_a_browser_tells_both(open_page, house, live_server) -> None:
    target = f"{live_server.url}/health/live?from=mail&x=1"
    delivery, html, _ = sent(house, f'<body><a id="go" href="{target.replace("&", "&amp;")}">Order</a></body>')
    page, _ = open_page()
    # a page of the service, so that the picture is no mixed or foreign content
    page.goto("/admin/login/")
    with page.expect_response(lambda r: "/o/" in r.url) as picture:
        page.set_content(html)
    assert picture.value.status == 200
    with page.expect_response(lambda r: "/c/" in r.url) as redirect:
        page.click("#go")
    assert redirect.value.status == 302
    page.wait_for_url(target)
    book.write()
    told = Event.objects.filter(delivery_id=delivery.id, type__in=("email.opened", "email.clicked")).order_by("place")
    assert [e.type for e in told] == ["email.opened", "email.clicked"]
    assert told[1].data["link"] == target and "Chrome" in told[1].data["user_agent"]


def test_leaving_takes_a_page_and_a_button(open_page, house) -> None:
    _, _, url = sent(house, "<p>News</p>")
    page, complaints = open_page(390, 800)
    page.goto(url)
    assert page.inner_text("h1") == "Unsubscribe?"
    assert house.domain.name in page.inner_text("p")
    assert not Suppression.objects.filter(tenant=house.tenant).exists()
    page.click("button")
    page.wait_for_selector("text=You are unsubscribed.")
    assert page.url == url
    assert page.context.cookies() == []
    (row,) = Suppression.objects.filter(tenant=house.tenant)
    assert (row.address, row.stream, row.reason) == ("ann@one.test", "news", "unsubscribe")
    assert complaints == []
