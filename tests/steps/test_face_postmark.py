"""Postmark's face: shapes, errors and limits, without its clients (tests/e2e/test_sdk_postmark.py has them)."""

import base64
import json

import pytest

from deliveries.accept import reposts
from deliveries.models import Attachment, Message, MessageContent, Suppression
from deliveries.record import suppressions
from tests.steps.api import message_count

ROOT = "/compat/postmark"


def mail(api, **fields):
    return {
        "From": f"Shop <orders@{api.domain}>",
        "To": "delivered@simulator.test",
        "Subject": "Hello",
        "TextBody": "Hello",
        **fields,
    }


def post(api, path, body, token=None, prefix=ROOT):
    octets = body if isinstance(body, bytes) else json.dumps(body).encode()
    return api.http.post(
        prefix + path, octets, content_type="application/json", HTTP_X_POSTMARK_SERVER_TOKEN=token or api.secret
    )


def test_a_message_becomes_the_mail_that_it_describes(api):
    answer = post(
        api,
        "/email",
        mail(
            api,
            To='"Last, First" <a@simulator.test>, b@simulator.test',
            Cc="=?utf-8?q?J=C3=BCrgen?= <c@simulator.test>",
            Bcc="d@simulator.test",
            ReplyTo="help@simulator.test",
            HtmlBody='<img src="cid:logo">',
            Tag="welcome mail",
            Metadata={"order": "17"},
            Headers=[{"Name": "X-Order", "Value": "17"}],
            Attachments=[
                {
                    "Name": "logo.png",
                    "Content": base64.b64encode(b"png").decode(),
                    "ContentType": "image/png",
                    "ContentID": "cid:logo",
                }
            ],
            MessageStream="outbound",
        ),
    )
    assert answer.status_code == 200, answer.content
    said = answer.json()
    assert set(said) == {"To", "SubmittedAt", "MessageID", "ErrorCode", "Message"}
    assert (said["ErrorCode"], said["Message"]) == (0, "OK")
    stored = Message.objects.get(id=said["MessageID"])
    assert stored.to == ['"Last, First" <a@simulator.test>', "b@simulator.test"]
    assert (stored.cc, stored.bcc) == (["Jürgen <c@simulator.test>"], ["d@simulator.test"])
    assert (stored.stream, stored.tags) == ("transactional", [{"name": "welcome mail", "value": ""}])
    assert dict(stored.metadata) == {"order": "17"}
    assert MessageContent.objects.get(id=stored.id).headers == [["X-Order", "17"]]
    assert Attachment.objects.get(message_id=stored.id).content_id == "logo"


def test_nulls_and_empty_texts_are_absent(api):
    fields = dict.fromkeys(["Cc", "Bcc", "Tag", "HtmlBody", "ReplyTo", "Headers", "Attachments", "Metadata"])
    assert post(api, "/email", mail(api, **fields)).status_code == 200
    assert post(api, "/EMAIL/", mail(api, Cc="", Tag="", HtmlBody="")).status_code == 200


@pytest.mark.parametrize("path", ["/email", "/Email/", "/email/batch"])
def test_the_token_at_the_root_leads_to_the_face(api, path):
    body = [mail(api)] if "batch" in path else mail(api)
    assert post(api, path, body, prefix="").status_code == 200
    assert message_count(api) == 1


@pytest.mark.parametrize(
    ("fields", "code", "word"),
    [
        ({"To": "nobody"}, 300, "Invalid 'To' address: 'nobody'."),
        ({"From": "a@elsewhere.example"}, 400, "From: The domain elsewhere.example"),
        ({"From": ""}, 300, "From"),
        ({"To": ""}, 300, "Zero recipients"),
        (
            {"From": "", "To": "", "TextBody": "", "HtmlBody": ""},
            300,
            "required. To: Zero recipients specified; name at least one. HtmlBody:",
        ),
        ({"To": ",".join(f"a{i}@x.example" for i in range(51))}, 300, "51"),
        ({"TextBody": ""}, 300, "TextBody"),
        ({"Subject": "a\r\nBcc: x@y.example"}, 300, "line break"),
        ({"Headers": [{"Name": "Bcc", "Value": "x"}]}, 300, "Bcc"),
        ({"Headers": [{"Name": "X", "Value": "a\nb"}]}, 300, "line break"),
        ({"Headers": {"X": "y"}}, 403, "list"),
        ({"Attachments": [{"Name": "a", "Content": "%%"}]}, 300, "Attachments[0].Content"),
        ({"Attachments": [{"Name": "a", "Content": ""}] * 101}, 300, "101 files"),
        ({"Metadata": {"a": {"b": 1}}}, 403, "Metadata.a"),
        ({"Metadata": []}, 403, "object"),
        ({"MessageStream": "No Such!"}, 300, "stream"),
        ({"TextBody": "a\u0000b"}, 300, "NUL"),
        ({"TextBody": 1}, 403, "string"),
        ({"Tagg": "x"}, 300, "did you mean Tag?"),
        ({"Redact": ["content"]}, 403, "Redact"),
        ({"TemplateModel": {}}, 300, "withTemplate"),
    ],
)
def test_what_is_wrong_is_told_by_code_and_field_and_nothing_is_stored(api, fields, code, word):
    answer = post(api, "/email", mail(api, **fields))
    assert (answer.status_code, answer.json()["ErrorCode"]) == (422, code), answer.json()
    assert word in answer.json()["Message"] and set(answer.json()) == {"ErrorCode", "Message"}
    assert message_count(api) == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"null", b"\xff"])
def test_a_body_that_is_no_message_is_refused(api, body):
    answer = post(api, "/email", body)
    assert answer.status_code == 422 and answer.json()["ErrorCode"] in (300, 402, 403)


def test_a_surrogate_half_is_refused_in_one_item_of_a_batch_alone(api):
    body = json.dumps([mail(api), mail(api, Subject="\ud800")]).encode()
    answer = post(api, "/email/batch", body).json()
    assert [item["ErrorCode"] for item in answer] == [0, 300]
    assert message_count(api) == 1


def test_a_batch_answers_200_with_a_whole_result_for_each(api):
    items = [mail(api), mail(api, To="nobody"), mail(api, From="a@elsewhere.example"), 7]
    answer = post(api, "/email/batch", items)
    assert answer.status_code == 200
    assert [item["ErrorCode"] for item in answer.json()] == [0, 300, 400, 403]
    assert all(set(i) == {"To", "SubmittedAt", "MessageID", "ErrorCode", "Message"} for i in answer.json())
    assert message_count(api) == 1
    assert post(api, "/email/batch", [mail(api)] * 501).status_code == 422
    assert post(api, "/email/batch", []).json() == []


def test_inactive_recipients_are_named_and_the_others_get_their_mail(api):
    suppressions.add(api.tenant, "gone@simulator.test", "bounce", "", "test")
    answer = post(api, "/email", mail(api, To="Gone@simulator.test"))
    assert (answer.status_code, answer.json()["ErrorCode"]) == (422, 406)
    assert "Found inactive addresses: Gone@simulator.test. Inactive recipients" in answer.json()["Message"]
    assert message_count(api) == 0
    answer = post(api, "/email", mail(api, To="gone@simulator.test, b@simulator.test"))
    assert answer.status_code == 200 and "inactive addresses: gone@simulator.test." in answer.json()["Message"]
    assert Suppression.objects.count() == 1


def test_a_token_that_is_missing_or_unknown_is_code_10(api):
    answer = post(api, "/email", mail(api), token="nobody")
    assert (answer.status_code, answer.json()["ErrorCode"]) == (401, 10)
    answer = api.http.post(f"{ROOT}/email", b"{}", content_type="application/json")
    assert (answer.status_code, answer.json()["ErrorCode"]) == (401, 10)
    account = api.http.get("/servers", HTTP_X_POSTMARK_ACCOUNT_TOKEN="nobody")
    assert account.status_code == 422 and "/tenants" in account.json()["Message"]


def test_the_test_token_validates_and_sends_nothing(api):
    answer = post(api, "/email", mail(api), token="POSTMARK_API_TEST")
    assert answer.status_code == 200 and answer.json()["ErrorCode"] == 0
    assert post(api, "/email", mail(api, To="x"), token="POSTMARK_API_TEST").status_code == 422
    large = mail(api, TextBody="x" * 1_100_000)
    assert post(api, "/email", large, token="POSTMARK_API_TEST").json()["ErrorCode"] == 405
    assert api.http.get(f"{ROOT}/bounces", HTTP_X_POSTMARK_SERVER_TOKEN="POSTMARK_API_TEST").status_code == 422
    assert message_count(api) == 0


def test_what_has_no_effect_is_named(api):
    answer = post(api, "/email", mail(api, TrackOpens=True, TrackLinks="HtmlOnly"))
    assert answer.headers["X-Ignored-Fields"] == "TrackOpens, TrackLinks"


def test_an_unknown_path_is_not_found_in_the_faces_shape(api):
    answer = post(api, "/nowhere", {})
    assert answer.status_code == 404 and set(answer.json()) == {"ErrorCode", "Message"}


def test_two_quick_posts_of_the_same_octets_are_two_mails(api):
    ids = {post(api, "/email", mail(api)).json()["MessageID"] for _ in range(2)}
    assert len(ids) == 2 and message_count(api) == 2


def test_an_answer_that_repeats_what_no_jsonb_holds_is_kept_for_a_client_that_posts_again(api, monkeypatch):
    monkeypatch.setattr(reposts, "SOON_S", -1.0)  # as if it had taken long
    monkeypatch.setattr(reposts, "_FOUND", reposts._FOUND.replace(f"> {reposts.SLOW_S}", "> -1"))
    batch = [mail(api), mail(api, To="a\0@simulator.test")]
    first = post(api, "/email/batch", batch)
    assert first.status_code == 200, first.content
    assert [item["ErrorCode"] for item in first.json()] == [0, 300]
    assert post(api, "/email/batch", batch).json() == first.json()
    assert message_count(api) == 1


def test_of_very_many_unknown_fields_a_hundred_are_looked_at(api):
    answer = post(api, "/email", mail(api, **{f"Subjec{i}": 1 for i in range(1_000)}))
    assert answer.status_code == 422 and answer.json()["Message"].endswith("And 95 more.")
