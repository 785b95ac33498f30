"""POST /emails/check: what would become of a mail, and what an expert would say of it."""

import time
from datetime import UTC, datetime

import pytest

from deliveries.accept import ways
from deliveries.models import Attempt, DkimKey, MtaStsPolicy, SendingDomain, Suppression
from mailapi.schemas.check import EmailCheck
from tests.fakes.dns import FakeDns
from tests.fakes.house import dkim_pair
from tests.fakes.mail import message as make_message
from tests.steps.api import Client, make_tenant, message_count

pytestmark = pytest.mark.django_db


@pytest.fixture
def ready(api):
    """A domain with its key, of which DNS says only good things."""
    domain = SendingDomain.objects.get(tenant=api.tenant)
    private, public = dkim_pair()
    DkimKey.objects.create(domain=domain, selector="s1", private_key=private, public_key=public, active=True)
    SendingDomain.objects.filter(id=domain.id).update(return_path_verified_at=datetime.now(UTC))
    return api


def check(api, **fields):
    answer = api.post("/emails/check", api.mail(**fields))
    assert answer.status_code == 200, answer.json()
    EmailCheck.model_validate(answer.json())
    assert message_count(api) == 0
    return answer.json()


def codes(found):
    return {(o["level"], o["code"], o["field"]) for o in found["objections"]}


def test_a_mail_that_nobody_objects_to(ready):
    found = check(ready, html="<p>Hello", to=["delivered@simulator.test", "a@simulator.test"])
    assert found["sendable"] and found["objections"] == [] and found["mails"] == 1
    assert found["size"] > 400
    assert [(r["address"], r["status"]) for r in found["recipients"]] == [
        ("delivered@simulator.test", "queued"), ("a@simulator.test", "queued"),
    ]  # fmt: skip
    [route] = found["routes"]
    assert route["domain"] == "simulator.test" and route["hosts"] and not route["reason"]


def test_an_expert_objects_to_what_is_missing(ready):
    Suppression.objects.create(
        tenant=ready.tenant, stream="news", address="b@simulator.test", reason="unsubscribe",
        created_at=datetime.now(UTC),
    )  # fmt: skip
    found = check(
        ready, to=["a@simulator.test", "B@simulator.test"], subject=" ", text=None, html="x" * 110_000, stream="news",
        priority="bulk",
    )  # fmt: skip
    assert found["sendable"]
    assert codes(found) == {
        ("warning", "suppressed", "to[1]"), ("warning", "no_subject", "subject"), ("warning", "no_text_part", "text"),
        ("warning", "clipped", "html"), ("warning", "no_unsubscribe", "unsubscribe"),
    }  # fmt: skip
    assert [r["status"] for r in found["recipients"]] == ["queued", "suppressed"]
    assert not codes(check(ready, priority="bulk", unsubscribe=True))


def test_a_sender_that_cannot_send_is_an_error(api):
    found = check(api)
    assert ("error", "no_dkim", "from") in codes(found) and ("advice", "spf_not_aligned", "from") in codes(found)
    SendingDomain.objects.filter(tenant=api.tenant).update(
        verified_at=None,
        findings={
            "dmarc": {"status": "pending", "found": [], "advice": "Publish _dmarc."},
            "dkim:next": {"status": "pending", "found": [], "advice": "Publish next._domainkey."},
        },
    )
    found = check(api)
    assert not found["sendable"]
    assert {("error", "domain_not_verified", "from"), ("warning", "dns_dmarc", "from")} <= codes(found)
    assert ("advice", "dns_dkim", "from") in codes(found), "a key that waits for its record is not missed"
    assert ("error", "domain_not_verified", "from") in codes(check(api, **{"from": "a@nobodys.example"}))


def test_another_tenants_domain_is_told_as_unknown(api):
    other = Client(make_tenant())
    found = check(api, **{"from": f"a@{other.domain}"})
    assert codes(found) == {("error", "domain_not_verified", "from")} and "no domain of this account" in str(found)


_ZONES = """
    good.example        MX   10 mx1.good.example
    good.example        MX   20 mx2.good.example
    mx1.good.example    A    192.0.2.1
    mx2.good.example    A    192.0.2.2
    _mta-sts.good.example TXT NODATA
    closed.example      MX   0 .
    failing.example     *    SERVFAIL
    silent.example      *    TIMEOUT
"""


def test_what_dns_says_of_the_recipients(ready, settings, monkeypatch):
    monkeypatch.setattr(ways, "LOOK_S", 4.0)
    settings.MAIL_ROUTE, settings.MX_ALLOW_PRIVATE = "mx", True
    with FakeDns(_ZONES) as dns:
        settings.DNS_NAMESERVERS = [dns.address]
        to = [f"a@{name}.example" for name in ("good", "closed", "gone", "failing", "silent")]
        began = time.monotonic()
        found = check(ready, to=to)
        assert time.monotonic() - began < 60  # bounded, however slow the machine
    routes = {r["domain"]: r for r in found["routes"]}
    assert routes["good.example"]["hosts"] == ["mx1.good.example", "mx2.good.example"]
    assert "offered" in routes["good.example"]["tls"] and all(
        routes[f"{name}.example"]["reason"] for name in ("closed", "gone", "failing", "silent")
    )
    told = codes(found)
    assert {
        ("error", "no_route", "to[1]"),
        ("error", "no_route", "to[2]"),
        ("warning", "no_route_now", "to[3]"),
    } <= told
    assert ("warning", "no_answer", "to[4]") in told or ("warning", "no_route_now", "to[4]") in told
    assert not found["sendable"] and not any(field == "to[0]" for _, _, field in told)
    kinds = {name.removesuffix(".example"): route["mx"] for name, route in routes.items()}
    assert kinds == {"good": "found", "closed": "null", "gone": "none", "failing": "not_known", "silent": "not_known"}
    assert routes["good.example"]["dane"] == "not_known"  # no nameserver validates


_PROTECTED = """
    bound.example       MX   10 mx.bound.example +ad
    mx.bound.example    A    192.0.2.1 +ad
    _25._tcp.mx.bound.example TLSA 3 1 1 aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899 +ad
    _mta-sts.bound.example TXT NODATA
    firm.example        MX   10 mx.firm.example
    firm.example        MX   20 mx.elsewhere.example
    mx.firm.example     A    192.0.2.2
    mx.elsewhere.example A   192.0.2.3
    _mta-sts.firm.example TXT "v=STSv1; id=1"
    bare.example        A    192.0.2.4
"""


def test_what_protects_the_way_is_told_and_nobody_learns_who_else_went_it(ready, settings):
    settings.MAIL_ROUTE, settings.MX_ALLOW_PRIVATE, settings.DNS_TRUST_AD, settings.SMTP_PORT = "mx", True, True, 25
    MtaStsPolicy.objects.create(
        domain="firm.example", policy_id="1", mode="enforce", mx=["*.firm.example"], max_age_s=86_400,
        fetched_at=datetime.now(UTC),
    )  # fmt: skip
    stranger = make_tenant()
    _went(stranger, "ann@firm.example", "mx.firm.example")

    with FakeDns(_PROTECTED) as dns:
        settings.DNS_NAMESERVERS = [dns.address]
        to = [f"a@{name}.example" for name in ("bound", "firm", "bare")]
        before = {r["domain"]: r for r in check(ready, to=to)["routes"]}
        _went(ready.tenant, "bob@firm.example", "mx.firm.example", tls="", finished_at=datetime(2026, 1, 1, tzinfo=UTC))
        _went(ready.tenant, "bob@firm.example", "mx.firm.example")
        _went(ready.tenant, "bob@firm.example", "mx.firm.example", stage="connect", tls="", status="deferred")
        answer = ready.post("/emails/check", ready.mail(to=to))
        names = {name for name, _, _ in dns.asked}
    after = {r["domain"]: r for r in EmailCheck.model_validate(answer.json()).model_dump()["routes"]}

    assert not any(name.startswith("mta-sts.") for name in names), "no policy is fetched on anybody's say-so"
    bound, firm, bare = (before[f"{name}.example"] for name in ("bound", "firm", "bare"))
    assert bound["dane"] == "all" and "DANE" in bound["tls"] and bound["mta_sts"] == {"mode": "none", "covers": None}
    assert bare["mx"] == "implicit" and bare["dane"] == "none"
    assert firm["mta_sts"] == {"mode": "published", "covers": None} and firm["last_tls"] is None
    assert firm["hosts"] == ["mx.firm.example", "mx.elsewhere.example"]

    firm = after["firm.example"]
    assert firm["mta_sts"] == {"mode": "enforce", "covers": False} and firm["hosts"] == ["mx.firm.example"]
    assert "MTA-STS" in firm["tls"]
    last = firm["last_tls"]
    assert (last["host"], last["worked"], last["version"], last["verified"]) == (
        "mx.firm.example", True, "TLSv1.3", True,
    )  # fmt: skip
    assert after["bare.example"]["last_tls"] is None


def _went(tenant, recipient, host, status="delivered", **attempt):
    message = make_message(tenant, recipient, status=status, host=host)
    Attempt.objects.filter(delivery__message=message).update(host=host, **attempt)


def test_merge_is_checked_for_everybody(ready):
    to = ["a@simulator.test", "b@simulator.test"]
    found = check(ready, to=to, text="{{{N}}}", merge={to[0]: {"N": "x"}, to[1]: {"N": "y" * 5_000}})
    assert found["mails"] == 2 and found["size"] > 5_000 and len(found["recipients"]) == 2


def test_what_post_would_refuse_is_refused_alike(ready):
    body = ready.mail(to=["nobody"], subjekt="x")
    sent, checked = ready.post("/emails", body), ready.post("/emails/check", body)
    assert checked.status_code == sent.status_code == 422 and checked.json()["errors"] == sent.json()["errors"]
