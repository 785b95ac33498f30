"""The panel's door: wrong passwords, the second factor, and what a proxy in front changes."""

from __future__ import annotations

import re
import time
from datetime import timedelta

import pytest
from axes.models import AccessAttempt
from cryptography.fernet import Fernet
from django.contrib import admin
from django.core.management import call_command
from django.test import Client
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django_otp.oath import TOTP

from deliveries import logins
from deliveries.models import AuditEntry, Authenticator, RecoveryCode
from tests.fakes import mail

pytestmark = pytest.mark.django_db

LOGIN = "/admin/login/"


def log_in(client: Client, name: str, password: str = mail.PASSWORD, **meta):
    return client.post(LOGIN, {"username": name, "password": password, "next": "/admin/"}, **meta)


def code(user) -> str:
    """What the app shows."""
    totp = TOTP(bytes(Authenticator.objects.get(user=user).key), 30, 0, 6)
    totp.time = time.time()
    return f"{totp.token():06d}"


@pytest.fixture
def anna():
    return mail.person("anna", mail.tenant("Shop"), role="developer")


@pytest.fixture
def guarded(anna):
    """(anna, her recovery codes): the second factor is on, and no code of it is used yet. A code of this step is good
    even where the next one begins before it is looked at."""
    logins.begin(anna)
    proof, codes = logins.confirm(anna, code(anna))
    assert proof.device is not None
    Authenticator.objects.update(last_step=-1)
    return anna, codes


def test_ten_wrong_passwords_close_the_door_to_that_address_alone(anna):
    thief, owner = Client(REMOTE_ADDR="192.0.2.66"), Client(REMOTE_ADDR="192.0.2.7")
    answers = [log_in(thief, "anna", f"guess {n}").status_code for n in range(10)]
    assert answers[:9] == [200] * 9 and answers[9] == 429
    page = log_in(thief, "anna")
    assert page.status_code == 429 and "Try again in 15 minutes" in page.content.decode()
    assert page.headers["Retry-After"] == "900" and "_auth_user_id" not in thief.session
    assert log_in(owner, "anna").status_code == 302


def test_behind_a_proxy_the_client_is_counted_and_cannot_name_itself(anna, settings):
    settings.PROXIES = 1
    proxy = {"REMOTE_ADDR": "10.0.0.1"}
    for n in range(10):
        log_in(Client(), "anna", "wrong", HTTP_X_FORWARDED_FOR=f"198.51.100.{n}, 192.0.2.66", **proxy)
    blocked = log_in(Client(), "anna", HTTP_X_FORWARDED_FOR="203.0.113.9, 192.0.2.66", **proxy)
    assert blocked.status_code == 429
    assert log_in(Client(), "anna", HTTP_X_FORWARDED_FOR="192.0.2.7", **proxy).status_code == 302


def test_the_header_is_believed_from_our_own_proxies_alone(anna, settings):
    settings.PROXIES = 1
    for n in range(10):
        log_in(Client(), "anna", "wrong", HTTP_X_FORWARDED_FOR=f"192.0.2.{n}", REMOTE_ADDR="203.0.113.66")
    assert log_in(Client(), "anna", HTTP_X_FORWARDED_FOR="192.0.2.99", REMOTE_ADDR="203.0.113.66").status_code == 429
    for proxy in ("127.0.0.1", "10.1.2.3", "::1", "fd00::1", "::ffff:10.1.2.3", ""):
        answer = log_in(Client(), "anna", HTTP_X_FORWARDED_FOR="192.0.2.99", REMOTE_ADDR=proxy)
        assert answer.status_code == 302, proxy


def failed(login: str, address: str, count: int, minutes_ago: float = 0) -> None:
    """As django-axes would have noted them; a hundred passwords take a test too long to hash."""
    at = timezone.now() - timedelta(minutes=minutes_ago)
    AccessAttempt.objects.create(
        username=login, ip_address=address, user_agent="x", failures_since_start=count, attempt_time=at
    )


def test_who_mistypes_behind_a_shared_address_closes_no_other_login(anna):
    mail.person("bea", mail.tenant("Other"))
    failed("bea", "192.0.2.1", 10)
    assert log_in(Client(REMOTE_ADDR="192.0.2.1"), "bea").status_code == 429
    assert log_in(Client(REMOTE_ADDR="192.0.2.2"), "bea").status_code == 302
    assert log_in(Client(REMOTE_ADDR="192.0.2.1"), "anna").status_code == 302
    assert log_in(Client(REMOTE_ADDR="192.0.2.1"), "bea").status_code == 429, "another's login forgives nothing"


def test_one_password_on_many_logins_closes_the_address(anna):
    for n in range(33):
        failed(f"login{n}", "192.0.2.66", 3)
    assert log_in(Client(REMOTE_ADDR="192.0.2.66"), "anna", "wrong").status_code == 429, "the hundredth"
    assert log_in(Client(REMOTE_ADDR="192.0.2.66"), "anna").status_code == 429
    assert log_in(Client(REMOTE_ADDR="192.0.2.7"), "anna").status_code == 302
    AccessAttempt.objects.update(attempt_time=timezone.now() - timedelta(minutes=16))
    assert log_in(Client(REMOTE_ADDR="192.0.2.66"), "anna").status_code == 302, "fifteen minutes later"


def test_a_thousand_addresses_on_one_login_guess_no_faster_and_its_person_still_gets_in(anna):
    own = Client(REMOTE_ADDR="192.0.2.7")
    assert log_in(own, "anna").status_code == 302
    own.get("/admin/")
    cookie = own.cookies["known_device"]
    assert cookie["httponly"] and cookie["samesite"] == "Strict" and cookie["path"] == "/admin/"
    own.post("/admin/logout/")
    for n in range(100):
        failed("anna", f"198.51.100.{n}", 1)
    assert log_in(Client(REMOTE_ADDR="203.0.113.5"), "anna").status_code == 429, "even with the right password"
    assert log_in(own, "anna").status_code == 302, "a browser that has logged in before"
    mail.person("bea", mail.tenant("Other"))
    forged = Client(REMOTE_ADDR="203.0.113.5")
    for value in ("anna", cookie.value[:-1], f'"bea"{cookie.value[cookie.value.index(":") :]}'):
        forged.cookies["known_device"] = value
        assert log_in(forged, "anna").status_code == 429
    stranger = Client(REMOTE_ADDR="203.0.113.6")
    log_in(stranger, "bea")
    stranger.get("/admin/")
    assert log_in(stranger, "anna").status_code == 429, "the cookie of one login is worth nothing for another"


def test_without_a_proxy_the_header_is_not_believed_and_an_ipv6_net_counts_as_one(anna, settings):
    assert settings.PROXIES == 0
    for n in range(10):
        log_in(Client(), "anna", "wrong", HTTP_X_FORWARDED_FOR=f"198.51.100.{n}", REMOTE_ADDR=f"2001:db8::{n}")
    assert log_in(Client(), "anna", REMOTE_ADDR="2001:db8::ffff").status_code == 429
    assert log_in(Client(), "anna", REMOTE_ADDR="2001:db8:0:1::1").status_code == 302


def test_a_second_factor_is_set_up_by_its_first_code_and_its_recovery_codes_are_shown_once(anna):
    client = Client()
    log_in(client, "anna")
    page = client.get("/admin/second-factor/manage/", follow=True).content.decode()
    assert 'src="data:image/svg+xml' in page
    key = re.search(r'id="key">([A-Z2-7 ]+)<', page)[1].replace(" ", "")
    assert len(key) == 32
    password = {"password": mail.PASSWORD}
    wrong = client.post(
        "/admin/second-factor/new/", {"code": "000000" if code(anna) != "000000" else "111111"} | password
    )
    assert "That is not the code" in wrong.content.decode() and not Authenticator.objects.get().confirmed
    Authenticator.objects.update(throttling_failure_count=0, throttling_failure_timestamp=None)
    for guess in ({}, {"password": "guess"}):
        wrong = client.post("/admin/second-factor/new/", {"code": code(anna)} | guess)
        assert "That is not your password" in wrong.content.decode() and not Authenticator.objects.get().confirmed
    done = client.post("/admin/second-factor/new/", {"code": code(anna)} | password).content.decode()
    codes = re.findall(r"(?:[a-z2-7]{4}-){3}[a-z2-7]{4}", done)
    assert len(set(codes)) == 10
    assert client.get("/admin/").status_code == 200, "this session has proved it"
    assert AuditEntry.objects.filter(actor="anna", action="login.second_factor_added").exists()
    stored = [bytes(h).hex() for h in RecoveryCode.objects.values_list("code_hash", flat=True)]
    assert not any(c.replace("-", "") in "".join(stored) for c in codes)


def test_guesses_at_the_password_of_a_session_that_was_found_open_are_counted(anna):
    found = Client()
    log_in(found, "anna")
    answers = [found.post("/admin/second-factor/new/", {"password": f"guess {n}"}).status_code for n in range(10)]
    assert answers == [200] * 9 + [429] and not Authenticator.objects.filter(confirmed=True).exists()


def test_the_key_is_encrypted_in_the_database(guarded):
    from django.db import connection

    device = Authenticator.objects.get()
    with connection.cursor() as cursor:
        cursor.execute("SELECT key FROM authenticator")
        raw = bytes(cursor.fetchone()[0])
    assert bytes(device.key) not in raw and raw.startswith(b"gAAAA")


def every_address() -> list[str]:
    """All addresses of the panel that need no id, and a page of each model with one."""
    found = []
    for pattern in admin.site.urls[0]:
        if getattr(pattern, "name", None) and "<" not in str(pattern.pattern):
            found.append(f"/admin/{pattern.pattern}")
    for model in admin.site._registry:
        for page, args in (("changelist", ()), ("add", ()), ("change", ("01900000-0000-7000-8000-000000000000",))):
            name = f"admin:{model._meta.app_label}_{model._meta.model_name}_{page}"
            try:
                found.append(reverse(name, args=args))
            except NoReverseMatch:
                continue
    message = "/admin/deliveries/message/01900000-0000-7000-8000-000000000000"
    return [*found, f"{message}/preview/", f"{message}/act/"]


def test_after_the_password_alone_no_page_of_the_panel_opens(guarded):
    client = Client()
    log_in(client, "anna")
    assert len(every_address()) > 40
    for address in every_address():
        if address in ("/admin/login/", "/admin/logout/", "/admin/jsi18n/") or "second-factor" in address:
            continue
        for answer in (client.get(address), client.post(address, {"verb": "cancel"})):
            assert answer.status_code == 302 and answer.url.startswith("/admin/second-factor/?next="), address
    assert client.get("/admin/second-factor/new/").url == "/admin/second-factor/manage/", "no way round by a new key"


def test_a_code_opens_the_panel_once_and_leads_to_where_one_wanted_to_go(guarded):
    anna, _ = guarded
    client = Client()
    log_in(client, "anna")
    before = client.session.session_key
    typed = code(anna)
    answer = client.post("/admin/second-factor/", {"code": typed, "next": "/admin/deliveries/message/?q=x"})
    assert answer.status_code == 302 and answer.url == "/admin/deliveries/message/?q=x"
    assert client.session.session_key != before
    assert client.get(answer.url).status_code == 200
    other = Client()
    log_in(other, "anna")
    again = other.post("/admin/second-factor/", {"code": typed})
    assert again.status_code == 200 and "That is not the code" in again.content.decode()
    assert other.get("/admin/").status_code == 302


def test_an_onward_address_of_another_host_is_not_followed(guarded):
    anna, _ = guarded
    client = Client()
    log_in(client, "anna")
    answer = client.post("/admin/second-factor/", {"code": code(anna), "next": "https://elsewhere.invalid/"})
    assert answer.url == "/admin/"


def test_a_recovery_code_opens_the_panel_once_however_it_is_typed(guarded):
    _, codes = guarded
    for expected in (302, 200):
        client = Client()
        log_in(client, "anna")
        typed = codes[0].upper().replace("-", " ")
        assert client.post("/admin/second-factor/", {"code": typed}).status_code == expected
    assert logins.codes_left(guarded[0]) == 9


def test_where_the_key_cannot_be_read_no_code_fits_and_a_recovery_code_opens(guarded, settings):
    anna, codes = guarded
    typed = code(anna)
    settings.FIELD_KEYS = Fernet.generate_key().decode()
    client = Client()
    log_in(client, "anna")
    assert "That is not the code" in client.post("/admin/second-factor/", {"code": typed}).content.decode()
    assert client.post("/admin/second-factor/", {"code": codes[0]}).status_code == 302


def test_wrong_codes_cost_a_pause_that_doubles_and_the_right_one_is_not_taken_meanwhile(guarded):
    anna, _ = guarded
    client = Client()
    log_in(client, "anna")
    assert "That is not the code" in client.post("/admin/second-factor/", {"code": "nonsense"}).content.decode()
    Authenticator.objects.update(throttling_failure_count=8)
    page = client.post("/admin/second-factor/", {"code": code(anna)})
    assert page.status_code == 200 and re.search(r"Wait \d+ s", page.content.decode())


@pytest.mark.parametrize("text", ["", " ", "12345", "1234567", "١٢٣٤٥٦", "\x00", "a" * 5000, "-12345"])
def test_nonsense_is_a_wrong_code(guarded, text):
    client = Client()
    log_in(client, "anna")
    assert client.post("/admin/second-factor/", {"code": text}).status_code == 200
    assert client.get("/admin/").status_code == 302


def test_who_must_have_a_second_factor_sets_it_up_first(settings, anna):
    mail.person("root", operator=True)
    for rule, name, must in (("optional", "root", False), ("operators", "anna", False), ("operators", "root", True),
                             ("everyone", "anna", True)):  # fmt: skip
        settings.SECOND_FACTOR = rule
        client = Client()
        log_in(client, name)
        answer = client.get("/admin/deliveries/message/")
        assert (answer.status_code == 302 and "/second-factor/new/" in answer.get("Location", "")) is must, (rule, name)


def test_a_demanded_one_cannot_be_removed_and_removal_asks_for_a_code(guarded, settings):
    anna, codes = guarded
    client = Client()
    log_in(client, "anna")
    client.post("/admin/second-factor/", {"code": codes[0]})
    client.post("/admin/second-factor/manage/", {"verb": "remove", "code": "wrong"})
    assert logins.authenticator(anna) is not None
    Authenticator.objects.update(throttling_failure_count=0, throttling_failure_timestamp=None)
    settings.SECOND_FACTOR = "everyone"
    client.post("/admin/second-factor/manage/", {"verb": "remove", "code": codes[1]})
    assert logins.authenticator(anna) is not None
    settings.SECOND_FACTOR = "optional"
    fresh = client.post("/admin/second-factor/manage/", {"verb": "renew", "code": codes[2]}).content.decode()
    renewed = re.findall(r"(?:[a-z2-7]{4}-){3}[a-z2-7]{4}", fresh)
    assert len(renewed) == 10 and not set(renewed) & set(codes)
    client.post("/admin/second-factor/manage/", {"verb": "remove", "code": renewed[0]})
    assert logins.authenticator(anna) is None and client.get("/admin/").status_code == 200


def test_the_operator_takes_it_from_somebody_who_lost_the_phone(guarded):
    anna, _ = guarded
    client = Client()
    client.force_login(mail.person("root", operator=True))
    client.post("/admin/deliveries/user/", {"action": "forget_second_factor", "_selected_action": [anna.pk]})
    assert logins.authenticator(anna) is None
    assert AuditEntry.objects.filter(actor="root", action="login.second_factor_removed", subject="anna").exists()


def test_the_terminal_is_the_last_way_in(guarded, capsys):
    call_command("forget_second_factor", "anna")
    assert logins.authenticator(guarded[0]) is None and "is gone" in capsys.readouterr().out


def test_behind_tls_a_form_is_taken_from_our_own_page_only(anna, settings):
    settings.BASE_URL = "https://mail.example.com"
    settings.CSRF_TRUSTED_ORIGINS = [settings.BASE_URL]
    settings.ALLOWED_HOSTS = ["mail.example.com"]
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    meta = {"HTTP_HOST": "mail.example.com", "HTTP_X_FORWARDED_PROTO": "https"}
    client = Client(enforce_csrf_checks=True)
    page = client.get(LOGIN, **meta)
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.content.decode())[1]
    asked = {"username": "anna", "password": mail.PASSWORD, "csrfmiddlewaretoken": token}
    foreign = client.post(LOGIN, asked, HTTP_ORIGIN="https://elsewhere.invalid", **meta)
    assert foreign.status_code == 403
    own = client.post(LOGIN, asked, HTTP_ORIGIN="https://mail.example.com", **meta)
    assert own.status_code == 302
    cookie = own.cookies[settings.SESSION_COOKIE_NAME]
    assert cookie["secure"] and cookie["httponly"] and cookie["samesite"] == "Lax" and not cookie["domain"]


def test_the_policy_lets_no_inline_script_and_no_other_host_in(anna):
    client = Client()
    for page in (client.get(LOGIN), log_in(client, "anna") and client.get("/admin/second-factor/new/")):
        policy = page.headers["Content-Security-Policy"]
        script = re.search(r"script-src ([^;]+)", policy)[1]
        assert "'unsafe-inline'" not in script and "http" not in policy and "form-action 'self'" in policy
