"""A report of our own: readable by Python's library and by our reader of other people's, and never two lines of one."""

from __future__ import annotations

import email
import email.policy
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from deliveries.bounces.report import ReportKind, read_report
from deliveries.mime import raw
from deliveries.mime.notification import Notification, notification, xtext

AT = datetime(2030, 1, 31, 9, 0, tzinfo=UTC)
TOLD = Notification(
    delivery_id=uuid.UUID(int=7), sender="mailer-daemon@one.test", to="app@client.test", reporting_host="mx.ours.test",
    at=AT, arrived=AT, recipient="ann@two.test", action="failed", status="5.1.1",
    reply="550 5.1.1 no such user", remote_host="mx.two.test", envid="QQ+2B17", orcpt="rfc822;Ann+40two.test",
    original=b"From: app@one.test\r\nSubject: hello\r\n\r\nText\r\n",
)  # fmt: skip


def parts(octets: bytes):
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert message.get_content_type() == "multipart/report" and message.get_param("report-type") == "delivery-status"
    return message, list(message.iter_parts())


def test_a_failure_is_told_as_rfc_3464_has_it() -> None:
    message, (text, status, original) = parts(notification(TOLD))
    assert message["auto-submitted"] == "auto-replied" and message["to"] == "app@client.test"
    assert "550 5.1.1 no such user" in text.get_content()
    per_message, per_recipient = status.get_payload()
    assert per_message["Original-Envelope-Id"] == "QQ+17" and per_message["Reporting-MTA"] == "dns; mx.ours.test"
    assert dict(per_recipient.items()) == {
        "Original-Recipient": "rfc822; Ann@two.test",
        "Final-Recipient": "rfc822; ann@two.test",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.two.test",
        "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
        "Last-Attempt-Date": "Thu, 31 Jan 2030 09:00:00 +0000",
    }
    assert original.get_content_type() == "text/rfc822-headers"
    assert original.get_content().split() == ["From:", "app@one.test", "Subject:", "hello"]


def test_the_whole_mail_comes_back_where_that_is_asked_for() -> None:
    _, (_, _, original) = parts(notification(replace(TOLD, whole=True)))
    assert original.get_content_type() == "message/rfc822"
    assert original.get_content().get_content().strip() == "Text"


@pytest.mark.parametrize(("action", "status", "kind"), [
    ("failed", "5.1.1", ReportKind.BOUNCE), ("delayed", "4.4.1", ReportKind.DELAYED),
    ("relayed", "2.0.0", ReportKind.DELIVERED),
])  # fmt: skip
def test_our_own_reader_understands_each(action: str, status: str, kind: ReportKind) -> None:
    told = replace(TOLD, action=action, status=status, until=AT if action == "delayed" else None)
    octets = notification(told)
    assert read_report(octets).kind is kind
    assert raw.read(octets).octets == octets  # it may leave as it is
    assert raw.composed(octets, "i@one.test", AT).null_return


def test_nothing_that_a_peer_or_a_client_wrote_begins_a_line() -> None:
    evil = "x\r\nBcc: evil@x.test\r\n\r\n--y"
    hidden = "a+0D+0ABcc:+20evil+40x.test"
    octets = notification(replace(TOLD, reply=evil, remote_host=evil, envid=hidden, orcpt=f"rfc822;{hidden}"))
    assert b"\nBcc" not in octets and octets.count(b"\n") == octets.count(b"\r\n")
    assert len(parts(octets)[1]) == 3
    assert xtext("a+2Bb+3Dc") == "a+b=c"
