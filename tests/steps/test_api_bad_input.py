"""Whatever is wrong with a request: a 4xx in the one shape that names each fault, and nothing stored."""

import base64
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailapi.schemas import answers
from mailapi.schemas import body as reading
from tests.steps.api import message_count

pytestmark = pytest.mark.django_db

_TO = "a@simulator.test"

BODIES = {
    "empty": (b"", 400, "empty_body"),
    "white space": (b" \n", 400, "empty_body"),
    "cut off": (b'{"from": "a@b.example"', 400, "invalid_json"),
    "no JSON": (b"from=a&to=b", 400, "invalid_json"),
    "a list": (b"[]", 400, "wrong_type"),
    "a string": (b'"mail"', 400, "wrong_type"),
    "null": (b"null", 400, "wrong_type"),
    "NaN": (b'{"subject": NaN}', 400, "invalid_json"),
    "Infinity": (b'{"subject": -Infinity}', 400, "invalid_json"),
    "a number without end": (b'{"subject": ' + b"9" * 5000 + b"}", 400, "invalid_json"),
    "a number beyond all numbers": (b'{"merge": {"a@b.example": {"PRICE": -1e400}}}', 400, "invalid_json"),
    "a name twice": (b'{"to": "a@b.example", "to": "c@d.example"}', 400, "duplicate_field"),
    "Latin-1": ('{"subject": "Grüße"}'.encode("latin-1"), 400, "invalid_utf8"),
    "UTF-16": ('{"subject": "x"}'.encode("utf-16"), 400, "invalid_utf8"),
    "nested deeply": (b"[" * 100_000, 400, "too_deep"),
    "nested objects": (b'{"a":' * 100_000, 400, "too_deep"),
    "a raw control character": (b'{"subject": "a\x00b"}', 400, "invalid_json"),
    "a million objects": (b"[" + b"{}," * 1_000_000 + b"{}]", 413, "too_complex"),
}


@pytest.mark.parametrize(("octets", "status", "code"), BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_mail_is_refused(api, octets, status, code):
    answer = api.raw("/emails", octets)
    assert answer.status_code == status, answer.content[:500]
    answers.Error.model_validate(answer.json())
    assert [e["code"] for e in answer.json()["errors"]] == [code]
    assert message_count(api) == 0


def _file(**fields):
    """One attachment, right but for `fields`."""
    return {"attachments": [{"filename": "a", "content": "", **fields}]}


FIELDS = {
    "no recipient": ({"to": []}, "to", "missing_required_field"),
    "no address": ({"to": "nobody"}, "to[0]", "invalid_address"),
    "two addresses in one string": ({"to": "a@x.example, b@x.example"}, "to[0]", "invalid_address"),
    "a number as address": ({"to": [_TO, 5]}, "to[1]", "wrong_type"),
    "an object as recipients": ({"to": {"email": _TO}}, "to", "wrong_type"),
    "a line break in an address": ({"cc": ["a@x.example\r\nRCPT TO:<b@x.example>"]}, "cc[0]", "invalid_address"),
    "NUL in an address": ({"bcc": "a\0@x.example"}, "bcc", "control_character"),
    "a line break in a display name": ({"to": "A\nB <a@x.example>"}, "to[0]", "invalid_address"),
    "51 recipients in one field": ({"to": [f"a{i}@x.example" for i in range(51)]}, "to", "too_many_recipients"),
    "51 recipients together": (
        {"to": [f"a{i}@x.example" for i in range(50)], "cc": "b@x.example"},
        "to",
        "too_many_recipients",
    ),
    "a bad reply_to": ({"reply_to": ["x"]}, "reply_to[0]", "invalid_address"),
    "no sender": ({"from": None}, "from", "missing_required_field"),
    "a list as sender": ({"from": ["a@x.example"]}, "from", "wrong_type"),
    "a bad sender": ({"from": "Shop <>"}, "from", "invalid_address"),
    "no subject": ({"subject": None}, "subject", "missing_required_field"),
    "a number as subject": ({"subject": 5}, "subject", "wrong_type"),
    "a line break in the subject": ({"subject": "a\r\nBcc: b@x.example"}, "subject", "invalid_subject"),
    "half a surrogate pair": ({"subject": "a\ud800b"}, "subject", "invalid_character"),
    "neither html nor text": ({"text": None}, "html", "missing_required_field"),
    "both empty": ({"text": "", "html": ""}, "html", "missing_required_field"),
    "NUL in html": ({"html": "a\0b"}, "html", "control_character"),
    "NUL in text": ({"text": "\0"}, "text", "control_character"),
    "a list as html": ({"html": ["x"]}, "html", "wrong_type"),
    "a list as headers": ({"headers": [["X-A", "b"]]}, "headers", "wrong_type"),
    "a number as header value": ({"headers": {"X-A": 5}}, "headers.X-A", "wrong_type"),
    "a line break in a header value": ({"headers": {"X-A": "b\r\nBcc: c@x.example"}}, "headers.X-A", "invalid_header"),
    "a line break in a header name": ({"headers": {"X-A\r\nBcc": "b"}}, "headers.X-A\r\nBcc", "invalid_header"),
    "a header that is ours": ({"headers": {"DKIM-Signature": "v=1"}}, "headers.DKIM-Signature", "invalid_header"),
    "Bcc as header": ({"headers": {"Bcc": "x@x.example"}}, "headers.Bcc", "invalid_header"),
    "an empty header name": ({"headers": {"": "x"}}, "headers.", "invalid_header"),
    "101 headers": ({"headers": {f"X-{i}": "a" for i in range(101)}}, "headers", "too_many"),
    "an attachment without content": (_file(content=None), "attachments[0].content", "missing_required_field"),
    "an attachment without a name": (_file(filename=None), "attachments[0].filename", "missing_required_field"),
    "bad base64": (_file(content="%%%%"), "attachments[0].content", "invalid_base64"),
    "base64 cut off": (_file(content="YQ"), "attachments[0].content", "invalid_base64"),
    "base64 with letters beyond ASCII": (_file(content="ÄÄÄÄ"), "attachments[0].content", "invalid_base64"),
    "a data: URL": (_file(content="data:x/y;base64,YQ=="), "attachments[0].content", "invalid_base64"),
    "octets out of range": (_file(content=[1, 256]), "attachments[0].content", "invalid_octets"),
    "octets that are none": (_file(content=["1"]), "attachments[0].content", "invalid_octets"),
    "content of another type": (_file(content={"type": "Buffer"}), "attachments[0].content", "wrong_type"),
    "a line break in a file name": (_file(filename="a\r\nb"), "attachments[0].filename", "control_character"),
    "NUL in a file name": (_file(filename="a\0"), "attachments[0].filename", "control_character"),
    "a file name without end": (_file(filename="a" * 256), "attachments[0].filename", "too_long"),
    "a bad content type": (_file(content_type="a/b\r\nX: y"), "attachments[0].content_type", "invalid_content_type"),
    "a bad content id": (_file(content_id="a b"), "attachments[0].content_id", "invalid_content_id"),
    "a line break in a content id": (_file(content_id="a\n"), "attachments[0].content_id", "invalid_content_id"),
    "an attachment twice": (_file(path="https://x.example/a"), "attachments[0].content", "invalid_attachment"),
    "an unknown field of an attachment": (_file(contentType="a/b"), "attachments[0].contentType", "unknown_field"),
    "101 attachments": ({"attachments": [{"filename": "a", "content": ""}] * 101}, "attachments", "too_many"),
    "a string as attachment": ({"attachments": ["a"]}, "attachments[0]", "wrong_type"),
    "a tag with a space": ({"tags": [{"name": "a b", "value": "c"}]}, "tags[0].name", "invalid_tag"),
    "a tag with a line break": ({"tags": [{"name": "a", "value": "c\n"}]}, "tags[0].value", "invalid_tag"),
    "a tag without a name": ({"tags": [{"value": "c"}]}, "tags[0].name", "missing_required_field"),
    "a tag that is too long": ({"tags": [{"name": "a" * 257, "value": ""}]}, "tags[0].name", "invalid_tag"),
    "a time in words that means two": ({"scheduled_at": "next friday"}, "scheduled_at", "invalid_time"),
    "a time without a zone": ({"scheduled_at": "2030-01-01T00:00:00"}, "scheduled_at", "invalid_time"),
    "a time too far ahead": ({"scheduled_at": "9999-12-31T23:59:59Z"}, "scheduled_at", "invalid_time"),
    "a day without a time": ({"scheduled_at": "2030-01-01"}, "scheduled_at", "invalid_time"),
    "an unknown field": ({"sujet": "x"}, "sujet", "unknown_field"),
    "a template that is not there": ({"template": {"id": "x"}, "text": None}, "template.id", "unknown_template"),
    "a topic": ({"topic_id": "x"}, "topic_id", "not_available"),
}  # fmt: skip


@pytest.mark.parametrize(("fields", "field", "code"), FIELDS.values(), ids=FIELDS)
def test_a_fault_of_a_mail_is_named_and_nothing_is_stored(api, fields, field, code):
    answer = api.send(**fields)
    assert answer.status_code == 422, answer.content[:500]
    body = answer.json()
    answers.Error.model_validate(body)
    assert [(e["field"], e["code"]) for e in body["errors"]] == [(field, code)]
    assert body["statusCode"] == 422 and body["message"]
    assert message_count(api) == 0


def test_every_fault_is_named_at_once(api):
    answer = api.post("/emails", {"to": ["x", _TO, "y"], "sujet": "a", "headers": {"Bcc": "a", "To": "b"}})
    assert {e["field"] for e in answer.json()["errors"]} == {
        "from", "subject", "to[0]", "to[2]", "sujet", "headers.Bcc", "headers.To", "html",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"from": None}, "missing_required_field"),
        ({"from": "x"}, "invalid_from_address"),
        ({"attachments": [{"filename": "a", "content": "%"}]}, "invalid_attachment"),
        ({"to": "x", "from": "y"}, "validation_error"),
    ],
)
def test_the_name_of_an_error_is_resends_word_for_it(api, fields, name):
    assert api.send(**fields).json()["name"] == name


def test_an_unknown_field_is_answered_with_the_nearest_one(api):
    assert "`reply_to`" in api.send(replyTo="a@x.example").json()["message"]
    assert "`content_type`" in api.send(
        attachments=[{"filename": "a", "content": "", "contentType": "a/b"}]
    ).json()["message"]  # fmt: skip


def test_a_domain_that_is_not_the_tenants_is_refused(api):
    answer = api.send(**{"from": "ceo@elsewhere.example"})
    assert (answer.status_code, answer.json()["name"]) == (403, "validation_error")
    assert [(e["field"], e["code"]) for e in answer.json()["errors"]] == [("from", "domain_not_verified")]
    assert message_count(api) == 0


def test_a_request_above_the_limit_is_refused_by_its_length_alone(api, settings):
    settings.MAX_BODY_OCTETS = 1000
    answer = api.send(text="x" * 1000)
    assert (answer.status_code, answer.json()["name"]) == (413, "payload_too_large")
    assert message_count(api) == 0


def test_a_mail_of_many_megabytes_passes(api):
    octets = b"\x00\x01\x02" * 2_000_000
    answer = api.send(
        attachments=[
            {"filename": "a.bin", "content": base64.b64encode(octets).decode()},
            {"filename": "b.bin", "content": list(octets[:400_000])},
        ]
    )
    assert answer.status_code == 200


def test_base64_in_lines_is_understood(api):
    content = base64.encodebytes(b"x" * 200).decode()
    assert api.send(attachments=[{"filename": "a", "content": content}]).status_code == 200


def test_more_faults_than_anyone_reads_are_counted(api):
    answer = api.send(**{f"field{i}": 1 for i in range(500)})
    assert len(answer.json()["errors"]) == 101 and answer.json()["errors"][-1]["code"] == "too_many_faults"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=()), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
_NAMES = st.sampled_from(
    ["from", "to", "cc", "bcc", "reply_to", "subject", "html", "text", "headers", "attachments", "tags", "scheduled_at"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(_NAMES | st.text(max_size=10), _JSON, max_size=4))
def test_no_input_is_our_fault(api, fields):
    answer = api.send(**fields)
    assert answer.status_code < 500
    if answer.status_code != 200:
        answers.Error.model_validate(answer.json())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    item=st.dictionaries(
        st.sampled_from(["filename", "content", "content_type", "content_id", "name", "value"]), _JSON, max_size=4
    ),
    where=st.sampled_from(["attachments", "tags"]),
)
def test_no_attachment_and_no_tag_is_our_fault(api, item, where):
    assert api.send(**{where: [item]}).status_code < 500


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(octets=st.binary(max_size=200))
def test_no_octets_are_our_fault(api, octets):
    assert 400 <= api.raw("/emails", octets).status_code < 500


def test_paths_of_faults_can_always_be_encoded():
    assert json.dumps(reading.field_name(("a\ud800", 3, "b" * 500))).isascii()
