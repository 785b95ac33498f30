"""A domain in a real browser: its records missing, published in the test's own DNS server, seen verified."""

from __future__ import annotations

import re

import pytest

from deliveries.models import SendingDomain
from tests.browser.test_panel_browser import log_in, shoot
from tests.fakes import mail
from tests.fakes.dns import FakeDns

pytestmark = pytest.mark.django_db(transaction=True)


def zone_line(record) -> str:
    """What a person would copy from the page into the zone."""
    fqdn, kind = record.locator("summary .panel-mono").inner_text(), record.locator(".panel-strong").inner_text()
    value = record.locator("[data-copy]").nth(1).get_attribute("data-copy")
    if kind == "TXT":  # RFC 1035 §3.3: strings of 255 octets at most
        value = " ".join(f'"{value[i : i + 255]}"' for i in range(0, len(value), 255))
    return f"{fqdn} {kind} {'10 ' if kind == 'MX' else ''}{value}"


def test_a_domain_is_added_its_records_are_published_and_seen_verified(open_page, settings):
    settings.MX_NAME, settings.BOUNCE_DOMAIN = "mx.mailer.example", "bounce.mailer.example"
    settings.BASE_URL = "https://mail.mailer.example"
    mail.person("dora", mail.tenant("Shop"), role="developer")
    with FakeDns("example.com A 192.0.2.1") as dns:
        settings.DNS_NAMESERVERS = (dns.address,)
        page, complaints = open_page()
        log_in(page, "dora")
        page.goto("/admin/deliveries/sendingdomain/")
        page.click("a[href$='/sendingdomain/add/'] >> nth=0")
        page.fill("[name=name]", "Shop.Example.com")
        page.click("[name=_save]")
        page.wait_for_selector("text=DNS records to publish")
        assert "never" in page.inner_text("#checked")
        page.click("button:has-text('Check now')")
        page.wait_for_selector("text=shop.example.com is pending")
        records = page.locator("details.panel-post")
        words = records.locator("summary .panel-status").all_inner_texts()
        assert records.count() == 5 and {w.lower() for w in words} == {"missing"}
        assert "Nothing may be sent from it until its DKIM record is seen" in page.inner_text("#content")
        shoot(page, "journey-domain-missing")

        lines = [zone_line(records.nth(n)) for n in range(5)]
        # the first try of a person: half of the key
        broken = [re.sub(r'p=([^"]{40})[^"]*"( "[^"]*")*', r'p=\1"', line) for line in lines]
        assert broken != lines
        dns.set("example.com A 192.0.2.1\n" + "\n".join(broken))
        page.click("button:has-text('Check now')")
        page.wait_for_selector("text=The key ends after")
        shoot(page, "journey-domain-wrong")
        dns.set("example.com A 192.0.2.1\n" + "\n".join(lines))
        page.click("button:has-text('Check now')")
        page.wait_for_selector("text=shop.example.com is verified")
        words = records.locator("summary .panel-status").all_inner_texts()
        assert {w.lower() for w in words} == {"good"}
        assert "send.shop.example.com" in page.inner_text("#content")
        page.locator("summary").first.click()
        shoot(page, "journey-domain-verified")
        page.fill("[name=unsubscribe_streams]", "news, offers")
        page.check("[name=dkim_ed25519]")
        page.click("button:has-text('Save')")
        page.wait_for_selector("text=it holds for mail that is accepted from now on")
        page.wait_for_selector("summary:has-text('DKIM, Ed25519')")
        assert records.count() == 6 and page.is_checked("[name=dkim_ed25519]")
        shoot(page, "journey-domain-second-key")
    row = SendingDomain.objects.get()
    assert row.verified_at and row.return_path_verified_at and row.unsubscribe_streams == ["news", "offers"]
    assert any(name == "_dmarc.shop.example.com" for name, _, _ in dns.asked)
    assert complaints == []


def test_a_value_is_copied_by_its_button_and_a_phone_shows_it_whole(open_page):
    own = mail.tenant("Shop")
    mail.person("dora", own, role="developer")
    mail.domain(own, "shop.example.com")
    page, complaints = open_page(390, 844, dark=True)
    log_in(page, "dora")
    page.goto("/admin/deliveries/sendingdomain/")
    page.click("text=shop.example.com")
    page.wait_for_selector("text=DNS records to publish")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    record = page.locator("details.panel-post").first
    if record.get_attribute("open") is None:
        record.locator("summary").click()
    record.locator("[data-copy]").nth(1).click()
    page.wait_for_selector("text=/Copied|Marked/")
    shoot(page, "domain-phone-dark")
    assert complaints == []
