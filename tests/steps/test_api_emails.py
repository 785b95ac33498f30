"""POST /emails, /emails/batch and GET /emails: what goes in, what is stored, what comes back."""

import base64
import json
import threading
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from django.db import OperationalError, connection

from deliveries.models import ApiKey, Attachment, Delivery, IdempotencyKey, Message, MessageContent, Queued
from mailapi import auth
from mailapi.schemas import answers
from mailapi.views import emails
from tests.steps.api import Client, make_tenant, message_count

pytestmark = pytest.mark.django_db


def test_a_mail_is_stored_with_everything_that_was_asked(api):
    answer = api.post(
        "/emails",
        {
            "from": f"Shop <orders@{api.domain}>",
            "to": ["Ann <ann@simulator.test>", "bob@simulator.test"],
            "cc": "carl@simulator.test",
            "bcc": ["dora@simulator.test"],
            "reply_to": "help@example.com",
            "subject": "Grüße",
            "html": "<p>Hallo <img src='cid:logo'></p>",
            "text": "Hallo",
            "headers": {"X-Order": "17"},
            "attachments": [
                {"filename": "a.pdf", "content": base64.b64encode(b"%PDF").decode()},
                {"filename": "logo.png", "content": list(b"\x89PNG"), "content_id": "logo"},
            ],
            "tags": [{"name": "kind", "value": "order"}],
        },
    )
    assert answer.status_code == 200
    message = Message.objects.get(id=answer.json()["id"])
    assert str(message.tenant_id) == str(api.tenant.id)
    assert message.from_header == f"Shop <orders@{api.domain}>"
    assert message.to == ["Ann <ann@simulator.test>", "bob@simulator.test"]
    assert (message.cc, message.bcc) == (["carl@simulator.test"], ["dora@simulator.test"])
    assert message.reply_to == ["help@example.com"]
    content = MessageContent.objects.get(id=message.id)
    assert content.headers == [["X-Order", "17"]]
    files = list(Attachment.objects.filter(message_id=message.id).order_by("position"))
    assert [(f.filename, f.content_type, f.content_id, bytes(f.content)) for f in files] == [
        ("a.pdf", "application/pdf", None, b"%PDF"),
        ("logo.png", "image/png", "logo", b"\x89PNG"),
    ]
    assert Delivery.objects.filter(message_id=message.id).count() == 4
    assert Queued.objects.filter(tenant_id=api.tenant.id).count() == 4


def test_a_mail_is_found_again_with_its_deliveries(api):
    sent = api.send(subject="Where am I").json()["id"]
    answer = api.get(f"/emails/{sent}")
    assert answer.status_code == 200
    body = answer.json()
    answers.Email.model_validate(body)
    assert body["object"] == "email" and body["id"] == sent and body["last_event"] == "queued"
    assert body["subject"] == "Where am I" and body["text"] == "Hello" and body["html"] is None
    assert [(d["recipient"], d["status"]) for d in body["deliveries"]] == [("delivered@simulator.test", "queued")]
    assert answer.headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("states", "word"),
    [
        ([("delivered", 1)], "delivered"),
        ([("delivered", 1), ("bounced", 1)], "bounced"),
        ([("deferred", 1), ("bounced", 1)], "delivery_delayed"),
        ([("queued", 0)], "queued"),
        ([("queued", 1)], "sent"),
        ([("held", 2)], "sent"),
        ([("expired", 2)], "failed"),
    ],
)
def test_last_event_is_the_worst_open_state_then_the_worst_final_one(api, states, word):
    sent = api.send(to=[f"r{i}@simulator.test" for i in range(len(states))]).json()["id"]
    for row, (status, attempts) in zip(
        Delivery.objects.filter(message_id=sent).order_by("position"), states, strict=True
    ):
        Delivery.objects.filter(id=row.id).update(status=status, attempts=attempts)
    assert api.get(f"/emails/{sent}").json()["last_event"] == word
    assert api.get("/emails").json()["data"][0]["last_event"] == word


def test_a_complaint_shows_once_all_was_delivered(api):
    sent = api.send().json()["id"]
    Delivery.objects.filter(message_id=sent).update(status="delivered", complained_at=datetime.now(UTC))
    assert api.get(f"/emails/{sent}").json()["last_event"] == "complained"


def test_pages_follow_each_other_in_both_directions(api):
    ids = [api.send(subject=str(i)).json()["id"] for i in range(5)][::-1]
    first = api.get("/emails?limit=2").json()
    answers.EmailList.model_validate(first)
    assert [m["id"] for m in first["data"]] == ids[:2] and first["has_more"] is True
    second = api.get(f"/emails?limit=2&after={ids[1]}").json()
    assert [m["id"] for m in second["data"]] == ids[2:4] and second["has_more"] is True
    last = api.get(f"/emails?limit=2&after={ids[3]}").json()
    assert [m["id"] for m in last["data"]] == ids[4:] and last["has_more"] is False
    back = api.get(f"/emails?limit=2&before={ids[3]}").json()
    assert [m["id"] for m in back["data"]] == ids[1:3] and back["has_more"] is True


_TWO_CURSORS = "after=01a208cb-c5b2-7000-8a54-e2e04e0eb561&before=01a208cb-c5b2-7001-b285-e3e67bd21473"


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "limit=²", "limit=1&limit=2", "after=x", _TWO_CURSORS]
)
def test_a_list_refuses_a_query_that_it_cannot_honour(api, query):
    answer = api.get(f"/emails?{query}")
    assert answer.status_code == 422 and answer.json()["name"] == "invalid_parameter"


@pytest.mark.parametrize(
    ("path", "word", "told"),
    [
        ("/emails?limt=5", "limt", "did you mean `limit`?"),
        ("/domains?limit=5&x%0d%0a=1", "x\r\n", "known are limit, after, before."),
        ("/emails?recipent=a@b.example", "recipent", "did you mean `recipient`?"),
        ("/suppressions?orgin=bounce", "orgin", "did you mean `origin`?"),
        ("/events?type=email.sent", "type", "did you mean `types`?"),
        (f"/emails/receiving/{UUID(int=1)}?html_fromat=cid", "html_fromat", "did you mean `html_format`?"),
    ],
)
def test_a_misspelt_word_of_a_query_is_refused_by_name(api, path, word, told):
    answer = api.get(path)
    assert answer.status_code == 422
    [fault] = answer.json()["errors"]
    assert (fault["field"], fault["code"]) == (word, "unknown_parameter") and fault["message"].endswith(told)


def test_a_query_is_told_everything_that_is_wrong_with_it(api):
    answer = api.get("/emails?limit=0&foo=1&after=x")
    assert {f["field"] for f in answer.json()["errors"]} == {"limit", "foo", "after"}


def test_a_mail_for_later_waits_as_scheduled(api):
    at = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    sent = api.send(scheduled_at=at).json()["id"]
    body = api.get(f"/emails/{sent}").json()
    assert body["last_event"] == "scheduled" and body["scheduled_at"].endswith("Z")


@pytest.mark.parametrize("at", ["2001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59"])
def test_a_time_that_has_passed_means_now(api, at):
    sent = api.send(scheduled_at=at).json()["id"]
    assert api.get(f"/emails/{sent}").json()["last_event"] == "queued"


def test_nulls_count_as_absent(api):
    assert api.send(html=None, cc=None, template=None, attachments=None).status_code == 200


# --- idempotency --------------------------------------------------------------------------------------------


def test_the_same_key_and_body_send_one_mail(api):
    key = {"HTTP_IDEMPOTENCY_KEY": "order-17"}
    first, second = api.send(http=key), api.send(http=key)
    assert first.json() == second.json() and first.status_code == second.status_code == 200
    assert second.headers["Idempotent-Replayed"] == "true"
    assert message_count(api) == 1


def test_the_same_key_with_another_body_is_a_conflict(api):
    key = {"HTTP_IDEMPOTENCY_KEY": "order-17"}
    api.send(http=key)
    answer = api.send(subject="Another", http=key)
    assert (answer.status_code, answer.json()["name"]) == (409, "invalid_idempotent_request")
    assert message_count(api) == 1


def test_a_refused_request_does_not_use_up_its_key(api):
    key = {"HTTP_IDEMPOTENCY_KEY": "order-17"}
    assert api.send(subject="a\r\nBcc: x@y.zz", http=key).status_code == 422
    assert api.send(http=key).status_code == 200


@pytest.mark.parametrize("key", ["", "x" * 257, "a\x7fb"])
def test_an_unusable_idempotency_key_is_refused(api, key):
    answer = api.send(http={"HTTP_IDEMPOTENCY_KEY": key})
    assert (answer.status_code, answer.json()["name"]) == (400, "invalid_idempotency_key")
    assert message_count(api) == 0


def test_the_key_of_one_tenant_means_nothing_to_another(api, db):
    other = Client(make_tenant())
    key = {"HTTP_IDEMPOTENCY_KEY": "same"}
    assert api.send(http=key).json() != other.send(http=key).json()


@pytest.mark.django_db(transaction=True)
def test_many_requests_at_once_with_one_key_make_one_mail(api):
    results, start = [], threading.Barrier(6)

    def ask():
        try:
            start.wait()
            results.append(Client(api.tenant, api.secret, api.domain).send(http={"HTTP_IDEMPOTENCY_KEY": "race"}))
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good = [r.json()["id"] for r in results if r.status_code == 200]
    assert len(set(good)) == 1 and len(good) >= 1
    assert all(r.status_code == 409 and r.headers["Retry-After"] for r in results if r.status_code != 200)
    assert message_count(api) == 1 and IdempotencyKey.objects.filter(tenant_id=api.tenant.id).count() == 1


# --- batch --------------------------------------------------------------------------------------------------


def test_a_batch_is_stored_whole(api):
    answer = api.post("/emails/batch", [api.mail(subject=str(i)) for i in range(3)])
    assert answer.status_code == 200
    answers.BatchAccepted.model_validate(answer.json())
    assert "errors" not in answer.json()
    subjects = [Message.objects.get(id=d["id"]).subject for d in answer.json()["data"]]
    assert subjects == ["0", "1", "2"]


def test_one_bad_mail_keeps_a_strict_batch_out(api):
    answer = api.post("/emails/batch", [api.mail(), api.mail(to="nobody"), api.mail(subject="\n", html="x\0")])
    assert answer.status_code == 422
    assert {(e["index"], e["field"]) for e in answer.json()["errors"]} == {(1, "to[0]"), (2, "subject"), (2, "html")}
    assert message_count(api) == 0


def test_a_permissive_batch_sends_what_can_be_sent(api):
    mails = [api.mail(to="nobody"), api.mail(), api.mail(**{"from": "a@not-ours.example"})]
    answer = api.post("/emails/batch", mails, HTTP_X_BATCH_VALIDATION="permissive")
    assert answer.status_code == 200
    assert len(answer.json()["data"]) == 1
    assert [e["index"] for e in answer.json()["errors"]] == [0, 2]
    assert message_count(api) == 1


def test_a_strict_batch_names_the_mail_whose_domain_is_not_ours(api):
    answer = api.post("/emails/batch", [api.mail(), api.mail(**{"from": "a@not-ours.example"})])
    assert answer.status_code == 403
    assert [(e["index"], e["code"]) for e in answer.json()["errors"]] == [(1, "domain_not_verified")]
    assert message_count(api) == 0


@pytest.mark.parametrize("body", [[], {}, "x", [1], [None], [[]]])
def test_a_batch_that_is_no_list_of_mails_is_refused(api, body):
    answer = api.post("/emails/batch", body)
    assert answer.status_code in (400, 422)
    answers.Error.model_validate(answer.json())


def test_a_batch_has_at_most_a_hundred_mails(api):
    assert api.post("/emails/batch", [api.mail()] * 101).status_code == 422
    assert message_count(api) == 0


# --- keys ---------------------------------------------------------------------------------------------------


def test_a_request_without_a_key_is_told_how_to_send_one(api):
    answer = api.raw("/emails", b"{}", HTTP_AUTHORIZATION="")
    assert (answer.status_code, answer.json()["name"]) == (401, "missing_api_key")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_an_unknown_key_is_refused(api):
    answer = api.raw("/emails", json.dumps(api.mail()).encode(), HTTP_AUTHORIZATION="Bearer re_nobody")
    assert (answer.status_code, answer.json()["name"]) == (403, "invalid_api_key")


def test_a_revoked_key_sends_nothing_even_while_it_is_remembered(api):
    assert api.send().status_code == 200
    ApiKey.objects.filter(tenant=api.tenant).update(revoked_at=datetime.now(UTC))
    answer = api.send()
    assert (answer.status_code, answer.json()["name"]) == (403, "invalid_api_key")
    assert message_count(api) == 1
    auth.forget()
    assert api.get("/emails").status_code == 403


def test_a_key_for_sending_opens_nothing_else(api):
    ApiKey.objects.filter(tenant=api.tenant).update(scope=ApiKey.Scope.SENDING)
    sent = api.send()
    assert sent.status_code == 200
    for path in ("/emails", f"/emails/{sent.json()['id']}", "/webhooks", "/domains", "/suppressions"):
        answer = api.get(path)
        assert (answer.status_code, answer.json()["name"]) == (401, "restricted_api_key")


def test_the_last_use_of_a_key_is_noted(api):
    api.send()
    assert ApiKey.objects.get(tenant=api.tenant).last_used_at is not None


def test_what_does_not_exist_is_not_found_in_the_one_shape(api):
    for path in (f"/emails/{uuid4()}", "/emails/x", "/nowhere", f"/webhooks/{uuid4()}"):
        answer = api.get(path)
        assert (answer.status_code, answer.json()["name"]) == (404, "not_found")
        answers.Error.model_validate(answer.json())
        assert answer.json()["request_id"] == answer.headers["X-Request-Id"]


def test_a_method_that_is_not_possible_is_named(api):
    answer = api.http.put("/emails", b"{}", content_type="application/json", HTTP_AUTHORIZATION=f"Bearer {api.secret}")
    assert (answer.status_code, answer.json()["name"]) == (405, "method_not_allowed")
    answers.Error.model_validate(answer.json())


# --- trouble of ours ----------------------------------------------------------------------------------------


def test_a_database_that_is_away_is_a_503_that_says_when_to_ask_again(api, monkeypatch):
    def away(*args):
        raise OperationalError("the connection is lost")

    monkeypatch.setattr(emails, "accept_each", away)
    answer = api.send()
    assert (answer.status_code, answer.json()["name"]) == (503, "application_error")
    assert answer.headers["Retry-After"] and "connection" not in answer.json()["message"]


def test_a_bug_of_ours_is_a_500_in_the_one_shape(api, monkeypatch):
    def broken(*args):
        raise ZeroDivisionError

    monkeypatch.setattr(emails, "accept_each", broken)
    api.http.raise_request_exception = False
    answer = api.send()
    answers.Error.model_validate(answer.json())
    assert (answer.status_code, answer.json()["name"]) == (500, "application_error")


def test_a_host_that_is_not_ours_is_refused_in_the_one_shape(api):
    answer = api.raw("/emails", b"{}", HTTP_HOST="elsewhere.example")
    assert answer.status_code == 400
    answers.Error.model_validate(answer.json())
