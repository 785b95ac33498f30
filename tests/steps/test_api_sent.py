"""The files of a sent mail behind signed addresses, and what became of mail in numbers."""

import base64
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from django.db import connection

from deliveries.models import Event
from deliveries.read import sent as read
from mailapi.schemas import receiving, sent
from tests.steps.api import Client, make_tenant

pytestmark = pytest.mark.django_db


def with_files(api, **fields):
    files = [
        {"filename": "Grüße.pdf", "content": base64.b64encode(b"%PDF").decode()},
        {"filename": "logo.png", "content": list(b"\x89PNG"), "content_id": "logo"},
        {"filename": "a.html", "content": base64.b64encode(b"<script>").decode()},
    ]
    return api.send(html="<img src=cid:logo>", attachments=files, **fields).json()["id"]


def path_of(address):
    parts = urlsplit(address)
    return f"{parts.path}?{parts.query}"


def test_the_files_of_a_mail_are_listed_as_resend_does(api):
    answer = api.get(f"/emails/{with_files(api)}/attachments")
    receiving.FileList.model_validate(answer.json())
    assert [(f["filename"], f["content_type"], f["content_disposition"], f["size"]) for f in answer.json()["data"]] == [
        ("Grüße.pdf", "application/pdf", "attachment", 4),
        ("logo.png", "image/png", "inline", 4),
        ("a.html", "text/html", "attachment", 8),
    ]
    assert answer.json()["data"][1]["content_id"] == "logo" and "content_id" not in answer.json()["data"][0]


def test_pages_of_files_follow_each_other(api):
    mail = with_files(api)
    ids = [f["id"] for f in api.get(f"/emails/{mail}/attachments").json()["data"]]
    first = api.get(f"/emails/{mail}/attachments?limit=2").json()
    assert [f["id"] for f in first["data"]] == ids[:2] and first["has_more"]
    last = api.get(f"/emails/{mail}/attachments?limit=2&after={ids[1]}").json()
    assert [f["id"] for f in last["data"]] == ids[2:] and not last["has_more"]


def test_a_file_is_fetched_without_a_key_as_a_download(api):
    mail = with_files(api)
    listed = api.get(f"/emails/{mail}/attachments").json()["data"]
    one = api.get(f"/emails/{mail}/attachments/{listed[2]['id']}").json()
    receiving.FileOut.model_validate(one)
    assert one["object"] == "attachment"
    got = api.http.get(path_of(one["download_url"]))
    assert got.status_code == 200 and got.content == b"<script>"
    assert got.headers["Content-Disposition"].startswith("attachment;")
    assert "sandbox" in got.headers["Content-Security-Policy"]


def test_a_signed_address_opens_one_file_of_one_mail_for_an_hour(api, monkeypatch):
    mail = with_files(api)
    first, second, _ = api.get(f"/emails/{mail}/attachments").json()["data"]
    good = path_of(first["download_url"])
    assert api.http.get(good.replace(first["id"], second["id"])).status_code == 404
    assert api.http.get(good[:-2]).status_code == 404
    assert api.http.get(good.partition("?")[0]).status_code == 404
    # one of received mail is another room
    assert api.http.get(good.replace("/emails/", "/emails/receiving/")).status_code == 404
    later = datetime.now(UTC) + timedelta(hours=1, seconds=5)
    monkeypatch.setattr("django.core.signing.time.time", lambda: later.timestamp())
    assert api.http.get(good).status_code == 404


def test_files_of_another_tenant_or_of_nothing_are_not_there(api):
    mail = with_files(api)
    file = api.get(f"/emails/{mail}/attachments").json()["data"][0]["id"]
    other = Client(make_tenant())
    for path in (f"/emails/{mail}/attachments", f"/emails/{mail}/attachments/{file}"):
        assert other.get(path).status_code == 404
    assert api.get(f"/emails/{mail}/attachments/{uuid4()}").status_code == 404
    assert api.get(f"/emails/{uuid4()}/attachments").status_code == 404


# --- numbers ------------------------------------------------------------------------------------------------


def event(api, kind, mail=None, at=None, **data):
    return Event.objects.create(
        tenant_id=api.tenant.id, type=kind, message_id=mail, data=data, created_at=at or datetime.now(UTC)
    )


def metrics(api, query=""):
    answer = api.get(f"/emails/metrics{query}")
    assert answer.status_code == 200, answer.json()
    sent.Metrics.model_validate(answer.json())
    return answer.json()


def test_the_last_days_in_numbers(api):
    mail = api.send().json()["id"]
    event(Client(make_tenant()), "email.delivered")
    for _ in range(2):
        event(api, "email.delivered", mail)
        event(api, "email.opened", mail)
    event(api, "email.bounced", mail, category="bad_mailbox")
    event(api, "email.bounced", mail, category="mailbox_full")
    event(api, "email.delivered", mail, at=datetime.now(UTC) - timedelta(days=7))
    found = metrics(api)
    totals = found["totals"]
    assert "data" not in found and found["metrics"] == list(sent.METRICS)
    assert (totals["sent"], totals["delivered"], totals["bounced"]) == (1, 2, 2)
    assert (totals["bounced_permanent"], totals["bounced_transient"], totals["bounced_undetermined"]) == (1, 1, 0)
    assert (totals["opened"], totals["unique_opened"], totals["open_rate"]) == (2, 1, 50.0)
    assert totals["bounce_rate"] == 200.0 and totals["complaint_rate"] == 0


def test_a_rate_of_nothing_is_none(api):
    assert metrics(api, "?metrics=delivery_rate,sent")["totals"] == {"delivery_rate": None, "sent": 0}


def test_numbers_by_period_domain_and_mail(api):
    mails = [api.send().json()["id"] for _ in range(2)]
    day = datetime(2026, 3, 10, tzinfo=UTC)
    event(api, "email.delivered", mails[0], day + timedelta(hours=23))
    event(api, "email.delivered", mails[1], day + timedelta(hours=25))
    event(api, "email.opened", mails[0], day + timedelta(hours=1))
    event(api, "email.opened", mails[0], day + timedelta(hours=30))
    span = "?start_date=2026-03-01&end_date=2026-03-20&metrics=delivered,unique_opened"
    by_day = metrics(api, f"{span}&dimensions=period")
    assert [(r["period"][:10], r["delivered"]) for r in by_day["data"]] == [("2026-03-10", 1), ("2026-03-11", 1)]
    assert by_day["totals"] == {"delivered": 2, "unique_opened": 1}
    # 23:00 UTC is the next day in Berlin
    in_berlin = metrics(api, f"{span}&dimensions=period&timezone=Europe/Berlin")["data"]
    assert [(r["period"][:10], r["delivered"]) for r in in_berlin] == [("2026-03-10", 0), ("2026-03-11", 2)]
    by_mail = metrics(api, f"{span}&dimensions=email&email_id={mails[1]}")["data"]
    assert [(r["email_id"], r["delivered"]) for r in by_mail] == [(mails[1], 1)]
    by_domain = metrics(api, f"{span}&dimensions=domain,period&granularity=monthly")["data"]
    assert [(r["domain_name"], r["delivered"]) for r in by_domain] == [(api.domain, 2)]
    assert metrics(api, f"{span}&domain_id={uuid4()}")["totals"]["delivered"] == 0


def test_too_many_events_are_told_not_hidden(api, monkeypatch):
    monkeypatch.setattr(read, "MOST_EVENTS", 3)
    now = datetime.now(UTC)
    for n in range(5):
        event(api, "email.delivered", at=now - timedelta(minutes=n + 1))
    found = metrics(api)
    assert found["totals"]["delivered"] == 3 and found["counted_since"] > found["start_date"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("start_date=yesterday", "start_date"),
        ("start_date=2026-03-02&end_date=2026-03-01", "start_date"),
        ("start_date=2020-01-01&granularity=hourly", "start_date"),
        ("start_date=0001-01-01&granularity=monthly", "start_date"),
        ("end_date=2026-03-01T00:00:00", "end_date"),
        ("end_date=0001-01-01", "end_date"),
        ("end_date=9999-12-31T23:59:59Z&start_date=2026-03-01&timezone=Pacific/Kiritimati", "end_date"),
        ("timezone=Mars/Olympus", "timezone"),
        ("timezone=../../etc/passwd", "timezone"),
        ("granularity=yearly", "granularity"),
        ("metrics=sent,lost", "metrics"),
        ("dimensions=country", "dimensions"),
        ("domain_id=x", "domain_id"),
        ("email_id=" + ",".join([str(uuid4())] * 101), "email_id"),
        ("broadcast_id=x", "broadcast_id"),
        ("start=2026-03-01", "start"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused_by_name(api, query, field):
    answer = api.get(f"/emails/metrics?{query}")
    assert answer.status_code == 422 and answer.json()["name"] == "invalid_parameter"
    assert [f["field"] for f in answer.json()["errors"]] == [field], answer.json()


def test_numbers_are_counted_along_the_feeds_index(api):
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")  # of tables that are empty
    params = {
        "tenant": api.tenant.id, "since": datetime(2026, 1, 1, tzinfo=UTC), "until": datetime(2027, 1, 1, tzinfo=UTC),
        "most": 10, "zone": "UTC", "unit": "day", "domain": True, "mail": False, "domains": [], "mails": [],
    }  # fmt: skip
    plan = "\n".join(row["QUERY PLAN"] for row in read.execute(f"EXPLAIN {read._COUNT}", params))
    assert "Index Scan Backward using event" in plan and "Seq Scan on event" not in plan, plan
