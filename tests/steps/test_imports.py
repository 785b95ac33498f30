"""Lists of other services: what their exports hold is put on the list, once, and can be undone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from deliveries import imports
from deliveries.models import AuditEntry, Event, Suppression
from deliveries.record import suppressions
from tests.fakes.house import build

NOW = datetime(2026, 11, 23, tzinfo=UTC)

POSTMARK = json.dumps(
    {
        "Suppressions": [
            {"EmailAddress": "Gone@a.example", "SuppressionReason": "HardBounce", "Origin": "Recipient"},
            {"EmailAddress": "spam@a.example", "SuppressionReason": "SpamComplaint", "Origin": "Recipient"},
            {"EmailAddress": "man@a.example", "SuppressionReason": "ManualSuppression", "Origin": "Customer"},
        ]
    }
)
SES = json.dumps(
    {
        "SuppressedDestinationSummaries": [
            {"EmailAddress": "gone@a.example", "Reason": "BOUNCE", "LastUpdateTime": "2026-01-01T00:00:00Z"},
            {"EmailAddress": "spam@a.example", "Reason": "COMPLAINT", "LastUpdateTime": "2026-01-01T00:00:00Z"},
        ]
    }
)


@pytest.mark.parametrize(
    ("form", "text", "found", "passed"),
    [
        ("postmark", POSTMARK, {"gone": "bounce", "spam": "complaint", "man": "manual"}, 0),
        ("ses", SES, {"gone": "bounce", "spam": "complaint"}, 0),
        ("ses", "EmailAddress,Reason,LastUpdateTime\ngone@a.example,BOUNCE,2026\n", {"gone": "bounce"}, 0),
        (
            "sendgrid",
            'status,reason,email,created\n5.1.1,"550, no such user",gone@a.example,1\n4.2.2,full,full@a.example,1\n',
            {"gone": "bounce"},
            1,
        ),
        ("sendgrid", "email,created,ip\nspam@a.example,1,192.0.2.1\n", {"spam": "complaint"}, 0),
        ("sendgrid", '[{"created": 1, "email": "u@a.example"}]', {"u": "import"}, 0),
        ("mailgun", "address,code,error,created_at\ngone@a.example,550,no such user,x\n", {"gone": "bounce"}, 0),
        ("mailgun", '{"items": [{"address": "u@a.example", "tags": ["*"]}], "paging": {}}', {"u": "unsubscribe"}, 0),
        (
            "postal",
            "id,type,address,reason,timestamp,keep_until\n1,recipient,gone@a.example,too many,1.5,4102444800.0\n"
            "2,recipient,past@a.example,too many,1.5,1000000000\n",
            {"gone": "bounce"},
            1,
        ),
        (
            "csv",
            "\ufeffEmail,Reason,Detail\r\na@a.example,complaint,x\r\nA@a.example,bounce,\r\n",
            {"a": "complaint"},
            1,
        ),
        ("csv", "a@a.example\nb@a.example\n", {"a": "import", "b": "import"}, 0),
    ],
)
def test_an_export_of_another_service_is_read(form, text, found, passed) -> None:
    reading = imports.read(text.encode(), form, now=NOW)
    assert {e.address.partition("@")[0]: e.reason for e in reading.entries} == found
    assert (reading.passed, reading.faulty) == (passed, 0)


def test_lines_that_cannot_be_used_are_named_and_the_others_are_read() -> None:
    reading = imports.read(b"email,expires_at\nnobody,\na@a.example,soon\nb@a.example,2031-01-01\n\n", "csv")
    odd = [
        {"email": "a@a.example", "stream": "x\0"},
        {"email": "b@a.example", "expires_at": "9999-12-31T23:59:59-12:00"},
    ]
    assert [line for line, _ in imports.read(json.dumps(odd).encode(), "csv").faults] == [1, 2]
    assert [line for line, _ in reading.faults] == [2, 3] and reading.faulty == 2
    assert [e.address for e in reading.entries] == ["b@a.example"]
    assert imports.read(b"a@a.example", "csv", "unsubscribe").entries[0].reason == "unsubscribe"


@pytest.mark.parametrize(
    ("octets", "form"),
    [(b"", "csv"), (b"name,age\nann,5\n", "csv"), (b"{", "ses"), (b"{}", "ses"), (b"a@b.example", "exchange")],
)
def test_a_file_that_is_no_list_is_refused_with_a_reason(octets, form) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        imports.read(octets, form)


def test_an_export_guards_formulas_and_is_read_back() -> None:
    row = SimpleNamespace(
        address="=cmd@a.example", reason="bounce", stream="news", detail="+1", created_at=NOW, expires_at=None,
        rule="r", site="s",
    )  # fmt: skip
    text = "".join(imports.export([row]))
    assert "'=cmd@a.example" in text and "'+1" in text
    (entry,) = imports.read(text.encode(), "csv").entries
    assert (entry.address, entry.stream, entry.reason) == ("=cmd@a.example", "news", "bounce")


@pytest.mark.django_db(transaction=True)
def test_the_command_tells_first_then_loads_and_a_second_run_adds_nothing(tmp_path) -> None:
    house = build()
    file = tmp_path / "dump.json"
    file.write_text(POSTMARK)
    out = StringIO()
    args = ("import_suppressions", str(file), "--format", "postmark", "--tenant", house.tenant.name)
    call_command(*args, "--dry-run", stdout=out)
    assert "3 addresses (1 bounce, 1 complaint, 1 manual)" in out.getvalue() and "nothing was changed" in out.getvalue()
    assert not Suppression.objects.filter(tenant=house.tenant).exists()
    call_command(*args, stdout=out)
    assert "3 of 3" in out.getvalue() and "3 new" in out.getvalue()
    call_command(*args, stdout=out)
    assert "0 new; 3 were on the list already" in out.getvalue()
    assert set(Suppression.objects.filter(tenant=house.tenant).values_list("rule", flat=True)) == {"import-postmark"}
    assert AuditEntry.objects.get(tenant=house.tenant).subject == "3 by import-postmark"
    assert not Event.objects.filter(tenant_id=house.tenant.id).exists()
    assert house.send("gone@a.example")[0].status == "suppressed"
    with pytest.raises(CommandError, match="no tenant"):
        call_command("import_suppressions", str(file), "--tenant", "nobody")


@pytest.mark.django_db(transaction=True)
def test_what_a_wrong_rule_or_provider_put_on_the_list_is_undone_by_rule_site_and_time() -> None:
    house, other = build(), build()
    now = timezone.now()
    for tenant in (house.tenant, other.tenant):
        for i, (rule, site) in enumerate([("wrong", "x.test"), ("wrong", "y.test"), ("right", "x.test")]):
            Suppression.objects.create(
                tenant=tenant, address=f"u{i}@x.test", reason="bounce", rule=rule, site=site, created_at=now
            )
    window = {"since": now - timedelta(minutes=1), "until": now + timedelta(minutes=1), "tenants": [house.tenant.id]}
    assert suppressions.Mistake(rule="wrong", **window).rows().count() == 2
    before = suppressions.Mistake(now - timedelta(days=2), now - timedelta(days=1), "wrong", tenants=[house.tenant.id])
    assert suppressions.undo(before, "eve") == 0
    assert suppressions.undo(suppressions.Mistake(rule="wrong", site="x.test", **window), "eve") == 1
    assert suppressions.undo(suppressions.Mistake(rule="wrong", **window), "eve") == 1
    assert set(Suppression.objects.filter(tenant=house.tenant).values_list("rule", flat=True)) == {"right"}
    assert Suppression.objects.filter(tenant=other.tenant).count() == 3
    assert Event.objects.filter(tenant_id=house.tenant.id, type="suppression.removed").count() == 2
