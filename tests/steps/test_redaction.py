"""What a mail is asked not to keep goes once it is finished, never before, and every reader says so."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command

from deliveries import prune, queue
from deliveries.accept.repeat import send_again
from deliveries.errors import BadInput
from deliveries.mime import compose, raw
from deliveries.mime.address import parse_address
from deliveries.mime.control import read_control
from deliveries.models import (
    Attachment,
    Attempt,
    Delivery,
    Event,
    InboundMessage,
    Message,
    MessageContent,
    RequestLog,
    SendingDomain,
)
from deliveries.record import operator, redaction, reports, retention, visits
from deliveries.record.outcomes import record
from deliveries.states import Category, EventType, Redact
from mailapi import auth, noting
from tests.fakes.house import build, known_sites
from tests.steps.api import Client, make_tenant, template
from tests.steps.test_face_postmark import post as as_postmark
from tests.steps.test_record import BOUNCED, DEFERRED, result

pytestmark = pytest.mark.django_db(transaction=True)
FILE = compose.Attachment("a.txt", "text/plain", b"x")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PAUSE_S", 0)


@pytest.fixture
def api() -> Client:
    auth.forget()
    noting.logbook.cache_clear()
    return Client(make_tenant())


def end(message_id) -> None:
    ids = list(Delivery.objects.filter(message_id=message_id).values_list("id", flat=True))
    assert operator.cancel(ids, "test") == len(ids)


def kept(message_id) -> tuple[int, int]:
    return (
        MessageContent.objects.filter(id=message_id).count(),
        Attachment.objects.filter(message_id=message_id).count(),
    )


def test_the_content_goes_once_the_last_recipient_is_final_and_not_before() -> None:
    house = build()
    first, second = house.send("a@one.test", "b@one.test", attachments=(FILE,), redact=Redact.CONTENT)
    (other,) = house.send("c@one.test", attachments=(FILE,))
    operator.cancel([first.id, other.id], "test")
    prune.redact()
    assert kept(first.message_id) == (1, 1)
    operator.cancel([second.id], "test")
    prune.redact()
    assert kept(first.message_id) == (0, 0) and kept(other.message_id) == (1, 1)
    row = Message.objects.get(id=first.message_id)
    assert row.subject == "Your receipt" and row.redacted_at and prune.redact() == 0


@pytest.mark.parametrize("verdict", [DEFERRED, BOUNCED], ids=["is tried again", "is final"])
def test_what_must_be_tried_again_keeps_its_content(verdict, settings) -> None:
    settings.MAIL_ROUTE = "mx"
    known_sites("one.test")
    house, lease = build(), uuid4()
    (delivery,) = house.send("a@one.test", redact=Redact.CONTENT)
    assert len(queue.claim(lease, 100, 1 << 26, {}).rows) == 1
    prune.redact()
    assert kept(delivery.message_id) == (1, 0)
    record([result(delivery.id, lease, verdict)])
    prune.redact()
    assert kept(delivery.message_id) == (int(verdict is DEFERRED), 0)


def test_api_panel_terminal_and_the_sender_again_say_redacted(api, capsys) -> None:
    ident = api.send(redact="everything", metadata={"order": "17"}).json()["id"]
    assert api.get(f"/emails/{ident}").json()["redacted_at"] is None
    end(ident)
    prune.redact()
    said = api.get(f"/emails/{ident}").json()
    assert said["redacted_at"] and (said["text"], said["subject"], said["metadata"]) == (None, "", {})
    row = Message.objects.get(id=ident)
    with pytest.raises(BadInput, match="redacted"):
        send_again(row, [parse_address("a@one.test")], "test")
    call_command("trace", ident)
    assert "redacted" in capsys.readouterr().out


def test_a_stream_and_a_template_ask_for_it_for_their_mails(api) -> None:
    domain = SendingDomain.objects.get(name=api.domain)
    asked = {"redact_streams": {"otp": "everything", "reset": "content"}}
    assert api.patch(f"/domains/{domain.id}", asked).status_code == 200
    assert api.get(f"/domains/{domain.id}").json()["redact_streams"] == asked["redact_streams"]
    row = template(api, "secret", "native", subject="Hi", html="<p>Hi</p>", text="Hi")
    assert api.patch(f"/templates/{row.id}", {"redact": "everything"}).status_code == 200
    assert api.get("/templates/secret").json()["redact"] == "everything"
    by_template = {"from": f"a@{api.domain}", "to": "a@simulator.test", "template": {"id": "secret"}}
    mails = {
        "otp": api.send(stream="otp"),
        "reset": api.send(stream="reset"),
        "both": api.send(stream="reset", redact="everything"),
        "none": api.send(),
        "template": api.post("/emails", by_template),
        "own word": api.post("/emails", {**by_template, "redact": "content"}),
    }
    levels = {name: Message.objects.get(id=answer.json()["id"]).redact for name, answer in mails.items()}
    assert levels == {"otp": 3, "reset": 1, "both": 3, "none": 0, "template": 3, "own word": 1}
    foreign = {"From": f"a@{api.domain}", "To": "a@simulator.test", "TemplateAlias": "secret", "TemplateModel": {}}
    answer = as_postmark(api, "/email/withTemplate", foreign)
    assert Message.objects.get(id=answer.json()["MessageID"]).redact == 3
    assert api.patch(f"/templates/{row.id}", {"redact": None}).status_code == 200
    assert Message.objects.get(id=api.post("/emails", by_template).json()["id"]).redact == 0


def test_a_whole_mail_asks_by_a_header_field_that_does_not_leave() -> None:
    mail = raw.read(b"From: a@one.test\r\nTo: b@two.test\r\nX-Redact: Content\r\nSubject: x\r\n\r\nHello\r\n")
    assert read_control(mail.control, datetime.now(UTC)).redact is Redact.CONTENT
    assert b"redact" not in mail.octets.lower()
    with pytest.raises(BadInput, match="content or everything"):
        read_control([("x-redact", "yes")], datetime.now(UTC))


@pytest.mark.parametrize("wrong", ["all", "", 1, ["content"], True])
def test_other_words_are_refused_by_name_and_nothing_is_stored(api, wrong) -> None:
    answer = api.send(redact=wrong)
    assert answer.status_code == 422 and "redact" in answer.content.decode()
    domain = SendingDomain.objects.get(name=api.domain)
    assert api.patch(f"/domains/{domain.id}", {"redact_streams": {"otp": wrong}}).status_code == 422
    assert api.patch(f"/domains/{domain.id}", {"redact_streams": {"O T P": "content"}}).status_code == 422
    assert not Message.objects.filter(tenant=api.tenant).exists()
    assert not SendingDomain.objects.get(name=api.domain).redact_streams


def test_what_the_log_of_requests_kept_of_the_body_goes_with_it(api) -> None:
    secret, other = api.send(redact="content", text="code 4711").json()["id"], api.send(text="code 42").json()["id"]
    noting.logbook().flush()
    end(secret)
    end(other)
    prune.redact()
    bodies = {str(r.request_body) for r in RequestLog.objects.filter(tenant_id=api.tenant.id)}
    assert any("code 42" in body for body in bodies) and not any("4711" in body for body in bodies)
    # what came between a mail that waited for days and those of a minute ago is not read
    first, second, last = (retention.first_id(datetime.now(UTC) - timedelta(seconds=s)) for s in (200_000, 90, 60))
    low, next_low = (retention.first_id(redaction.moment_of(i) - timedelta(seconds=60)) for i in (first, second))
    assert redaction._spans([last, first, second]) == [(low, first), (next_low, last)]


def test_a_report_that_brings_the_mail_back_is_not_kept_once_it_was_read() -> None:
    house = build()
    (code,), (plain,) = house.send("a@one.test", redact=Redact.CONTENT), house.send("b@one.test")
    for delivery, left in ((code, b""), (plain, b"Your code is 1234")):
        returned = InboundMessage.objects.create(
            received_at=datetime.now(UTC), peer="x", forward_path="b@here.test", octets=b"Your code is 1234"
        )
        said = reports.Refused(Category.BAD_MAILBOX, "gone", True, "550 5.1.1 no such user")
        assert reports.bounced(reports.Reading(returned.id, "bounce"), delivery.id, said)
        returned.refresh_from_db()
        assert (returned.state, bytes(returned.octets)) == ("acted", left)


def test_privacy_keeps_nothing_of_a_finished_mail_but_that_it_was(settings) -> None:
    settings.MAIL_ROUTE = "mx"
    known_sites("one.test")
    house, lease = build(), uuid4()
    house.domain.open_tracking = house.domain.click_tracking = True
    house.domain.save()
    house.tenant.privacy = True
    house.tenant.save()
    (delivery,) = house.send("ann@one.test", html="<p>x</p>")
    assert Message.objects.get(id=delivery.message_id).tracking == 0
    assert len(queue.claim(lease, 100, 1 << 26, {}).rows) == 1
    talk = "0 C: RCPT TO:<ann@one.test>\n1 S: 550 no ann@one.test here"
    record([result(delivery.id, lease, BOUNCED, talk)])
    visits.record([visits.Visit(delivery.id, EventType.OPENED, datetime.now(UTC), "192.0.2.9", "Mozilla")])
    prune.redact()
    assert kept(delivery.message_id) == (0, 0)
    attempt = Attempt.objects.get(delivery_id=delivery.id)
    assert attempt.transcript == "0 C: RCPT TO:<(address)>\n1 S: 550 no (address) here"
    (opened,) = Event.objects.filter(delivery_id=delivery.id, type=EventType.OPENED)
    assert "ip" not in opened.data and "user_agent" not in opened.data


def test_privacy_logs_requests_without_bodies_and_forgets_mail_early(api, settings) -> None:
    api.tenant.privacy = True
    api.tenant.save()
    ident = api.send().json()["id"]
    noting.logbook().flush()
    (logged,) = RequestLog.objects.filter(tenant_id=api.tenant.id)
    assert logged.request_body is None and logged.response_body is None
    end(ident)
    settings.KEEP_PRIVATE_DAYS = 3
    prune.retain(datetime.now(UTC) + timedelta(days=2))
    assert Message.objects.filter(id=ident).exists()
    prune.retain(datetime.now(UTC) + timedelta(days=4))
    assert not Message.objects.filter(id=ident).exists()
    assert not Event.objects.filter(message_id=UUID(ident)).exists()


def test_the_whole_service_may_be_private(api, settings) -> None:
    settings.PRIVACY = True
    ident = api.send(html="<p>x</p>").json()["id"]
    assert Message.objects.get(id=ident).redact == 7
    noting.logbook().flush()
    assert [r.request_body for r in RequestLog.objects.filter(tenant_id=api.tenant.id)] == [None]
    assert json.loads(api.get(f"/emails/{ident}").content)["html"] == "<p>x</p>"
