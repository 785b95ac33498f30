"""The settings as they are in force: all of them, from where, and no secret among them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deliveries.admin import in_force
from tests.fakes import mail
from tests.fakes.person import login

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).resolve().parents[2]
PAGE = "/admin/settings/"


@pytest.fixture
def page():
    operator = mail.person("root", operator=True)

    def get() -> str:
        response = login(operator).get(PAGE)
        assert response.status_code == 200
        return response.content.decode()

    return get


def test_every_setting_that_is_read_and_every_one_of_the_docs_is_on_the_page(page):
    read = set(re.findall(r'(?<![.\w])[a-z_]+\(\s*"([A-Z0-9_]+)"[,)]', (ROOT / "mailapi" / "settings.py").read_text()))
    documented = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE))
    told = re.findall(r'class="panel-setting" id="([A-Z0-9_]+)"', page())
    assert len(read) > 50 and len(documented) > 50
    assert (read | documented) - set(told) == set()
    assert len(told) == len(set(told))


def test_a_value_stands_with_where_it_came_from_and_what_it_does(page, settings, monkeypatch):
    settings.KEEP_MAIL_DAYS = 90.0
    settings.SOURCE_IPS = ("192.0.2.1", "2001:db8::1")
    settings.SMTPD_INBOUND = ("::1", 2525)
    settings.SETTING_SOURCES = {
        **settings.SETTING_SOURCES,
        "KEEP_MAIL_DAYS": "environment",
        "SECRET_KEY": "file /run/k",
    }
    monkeypatch.setenv("WEB_WORKERS", "5")
    told = {s.name: s for s in in_force.in_force()}
    assert (told["KEEP_MAIL_DAYS"].value, told["KEEP_MAIL_DAYS"].source) == ("90", "environment")
    assert told["KEEP_MAIL_DAYS"].default == "180" and "deliveries, attempts and events" in told["KEEP_MAIL_DAYS"].what
    assert told["SOURCE_IPS"].value == "192.0.2.1, 2001:db8::1" and told["SMTPD_INBOUND"].value == "[::1]:2525"
    assert (told["WEB_WORKERS"].value, told["WEB_WORKERS"].source) == ("5", "environment"), "read by serve alone"
    assert (told["SECRET_KEY"].value, told["SECRET_KEY"].source) == ("set", "file /run/k")
    text = page()
    assert "90 days" in text and "2001:db8::1" in text


def test_of_a_secret_is_told_only_that_it_is_set_and_how_many_keys_it_has(page, settings, monkeypatch):
    settings.SECRET_KEY = "hush-session"
    settings.FIELD_KEYS = "hush-one, hush-two"
    settings.VERP_KEYS = "1:hush-verp"
    settings.METRICS_TOKEN = ""
    settings.BROKER_URL = "amqps://bob:hush-broker@mq.example:5671/vhost?x=hush-option"
    settings.REDIS_URL = "redis://:hush-redis@[::1]:6380/1"
    settings.SANDBOX = False
    route = '{"host": "smart.example", "port": 587, "username": "hush-user", "password": "hush-route"}'
    settings.MAIL_ROUTES = f'{{"corp.example": {route}}}'
    settings.DATABASES["default"]["PASSWORD"], kept = "hush-database", settings.DATABASES["default"]["PASSWORD"]
    # one that somebody adds tomorrow
    settings.ALERT_TOKEN, settings.ALERT_URL = "hush-alert", "https://hooks.example/services/hush-path"
    settings.SETTING_SOURCES = {**settings.SETTING_SOURCES, "ALERT_TOKEN": "environment", "ALERT_URL": "environment"}
    try:
        text = page()
    finally:
        settings.DATABASES["default"]["PASSWORD"] = kept
    assert "hush" not in text
    told = {s.name: s.value for s in in_force.in_force()}
    assert [told[n] for n in ("SECRET_KEY", "FIELD_KEYS", "VERP_KEYS", "METRICS_TOKEN", "ALERT_TOKEN")] == [
        "set", "2 keys", "1 key", "not set", "set",
    ]  # fmt: skip
    assert told["BROKER_URL"] == "amqps://bob@mq.example:5671/vhost" and told["ALERT_URL"] == "https://hooks.example/…"
    assert told["MAIL_ROUTES"] == "corp.example"
    assert "smart.example:587 (TLS: verify) with a login" in text and "the MX of the recipient" in text


def test_what_makes_a_confirmed_commit_durable_is_shown_and_a_switch_that_is_off_stands_out(page):
    from django.db import connection

    text = page()
    assert re.search(r"fsync</dt><dd>(on|<span)", text) and "full_page_writes" in text
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL synchronous_commit = off")
    assert re.search(r"synchronous_commit</dt><dd><span class=\"panel-status panel-danger\">off", page())


def test_members_do_not_see_it_and_have_no_entry_in_the_menu():
    client = login(mail.person("olga", mail.tenant("Shop"), role="owner"))
    assert client.get(PAGE).status_code == 403
    assert PAGE not in client.get("/admin/").content.decode()
