"""Mailgun's face: forms, errors and limits, without its clients (tests/e2e/test_sdk_mailgun.py has them)."""

import base64
import json
from urllib.parse import urlencode

import pytest

from deliveries.models import Attachment, Message, MessageContent
from tests.steps.api import message_count

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=cut"


def mail(api, **fields):
    return {
        "from": f"orders@{api.domain}",
        "to": "delivered@simulator.test",
        "subject": "Hello",
        "text": "Hello",
    } | fields


def post(
    api,
    fields,
    path="messages",
    domain=None,
    key=None,
    kind="application/x-www-form-urlencoded",
    root="/compat/mailgun",
):
    octets = fields if isinstance(fields, bytes) else urlencode(fields, doseq=True).encode()
    basic = base64.b64encode(f"api:{key or api.secret}".encode()).decode()
    return api.http.post(
        f"{root}/v3/{domain or api.domain}/{path}", octets, content_type=kind, HTTP_AUTHORIZATION=f"Basic {basic}"
    )


def parts(*bodies):
    return b"".join(b"--cut\r\n" + body + b"\r\n" for body in bodies) + b"--cut--\r\n"


def field(name, value):
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()


def whole(api, *more):
    return parts(*(field(name, value) for name, value in mail(api).items()), *more)


def test_a_multipart_form_brings_files_as_they_are(api):
    octets = bytes(range(256)) + b"\r\n--cu\r\n\n--"
    one = b'Content-Disposition: form-data; name="attachment"; filename="a b.bin"\r\nContent-Type: x/y\r\n\r\n' + octets
    two = b"Content-Disposition: form-data; name=\"attachment\"; filename*=utf-8''%C3%A4.txt\r\n\r\n"
    answer = post(api, whole(api, one, two), kind=MULTIPART)
    assert answer.status_code == 200, answer.content
    stored = Message.objects.get(tenant=api.tenant)
    assert answer.json() == {"id": f"<{stored.message_id}>", "message": "Queued. Thank you."}
    files = Attachment.objects.filter(message_id=stored.id).order_by("position")
    assert [(f.filename, f.content_type, bytes(f.content)) for f in files] == [
        ("a b.bin", "x/y", octets),
        ("ä.txt", "text/plain", b""),
    ]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"to": "nobody"}, "nobody"),
        ({"to": []}, "to parameter is missing"),
        ({"from": []}, "from parameter is missing"),
        ({"to": " "}, "to parameter is missing"),
        ({"from": ","}, "from parameter is missing"),
        ({"text": []}, "Need at least one"),
        ({"subject": "a\r\nBcc: x@y.example"}, "line break"),
        ({"h:Bcc": "x@y.example"}, "h:Bcc: "),
        ({"h:X": "a\nb"}, "line break"),
        ({"v:a": "b\0c"}, "v:a: "),
        ({"text": "b\0c"}, "NUL"),
        ({"o:tag": "a\nb"}, "tag"),
        ({"o:deliverytime": "soon"}, "RFC 5322"),
        ({"o:deliverytime": "Fri, 31 Jan 2098 09:00:00 +0000"}, "30 days"),
        ({"o:require-tls": "yes"}, "TLS policy"),
        ({"h:X-Mailgun-Deliver-By": "Fri, 31 Jan 2031 09:00:00 +0000"}, "h:X-Mailgun-Deliver-By: "),
        ({"h:X-Mailgun-Variables": "[]"}, "h:X-Mailgun-Variables: Must be a JSON object"),
        ({"amp-html": "<html>"}, "AMP"),
        ({"recipient-variables": "{"}, "JSON"),
        ({"recipient-variables": '{"a@b.example": 1}'}, "JSON"),
        ({"attachment": "x"}, "file name"),
        ({"subjet": "x"}, "did you mean subject?"),
        ({"to": [f"a{i}@x.example" for i in range(1001)]}, "1001"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_stored(api, fields, word):
    answer = post(api, mail(api, **fields))
    assert answer.status_code == 400 and set(answer.json()) == {"message"}
    assert word in answer.json()["message"], answer.json()
    assert message_count(api) == 0


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", URLENCODED),
        (b"a=%ff", URLENCODED),
        (b"&".join(b"a=1" for _ in range(4_001)), URLENCODED),
        (b"{}", "application/json"),
        (b"", MULTIPART),
        (b"--cut\r\n", MULTIPART),
        (b"--cut x\r\n\r\n\r\n--cut--", MULTIPART),
        (parts(b"nothing"), MULTIPART),
        (parts(b"Content-Disposition: form-data\r\n\r\nx"), MULTIPART),
        (parts(field("a", "x").replace(b"x", b"\xff")), MULTIPART),
        (parts(b"X: " + b"y" * 5_000), MULTIPART),
        (parts(*[field("a", "1")] * 4_001), MULTIPART),
        (parts(field("a", "1")), "multipart/form-data"),
        (parts(field("a", "1")), "multipart/form-data; boundary=" + "x" * 90),
    ],
)
def test_a_body_that_is_no_form_is_refused(api, body, kind):
    answer = post(api, body, kind=kind)
    assert answer.status_code == 400 and set(answer.json()) == {"message"}
    assert message_count(api) == 0


def test_recipient_variables_make_a_mail_for_each(api):
    variables = {"A@simulator.test": {"name": "Ann", "n": 1}, "b@simulator.test": {"name": "%recipient.n%", "n": 2}}
    answer = post(
        api,
        mail(
            api,
            to=["Ann <a@simulator.test>, b@simulator.test", "a@simulator.test"],
            subject="%recipient.n%",
            text="Hi %recipient.name% %recipient_email%",
            **{"v:who": "%recipient.n%", "h:X-Empty": "", "recipient-variables": json.dumps(variables)},
        ),
    )
    assert answer.status_code == 200, answer.content
    rows = Message.objects.filter(tenant=api.tenant).order_by("id")
    contents = [MessageContent.objects.get(id=m.id) for m in rows]
    assert [(m.subject, dict(m.metadata), c.text, c.headers) for m, c in zip(rows, contents, strict=True)] == [
        ("1", {"who": "1"}, "Hi Ann a@simulator.test", []),
        ("2", {"who": "2"}, "Hi %recipient.n% b@simulator.test", []),
    ]


@pytest.mark.parametrize("text", ["a\r\nBcc: x@y.example", "\ud800", "a\0b"])
def test_a_variable_that_breaks_the_mail_is_refused(api, text):
    variables = json.dumps({"delivered@simulator.test": {"x": text}})
    answer = post(api, mail(api, subject="%recipient.x%", **{"recipient-variables": variables}))
    assert answer.status_code == 400
    assert message_count(api) == 0


def test_a_whole_mail_is_told_all_that_it_lacks(api):
    assert "message: " in (told := post(api, {"to": " "}, path="messages.mime").json()["message"]) and "to: " in told


def test_the_test_mode_checks_and_sends_nothing(api):
    assert post(api, mail(api, **{"o:testmode": "yes"})).json()["message"].startswith("Queued")
    assert message_count(api) == 0


def test_what_has_no_effect_is_named(api):
    answer = post(api, mail(api, **{"o:tracking": "yes", "o:require-tls": "no"}))
    assert answer.headers["X-Ignored-Fields"] == "o:require-tls, o:tracking"


def test_a_domain_that_is_not_ours_is_not_found(api):
    answer = post(api, mail(api), domain="elsewhere.example")
    assert (answer.status_code, answer.json()) == (404, {"message": "Domain not found: elsewhere.example"})
    assert post(api, mail(api) | {"from": "a@elsewhere.example"}).status_code == 403


def test_a_whole_mail_leaves_as_it_came_to_its_forward_paths(api):
    octets = f"From: a@{api.domain}\r\nTo: b@simulator.test\r\nX-Tag: own\r\nX-Stream: news\r\n\r\nHi\r\n"
    message = f'Content-Disposition: form-data; name="message"; filename="m.eml"\r\n\r\n{octets}'.encode()
    body = parts(field("to", "c@simulator.test"), field("o:tag", "x"), message)
    assert post(api, body, "messages.mime", kind=MULTIPART).status_code == 200
    stored = Message.objects.get(tenant=api.tenant)
    assert (stored.to, stored.bcc, stored.tags) == (
        ["b@simulator.test"],
        ["c@simulator.test"],
        [{"name": "own", "value": ""}, {"name": "x", "value": ""}],
    )
    assert stored.stream == "news"
    for fields in (
        {"to": "c@simulator.test"},
        {"message": octets},
        {"to": "c@d.example", "message": "From: x\r\n\r\n"},
    ):
        assert post(api, fields, "messages.mime").status_code == 400


def test_the_user_api_leads_to_the_face_from_the_root(api):
    assert post(api, mail(api), root="").status_code == 200
    assert post(api, mail(api), "nowhere", root="").status_code == 404


def test_a_key_that_is_missing_or_unknown_is_a_401(api):
    assert post(api, mail(api), key="nobody").json() == {"message": "Invalid private key"}
    answer = api.http.post(
        f"/compat/mailgun/v3/{api.domain}/messages", b"", content_type="application/x-www-form-urlencoded"
    )
    assert (answer.status_code, answer.headers["WWW-Authenticate"][:5]) == (401, "Basic")
