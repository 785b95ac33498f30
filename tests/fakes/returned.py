"""Mails that come back about a delivery, as other servers write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.conf import settings

from deliveries.mime import verp
from deliveries.models import Delivery, InboundMessage
from deliveries.models.fields import uuid7


def token(delivery: Delivery, days: float = 30) -> str:
    """As deliver mints it: good for 30 days after the delivery is given up."""
    return verp.mint(verp.Keys.parse(settings.VERP_KEYS), delivery.id, datetime.now(UTC) + timedelta(days=days))


def address(delivery: Delivery, days: float = 30) -> str:
    return verp.reverse_path(token(delivery, days), settings.BOUNCE_DOMAIN)


def dsn(
    recipient: str, action: str = "failed", status: str = "5.1.1", said: str = "550 5.1.1 User unknown", head: str = ""
) -> bytes:
    """RFC 3464, with the header of the mail returned (`head`: more of its fields)."""
    return f"""\
From: MAILER-DAEMON@mx.one.test
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: text/plain

The mail could not be delivered.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.one.test

Final-Recipient: rfc822; {recipient}
Action: {action}
Status: {status}
Diagnostic-Code: smtp; {said}

--b
Content-Type: text/rfc822-headers

From: app@example.test
To: {recipient}
Subject: Your receipt
{head}
--b--
""".replace("\n", "\r\n").encode()


def complaint(feedback_type: str = "abuse", head: str = "") -> bytes:
    """RFC 5965, with every address redacted."""
    return f"""\
From: feedback@fbl.example.test
Subject: FW: Your receipt
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: text/plain

This is a report about abuse.

--b
Content-Type: message/feedback-report

Feedback-Type: {feedback_type}
User-Agent: fbl/1.0
Version: 1

--b
Content-Type: message/rfc822

From: app@example.test
To: redacted@example.test
Subject: Your receipt
{head}
Hello.
--b--
""".replace("\n", "\r\n").encode()


VACATION = b"From: ann@one.test\r\nSubject: Out of office\r\nAuto-Submitted: auto-replied\r\n\r\nI am away.\r\n"


def came(forward_path: str, octets: bytes, at: datetime | None = None, **fields: object) -> InboundMessage:
    """The row that smtpd writes."""
    return InboundMessage.objects.create(
        id=uuid7(),
        received_at=at or datetime.now(UTC),
        peer="192.0.2.1",
        forward_path=forward_path,
        octets=octets,
        **fields,
    )
