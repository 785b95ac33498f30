"""Whole journeys in a real browser, with real mail: the lab takes it, the pump sends it, the courier tells it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.db import connection
from django.urls import reverse
from django.utils import timezone
from django_otp.oath import TOTP

from deliveries import deliver, notify
from deliveries.deliver import jobs
from deliveries.models import (
    ApiKey,
    Authenticator,
    Delivery,
    MxSite,
    Queued,
    Suppression,
    WebhookDelivery,
)
from deliveries.retry import Schedule
from deliveries.sandbox import behaviours
from deliveries.sandbox.behaviours import Behaviour
from tests.browser.test_panel_browser import log_in, shoot
from tests.fakes import mail
from tests.fakes.house import House, build
from tests.fakes.labs import fresh_pump, running_lab
from tests.fakes.receiver import receiver

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def house(settings) -> Iterator[House]:
    """A tenant that can send, with dora as its developer; its mail goes to the lab."""
    with running_lab() as lab, fresh_pump():
        settings.MAIL_ROUTE, settings.SANDBOX_SMTP = "sandbox", lab.address
        settings.RETRY = Schedule(waits_s=(600,), max_age_s=3600, unknown_wait_s=600, jitter=0)
        settings.WEBHOOK_ALLOW_PRIVATE = True
        jobs._kept.clear()
        own = build()
        mail.person("dora", own.tenant, role="developer")
        mail.person("root", operator=True)
        yield own


def until(done: Callable[[], bool], work: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never came to that"
        work()
        time.sleep(0.05)


def courier() -> None:
    """notify.run in a thread: Playwright's loop runs in this one, and a thread has one alone."""

    def alone() -> None:
        try:
            notify.run()
        finally:
            connection.close()

    thread = threading.Thread(target=alone)
    thread.start()
    thread.join()


def test_a_bounced_mail_is_found_understood_freed_sent_again_and_seen_delivered(open_page, house, monkeypatch):
    monkeypatch.setitem(behaviours.BEHAVIOURS, "anna", Behaviour("anna", "", rcpt="550 5.1.1 No such <user> here"))
    (first,) = house.send("anna@simulator.test", subject="Your invoice", html="<p>Thank you</p>")
    until(lambda: Delivery.objects.get(id=first.id).status == "bounced", deliver.run)
    assert Suppression.objects.filter(address="anna@simulator.test").exists()
    monkeypatch.setitem(behaviours.BEHAVIOURS, "anna", Behaviour("anna", "her mailbox was made meanwhile"))

    page, complaints = open_page()
    log_in(page, "dora")
    page.click("text=Messages >> nth=0")
    page.fill("#searchbar", "anna@simulator.test")
    page.press("#searchbar", "Enter")
    page.wait_for_selector("text=1 message")
    page.click("text=Your invoice")
    page.wait_for_selector("text=says that there is no such mailbox")
    assert "550 5.1.1 No such <user> here" in page.inner_text("#content")
    page.wait_for_selector("text=On the suppression list")
    shoot(page, "journey-bounced")
    page.click("text=Take it off the list")
    page.wait_for_selector("text=1 taken off the suppression list")
    page.click("button:has-text('Send again')")
    page.wait_for_selector("text=Sent again, as 1 new message")
    page.wait_for_selector("text=queued")
    again = Delivery.objects.exclude(id=first.id).get()
    until(lambda: Delivery.objects.get(id=again.id).status == "delivered", deliver.run)
    page.reload()
    page.wait_for_selector("text=accepted it at")
    assert "TLS 1.3" in page.inner_text("#content")
    page.click("text=Phone width")
    page.wait_for_function("document.querySelector('#preview').offsetWidth <= 392")
    shoot(page, "journey-delivered")
    assert complaints == []


def test_a_webhook_is_made_fails_is_mended_and_told_again(open_page, house):
    with receiver() as told:
        told.answer = lambda came: (500, {})
        page, complaints = open_page()
        log_in(page, "dora")
        page.goto("/admin/deliveries/webhookendpoint/add/")
        page.fill("[name=url]", told.url())
        page.click("[name=_save]")
        assert page.inner_text("#secret").startswith("whsec_")
        page.click("text=I have copied it")
        house.send("delivered@simulator.test")
        until(lambda: bool(told.came), courier)
        page.goto("/admin/")
        page.wait_for_selector("text=fails or is off")
        shoot(page, "journey-webhook-failing")
        page.click("text=fails or is off")
        page.locator(".panel-post summary").first.click()
        page.wait_for_selector("text=500")
        told.answer = lambda came: (200, {})
        WebhookDelivery.objects.update(state="failed")
        page.goto("/admin/deliveries/webhookendpoint/")
        page.check("#result_list input[type=checkbox] >> nth=1")
        page.select_option("[name=action]", "send_failed")
        page.click("button[name=index], [type=submit]:has-text('Run'), [title='Run the selected action']")
        page.wait_for_selector("text=will be sent again, with the same ids")
        until(lambda: not WebhookDelivery.objects.exclude(state="delivered").exists(), courier)
        ids = [came.headers["webhook-id"] for came in told.came]
        assert len(set(ids)) < len(ids), "told again under the same id"
        page.goto("/admin/deliveries/webhookdelivery/")
        page.wait_for_selector("text=success")
        assert complaints == []


def test_a_destination_is_paused_with_a_reason_and_resumed(open_page, house):
    (held,) = house.send("delivered@simulator.test")
    name = Queued.objects.get(delivery_id=held.id).destination
    page, complaints = open_page()
    log_in(page, "root")
    page.click("text=Queue >> nth=0")
    page.wait_for_selector(f"h2:has-text('{name}')")
    page.click("text=Orders")
    page.fill("[name=reason]", "they move house")
    page.click("button:has-text('Pause')")
    page.wait_for_selector("text=is paused: its mail waits")
    shoot(page, "journey-queue")
    for _ in range(5):
        deliver.run()
    assert Delivery.objects.get(id=held.id).status == "queued"
    page.goto(f"/admin/deliveries/message/{held.message_id}/change/")
    page.wait_for_selector("text=they move house")
    page.goto("/admin/queue/")
    page.click("text=Orders")
    page.click("button:has-text('Resume')")
    page.wait_for_selector("text=is resumed")
    until(lambda: Delivery.objects.get(id=held.id).status == "delivered", deliver.run)
    page.goto("/admin/queue/")
    page.wait_for_selector("text=Nothing waits")
    assert complaints == [] and not MxSite.objects.exists()


def test_a_second_factor_is_set_up_and_asked_at_the_next_login(open_page, house):
    def code() -> str:
        totp = TOTP(bytes(Authenticator.objects.get().key), 30, 0, 6)
        totp.time = time.time()
        return f"{totp.token():06d}"

    page, complaints = open_page(390, 844)
    log_in(page, "dora")
    page.goto("/admin/second-factor/new/")
    page.wait_for_function("document.querySelector('.panel-qr').naturalWidth > 100")
    shoot(page, "journey-second-factor")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.fill("#code", code())
    page.fill("#password", mail.PASSWORD)
    page.click("text=Switch it on")
    page.wait_for_selector("#codes")
    codes = page.inner_text("#codes").split()
    assert len(codes) == 10
    page.click("text=I have kept them")
    page.wait_for_selector(".panel-cards")
    assert complaints == []

    other, complaints = open_page()
    other.goto("/admin/deliveries/apikey/")
    other.fill("[name=username]", "dora")
    other.fill("[name=password]", mail.PASSWORD)
    other.click("button[type=submit]")
    other.wait_for_selector("text=Code of your authenticator app")
    other.fill("#code", "no code")
    other.click("text=Go on")
    other.wait_for_selector("[role=alert]")
    Authenticator.objects.update(throttling_failure_timestamp=timezone.now() - timedelta(minutes=5))
    other.fill("#code", codes[3])
    other.click("text=Go on")
    other.wait_for_url(re.compile(r"/admin/deliveries/apikey/$"))
    assert ApiKey.objects.filter(tenant=house.tenant).exists() and complaints == []


def test_ten_thousand_suppressions_are_imported_with_progress(open_page, house, tmp_path):
    listed = tmp_path / "list.csv"
    lines = "\n".join(f"gone{n}@example.net,bounce" for n in range(10_000))
    listed.write_text(f"email,reason\n{lines}\n")
    page, complaints = open_page()
    log_in(page, "dora")
    page.goto(reverse("admin:deliveries_suppression_import_list"))
    page.select_option("[name=tenant]", label=house.tenant.name)
    page.select_option("[name=form]", "csv")
    page.set_input_files("[name=file]", str(listed))
    page.click("text=Show what is in it")
    page.wait_for_selector("strong:has-text('10000')")
    seen: list[str] = []
    page.expose_function("progressed", lambda text: seen.append(text))
    page.add_init_script(
        "document.addEventListener('DOMContentLoaded', () => 0);"
        "new MutationObserver(() => { const p = [...document.querySelectorAll('.panel-progress')].pop();"
        " if (p) window.progressed(p.textContent.trim()); }).observe(document, {childList: true, subtree: true});"
    )
    page.click("text=Import them")
    page.wait_for_selector("text=10,000 new; 0 were on the list already.", timeout=120_000)
    shoot(page, "journey-import")
    assert len({text for text in seen if " of 10,000" in text}) >= 2, "it was seen to go on"
    assert page.locator(".panel-progress:visible").count() == 1
    assert Suppression.objects.filter(tenant=house.tenant).count() == 10_000
    assert complaints == []
