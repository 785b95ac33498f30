"""The unmodified Resend SDK manages domains and keys on a real web process, against a DNS server on loopback."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import resend
from django.utils import timezone
from resend import exceptions

from deliveries import domains
from deliveries.models import SendingDomain
from tests.fakes.dns import FakeDns
from tests.fakes.node import node
from tests.fakes.web import web
from tests.steps.api import Client, make_tenant
from tests.steps.test_domains import records

pytestmark = pytest.mark.django_db(transaction=True)
NOBODY = "01900000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def zone() -> Iterator[FakeDns]:
    with FakeDns() as dns:
        yield dns


@pytest.fixture(scope="module")
def server(django_db_setup: None, django_db_blocker: Any, tmp_path_factory: Any, zone: FakeDns) -> Iterator[str]:
    """Shadows the shared one: this web process asks the test's nameserver."""
    nameserver = "{}:{}".format(*zone.address)
    with django_db_blocker.unblock(), web(tmp_path_factory.mktemp("web"), DNS_NAMESERVERS=nameserver) as url:
        yield url


@pytest.fixture(autouse=True)
def _pointed_at_us(server: str, account: Any, zone: FakeDns, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.DNS_NAMESERVERS = (zone.address,)
    zone.set("")
    monkeypatch.setattr(resend, "api_url", server)
    monkeypatch.setattr(resend, "api_key", account.secret)


def refused(work: Callable[[], Any]) -> tuple[Any, str]:
    with pytest.raises(exceptions.ResendError) as caught:
        work()
    return caught.value.code, caught.value.error_type


def test_a_domain_from_its_records_over_a_break_of_three_days_to_its_end(account: Any, zone: FakeDns) -> None:
    name = f"{uuid4().hex[:12]}.example.com"
    made = resend.Domains.create(
        {"name": name, "region": "eu-west-1", "custom_return_path": "bounces", "tracking_subdomain": "go"}
    )
    assert (made["name"], made["status"], len(made["records"] or ())) == (name, "not_started", 5)
    mail: Any = {"from": f"a@{name}", "to": ["delivered@simulator.test"], "subject": "x", "text": "y"}
    assert refused(lambda: resend.Emails.send(mail)) == (403, "validation_error")
    assert resend.Domains.verify(made["id"])["status"] == "pending"

    zone.set(records(dict(made)))
    assert resend.Domains.verify(made["id"])["status"] == "verified"
    assert {r["status"] for r in resend.Domains.get(made["id"])["records"] or ()} == {"verified"}
    assert resend.Emails.send(mail)["id"]

    zone.set("")
    now = timezone.now()
    domains.run(now + timedelta(hours=7))
    assert resend.Domains.get(made["id"])["status"] == "temporary_failure" and resend.Emails.send(mail)["id"]
    domains.run(now + timedelta(hours=80))
    assert resend.Domains.get(made["id"])["status"] == "failed"
    assert refused(lambda: resend.Emails.send(mail)) == (403, "validation_error")

    zone.set(records(dict(made)))
    assert resend.Domains.verify(made["id"])["status"] == "verified" and resend.Emails.send(mail)["id"]

    resend.Domains.update({"id": made["id"], "open_tracking": True, "click_tracking": True, "tls": "enforced"})
    changed: Any = resend.Domains.get(made["id"])
    assert (changed["open_tracking"], changed["click_tracking"], changed["tls"]) == (True, True, "enforced")
    page = resend.Domains.list({"limit": 1})
    assert [d["id"] for d in page["data"]] == [made["id"]] and page["has_more"] is True
    assert [d["name"] for d in resend.Domains.list({"after": made["id"]})["data"]] == [account.domain]
    assert resend.Domains.remove(made["id"])["deleted"] is True
    assert not SendingDomain.objects.filter(id=made["id"]).exists()


def test_what_cannot_be_done_with_domains_comes_as_the_exceptions_of_the_sdk() -> None:
    assert refused(lambda: resend.Domains.create({"name": "co.uk"})) == (422, "validation_error")
    assert refused(lambda: resend.Domains.create({})) == (422, "missing_required_field")  # type: ignore[typeddict-item]
    for work in (
        lambda: resend.Domains.get(NOBODY),
        lambda: resend.Domains.verify(NOBODY),
        lambda: resend.Domains.remove("x"),
        lambda: resend.Domains.update({"id": NOBODY, "open_tracking": True}),
    ):
        assert refused(work) == (404, "not_found")
    assert refused(lambda: resend.Domains.list({"limit": 1000})) == (422, "invalid_parameter")


def test_the_sdk_claims_a_domain_that_another_account_has(zone: FakeDns, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{uuid4().hex[:12]}.example.com"
    first = resend.Domains.create({"name": name})
    zone.set(records(dict(first)))
    assert resend.Domains.verify(first["id"])["status"] == "verified"
    monkeypatch.setattr(resend, "api_key", Client(make_tenant()).secret)
    claim: Any = resend.Domains.Claims.create({"name": name, "region": "us-east-1"})
    own: Any = resend.Domains.get(claim["domain_id"])
    zone.add(f'{records(own, "DKIM")}\n{name} TXT "{claim["record"]["value"]}"')
    assert resend.Domains.Claims.verify(claim["domain_id"])["status"] == "completed"
    assert resend.Domains.Claims.get(claim["domain_id"])["id"] == claim["id"]
    assert resend.Domains.get(claim["domain_id"])["status"] == "verified"
    assert refused(lambda: resend.Domains.Claims.get(NOBODY)) == (404, "not_found")
    assert refused(lambda: resend.Domains.Claims.create({"name": "com"})) == (422, "validation_error")


def test_the_node_sdk_does_the_same(server: str, account: Any) -> None:
    name = f"{uuid4().hex[:12]}.example.com"
    got = node("domains.mjs", url=server, key=account.secret, name=name)
    made = got["made"]["data"]
    assert (made["name"], made["status"], made["tls"], made["open_tracking"]) == (name, "not_started", "enforced", True)
    assert {r["name"] for r in made["records"]} >= {f"bounces.{name.split('.')[0]}", f"go.{name.split('.')[0]}"}
    assert got["verified"]["data"]["status"] == "pending" and got["changed"]["data"]["id"] == made["id"]
    assert (got["got"]["data"]["click_tracking"], got["got"]["data"]["tls"]) == (True, "opportunistic")
    assert got["got"]["data"]["capabilities"] == {"sending": "enabled", "receiving": "disabled"}
    assert len(got["list"]["data"]["data"]) == 1 and got["list"]["data"]["has_more"] is True
    assert got["claim"]["data"]["record"]["type"] == "TXT" and got["claimVerified"]["data"]["status"] == "pending"
    assert got["claimGot"]["data"]["id"] == got["claim"]["data"]["id"]
    assert got["key"]["data"]["token"].startswith("re_") and got["keyChanged"]["data"]["id"] == got["key"]["data"]["id"]
    assert "web shop" in {k["name"] for k in got["keys"]["data"]["data"]}
    assert got["keyGone"]["error"] is None and got["gone"]["data"]["deleted"] is True
    for call, word, status in (
        ("suffix", "validation_error", 422),
        ("unknown", "not_found", 404),
        ("unknownVerified", "not_found", 404),
        ("unknownKey", "not_found", 404),
        ("badKey", "validation_error", 422),
    ):
        assert (got[call]["error"]["name"], got[call]["error"]["statusCode"]) == (word, status)


def test_keys_are_made_used_renamed_and_refused_everywhere_within_five_seconds(
    account: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = SendingDomain.objects.get(tenant=account.tenant)
    made = resend.ApiKeys.create({"name": "shop", "permission": "sending_access", "domain_id": str(own.id)})
    assert resend.ApiKeys.update({"id": made["id"], "name": "web shop"})["id"] == made["id"]
    page = resend.ApiKeys.list({"limit": 1})
    assert [(k["id"], k["name"]) for k in page["data"]] == [(made["id"], "web shop")] and page["has_more"] is True
    mail: Any = {"from": f"a@{own.name}", "to": ["delivered@simulator.test"], "subject": "x", "text": "y"}

    monkeypatch.setattr(resend, "api_key", made["token"])
    assert resend.Emails.send(mail)["id"]
    assert refused(lambda: resend.Domains.list()) == (401, "restricted_api_key")
    assert refused(lambda: resend.ApiKeys.create({"name": "more"})) == (401, "restricted_api_key")

    monkeypatch.setattr(resend, "api_key", account.secret)
    assert resend.ApiKeys.list()["data"][0]["last_used_at"]
    reader = resend.ApiKeys.create({"name": "dash", "permission": "read_access"})
    monkeypatch.setattr(resend, "api_key", reader["token"])
    assert resend.Domains.get(str(own.id))["name"] == own.name

    monkeypatch.setattr(resend, "api_key", account.secret)
    for ident in (made["id"], reader["id"]):
        assert resend.ApiKeys.remove(ident)["deleted"] is True
    monkeypatch.setattr(resend, "api_key", made["token"])
    with pytest.raises(exceptions.InvalidApiKeyError):  # at once: the statement asks the row
        resend.Emails.send(mail)
    monkeypatch.setattr(resend, "api_key", reader["token"])
    end = time.monotonic() + 60  # five seconds and what a busy machine adds
    while time.monotonic() < end:
        try:
            resend.Domains.list()
        except exceptions.InvalidApiKeyError:
            break
        time.sleep(0.2)
    else:
        pytest.fail("the revoked key still reads")


def test_what_cannot_be_done_with_keys_comes_as_the_exceptions_of_the_sdk() -> None:
    assert refused(lambda: resend.ApiKeys.create({"name": ""})) == (422, "validation_error")
    assert refused(lambda: resend.ApiKeys.create({"name": "x", "permission": "all"})) == (422, "validation_error")
    assert refused(lambda: resend.ApiKeys.remove(NOBODY)) == (404, "not_found")
    assert refused(lambda: resend.ApiKeys.update({"id": NOBODY, "name": "x"})) == (404, "not_found")
    past: Any = {"name": "x", "expires_at": (datetime.now(UTC) - timedelta(days=1)).isoformat()}
    assert refused(lambda: resend.ApiKeys.create(past)) == (422, "validation_error")
