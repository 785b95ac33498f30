"""Reports that a client asks for over SMTP: made when it is so, once, with the null reverse-path, and never unasked."""

from __future__ import annotations

import email
import email.policy
import smtplib
import ssl
from collections.abc import Iterator
from datetime import timedelta
from email.message import EmailMessage

import pytest
import trustme
from django.utils import timezone

from deliveries import deliver, dsn, keys
from deliveries.deliver import jobs
from deliveries.models import Delivery, Message, Queued, ReportRequest
from deliveries.retry import Schedule
from deliveries.sandbox.lab import Lab
from tests.fakes.desk import desk
from tests.fakes.house import House, build
from tests.fakes.labs import fresh_pump, running_lab

pytestmark = pytest.mark.django_db(transaction=True)

ME = "delivered+me@simulator.test"


@pytest.fixture
def lab(settings) -> Iterator[Lab]:
    with running_lab() as lab, fresh_pump():
        settings.MAIL_ROUTE, settings.SANDBOX_SMTP = "sandbox", lab.address
        settings.RETRY = Schedule(waits_s=(600,), max_age_s=3600, unknown_wait_s=0.3, jitter=0)
        jobs._kept.clear()
        jobs._sender_cache.clear()
        yield lab


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def door(authority: trustme.CA) -> Iterator[tuple[tuple[str, int], ssl.SSLContext]]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with desk(authority) as (_, tls):
        yield tls, context


def submit(
    door,
    house: House,
    to: dict[str, str],
    sender: str = ME,
    mail: str = "RET=HDRS ENVID=id+2B1",
    body: str = "\r\nText",
) -> Message:
    """One mail; `to`: forward-path → its parameters."""
    where, context = door
    with smtplib.SMTP_SSL(*where, local_hostname="app.test", timeout=30, context=context) as smtp:
        smtp.login("apikey", house.secret)
        smtp.docmd(f"MAIL FROM:<{sender}> {mail}")
        for path, words in to.items():
            code, said = smtp.docmd(f"RCPT TO:<{path}> {words}")
            assert code == 250, said
        octets = f"From: {house.sender}\r\nSubject: the original\r\n{body}\r\n".encode()
        code, said = smtp.data(octets)
        assert code == 250, said
    return Message.objects.get(id=said.decode().split()[-1])


def reports(lab: Lab) -> list[tuple[str, EmailMessage]]:
    """(reverse-path, mail) of what came to ME."""
    ReportRequest.objects.update(due_at=timezone.now())
    dsn.run()
    deliver.run()
    return [
        (m.reverse_path, email.message_from_bytes(m.octets, policy=email.policy.default))
        for m in lab.messages
        if ME in str(email.message_from_bytes(m.octets)["to"])
    ]


def said(report: EmailMessage) -> dict[str, str]:
    status = list(report.iter_parts())[1].get_payload()
    return {name: str(value) for block in status for name, value in block.items()}


def test_a_failure_is_told_once_with_the_null_reverse_path(lab: Lab, door) -> None:
    house = build()
    submit(door, house, {"bounced@simulator.test": "NOTIFY=FAILURE,DELAY ORCPT=rfc822;Bounced+40simulator.test"})
    assert reports(lab) == []  # nothing is known yet
    deliver.run()
    ((reverse_path, report),) = reports(lab)
    assert reverse_path == "" and report["auto-submitted"] == "auto-replied"
    assert report["from"].addresses[0].addr_spec == f"mailer-daemon@{house.domain.name}"
    told = said(report)
    assert (told["Action"], told["Status"], told["Original-Envelope-Id"]) == ("failed", "5.1.1", "id+1")
    assert told["Original-Recipient"] == "rfc822; Bounced@simulator.test" and "550" in told["Diagnostic-Code"]
    assert "the original" in list(report.iter_parts())[2].get_content()
    assert len(reports(lab)) == 1 and not ReportRequest.objects.exists()
    assert Message.objects.filter(tenant=house.tenant, stream="reports").count() == 1


def test_a_mail_nested_too_deep_for_a_report_around_it_comes_back_by_its_header(lab: Lab, door) -> None:
    body = "Content-Type: message/rfc822\r\n\r\n" * 29 + "Text"
    submit(door, build(), {"bounced@simulator.test": "NOTIFY=FAILURE"}, mail="RET=FULL", body=body)
    deliver.run()
    ((_, report),) = reports(lab)
    assert "the original" in list(report.iter_parts())[2].get_content() and not ReportRequest.objects.exists()


def test_success_is_told_as_relayed_and_a_late_bounce_still_as_a_failure(lab: Lab, door) -> None:
    house = build()
    message = submit(door, house, {"delivered@simulator.test": "NOTIFY=SUCCESS,FAILURE"}, mail="")
    deliver.run()
    ((_, report),) = reports(lab)
    assert (said(report)["Action"], said(report)["Status"]) == ("relayed", "2.0.0")
    Delivery.objects.filter(message=message).update(
        status="bounced", late=True, reply="550 5.1.1 gone", enhanced="5.1.1"
    )
    assert [said(r)["Action"] for _, r in reports(lab)] == ["relayed", "failed"]
    assert not ReportRequest.objects.exists()


def test_a_delay_is_told_once_it_is_long_enough(lab: Lab, door, settings) -> None:
    settings.DSN_DELAY_S = 3600
    house = build()
    message = submit(door, house, {"deferred@simulator.test": "NOTIFY=DELAY"})
    deliver.run()
    assert reports(lab) == []
    ReportRequest.objects.filter(message_id=message.id).update(created_at=timezone.now() - timedelta(hours=2))
    ((_, report),) = reports(lab)
    assert said(report)["Action"] == "delayed" and said(report)["Status"][0] == "4" and said(report)["Will-Retry-Until"]
    assert len(reports(lab)) == 1
    assert Queued.objects.filter(delivery_id=Delivery.objects.get(message=message).id).exists()


def test_each_recipient_gets_the_report_that_was_asked_for_it(lab: Lab, door) -> None:
    house = build()
    to = {
        "bounced@simulator.test": "NOTIFY=FAILURE", "bounced+quiet@simulator.test": "NOTIFY=NEVER",
        "bounced+none@simulator.test": "", "delivered@simulator.test": "NOTIFY=FAILURE",
        "bounced+full@simulator.test": "NOTIFY=FAILURE",
    }  # fmt: skip
    submit(door, house, to, mail="RET=FULL")
    deliver.run()
    found = reports(lab)
    assert sorted(said(r)["Final-Recipient"] for _, r in found) == [
        "rfc822; bounced+full@simulator.test", "rfc822; bounced@simulator.test",
    ]  # fmt: skip
    assert {list(r.iter_parts())[2].get_content_type() for _, r in found} == {"message/rfc822"}


def test_neither_the_null_reverse_path_nor_an_automatic_reply_gets_one(lab: Lab, door) -> None:
    asked = {"bounced@simulator.test": "NOTIFY=FAILURE"}
    submit(door, build(), asked, sender="", mail="")
    submit(door, build(), asked, body="auto-submitted: Auto-Replied; x=y\r\n\r\nText")
    deliver.run()
    assert not ReportRequest.objects.exists()
    dsn.run()
    assert Message.objects.filter(stream="reports").count() == 0


def test_a_report_goes_by_another_key_when_the_first_is_over_and_ends_when_there_is_none(lab: Lab, door) -> None:
    house = build()
    other, _ = keys.create(house.tenant, "other")
    submit(door, house, {"bounced@simulator.test": "NOTIFY=FAILURE"})
    submit(door, house, {"bounced+2@simulator.test": "NOTIFY=FAILURE"})
    deliver.run()
    keys.revoke([house.key.id], "test")
    first = ReportRequest.objects.order_by("created_at").first()
    ReportRequest.objects.exclude(delivery_id=first.delivery_id).update(due_at=timezone.now() + timedelta(hours=1))
    assert dsn.run() == 1
    keys.revoke([other.id], "test")
    ReportRequest.objects.update(due_at=timezone.now())
    dsn.run()
    assert not ReportRequest.objects.exists()
    assert Message.objects.filter(tenant=house.tenant, stream="reports").count() == 1
