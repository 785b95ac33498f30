"""Sending domains over the API, against a DNS server on loopback whose records the tests publish, break and mend."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import dkim as dkimpy
import pytest
from django.db import connection
from django.utils import timezone

from deliveries import domains
from deliveries.deliver import jobs
from deliveries.domains import claims
from deliveries.models import AuditEntry, DkimKey, Event, SendingDomain
from deliveries.models import DomainClaim as Claim
from deliveries.retry import Schedule
from deliveries.routing import published
from mailapi import auth
from mailapi.schemas.domains import Domain, DomainClaim, DomainDeleted
from tests.fakes import opendkim
from tests.fakes.dns import FakeDns
from tests.fakes.labs import fresh_pump, running_lab
from tests.steps.api import Client, make_tenant
from tests.steps.test_deliver import pump_until

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def zone(settings: Any) -> Iterator[FakeDns]:
    with FakeDns() as dns:
        settings.DNS_NAMESERVERS = (dns.address,)
        settings.MX_NAME, settings.BOUNCE_DOMAIN = "mx.mailer.example", "bounce.mailer.example"
        settings.BASE_URL = "https://mail.mailer.example"
        yield dns


@pytest.fixture
def other(db: None) -> Client:
    auth.forget()
    return Client(make_tenant())


def a_name() -> str:
    return f"{uuid4().hex[:12]}.example.com"


def add(api: Client, name: str | None = None, **fields: Any) -> dict[str, Any]:
    answer = api.post("/domains", {"name": name or a_name(), **fields})
    assert answer.status_code == 201, answer.content
    Domain.model_validate(answer.json())
    found: dict[str, Any] = answer.json()
    return found


def records(domain: dict[str, Any], *kinds: str) -> str:
    """As a zone file; DKIM, MX, SPF, DMARC, Tracking, or all."""
    return "\n".join(line(r) for r in domain["records"] if not kinds or kind(r) in kinds)


def line(record: dict[str, Any]) -> str:
    value = record["value"]
    if record["type"] == "TXT":  # RFC 1035 §3.3: strings of 255 octets at most
        value = " ".join(f'"{value[i : i + 255]}"' for i in range(0, len(value), 255))
    return f"{record['fqdn']} {record['type']} {record.get('priority', '')} {value}"


def kind(record: dict[str, Any]) -> str:
    return "MX" if record["type"] == "MX" else str(record["record"])


def verify(api: Client, domain: dict[str, Any]) -> dict[str, Any]:
    answer = api.post(f"/domains/{domain['id']}/verify", {})
    assert answer.status_code == 200, answer.content
    Domain.model_validate(answer.json())
    found: dict[str, Any] = answer.json()
    return found


def get(api: Client, domain: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/domains/{domain['id']}").json()
    return found


def by_kind(domain: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {kind(r): r for r in domain["records"]}


def told(api: Client) -> list[str]:
    rows = Event.objects.filter(tenant_id=api.tenant.id, type="domain.updated").order_by("id")
    return [json.loads(r.data)["status"] if isinstance(r.data, str) else r.data["status"] for r in rows]


def may_send(api: Client, domain: dict[str, Any]) -> bool:
    return bool(api.send(**{"from": f"a@{domain['name']}"}).status_code == 200)


def test_a_new_domain_answers_what_to_publish(api: Client) -> None:
    made = add(api, "Bücher-" + a_name())
    assert made["name"].startswith("xn--bcher-") and made["status"] == "not_started" and made["region"] == "self-hosted"
    shown = by_kind(made)
    key = DkimKey.objects.get(domain_id=made["id"])
    label = made["name"].removesuffix(".example.com")
    assert shown["DKIM"]["value"] == f"v=DKIM1; k=rsa; p={key.public_key}" and shown["DKIM"]["required"] is True
    assert shown["DKIM"]["name"] == f"{key.selector}._domainkey.{label}"
    assert (shown["MX"]["name"], shown["MX"]["value"]) == (f"send.{label}", "mx.mailer.example")
    assert shown["MX"]["priority"] == 10 and shown["MX"]["record"] == "SPF"
    assert shown["SPF"]["value"] == "v=spf1 include:bounce.mailer.example ~all"
    assert (shown["DMARC"]["fqdn"], shown["DMARC"]["value"]) == (f"_dmarc.{made['name']}", "v=DMARC1; p=none;")
    assert (shown["Tracking"]["name"], shown["Tracking"]["value"]) == (f"links.{label}", "mail.mailer.example")
    assert {r["status"] for r in made["records"]} == {"not_started"}
    assert bytes(key.private_key).startswith(b"-----BEGIN PRIVATE KEY-----")
    assert not may_send(api, made)


def test_a_private_key_is_encrypted_where_it_lies(api: Client) -> None:
    from django.db import connection

    made = add(api)
    with connection.cursor() as cursor:
        cursor.execute("SELECT private_key FROM dkim_key WHERE domain_id = %s", [made["id"]])
        assert b"PRIVATE KEY" not in bytes(cursor.fetchone()[0])


def test_from_added_to_verified_to_broken_to_stopped_to_mended(api: Client, zone: FakeDns) -> None:
    made = add(api)
    asked = verify(api, made)
    assert asked["status"] == "pending" and by_kind(asked)["DKIM"]["status"] == "pending"
    assert "does not exist; add the one below" in by_kind(asked)["DKIM"]["advice"]
    assert not may_send(api, made)

    zone.set(records(made))
    now = timezone.now() + timedelta(minutes=1)
    assert domains.run(now) == 1
    seen = get(api, made)
    assert seen["status"] == "verified" and {r["status"] for r in seen["records"]} == {"verified"}
    assert {r["advice"] for r in seen["records"]} == {""} and seen["return_path_status"] == "verified"
    assert may_send(api, made)

    zone.set(records(made, "MX", "SPF"))
    broken = now + 7 * HOUR
    assert domains.run(broken) == 1
    assert get(api, made)["status"] == "temporary_failure" and may_send(api, made)
    domains.run(broken + 71 * HOUR)
    assert get(api, made)["status"] == "temporary_failure" and may_send(api, made)
    domains.run(broken + 72 * HOUR)
    assert get(api, made)["status"] == "failed" and not may_send(api, made)

    zone.set(records(made))
    domains.run(broken + 97 * HOUR)
    assert get(api, made)["status"] == "verified" and may_send(api, made)
    assert told(api) == ["pending", "verified", "temporary_failure", "failed", "verified"]


def test_a_record_that_comes_back_within_the_grace_ends_it(api: Client, zone: FakeDns) -> None:
    made = add(api)
    zone.set(records(made))
    verify(api, made)
    now = timezone.now() + 7 * HOUR
    zone.set("")
    domains.run(now)
    zone.set(records(made))
    domains.run(now + 70 * HOUR)
    assert get(api, made)["status"] == "verified" and get(api, made)["missing_since"] is None
    zone.set("")
    domains.run(now + 80 * HOUR)
    domains.run(now + 90 * HOUR)
    assert get(api, made)["status"] == "temporary_failure", "a second break has a grace of its own"


@pytest.mark.parametrize("word", ["SERVFAIL", "TIMEOUT", "REFUSED", "LAME"])
def test_a_nameserver_that_fails_never_counts_as_a_missing_record(
    api: Client, zone: FakeDns, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = add(api)
    zone.set(records(made))
    verify(api, made)
    monkeypatch.setattr(published.look, "__defaults__", (1.0,))
    names = {r["fqdn"] for r in made["records"]} | {"_dmarc.example.com"}
    zone.set("\n".join(f"{name} * {word}" for name in names))
    now = timezone.now()
    for hours in (7, 80, 200):
        domains.run(now + hours * HOUR)
    seen = get(api, made)
    assert seen["status"] == "verified" and may_send(api, made)
    assert {r["status"] for r in seen["records"]} == {"temporary_failure"}
    assert "DNS could not be asked" in by_kind(seen)["DKIM"]["advice"] and seen["return_path_status"] == "verified"
    assert told(api) == ["verified"]


def test_trouble_in_the_grace_does_not_stop_a_domain_either(api: Client, zone: FakeDns) -> None:
    made = add(api)
    zone.set(records(made))
    verify(api, made)
    now = timezone.now() + 7 * HOUR
    zone.set("")
    domains.run(now)
    zone.set(f"{by_kind(made)['DKIM']['fqdn']} * SERVFAIL")
    domains.run(now + 80 * HOUR)
    assert get(api, made)["status"] == "temporary_failure" and may_send(api, made)
    zone.set("")
    domains.run(now + 90 * HOUR)
    assert get(api, made)["status"] == "failed"


def test_a_domain_that_never_publishes_is_given_up_and_may_ask_again(api: Client, zone: FakeDns) -> None:
    made = add(api)
    verify(api, made)
    now = timezone.now()
    domains.run(now + 71 * HOUR)
    assert get(api, made)["status"] == "pending"
    domains.run(now + 73 * HOUR)
    assert get(api, made)["status"] == "failed"
    assert verify(api, made)["status"] == "pending"


def test_the_first_that_proves_a_domain_keeps_it_until_its_own_record_is_gone(
    api: Client, other: Client, zone: FakeDns
) -> None:
    name = a_name()
    first, second = add(api, name), add(other, name)
    zone.set(records(first) + "\n" + records(second, "DKIM"))
    assert verify(api, first)["status"] == "verified"
    waits = verify(other, second)
    assert waits["status"] == "pending" and "another account has verified" in by_kind(waits)["DKIM"]["advice"]
    assert not may_send(other, second) and may_send(api, first)

    zone.set(records(second))
    now = timezone.now() + 7 * HOUR
    domains.run(now)
    assert (get(api, first)["status"], get(other, second)["status"]) == ("temporary_failure", "pending")
    for hours in (72, 97):
        domains.run(now + hours * HOUR)
    assert (get(api, first)["status"], get(other, second)["status"]) == ("failed", "verified")
    assert may_send(other, second) and not may_send(api, first)


def test_the_return_path_goes_back_at_once_and_the_domain_stays(api: Client, zone: FakeDns) -> None:
    made = add(api, custom_return_path="Bounces")
    assert by_kind(made)["MX"]["fqdn"] == f"bounces.{made['name']}"
    zone.set(records(made))
    assert verify(api, made)["return_path_status"] == "verified"
    zone.set(records(made, "DKIM", "SPF"))
    seen = verify(api, made)
    assert (seen["status"], seen["return_path_status"]) == ("verified", "pending")
    changed = api.patch(f"/domains/{made['id']}", {"custom_return_path": "send"}).json()
    assert by_kind(changed)["SPF"]["status"] == "not_started"


def test_a_change_is_kept_told_and_shown(api: Client, zone: FakeDns) -> None:
    made = add(api)
    assert (made["open_tracking"], made["click_tracking"], made["tls"]) == (False, False, "opportunistic")
    body = {
        "id": made["id"],
        "open_tracking": True,
        "click_tracking": True,
        "tls": "enforced",
        "tracking_subdomain": "go",
    }
    changed = api.patch(f"/domains/{made['id']}", body)
    assert changed.status_code == 200
    assert (changed.json()["open_tracking"], changed.json()["tls"]) == (True, "enforced")
    assert by_kind(changed.json())["Tracking"]["fqdn"] == f"go.{made['name']}"
    assert api.patch(f"/domains/{made['id']}", {"tls": "verify"}).json()["tls"] == "verify"
    assert told(api) == ["not_started", "not_started"]
    assert AuditEntry.objects.filter(tenant=api.tenant, action="domain.changed").count() == 2


def test_a_removed_domain_is_gone_and_may_come_back(api: Client) -> None:
    made = add(api)
    gone = api.delete(f"/domains/{made['id']}")
    DomainDeleted.model_validate(gone.json())
    assert api.get(f"/domains/{made['id']}").status_code == 404
    assert api.delete(f"/domains/{made['id']}").status_code == 404
    assert not DkimKey.objects.filter(domain_id=made["id"]).exists()
    assert add(api, made["name"])["id"] != made["id"]


def test_a_suspended_domain_cannot_be_freed_by_removing_it(api: Client) -> None:
    made = add(api)
    SendingDomain.objects.filter(id=made["id"]).update(suspended_at=timezone.now())
    assert api.delete(f"/domains/{made['id']}").status_code == 403
    assert api.get(f"/domains/{made['id']}").status_code == 200


def test_another_tenants_domain_is_not_there(api: Client, other: Client) -> None:
    made = add(api)
    path = f"/domains/{made['id']}"
    answers = [
        other.get(path), other.patch(path, {"open_tracking": True}), other.delete(path),
        other.post(f"{path}/verify", {}), other.post(f"{path}/dkim/rotate", {}), other.get(f"/domains/{uuid4()}"),
        other.get("/domains/x"),
    ]  # fmt: skip
    assert {a.status_code for a in answers} == {404}
    assert get(api, made)["open_tracking"] is False


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "no domain name"),
        ("com", "public suffix"),
        ("co.uk", "public suffix"),
        ("a@example.com", "only what stands after the @"),
        ("exa mple.com", "no domain name"),
        ("192.0.2.1", "no domain name"),
        ("_x.example.com", "no domain name"),
        ("-x.example.com", "no domain name"),
        ("x" * 64 + ".example.com", "no domain name"),
        ("a." * 120 + "com", "no domain name"),
        ("ex\r\nample.com", "no domain name"),
        ("bounce.mailer.example", "belongs to this installation"),
        ("a.bounce.mailer.example", "belongs to this installation"),
        ("simulator.test", "belongs to this installation"),
        (["example.com"], "Must be a string"),
    ],
)
def test_a_name_that_cannot_be_a_senders_is_refused_with_the_reason(api: Client, name: Any, words: str) -> None:
    answer = api.post("/domains", {"name": name})
    assert answer.status_code == 422 and words in answer.json()["message"]
    assert answer.json()["errors"][0]["field"] == "name"
    assert SendingDomain.objects.filter(tenant=api.tenant).count() == 1


def test_every_faulty_field_is_named_with_its_remedy(api: Client) -> None:
    body = {"custom_return_path": "a.b", "tls": "always", "open_tracking": "yes", "tracking_subdoman": "x"}
    answer = api.post("/domains", body).json()
    assert {(e["field"], e["code"]) for e in answer["errors"]} == {
        ("name", "missing_required_field"),
        ("custom_return_path", "invalid_label"),
        ("tls", "invalid_parameter"),
        ("open_tracking", "wrong_type"),
        ("tracking_subdoman", "unknown_field"),
    }
    assert "did you mean `tracking_subdomain`?" in next(
        e["message"] for e in answer["errors"] if e["code"] == "unknown_field"
    )


def test_a_domain_is_added_once_and_its_labels_differ(api: Client) -> None:
    made = add(api)
    assert api.post("/domains", {"name": made["name"].upper()}).json()["errors"][0]["code"] == "already_exists"
    same = api.post("/domains", {"name": a_name(), "custom_return_path": "x", "tracking_subdomain": "x"})
    assert same.json()["errors"][0]["field"] == "tracking_subdomain"
    assert api.patch(f"/domains/{made['id']}", {"tracking_subdomain": "send"}).status_code == 422


# --- keys in turn -------------------------------------------------------------------------------------------------


def keys_of(domain: dict[str, Any]) -> dict[str, str]:
    """selector → waiting, signing or retired"""
    return {
        k.selector: "signing" if k.active else "retired" if k.retired_at else "waiting"
        for k in DkimKey.objects.filter(domain_id=domain["id"])
    }


@pytest.mark.django_db(transaction=True)
def test_keys_sign_from_when_their_records_are_seen_and_a_second_one_while_it_is_wanted_and_seen(
    api: Client, zone: FakeDns, settings: Any, tmp_path: Path
) -> None:
    now = timezone.now()
    made = add(api)
    assert made["dkim_ed25519"] is False and len(made["records"]) == 5, "nothing more where nobody asked for it"
    zone.set(records(made))
    verify(api, made)

    def shown() -> dict[str, dict[str, Any]]:
        """The DKIM records, by selector."""
        return {r["name"].split(".")[0]: r for r in get(api, made)["records"] if r["record"] == "DKIM"}

    def publish(*without: str) -> None:
        nonlocal now
        zone.set("\n".join(line for line in records(get(api, made)).splitlines() if not line.startswith(without)))
        now += 7 * HOUR
        domains.run(now)

    def signed_by() -> list[str]:
        """Sends a mail over the wire; the selectors of its signatures from the top, each verified by dkimpy."""
        jobs._sender_cache.clear()  # half a minute later
        before = lab.accepted
        assert may_send(api, made)
        pump_until(lambda: lab.accepted > before)
        octets = lab.messages[-1].octets
        keys = {f"{r['fqdn']}.": r["value"].encode() for r in shown().values()}
        judge = dkimpy.DKIM(octets)
        selectors = [s.decode() for s in re.findall(rb"\r\n s=(\w+);", octets)]
        for index in range(len(selectors)):
            assert judge.verify(index, dnsfunc=lambda name, timeout=5: keys[name.decode()])
        return selectors

    with running_lab() as lab, fresh_pump():
        settings.MAIL_ROUTE, settings.SANDBOX_SMTP = "sandbox", lab.address
        settings.RETRY = Schedule(waits_s=(0.05,), max_age_s=3600, unknown_wait_s=0.3, jitter=0)
        (rsa,) = shown()
        assert signed_by() == [rsa]

        assert api.patch(f"/domains/{made['id']}", {"dkim_ed25519": True}).json()["dkim_ed25519"] is True
        (ed,) = set(shown()) - {rsa}
        assert shown()[ed]["value"].startswith("v=DKIM1; k=ed25519; p=") and shown()[ed]["required"] is False
        publish(ed)
        assert signed_by() == [rsa] and get(api, made)["status"] == "verified", "it is not needed"
        assert shown()[ed]["status"] == "pending"
        publish()
        assert signed_by() == [rsa, ed] and shown()[ed]["status"] == "verified"
        signed_twice, keys = lab.messages[-1].octets, {r["fqdn"]: r["value"] for r in shown().values()}

        zone.set(f"{shown()[ed]['fqdn']} TXT SERVFAIL\n{records(made)}")
        now += 7 * HOUR
        domains.run(now)
        assert shown()[ed]["status"] == "temporary_failure"
        assert signed_by() == [rsa, ed], "trouble of a nameserver says nothing"
        publish(ed)
        assert signed_by() == [rsa] and keys_of(made)[ed] == "waiting"
        assert get(api, made)["status"] == "verified" and get(api, made)["missing_since"] is None
        publish()
        assert signed_by() == [rsa, ed]

        api.post(f"/domains/{made['id']}/dkim/rotate", {})
        rsa2, ed2 = (s for s in shown() if s not in (rsa, ed))
        assert "k=rsa" in shown()[rsa2]["value"] and "k=ed25519" in shown()[ed2]["value"]
        publish(rsa2)
        assert signed_by() == [rsa, ed2] and get(api, made)["status"] == "verified", "each turns by itself"
        assert keys_of(made) == {rsa: "signing", ed: "retired", rsa2: "waiting", ed2: "signing"}
        assert [s for s in shown() if shown()[s]["required"]] == [rsa]
        publish()
        assert signed_by() == [rsa2, ed2] and [s for s in shown() if shown()[s]["required"]] == [rsa2]
        now += timedelta(days=6, hours=23)
        domains.run(now)
        assert keys_of(made) == {rsa: "retired", rsa2: "signing", ed2: "signing"}, "seven days after its turn"
        domains.run(now + HOUR)
        assert set(shown()) == {rsa2, ed2}

        own = SendingDomain.objects.filter(id=made["id"])
        own.update(next_check_at=None)
        assert signed_by() == [rsa2], "where nobody looks, nobody knows whether its record is there"
        own.update(next_check_at=now)
        DkimKey.objects.filter(domain_id=made["id"], selector=ed2).update(private_key=b"not a key")
        assert signed_by() == [rsa2], "a second key that cannot be read keeps no mail"
        assert api.patch(f"/domains/{made['id']}", {"dkim_ed25519": False}).json()["dkim_ed25519"] is False
        assert keys_of(made) == {rsa2: "signing", ed2: "retired"} and signed_by() == [rsa2]
        domains.run(timezone.now() + timedelta(days=7))
        assert set(shown()) == {rsa2}
    actions = AuditEntry.objects.filter(tenant=api.tenant, action__startswith="domain.key_").order_by("id")
    assert [a.action.removeprefix("domain.key_") for a in actions] == [
        "made", "turned", "missing", "turned", "made", "made", "turned", "turned", "removed", "removed", "removed",
    ]  # fmt: skip
    assert opendkim.verified([signed_twice], keys, tmp_path) == [True]  # last: it skips where OpenDKIM is missing


def test_the_record_of_a_retired_key_is_not_needed(api: Client, zone: FakeDns) -> None:
    made = add(api)
    zone.set(records(made))
    verify(api, made)
    turned = api.post(f"/domains/{made['id']}/dkim/rotate", {}).json()
    (old,) = {r["name"].split(".")[0] for r in made["records"] if r["record"] == "DKIM"}
    zone.set("\n".join(line for line in records(turned).splitlines() if not line.startswith(old)))
    verify(api, made)
    assert keys_of(made)[old] == "retired"
    domains.run(timezone.now() + 80 * HOUR)
    assert get(api, made)["status"] == "verified"


def test_a_second_key_that_nobody_published_goes_at_once(api: Client, zone: FakeDns) -> None:
    made = add(api, dkim_ed25519=True)
    assert made["dkim_ed25519"] is True and sorted(keys_of(made).values()) == ["signing", "waiting"]
    (ed,) = (r for r in made["records"] if "ed25519" in r["value"])
    zone.set("\n".join(map(line, made["records"])))
    assert api.post(f"/domains/{made['id']}/dkim/rotate", {}).json()["dkim_ed25519"] is True
    assert sorted(keys_of(made).values()) == ["signing", "waiting", "waiting"], "one that waits already stays"
    assert api.patch(f"/domains/{made['id']}", {"dkim_ed25519": False}).status_code == 200
    left = get(api, made)
    assert ed["fqdn"] not in {r["fqdn"] for r in left["records"]} and left["dkim_ed25519"] is False
    assert api.patch(f"/domains/{made['id']}", {"dkim_ed25519": "yes"}).json()["errors"][0]["code"] == "wrong_type"


def test_a_domain_that_the_operator_trusts_is_asked_for_nothing(api: Client, zone: FakeDns) -> None:
    made = add(api)
    assert domains.trust([UUID(made["id"])], "root") == 1 and domains.trust([UUID(made["id"])], "root") == 0
    assert may_send(api, made) and told(api) == ["verified"]
    assert domains.run(timezone.now() + timedelta(days=9)) == 0
    # a person who looks all the same harms nothing
    seen = verify(api, made)
    assert seen["status"] == "verified" and seen["next_check_at"] is None
    assert by_kind(seen)["DKIM"]["status"] == "pending"
    refused = api.post(f"/domains/{made['id']}/dkim/rotate", {})
    assert refused.status_code == 422 and "operator's word" in refused.json()["message"]
    refused = api.patch(f"/domains/{made['id']}", {"dkim_ed25519": True})
    assert refused.status_code == 422 and refused.json()["errors"][0]["field"] == "dkim_ed25519"


def test_the_operators_word_takes_no_domain_from_who_proved_it(api: Client, other: Client, zone: FakeDns) -> None:
    name = a_name()
    first, second = add(api, name), add(other, name)
    zone.set(records(first))
    verify(api, first)
    assert domains.trust([UUID(second["id"])], "root") == 0
    assert get(other, second)["status"] == "not_started"


def test_a_busy_process_leaves_a_verification_to_the_next_run(
    api: Client, zone: FakeDns, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = add(api)
    zone.set(records(made))
    monkeypatch.setattr(domains, "turns", threading.BoundedSemaphore(1))
    with domains.turns:
        assert verify(api, made)["status"] == "not_started"
    assert not zone.asked and domains.run() == 1
    assert get(api, made)["status"] == "verified"


@pytest.mark.django_db(transaction=True)
def test_of_two_tenants_who_prove_one_domain_at_once_one_has_it(zone: FakeDns) -> None:
    for _ in range(5):
        name = a_name()
        tenants = [Client(make_tenant()), Client(make_tenant())]
        both = [add(client, name) for client in tenants]
        zone.set("\n".join(map(records, both)))
        start = threading.Barrier(2)

        def prove(client: Client, domain: dict[str, Any]) -> None:
            start.wait(60)
            try:
                assert client.post(f"/domains/{domain['id']}/verify", {}).status_code == 200
            finally:
                connection.close()

        threads = [threading.Thread(target=prove, args=pair) for pair in zip(tenants, both, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        domains.run(timezone.now() + timedelta(minutes=2))
        states = sorted(get(client, domain)["status"] for client, domain in zip(tenants, both, strict=True))
        assert states == ["pending", "verified"]


# --- claims -------------------------------------------------------------------------------------------------------


def claim_record(claimed: dict[str, Any]) -> str:
    return f'{claimed["record"]["name"]} TXT "{claimed["record"]["value"]}"'


def test_a_claimed_domain_goes_over_once_its_dns_says_so(api: Client, other: Client, zone: FakeDns) -> None:
    name = a_name()
    first = add(api, name)
    zone.set(records(first))
    verify(api, first)
    answer = other.post("/domains/claim", {"name": name.upper(), "region": "x"})
    assert answer.status_code == 201
    claimed = answer.json()
    DomainClaim.model_validate(claimed)
    assert (claimed["name"], claimed["status"]) == (name, "pending")
    assert other.post("/domains/claim", {"name": name}).json()["id"] == claimed["id"], "one that waits stays"
    path = f"/domains/{claimed['domain_id']}/claim"

    assert other.post(f"{path}/verify", {}).json()["status"] == "pending" and may_send(api, first)
    second = other.get(f"/domains/{claimed['domain_id']}").json()
    zone.set(f"{records(first)}\n{claim_record(claimed)}")
    assert other.post(f"{path}/verify", {}).json()["status"] == "verified"
    assert get(api, first)["status"] == "verified" and may_send(api, first), "its own key is not there yet"

    zone.add(records(second, "DKIM"))
    assert other.post(f"{path}/verify", {}).json()["status"] == "completed"
    assert (get(api, first)["status"], get(other, second)["status"]) == ("failed", "verified")
    assert may_send(other, second) and not may_send(api, first)
    assert told(api)[-1] == "failed" and told(other)[-1] == "verified"
    # the old record may stand for a while; it takes nothing back
    domains.run(timezone.now() + 30 * HOUR)
    assert verify(api, first)["status"] == "pending" and get(other, second)["status"] == "verified"


def test_a_foreign_or_missing_claim_record_moves_nothing(api: Client, other: Client, zone: FakeDns) -> None:
    name = a_name()
    first = add(api, name)
    claimed = other.post("/domains/claim", {"name": name}).json()
    second = other.get(f"/domains/{claimed['domain_id']}").json()
    zone.set(f'{records(first)}\n{records(second, "DKIM")}\n{name} TXT "mailapi-domain-claim=0123"')
    verify(api, first)
    assert other.post(f"/domains/{second['id']}/claim/verify", {}).json()["status"] == "pending"
    zone.add(f"{name} TXT SERVFAIL")
    other.post(f"/domains/{second['id']}/claim/verify", {})
    assert get(api, first)["status"] == "verified" and get(other, second)["status"] == "pending"


def test_a_claim_ends_after_a_week_and_tells_nothing_of_others(api: Client, other: Client, zone: FakeDns) -> None:
    free = a_name()
    claimed = api.post("/domains/claim", {"name": free}).json()
    assert claimed["status"] == "pending", "as if somebody had it"
    made = api.get(f"/domains/{claimed['domain_id']}").json()
    zone.set(f"{records(made)}\n{claim_record(claimed)}")
    late = timezone.now() + timedelta(days=7)
    assert claims.verify(api.tenant.id, UUID(made["id"]), "test", late)
    assert get(api, made)["status"] == "not_started"
    Claim.objects.filter(id=claimed["id"]).update(created_at=timezone.now() - timedelta(days=8))
    assert api.get(f"/domains/{made['id']}/claim").json()["status"] == "expired"
    assert api.post("/domains/claim", {"name": free}).json()["id"] != claimed["id"]
    own = add(api)
    for path in (f"/domains/{own['id']}/claim", f"/domains/{uuid4()}/claim"):
        assert api.get(path).status_code == 404 and api.post(f"{path}/verify", {}).status_code == 404
    assert other.get(f"/domains/{made['id']}/claim").status_code == 404
    assert other.post(f"/domains/{made['id']}/claim/verify", {}).status_code == 404
    assert api.post("/domains/claim", {"name": "co.uk"}).status_code == 422
    assert api.post("/domains/claim", {"name": api.domain}).json()["errors"][0]["code"] == "already_verified"
