"""SendGrid's face: shapes, errors and limits, without its clients (tests/e2e/test_sdk_sendgrid.py has them)."""

import json
import time

import pytest

from deliveries.models import Message, MessageContent
from tests.steps.api import message_count

PATH = "/compat/sendgrid/v3/mail/send"


def mail(api, **fields):
    return {
        "personalizations": [{"to": [{"email": "delivered@simulator.test"}]}],
        "from": {"email": f"orders@{api.domain}", "name": "Shop"},
        "subject": "Hello",
        "content": [{"type": "text/plain", "value": "Hello"}],
        **fields,
    }


def post(api, body, path=PATH, **extra):
    return api.post(path, body, **extra)


def to(*addresses, **fields):
    return {"to": [{"email": a} for a in addresses], **fields}


def test_each_personalization_is_a_mail_with_its_own_words(api):
    people = [
        to("a@simulator.test", subject="For -name-", substitutions={"-name-": "Ann"}, custom_args={"n": "1"}),
        to("b@simulator.test", substitutions={"-name-": "-other-", "-other-": "x"}, headers={"X-Who": "-name-"}),
    ]
    body = mail(
        api, personalizations=people, content=[{"type": "text/html", "value": "Hi -name-"}], custom_args={"all": "yes"}
    )
    answer = post(api, body)
    assert (answer.status_code, answer.content) == (202, b""), answer.content
    first, second = Message.objects.filter(tenant=api.tenant).order_by("id")
    assert str(first.id) == answer.headers["X-Message-Id"]
    assert (first.subject, dict(first.metadata)) == ("For Ann", {"all": "yes", "n": "1"})
    content = MessageContent.objects.get(id=second.id)
    # what a word holds is not looked at again
    assert (content.html, content.headers) == ("Hi -other-", [["X-Who", "-other-"]])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"personalizations": []}, "personalizations"),
        ({"personalizations": None}, "personalizations"),
        ({"personalizations": [{}]}, "personalizations.0.to"),
        ({"personalizations": [to("nobody")]}, "personalizations.0.to.0.email"),
        ({"personalizations": [{"to": ["a@b.example"]}]}, "personalizations.0.to.0"),
        ({"personalizations": [to("a@b.example", dynamic_template_data={"a": 1})]}, None),
        ({"personalizations": [to(*(f"a{i}@x.example" for i in range(1001)))]}, "personalizations"),
        ({"from": None}, "from"),
        ({"from": "a@b.example"}, "from"),
        ({"from": {"email": "a@b.example", "nam": "x"}}, "from.nam"),
        ({"subject": ""}, "subject"),
        ({"subject": "a\nBcc: x@y.example"}, "subject"),
        ({"content": []}, "content"),
        ({"content": [{"type": "text/calendar", "value": "x"}]}, "content.0.type"),
        ({"content": [{"type": "text/plain", "value": ""}]}, "content.0.value"),
        ({"attachments": [{"content": "%%", "filename": "a"}]}, "attachments.0.content"),
        ({"headers": {"Bcc": "x@y.example"}}, "headers.Bcc"),
        ({"send_at": "tomorrow"}, "send_at"),
        ({"send_at": int(time.time()) + 40 * 86400}, "send_at"),
        ({"mail_settings": {"bypass_list_management": {"enable": True}}}, "mail_settings.bypass_list_management"),
        ({"sections": {"a": "b"}}, "sections"),
        ({"subjct": "x"}, "subjct"),
        ({"attachments": [{"content": "YQ==", "filename": "a", "contentId": "x"}]}, "attachments.0.contentId"),
        ({"custom_args": {"a": ["b"]}}, "custom_args.a"),
        ({"content": [{"type": "text/plain", "value": "a\u0000b"}]}, "content.0.value"),
    ],
)
def test_what_is_wrong_is_told_by_its_field_and_nothing_is_stored(api, fields, field):
    answer = post(api, mail(api, **fields))
    assert answer.status_code == 400, answer.content
    errors = answer.json()["errors"]
    assert all(set(e) == {"message", "field", "help"} for e in errors)
    assert field is None or field in [e["field"] for e in errors], errors
    assert message_count(api) == 0


def test_words_that_break_a_header_or_grow_without_end_are_refused(api):
    broken = mail(
        api, subject="-x-", personalizations=[to("a@b.example", substitutions={"-x-": "a\r\nBcc: y@z.example"})]
    )
    assert post(api, broken).status_code == 400
    content = [{"type": "text/plain", "value": "-x-" * 100_000}]
    grown = mail(api, content=content, personalizations=[to("a@b.example", substitutions={"-x-": "y" * 4_000})])
    assert post(api, grown).status_code == 400
    many = mail(api, content=[{"type": "text/plain", "value": "x" * 1_000_000}])
    many["personalizations"] = [to(f"a{i}@b.example") for i in range(60)]
    assert post(api, many).status_code == 400
    assert message_count(api) == 0


def test_one_foreign_sender_keeps_all_of_them_back(api):
    people = [to("a@b.example"), to("c@b.example", **{"from": {"email": "x@elsewhere.example"}})]
    answer = post(api, mail(api, personalizations=people))
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (403, "personalizations.1.from")
    assert message_count(api) == 0


def test_all_that_is_missing_is_told_at_once_and_once(api):
    def fields(body):
        return [error["field"] for error in post(api, body).json()["errors"]]

    assert fields({}) == ["personalizations", "content", "from"]
    assert fields({"personalizations": [to("a@b.example"), to("c@d.example")]}) == ["content", "from", "subject"]


def test_a_scheduled_mail_is_found_by_its_category_and_canceled(api):
    at = int(time.time()) + 3600
    people = [to("a@simulator.test"), to("b@simulator.test")]
    assert post(api, mail(api, personalizations=people, send_at=at, categories=["Spring sale"])).status_code == 202
    waiting = api.get("/emails?tag=Spring%20sale&status=scheduled").json()["data"]
    assert [mail["to"] for mail in waiting] == [["b@simulator.test"], ["a@simulator.test"]]
    for one in waiting:
        assert api.post(f"/emails/{one['id']}/cancel", {}).status_code == 200
    assert api.get("/emails?tag=Spring%20sale&status=scheduled").json()["data"] == []
    assert post(api, mail(api, categories=["order:17:x"])).status_code == 202
    for tag, count in (("order:17:x", 1), ("order:17", 0), ("order", 0)):
        assert len(api.get(f"/emails?tag={tag}").json()["data"]) == count, tag


def test_the_sandbox_mode_checks_and_sends_nothing(api):
    answer = post(api, mail(api, mail_settings={"sandbox_mode": {"enable": True}}))
    assert (answer.status_code, answer.content) == (200, b"")
    assert message_count(api) == 0


def test_what_has_no_effect_is_named(api):
    file = {"content": "YQ==", "filename": "a", "content_id": "logo"}
    body = mail(api, attachments=[file], ip_pool_name="x", tracking_settings={"ganalytics": {}}, batch_id="b")
    answer = post(api, body, HTTP_IDEMPOTENCY_KEY="one")
    named = ["ip_pool_name", "batch_id", "attachments[0].content_id", "tracking_settings.ganalytics"]
    assert answer.headers["X-Ignored-Fields"].split(", ") == [*named, "Idempotency-Key"]


def test_a_bearer_key_and_v3_lead_to_the_face_from_the_root(api):
    assert post(api, mail(api), path="/v3/mail/send").status_code == 202
    assert post(api, mail(api), path="/v3/nowhere").json()["errors"][0]["field"] is None


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"'])
def test_a_body_that_is_no_request_is_refused(api, body):
    assert api.raw(PATH, body).status_code == 400


def test_a_key_that_is_missing_or_unknown_is_a_401(api):
    for authorization in ("", "Bearer SG.nobody"):
        answer = post(api, mail(api), HTTP_AUTHORIZATION=authorization)
        assert answer.status_code == 401 and "invalid" in json.loads(answer.content)["errors"][0]["message"]
