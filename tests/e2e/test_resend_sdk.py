"""The unmodified Resend SDK against a real web process: only the URL is changed."""

import base64
import http.client
import json
import socket
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
import resend
from resend import exceptions

from deliveries.models import Attachment, Message, SendingDomain, Suppression

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _pointed_at_us(server, account, monkeypatch):
    monkeypatch.setattr(resend, "api_url", server)
    monkeypatch.setattr(resend, "api_key", account.secret)


def test_the_sdk_sends_finds_and_lists(account):
    params = {
        "from": f"Shop <orders@{account.domain}>",
        "to": ["delivered@simulator.test"],
        "subject": "Grüße 🎉",
        "html": "<p>Hi</p>",
        "attachments": [{"filename": "a.pdf", "content": list(b"%PDF-1.7")}],
        "tags": [{"name": "kind", "value": "order"}],
    }
    sent = resend.Emails.send(params, {"idempotency_key": "order-17"})
    again = resend.Emails.send(params, {"idempotency_key": "order-17"})
    assert sent["id"] == again["id"] and Message.objects.count() == 1
    assert bytes(Attachment.objects.get(message_id=sent["id"]).content) == b"%PDF-1.7"
    found = resend.Emails.get(sent["id"])
    assert found["subject"] == "Grüße 🎉" and found["last_event"] == "queued" and found["to"] == params["to"]
    assert found["deliveries"][0]["recipient"] == "delivered@simulator.test"
    page = resend.Emails.list({"limit": 1})
    assert [m["id"] for m in page["data"]] == [sent["id"]] and page["has_more"] is False


def test_the_sdk_sends_a_batch_strict_and_permissive(account):
    good = {"from": f"a@{account.domain}", "to": "b@simulator.test", "subject": "x", "text": "y"}
    assert len(resend.Batch.send([good, good])["data"]) == 2
    with pytest.raises(exceptions.ValidationError):
        resend.Batch.send([good, {**good, "to": "nobody"}])
    answer = resend.Batch.send([good, {**good, "to": "nobody"}], {"batch_validation": "permissive"})
    assert len(answer["data"]) == 1 and answer["errors"][0]["index"] == 1
    assert Message.objects.count() == 3


def test_the_sdk_makes_shows_lists_and_removes_a_webhook(account):
    made = resend.Webhooks.create({"endpoint": "https://app.example.com/hook", "events": ["email.delivered"]})
    assert made["object"] == "webhook" and made["signing_secret"].startswith("whsec_")
    assert resend.Webhooks.get(made["id"])["endpoint"] == "https://app.example.com/hook"
    assert [w["id"] for w in resend.Webhooks.list()["data"]] == [made["id"]]
    changed = {"webhook_id": made["id"], "events": ["email.sent"], "status": "disabled"}
    assert resend.Webhooks.update(changed)["id"] == made["id"]
    assert resend.Webhooks.get(made["id"])["status"] == "disabled"
    resend.Webhooks.update({"webhook_id": made["id"], "status": "enabled"})
    turned = resend.Webhooks.rotate_signing_secret(made["id"])
    assert turned["signing_secret"] not in ("", made["signing_secret"])
    resend.Emails.send({"from": f"a@{account.domain}", "to": ["delivered@simulator.test"], "subject": "x", "text": "y"})
    (event,) = resend.Webhooks.list_events(made["id"])["data"]
    assert resend.Webhooks.get_event(made["id"], event["id"])["payload"]["type"] == event["type"] == "email.sent"
    assert resend.Webhooks.replay_event(made["id"], event["id"])["id"] == event["id"]
    assert resend.Webhooks.list_event_attempts(made["id"], event["id"], {"limit": 1})["object"] == "list"
    assert resend.Webhooks.remove(made["id"])["deleted"] is True


def test_the_sdk_lists_domains_and_suppressions(account):
    Suppression.objects.create(
        tenant=account.tenant, address="gone@x.example", reason="bounce", created_at=datetime.now(UTC)
    )
    assert resend.Domains.list()["data"][0]["status"] == "verified"
    assert resend.Suppressions.list()["data"][0]["email"] == "gone@x.example"
    assert SendingDomain.objects.count() == 1


def test_errors_become_the_exceptions_of_the_sdk(account, monkeypatch):
    good = {"from": f"a@{account.domain}", "to": "b@simulator.test", "subject": "x", "text": "y"}
    with pytest.raises(exceptions.MissingRequiredFieldsError, match="subject"):
        resend.Emails.send({k: v for k, v in good.items() if k != "subject"})
    with pytest.raises(exceptions.ValidationError, match=r"to\[0\]"):
        resend.Emails.send({**good, "to": "x"})
    with pytest.raises(exceptions.ResendError) as caught:
        resend.Emails.send({**good, "from": "a@elsewhere.example"})
    assert (caught.value.code, caught.value.error_type) == (403, "validation_error")
    with pytest.raises(exceptions.ResendError) as caught:
        resend.Emails.get("01900000-0000-7000-8000-000000000000")
    assert (caught.value.code, caught.value.error_type) == (404, "not_found")
    resend.Emails.send(good, {"idempotency_key": "k"})
    with pytest.raises(exceptions.ResendError) as caught:
        resend.Emails.send({**good, "subject": "z"}, {"idempotency_key": "k"})
    assert caught.value.error_type == "invalid_idempotent_request"
    monkeypatch.setattr(resend, "api_key", "re_wrong")
    with pytest.raises(exceptions.InvalidApiKeyError):
        resend.Emails.send(good)
    assert Message.objects.count() == 1


def _post(server, account, body, headers, chunked=False):
    link = http.client.HTTPConnection(urlsplit(server).netloc, timeout=120)
    headers = {"Authorization": f"Bearer {account.secret}", "Content-Type": "application/json", **headers}
    link.request("POST", "/emails", body=body, headers=headers, encode_chunked=chunked)
    answer = link.getresponse()
    found = answer.status, json.loads(answer.read())
    link.close()
    return found


def test_a_body_in_chunks_is_read_and_capped(server, account):
    mail = json.dumps(account.mail()).encode()
    status, _ = _post(server, account, iter([mail[:10], mail[10:]]), {"Transfer-Encoding": "chunked"}, True)
    assert status == 200
    piece = b" " * 1_048_576
    try:
        status, body = _post(server, account, iter([piece] * 42), {"Transfer-Encoding": "chunked"}, True)
        assert (status, body["name"]) == (413, "payload_too_large")
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before all of it was sent
    assert Message.objects.count() == 1


def test_a_body_that_says_it_is_too_large_is_refused_unread(server, account):
    with socket.create_connection(("127.0.0.1", urlsplit(server).port), timeout=60) as link:
        head = f"POST /emails HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {account.secret}\r\n"
        link.sendall(head.encode() + b"Content-Length: 9999999999\r\n\r\n{")
        assert b" 413 " in link.recv(200)


def test_a_mail_of_nearly_forty_megabytes_is_taken(server, account):
    content = base64.b64encode(b"\0" * (29 * 1024 * 1024)).decode()
    mail = json.dumps(account.mail(attachments=[{"filename": "a.bin", "content": content}])).encode()
    status, body = _post(server, account, mail, {})
    assert status == 200, body
