"""What was asked of the API and answered: found by the request's id, without secrets, and at no request's cost."""

import gzip
import json
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.db import connection

from deliveries import logbook
from deliveries.models import Message, RequestLog
from deliveries.models.fields import uuid7, uuid7_floor
from deliveries.record import retention
from mailapi import auth, noting
from mailapi.schemas import answers
from tests.steps.api import Client, make_tenant

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def client():
    auth.forget()
    noting.logbook.cache_clear()
    return Client(make_tenant())


def noted(client):
    noting.logbook().flush()
    page = client.get("/logs?limit=100").json()
    answers.LogList.model_validate(page)
    return page["data"]


def test_a_request_is_found_by_its_id(client):
    answer = client.send({"HTTP_USER_AGENT": "curl/8"}, subject="Hi")
    (line,) = noted(client)
    assert line["id"] == answer["x-request-id"]
    assert (line["method"], line["endpoint"], line["response_status"]) == ("POST", "/emails", 200)
    assert line["user_agent"] == "curl/8"
    log = client.get(f"/logs/{line['id']}").json()
    answers.Log.model_validate(log)
    assert log["request_body"]["subject"] == "Hi" and log["response_body"] == answer.json()


def test_refusals_stand_there_with_their_body(client):
    client.send(to="nobody")
    (line,) = noted(client)
    log = client.get(f"/logs/{line['id']}").json()
    assert log["response_status"] == 422 and log["response_body"]["errors"][0]["field"] == "to[0]"


def test_no_secret_and_no_file_is_kept(client):
    file = {"filename": "a.txt", "content": "c2VjcmV0IGZpbGU="}
    client.send(attachments=[file], html="x" * 5000, metadata={"api_token": "t0psecret"})
    made = client.post("/webhooks", {"endpoint": "https://app.example.com/hook", "events": []}).json()
    client.post("/webhooks", {"endpoint": "https://user:pass@w0rd@app.example.com/a@b", "events": []})
    noted(client)
    kept = json.dumps(list(RequestLog.objects.values_list("request_body", "response_body", "endpoint")))
    assert "c2VjcmV0" not in kept and "t0psecret" not in kept and made["signing_secret"] not in kept
    assert "w0rd" not in kept and "[redacted]@app.example.com/a@b" in kept
    assert client.secret not in kept and "x" * 501 not in kept and "[redacted]" in kept


def test_another_tenants_requests_do_not_exist(client):
    client.send()
    (line,) = noted(client)
    other = Client(make_tenant())
    assert other.get(f"/logs/{line['id']}").status_code == 404 and other.get("/logs").json()["data"] == []
    assert client.get("/logs/nothing").status_code == client.get(f"/logs/{uuid4()}").status_code == 404


def test_hostile_text_is_noted_and_large_bodies_only_outlined(client):
    client.send({"HTTP_USER_AGENT": "a\0b" + "é" * 999}, subject="a\0b")
    client.raw("/emails", b'{"subject": "\\ud800", "to": [[[[[[[[[["x"]]]]]]]]]]}')
    client.raw("/emails", b"{" * 10)
    client.post("/emails/batch", [client.mail(text="y" * 3000)] * 100)
    assert len(noted(client)) == 4
    sizes = [len(row.request_body or "") for row in RequestLog.objects.all()]
    assert max(sizes) < 50_000


def test_a_process_notes_so_many_and_loses_none_of_the_failures_to_the_good_ones(client, monkeypatch):
    book = logbook.Logbook()
    monkeypatch.setattr(logbook.time, "monotonic", lambda: 5.0)
    assert sum(book.open_for(200) for _ in range(1000)) == logbook.GOOD_PER_S
    assert sum(book.open_for(422) for _ in range(1000)) == logbook.BAD_PER_S
    book._waiting.extend([{}] * 5000)
    monkeypatch.setattr(logbook.time, "monotonic", lambda: 6.0)
    assert not book.open_for(500), "memory is bounded"


def test_the_database_away_costs_notes_and_nothing_else(client, monkeypatch):
    client.send()
    monkeypatch.setattr(logbook, "_WRITE", "SELECT 1/0 + length(%(id)s::text)")
    assert noting.logbook().flush() == 0
    assert client.send().status_code == 200


def test_old_ones_are_forgotten_by_the_month_and_by_the_day(client):
    now = datetime.now(UTC)
    old = now - timedelta(days=41)
    with connection.cursor() as cursor:
        bounds = [uuid7_floor(int(datetime(2020, m, 1, tzinfo=UTC).timestamp() * 1000)) for m in (1, 2)]
        cursor.execute("CREATE TABLE request_log_2020_01 PARTITION OF request_log FOR VALUES FROM (%s) TO (%s)", bounds)
    row = {
        "tenant_id": client.tenant.id, "key_id": uuid4(), "method": "GET", "endpoint": "/", "status": 200, "took_ms": 1,
        "user_agent": "",
    }  # fmt: skip
    RequestLog.objects.create(id=uuid7(), created_at=now, **row)
    RequestLog.objects.create(id=uuid7_floor(int(old.timestamp() * 1000)), created_at=old, **row)
    retention.forget_requests(now - timedelta(days=40), retention.Time(time.monotonic() + 60))
    assert [r.created_at for r in RequestLog.objects.filter(tenant_id=client.tenant.id)] == [now]
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('request_log_2020_01'), to_regclass(%s)", [f"request_log_{now:%Y_%m}"])
        gone, current = cursor.fetchone()
    assert gone is None and current


# --- bodies that come compressed --------------------------------------------------------------------------------


def zipped(client, octets, coding="gzip"):
    return client.raw("/emails", octets, HTTP_CONTENT_ENCODING=coding)


def test_a_compressed_body_is_read_and_is_the_same_for_an_idempotency_key(client):
    body = json.dumps(client.mail()).encode()
    once = {"HTTP_IDEMPOTENCY_KEY": "k"}
    first = client.raw("/emails", gzip.compress(body), HTTP_CONTENT_ENCODING="gzip", **once)
    assert first.status_code == 200, first.content
    again = client.raw("/emails", body, **once)
    assert again["Idempotent-Replayed"] == "true" and again.json() == first.json()


@pytest.mark.parametrize(
    ("octets", "coding", "status", "code"),
    [
        (gzip.compress(b" " * 50_000_000), "gzip", 413, "too_large"),
        (gzip.compress(b"{}")[:-4], "gzip", 400, "incomplete_body"),
        (gzip.compress(b"{}") + b"x", "gzip", 400, "invalid_gzip"),
        (b"{}", "gzip", 400, "invalid_gzip"),
        (b"", "gzip", 400, "incomplete_body"),
        (b"{}", "br", 415, "content_encoding"),
        (gzip.compress(gzip.compress(b"{}")), "gzip, gzip", 415, "content_encoding"),
    ],
    # octets hold the time of day, and workers must find the same names
    ids=["a bomb", "cut off", "with a tail", "not compressed", "empty", "another coding", "twice"],
)
def test_a_compressed_body_that_cannot_be_one_is_refused(client, octets, coding, status, code):
    answer = zipped(client, octets, coding)
    assert answer.status_code == status and answer.json()["errors"][0]["code"] == code
    assert Message.objects.count() == 0


def test_a_bomb_costs_no_more_memory_than_a_body_may(client):
    import tracemalloc

    bomb = gzip.compress(b"[" * 400_000_000, 9)
    tracemalloc.start()
    answer = zipped(client, bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.status_code == 413 and peak < 130_000_000


def test_deep_json_is_refused(client):
    deep = b'{"metadata": ' + b"[" * 60 + b"]" * 60 + b"}"
    assert client.raw("/emails", deep).json()["errors"][0]["code"] == "too_deep"


def test_no_password_of_a_url_is_kept_where_a_long_text_is_cut():
    link = "https://user:hunter2@example.com/ "
    outline = logbook.outline
    assert outline(link) == "https://[redacted]@example.com/ "
    # the cut falls into each octet of it once
    for before in range(logbook._LOOKED_AT - len(link), logbook._LOOKED_AT + 1):
        assert "hunter2" not in outline("x" * before + " " + link + "y" * 5000)
    # many that are taken out bring the end of what is looked at into what is shown
    assert "hunter" not in outline(link.replace("hunter2", "hunter2" * 20) * 100)
    assert outline("y" * 600) == "y" * 500 + "… [600 characters]"


def test_the_clients_own_request_id_is_given_back_and_stands_in_the_log(client):
    answer = client.send({"HTTP_X_REQUEST_ID": "order-17:try.2"})
    refused = client.send({"HTTP_X_REQUEST_ID": "order-18"}, to="nobody")
    assert answer["x-request-id"] == "order-17:try.2"
    assert refused["x-request-id"] == refused.json()["request_id"] == "order-18"
    lines = {line["request_id"]: line["id"] for line in noted(client)}
    assert set(lines) == {"order-17:try.2", "order-18"}
    assert client.get(f"/logs/{lines['order-18']}").json()["request_id"] == "order-18"


def test_a_request_id_that_could_forge_a_line_is_not_taken_over(client):
    for given in ("a b", "x" * 65, "a\tb", "<script>", "ü", ""):
        answer = client.send({"HTTP_X_REQUEST_ID": given})
        assert answer["x-request-id"] != given and len(answer["x-request-id"]) == 36
    assert all(line["id"] == line["request_id"] for line in noted(client))
