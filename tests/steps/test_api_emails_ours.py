"""What a mail may ask beyond Resend's fields: metadata, stream, priority, deliver_before, merge."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.utils.dateparse import parse_datetime

from deliveries.models import Delivery, Event, Message, MessageContent, Queued, Suppression
from deliveries.notify.body import bodies
from deliveries.states import Lane
from mailapi.schemas import answers, times
from tests.steps.api import message_count

pytestmark = pytest.mark.django_db

_MERGE = {"merge": {"ann@simulator.test": {"NAME": "Ann"}, "bob@simulator.test": {"NAME": "Bob & <b>Co"}}}
_TWO = ["Ann <ann@simulator.test>", "bob@simulator.test"]


def _faults(answer):
    assert answer.status_code == 422, answer.json()
    return {(f["field"], f["code"]) for f in answer.json()["errors"]}


# --- metadata, stream, priority -----------------------------------------------------------------------------


def test_metadata_and_stream_come_back_in_the_answer_and_in_every_webhook(api):
    sent = api.send(metadata={"order.id": "17", "note": "für Ann"}, stream="receipts").json()["id"]
    shown = api.get(f"/emails/{sent}").json()
    answers.Email.model_validate(shown)
    assert shown["metadata"] == {"order.id": "17", "note": "für Ann"} and shown["stream"] == "receipts"
    told = json.loads(next(iter(bodies(Event.objects.filter(message_id=sent).values_list("id", flat=True)).values())))
    assert told["data"]["metadata"] == {"order.id": "17", "note": "für Ann"} and told["data"]["stream"] == "receipts"


def test_a_mail_that_asks_for_nothing_has_the_ordinary_stream_and_lane(api):
    shown = api.get(f"/emails/{api.send().json()['id']}").json()
    assert (shown["metadata"], shown["stream"], shown["priority"]) == ({}, "transactional", "normal")
    assert shown["deliver_before"] is None


@pytest.mark.parametrize(("word", "lane"), [("high", Lane.HIGH), ("normal", Lane.NORMAL), ("bulk", Lane.BULK)])
def test_priority_is_the_lane_of_the_queue_row(api, word, lane):
    sent = api.send(priority=word).json()["id"]
    assert Queued.objects.get(tenant_id=api.tenant.id).lane == lane
    assert api.get(f"/emails/{sent}").json()["priority"] == word


def test_who_left_one_stream_still_gets_the_others(api):
    Suppression.objects.create(
        tenant=api.tenant, stream="news", address="ann@simulator.test", reason="unsubscribe",
        created_at=datetime.now(UTC),
    )  # fmt: skip
    for stream, status in (("news", "suppressed"), ("transactional", "queued"), ("receipts", "queued")):
        sent = api.send(to="ann@simulator.test", stream=stream).json()["id"]
        assert Delivery.objects.get(message_id=sent).status == status, stream


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"metadata": {f"k{i}": "" for i in range(51)}}, ("metadata", "too_many")),
        ({"metadata": {"a b": ""}}, ("metadata.a b", "invalid_metadata")),
        ({"metadata": {"x" * 65: ""}}, ("metadata." + "x" * 65, "invalid_metadata")),
        ({"metadata": {"a": "x" * 1025}}, ("metadata.a", "too_long")),
        ({"metadata": {"a": 1}}, ("metadata.a", "wrong_type")),
        ({"metadata": {"a": "\0"}}, ("metadata.a", "control_character")),
        ({"metadata": "a"}, ("metadata", "wrong_type")),
        ({"stream": "*"}, ("stream", "invalid_stream")),
        ({"stream": "News"}, ("stream", "invalid_stream")),
        ({"stream": "x" * 65}, ("stream", "invalid_stream")),
        ({"stream": 1}, ("stream", "wrong_type")),
        ({"priority": "urgent"}, ("priority", "invalid_choice")),
        ({"priority": 1}, ("priority", "invalid_choice")),
    ],
)
def test_each_field_has_its_bounds_and_names_itself(api, fields, fault):
    assert fault in _faults(api.send(**fields))
    assert message_count(api) == 0


# --- deliver_before -----------------------------------------------------------------------------------------


def test_deliver_before_in_seconds_counts_from_when_the_mail_is_due(api):
    at = datetime.now(UTC) + timedelta(hours=2)
    sent = api.send(scheduled_at=at.isoformat(), deliver_before=600).json()["id"]
    row = Delivery.objects.get(message_id=sent)
    assert row.expires_at == at + timedelta(minutes=10)
    assert parse_datetime(api.get(f"/emails/{sent}").json()["deliver_before"]) == row.expires_at


def test_deliver_before_as_a_time_is_the_end_of_the_delivery(api):
    at = datetime.now(UTC) + timedelta(minutes=5)
    sent = api.send(deliver_before=at.isoformat()).json()["id"]
    assert Delivery.objects.get(message_id=sent).expires_at == at


@pytest.mark.parametrize(
    "value", [0, -1, 2_592_001, True, 1.5, [], "soon", "2001-01-01T00:00:00Z", "2999-01-01T00:00Z"]
)
def test_an_end_that_cannot_be_honoured_is_refused(api, value):
    assert {field for field, _ in _faults(api.send(deliver_before=value))} == {"deliver_before"}


class Tomorrow(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(days=1)


def test_a_replay_is_answered_though_the_end_has_passed_since(api, monkeypatch):
    mail = api.mail(deliver_before=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    first = api.post("/emails", mail, HTTP_IDEMPOTENCY_KEY="k")
    assert first.status_code == 200
    monkeypatch.setattr(times, "datetime", Tomorrow)
    again = api.post("/emails", mail, HTTP_IDEMPOTENCY_KEY="k")
    assert again.json() == first.json() and again.headers["Idempotent-Replayed"] == "true"
    assert api.post("/emails", mail).status_code == 422 and message_count(api) == 1


def test_an_end_before_the_beginning_is_refused(api):
    now = datetime.now(UTC)
    answer = api.send(
        scheduled_at=(now + timedelta(hours=2)).isoformat(), deliver_before=(now + timedelta(hours=1)).isoformat()
    )
    assert _faults(answer) == {("deliver_before", "invalid_time")}


# --- merge --------------------------------------------------------------------------------------------------


def test_with_merge_each_recipient_gets_a_mail_of_its_own(api):
    answer = api.send(
        to=_TWO, subject="Hello {{{NAME}}}", text="{{{ NAME }}}!", html="<p>{{{NAME}}}</p>", metadata={"run": "1"},
        **_MERGE,
    )  # fmt: skip
    assert answer.status_code == 200
    ids = answer.json()["ids"]
    assert answer.json()["id"] == ids[0] and len(ids) == 2 == message_count(api)
    ann, bob = (Message.objects.get(id=i) for i in ids)
    assert (ann.to, bob.to) == (["Ann <ann@simulator.test>"], ["bob@simulator.test"])
    assert (ann.subject, bob.subject) == ("Hello Ann", "Hello Bob & <b>Co")
    assert ann.metadata == bob.metadata == {"run": "1"} and ann.message_id != bob.message_id
    content = MessageContent.objects.get(id=bob.id)
    # as it is in text, escaped in html
    assert (content.text, content.html) == ("Bob & <b>Co!", "<p>Bob &amp; &lt;b&gt;Co</p>")
    assert Delivery.objects.filter(message_id__in=ids).count() == Queued.objects.filter(tenant_id=api.tenant.id).count()


def test_without_merge_braces_stay_as_they_are(api):
    sent = api.send(subject="{{{NAME}}}").json()
    assert "ids" not in sent and Message.objects.get(id=sent["id"]).subject == "{{{NAME}}}"


def test_values_are_not_filled_again_and_numbers_are_written_out(api):
    merge = {"ann@simulator.test": {"A": "{{{B}}}", "B": 3, "C": 2.5}}
    sent = api.send(to="ann@SIMULATOR.test", text="{{{A}}} {{{B}}} {{{C}}}", merge=merge).json()["id"]
    assert MessageContent.objects.get(id=sent).text == "{{{B}}} 3 2.5"


def test_an_address_that_stands_twice_gets_one_mail(api):
    answer = api.send(to=["ann@simulator.test", "Ann <ann@simulator.test>"], merge={"ann@simulator.test": {"A": "1"}})
    assert "ids" not in answer.json() and message_count(api) == 1


def test_a_replay_answers_all_ids_again(api):
    once = {"HTTP_IDEMPOTENCY_KEY": "run-1"}
    first = api.send(http=once, to=_TWO, text="{{{NAME}}}", **_MERGE).json()
    assert api.send(http=once, to=_TWO, text="{{{NAME}}}", **_MERGE).json() == first
    assert message_count(api) == 2


def test_a_batch_tells_the_ids_mail_by_mail(api):
    merged = api.mail(to=_TWO, text="{{{NAME}}}", **_MERGE)
    data = api.post("/emails/batch", [api.mail(), merged, api.mail()]).json()["data"]
    assert [len(item.get("ids", [1])) for item in data] == [1, 2, 1]
    assert message_count(api) == 4


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        ({"merge": {"ann@simulator.test": {"NAME": "x"}}}, {("merge.bob@simulator.test.NAME", "missing_value")}),
        ({"cc": "carl@simulator.test", **_MERGE}, {("cc", "not_with_merge")}),
        ({"bcc": ["carl@simulator.test"], **_MERGE}, {("bcc", "not_with_merge")}),
        ({"headers": {"Message-Id": "<a@b.example>"}, **_MERGE}, {("headers.Message-Id", "not_with_merge")}),
        (
            {"merge": {**_MERGE["merge"], "carl@simulator.test": {}, "x": {}}},
            {("merge.carl@simulator.test", "unknown_recipient"), ("merge.x", "unknown_recipient")},
        ),
        ({"merge": {"ann@simulator.test": {"1A": "x"}}}, {("merge.ann@simulator.test.1A", "invalid_key")}),
        ({"merge": {"ann@simulator.test": {"NAME": None}}}, {("merge.ann@simulator.test.NAME", "wrong_type")}),
        ({"merge": {"ann@simulator.test": {"NAME": "x" * 10_001}}}, {("merge.ann@simulator.test.NAME", "too_long")}),
        ({"merge": {"ann@simulator.test": "x"}}, {("merge.ann@simulator.test", "wrong_type")}),
        ({"merge": {f"r{i}@simulator.test": {} for i in range(51)}}, {("merge", "too_many")}),
        ({"merge": []}, {("merge", "wrong_type")}),
        (
            {"merge": {"ann@simulator.test": {"NAME": "x\r\nBcc: y@z"}, "bob@simulator.test": {"NAME": "b"}}},
            {("merge.ann@simulator.test", "invalid_subject")},
        ),
    ],
)
def test_what_is_wrong_with_merge_data_is_named_by_recipient_and_key(api, fields, faults):
    assert _faults(api.send(**{"to": _TWO, "subject": "Hi {{{NAME}}}", **fields})) == faults
    assert message_count(api) == 0


def test_merge_cannot_make_gigabytes_of_a_small_body(api):
    many = [f"r{i}@simulator.test" for i in range(50)]
    merge = {address: {"A": "x" * 10_000} for address in many}
    assert _faults(api.send(to=many, text="{{{A}}}" * 10_000, merge=merge)) == {("merge", "too_large")}
    one = api.mail(to=many, text="{{{A}}}" * 10, merge=merge)
    answer = api.post("/emails/batch", [one] * 20)
    assert answer.status_code == 422 and {f["code"] for f in answer.json()["errors"]} == {"too_large"}
    assert message_count(api) == 0


def test_a_refused_sender_is_told_once_however_many_recipients(api):
    answer = api.send(to=_TWO, subject="{{{NAME}}}", **{"from": "a@not-verified.example"}, **_MERGE)
    assert answer.status_code == 403 and [f["index"] for f in answer.json()["errors"]] == [None]
