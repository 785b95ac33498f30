"""/suppressions in Resend's shape: by id or address, one or a hundred, and nothing of another tenant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from deliveries import suppress
from deliveries.models import AuditEntry, Suppression
from mailapi.schemas import answers
from tests.steps.api import Client, make_tenant

pytestmark = pytest.mark.django_db


def test_an_address_is_added_shown_by_id_and_by_address_and_removed(api):
    made = api.post("/suppressions", {"email": "Ann@One.example", "detail": "asked by phone"})
    assert made.status_code == 201
    answers.SuppressionAdded.model_validate(made.json())
    again = api.post("/suppressions", {"email": "ann@one.example"})
    assert (again.status_code, again.json()) == (201, made.json())
    for key in (made.json()["id"], "ann%40one.example", "ANN@one.example"):
        shown = api.get(f"/suppressions/{key}").json()
        answers.Suppression.model_validate(shown)
        assert (shown["email"], shown["origin"], shown["detail"]) == ("ann@one.example", "manual", "asked by phone")
    assert api.send(to="ann@one.example").status_code == 200
    gone = api.delete("/suppressions/ann%40one.example")
    answers.SuppressionRemoved.model_validate(gone.json())
    assert gone.json()["id"] == made.json()["id"]
    assert api.get("/suppressions/ann%40one.example").status_code == 404
    assert api.delete("/suppressions/ann%40one.example").status_code == 404
    actions = set(AuditEntry.objects.filter(tenant=api.tenant).values_list("action", flat=True))
    assert actions == {"suppression.added", "suppression.removed"}


def test_a_stream_and_an_end_may_be_given(api):
    end = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    made = api.post("/suppressions", {"email": "o/x@one.example", "stream": "news", "expires_at": end}).json()
    row = Suppression.objects.get(id=made["id"])
    assert row.stream == "news" and row.expires_at is not None
    # in UTC it is a day of the year 10000, which no reader of ours could read back
    assert (
        api.post("/suppressions", {"email": "z@one.example", "expires_at": "9999-12-31T23:59:59-12:00"}).status_code
        == 201
    )
    assert api.get("/suppressions").status_code == 200
    assert api.get("/suppressions/o/x%40one.example").json()["stream"] == "news"
    assert suppress.find(api.tenant.id, ["o/x@one.example"]) == {}
    assert suppress.find(api.tenant.id, ["o/x@one.example"], "news")
    Suppression.objects.filter(id=made["id"]).update(expires_at=datetime.now(UTC))
    assert api.get("/suppressions/o/x%40one.example").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "field", "code"),
    [
        ("", {}, "email", "missing_required_field"),
        ("", {"email": "nobody"}, "email", "invalid_address"),
        ("", {"email": 5}, "email", "wrong_type"),
        ("", {"email": "a@b.example", "expires_at": "2001-01-01T00:00:00Z"}, "expires_at", "invalid_time"),
        ("", {"email": "a@b.example", "expires_at": "2031-01-01T00:00:00"}, "expires_at", "invalid_time"),
        ("", {"email": "a@b.example", "expires_at": 5}, "expires_at", "invalid_time"),
        ("", {"email": "a@b.example", "stream": "News"}, "stream", "invalid_stream"),
        ("", {"email": "a@b.example", "reason": "x"}, "reason", "unknown_field"),
        ("", {"email": "a@b.example", "detail": "\0"}, "detail", "control_character"),
        ("/batch/add", {"emails": []}, "emails", "too_short"),
        ("/batch/add", {"emails": ["a@b.example"] * 101}, "emails", "too_many"),
        ("/batch/add", {"emails": ["a@b.example", "x"]}, "emails[1]", "invalid_address"),
        ("/batch/remove", {}, "emails", "missing_required_field"),
        ("/batch/remove", {"ids": [str(uuid4())], "emails": ["a@b.example"]}, "ids", "invalid_parameter"),
    ],
)
def test_what_cannot_be_put_on_the_list_is_refused_by_its_field(api, path, body, field, code):
    answer = api.post(f"/suppressions{path}", body)
    assert answer.status_code == 422, answer.content
    assert [(e["field"], e["code"]) for e in answer.json()["errors"]] == [(field, code)]
    assert not Suppression.objects.filter(tenant=api.tenant).exists()


def test_a_hundred_are_added_and_removed_in_one_request(api):
    emails = [f"u{i}@one.example" for i in range(99)] + ["U0@one.example"]
    added = api.post("/suppressions/batch/add", {"emails": emails})
    answers.SuppressionsAdded.model_validate(added.json())
    assert added.status_code == 201 and len(added.json()["data"]) == 99
    ids = [row["id"] for row in added.json()["data"]]
    gone = api.post("/suppressions/batch/remove", {"ids": ids[:50]}).json()
    answers.SuppressionsRemoved.model_validate(gone)
    assert len(gone["data"]) == 50
    gone = api.post("/suppressions/batch/remove", {"emails": [*emails[:5], "u98@one.example"]}).json()
    assert [row["id"] for row in gone["data"]] == [ids[98]]


def test_a_list_is_narrowed_by_origin(api):
    for reason in ("bounce", "complaint", "unsubscribe", "import"):
        at = datetime.now(UTC)
        Suppression.objects.create(tenant=api.tenant, address=f"{reason}@x.example", reason=reason, created_at=at)
    for origin, count in (("bounce", 1), ("complaint", 1), ("manual", 2)):
        assert len(api.get(f"/suppressions?origin={origin}").json()["data"]) == count
    assert api.get("/suppressions?origin=other").status_code == 422


def test_no_suppression_of_another_tenant_is_shown_or_removed(api):
    other = Client(make_tenant())
    made = other.post("/suppressions", {"email": "ann@one.example"}).json()["id"]
    for key in (made, "ann%40one.example"):
        assert api.get(f"/suppressions/{key}").status_code == api.delete(f"/suppressions/{key}").status_code == 404
    assert api.post("/suppressions/batch/remove", {"ids": [made]}).json() == {"data": []}
    assert other.get(f"/suppressions/{made}").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_resends_own_sdk_manages_the_list(live_server, monkeypatch):
    import resend

    from mailapi import auth

    auth.forget()
    tenant = Client(make_tenant())
    monkeypatch.setattr(resend, "api_url", live_server.url)
    monkeypatch.setattr(resend, "api_key", tenant.secret)
    made = resend.Suppressions.add({"email": "Ann@one.example"})
    assert resend.Suppressions.get("ann@one.example")["id"] == made["id"]
    assert resend.Suppressions.list({"origin": "manual", "limit": 10})["data"][0]["email"] == "ann@one.example"
    added = resend.Suppressions.Batch.add({"emails": ["b@one.example", "c@one.example"]})
    gone = resend.Suppressions.Batch.remove({"ids": [row["id"] for row in added["data"]]})
    assert [row["deleted"] for row in gone["data"]] == [True, True]
    assert resend.Suppressions.remove(made["id"])["deleted"] is True
    assert resend.Suppressions.list()["data"] == []
