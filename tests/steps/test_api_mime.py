"""POST /emails/mime: a whole mail, by its header or an envelope of its own."""

import base64
from datetime import UTC, datetime

import pytest

from deliveries.mime.raw import MAX_OCTETS
from deliveries.models import Delivery, Message, MessageContent, Queued, SendingDomain
from mailapi.schemas import answers
from tests.steps.api import message_count

pytestmark = pytest.mark.django_db


def mail(api, *fields, to="Ann <ann@simulator.test>", body="Hello"):
    head = [f"From: Shop <orders@{api.domain}>", "Subject: Your =?utf-8?q?Rechnung_f=C3=BCr?= Ann", "X-Order: 17"]
    if to:
        head.append(f"To: {to}")
    return "\r\n".join([*head, *fields, "", body, ""]).encode()


def post(api, octets, **headers):
    return api.http.post(
        "/emails/mime", octets, content_type="message/rfc822", HTTP_AUTHORIZATION=f"Bearer {api.secret}", **headers
    )


def as_json(api, octets, **fields):
    return api.post("/emails/mime", {"raw": base64.b64encode(octets).decode(), **fields})


def recipients(answer):
    assert answer.status_code == 200, answer.json()
    answers.EmailAccepted.model_validate(answer.json())
    rows = Delivery.objects.filter(message_id=answer.json()["id"]).order_by("position")
    return [(row.recipient, row.field) for row in rows]


def test_a_whole_mail_goes_to_whom_its_header_names_and_bcc_never_leaves(api):
    octets = mail(api, "Cc: bob@simulator.test", "Bcc: dora@simulator.test")
    for answer in (post(api, octets), as_json(api, octets)):
        assert recipients(answer) == [
            ("ann@simulator.test", "to"), ("bob@simulator.test", "cc"), ("dora@simulator.test", "bcc"),
        ]  # fmt: skip
        stored = bytes(MessageContent.objects.get(id=answer.json()["id"]).raw)
        assert b"dora" not in stored and b"X-Order: 17\r\n" in stored and b"Subject: Your =?utf-8?q?" in stored
        assert Message.objects.get(id=answer.json()["id"]).subject == "Your Rechnung für Ann"


def test_an_envelope_comes_before_the_header(api):
    answer = as_json(api, mail(api, "Bcc: dora@simulator.test"), to=["eve@simulator.test"])
    assert recipients(answer) == [("eve@simulator.test", "bcc")]


def test_a_mail_that_names_nobody_needs_an_envelope(api):
    answer = post(api, mail(api, to=None))
    assert answer.status_code == 422
    assert [(f["field"], f["code"]) for f in answer.json()["errors"]] == [("to", "missing_required_field")]
    assert recipients(as_json(api, mail(api, to=None), to="eve@simulator.test")) == [("eve@simulator.test", "bcc")]


def test_what_the_header_asks_for_is_done_and_taken_out_and_the_json_comes_first(api):
    octets = mail(api, "X-Tags: kind=order", "X-Metadata-Order: 17", "X-Stream: receipts")
    sent = api.get(f"/emails/{post(api, octets).json()['id']}").json()
    assert (sent["tags"], sent["metadata"], sent["stream"]) == (
        [{"name": "kind", "value": "order"}], {"order": "17"}, "receipts",
    )  # fmt: skip
    assert sent["text"].strip() == "Hello"
    answer = as_json(api, octets, stream="news", priority="bulk", scheduled_at="in 1 hour")
    stored = Message.objects.get(id=answer.json()["id"])
    assert (stored.stream, stored.lane, stored.metadata) == ("news", 2, {"order": "17"}) and stored.scheduled_at
    assert b"X-Stream" not in bytes(MessageContent.objects.get(id=stored.id).raw)


def test_the_same_key_sends_one_mail(api):
    first = post(api, mail(api), HTTP_IDEMPOTENCY_KEY="k")
    again = post(api, mail(api), HTTP_IDEMPOTENCY_KEY="k")
    assert first.json() == again.json() and again.headers["Idempotent-Replayed"] == "true"
    assert post(api, mail(api, body="Other"), HTTP_IDEMPOTENCY_KEY="k").status_code == 409
    in_header = [post(api, mail(api, "X-Idempotency-Key: h", f"Date: {d} Jan 2026 00:00:00 +0000")) for d in (1, 2)]
    assert in_header[0].json() == in_header[1].json() and message_count(api) == 2


def test_lines_of_a_text_file_get_their_returns(api):
    answer = post(api, mail(api).replace(b"\r\n", b"\n"))
    assert recipients(answer) and b"\r\n\r\nHello\r\n" in bytes(MessageContent.objects.get(id=answer.json()["id"]).raw)


def test_files_of_a_whole_mail_are_shown_too(api):
    octets = (
        mail(api, "MIME-Version: 1.0", 'Content-Type: multipart/mixed; boundary="b"', body="").rstrip() + b"\r\n\r\n"
        b"--b\r\nContent-Type: text/plain\r\n\r\nHi\r\n--b\r\nContent-Type: application/pdf\r\n"
        b'Content-Disposition: attachment; filename="a.pdf"\r\n\r\n%PDF\r\n--b--\r\n'
    )
    sent = post(api, octets).json()["id"]
    [file] = api.get(f"/emails/{sent}/attachments").json()["data"]
    assert (file["filename"], file["content_type"]) == ("a.pdf", "application/pdf")
    assert api.http.get(file["download_url"].partition("://")[2].partition("/")[2].join(["/", ""])).content == b"%PDF"


@pytest.mark.parametrize(
    ("octets", "field"),
    [
        (b"\r\n", "From"),
        (b"no header at all", ""),
        (b"From: a@b.example\r\nSubject: x\rBcc: y@z\r\n\r\nx", ""),
        (b"From: a@b.example\r\n\0\r\n\r\nx", ""),
        (b"From: a@b.example\r\nFrom: c@d.example\r\nTo: e@f.example\r\n\r\nx", "From"),
        (b"From: a@b.example, c@d.example\r\nTo: e@f.example\r\n\r\nx", "From"),
        (b"To: e@f.example\r\n\r\nx", "From"),
    ],
)
def test_a_mail_that_two_readers_would_read_differently_is_refused(api, octets, field):
    for answer, place in ((post(api, octets), ""), (as_json(api, octets), "raw")):
        assert answer.status_code == 422, (octets, answer.json())
        answers.Error.model_validate(answer.json())
        names = {f["field"].lower() for f in answer.json()["errors"]}
        assert ".".join(filter(None, (place, field))).lower() in names, names
    assert message_count(api) == 0 and not Queued.objects.filter(tenant_id=api.tenant.id).exists()


def test_an_address_that_cannot_be_read_is_not_passed_over(api):
    answer = post(api, mail(api, to="ann@simulator.test, <broken"))
    assert answer.status_code == 422 and [f["code"] for f in answer.json()["errors"]] == ["invalid_address"]


def test_bounds_and_kinds(api):
    assert post(api, mail(api, body="x" * MAX_OCTETS)).status_code == 413
    many = ",\r\n ".join(f"r{i}@simulator.test" for i in range(51))
    assert [f["code"] for f in post(api, mail(api, to=many)).json()["errors"]] == ["too_many_recipients"]
    answer = api.http.post("/emails/mime", b"x", content_type="text/plain", HTTP_AUTHORIZATION=f"Bearer {api.secret}")
    assert answer.status_code == 415
    assert as_json(api, mail(api), subject="x").json()["errors"][0]["code"] == "unknown_field"
    foreign = mail(api).replace(api.domain.encode(), b"not-ours.example")
    assert post(api, foreign).status_code == 403 and message_count(api) == 0


def test_a_replay_is_answered_though_the_domain_was_suspended_meanwhile(api):
    key = {"HTTP_IDEMPOTENCY_KEY": "once"}
    one, batch = mail(api), [api.mail(), api.mail()]
    first, firsts = post(api, one, **key), api.post("/emails/batch", batch, **key)
    SendingDomain.objects.filter(tenant=api.tenant).update(suspended_at=datetime.now(UTC))
    again = post(api, one, **key)
    assert (again.status_code, again.json()) == (200, first.json()) and again["Idempotent-Replayed"] == "true"
    assert api.post("/emails/batch", batch, **key).json() == firsts.json()
    assert post(api, one).status_code == 403 and api.post("/emails/batch", batch).status_code == 403
    assert message_count(api) == 3
