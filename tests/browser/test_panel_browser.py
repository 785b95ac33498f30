"""A person at the panel: log in, find a mail, read what the MX said, look at the mail without letting it act."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deliveries.models import Event, WebhookEndpoint
from deliveries.states import Status
from tests.fakes import mail

pytestmark = pytest.mark.django_db(transaction=True)

#: pictures are kept where this names a folder
SHOTS = os.environ.get("PANEL_SHOTS")

EVIL = """<html><head><meta http-equiv="refresh" content="0;url=https://elsewhere.invalid/">
<style>body{font-family:sans-serif;background:url(https://elsewhere.invalid/css.png)}</style></head><body>
<h1 id="hello">Thank you, Anna</h1><p>Your order is on its way.</p>
<script>document.title='hit';top.hit=1;fetch('https://elsewhere.invalid/x')</script>
<img src="https://elsewhere.invalid/pixel.gif" onerror="top.hit=1;document.body.innerHTML='hit'">
<svg onload="top.hit=1"></svg><iframe src="javascript:top.hit=1"></iframe>
<form action="https://elsewhere.invalid/" id="f"><button id="b">Go</button></form>
<a id="leave" target="_top" href="https://elsewhere.invalid/leave">leave</a></body></html>"""


def log_in(page, name: str) -> None:
    page.goto("/admin/")
    page.fill("[name=username]", name)
    page.fill("[name=password]", mail.PASSWORD)
    page.click("button[type=submit]")
    page.wait_for_selector(".panel-cards")


def shoot(page, name: str, full: bool = True) -> None:
    if SHOTS:
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=full)


@pytest.fixture
def shop():
    own = mail.tenant("Shop")
    mail.person("dora", own, role="developer")
    mail.domain(own, "example.org")
    endpoint = WebhookEndpoint.objects.create(tenant=own, url="https://shop.example/hook", secret=b"x")
    statuses = [Status.DELIVERED] * 6 + [
        Status.BOUNCED, Status.DEFERRED, Status.QUEUED, Status.SUPPRESSED, Status.UNKNOWN, Status.HELD, Status.EXPIRED,
    ]  # fmt: skip
    for n, status in enumerate(statuses):
        mail.message(own, f"customer{n}@example.net", subject=f"Your order no. {4711 + n} is on its way", status=status)
    row = mail.message(
        own, "anna@example.net", "bob@example.net", subject="Thank you, Anna", html=EVIL, filename="invoice.pdf",
        status=Status.DEFERRED, reply="451 4.7.1 Greylisted, come back later", category="greylisted",
        rule="greylist-text", tags=[{"name": "kind", "value": "receipt"}],
    )  # fmt: skip
    mail.post(endpoint, Event.objects.filter(message=row).first())
    return own


def test_a_person_finds_a_mail_and_reads_what_the_mx_said(open_page, shop, tripwire):
    before = tripwire.connections
    page, complaints = open_page()
    log_in(page, "dora")
    shoot(page, "home-light")
    page.click("text=Messages >> nth=0")
    page.wait_for_selector("#result_list")
    shoot(page, "list-light")
    page.focus("button:has-text('Filters')")
    page.keyboard.press("Enter")
    page.wait_for_selector("#changelist-filter")
    page.keyboard.press("Escape")
    page.wait_for_selector("#changelist-filter", state="hidden")
    page.goto("/admin/")
    page.get_by_label("Where is my mail?").fill("anna@example.net")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=1 message")
    page.click("text=Thank you, Anna")
    page.wait_for_selector(".panel-talk")
    body = page.inner_text("#content")
    assert "asked us to come back later (greylisting): “451 4.7.1 Greylisted, come back later”" in body
    assert "EHLO mail.example.org" in page.inner_text(".panel-talk >> nth=0")
    assert "192.0.2.25" in body and "TLSv1.3" in body
    page.locator("#preview").scroll_into_view_if_needed()
    page.frame_locator("#preview").locator("#hello").wait_for()
    shoot(page, "message-light")
    assert tripwire.connections == before
    assert complaints == []


def test_the_preview_shows_the_mail_and_lets_it_do_nothing(open_page, shop, tripwire):
    before = tripwire.connections
    page, complaints = open_page()
    log_in(page, "dora")
    page.goto("/admin/deliveries/message/?q=anna@example.net")
    page.click("text=Thank you, Anna")
    page.locator("#preview").scroll_into_view_if_needed()
    inside = page.frame_locator("#preview")
    inside.locator("#hello").wait_for()
    inside.locator("#leave").click()
    inside.locator("#b").click()
    assert inside.locator("#hello").inner_text() == "Thank you, Anna"
    assert page.evaluate("window.hit") is None
    assert page.title().startswith("Thank you, Anna")
    assert tripwire.connections == before, "nothing is asked of another host until the person wants images"
    with page.expect_event("requestfailed", lambda r: r.url.endswith("pixel.gif") and r.failure != "csp"):
        page.click("text=Show remote images")
    assert tripwire.connections > before, "and then the images are"
    assert page.evaluate("window.hit") is None
    assert complaints == []


@pytest.mark.parametrize(("name", "width", "dark"), [("dark", 1280, True), ("phone", 390, False)])
def test_the_panel_is_readable_in_the_dark_and_on_a_phone(open_page, shop, tripwire, name, width, dark):
    before = tripwire.connections
    page, complaints = open_page(width, 844 if width < 500 else 900, dark)
    log_in(page, "dora")
    shoot(page, f"home-{name}")
    page.goto("/admin/deliveries/message/")
    page.wait_for_selector("#result_list")
    shoot(page, f"list-{name}")
    # a page that is wider than the screen cannot be read on a phone
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click("text=Thank you, Anna")
    page.wait_for_selector(".panel-talk")
    shoot(page, f"message-{name}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    rows = mail.everything(shop, "extra")
    for model in ("apikey", "sendingdomain", "webhookendpoint", "webhookdelivery", "suppression", "inboundmessage"):
        page.goto(f"/admin/deliveries/{model}/")
        shoot(page, f"{model}-list-{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, model
        own = next(row for kind, row in rows.items() if kind.__name__.lower() == model)
        page.goto(f"/admin/deliveries/{model}/{own.pk}/change/")
        for details in page.locator("details").all():
            details.evaluate("d => d.open = true")
        shoot(page, f"{model}-one-{name}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, model
    page.goto("/admin/deliveries/webhookendpoint/add/")
    shoot(page, f"webhookendpoint-add-{name}")
    # by the keyboard alone
    if width < 500:
        page.get_by_role("button", name="Menu").press("Enter")
        page.get_by_role("link", name="Suppressions").wait_for()
    page.get_by_role("button", name="Account").press(" ")
    page.get_by_role("button", name="Log out").wait_for()
    assert tripwire.connections == before and complaints == []


def test_a_new_key_is_shown_once(open_page, shop):
    page, complaints = open_page()
    log_in(page, "dora")
    page.goto("/admin/deliveries/apikey/add/")
    page.fill("[name=name]", "web shop")
    page.select_option("[name=tenant]", label="Shop") if page.locator("[name=tenant]").is_visible() else None
    page.click("[name=_save]")
    secret = page.inner_text("#secret")
    assert secret.startswith("re_") and len(secret) > 40
    shoot(page, "secret-light")
    page.click("text=I have copied it")
    page.wait_for_selector("text=web shop")
    assert secret not in page.content()
    assert complaints == []
