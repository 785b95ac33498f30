"""Mails that come back after a 250: a DSN (RFC 3464), a feedback report (RFC 5965), a vacation note (RFC 3834).

All take the accepted mail and give CRLF octets in 7 bits. They are sent with the null reverse-path.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime
from uuid import uuid4

from deliveries.sandbox.behaviours import DOMAIN, Report
from deliveries.sandbox.spool import Accepted

_MAX_LINE = 900


def write(kind: Report, mail: Accepted, host: str, now: datetime | None = None) -> bytes:
    """The report about `mail`, addressed to its reverse-path."""
    date = format_datetime(now or datetime.now(UTC))
    text = {Report.DSN: _dsn, Report.ARF: _arf, Report.VACATION: _vacation}[kind](mail, host, date)
    return text.replace("\n", "\r\n").encode("ascii", "replace")


def _dsn(mail: Accepted, host: str, date: str) -> str:
    rcpt, mark = mail.forward_paths[0], uuid4().hex
    return f"""\
From: Mail Delivery System <MAILER-DAEMON@{host}>
To: <{mail.reverse_path}>
Subject: Undelivered Mail Returned to Sender
Date: {date}
Message-ID: <{mark}@{host}>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="{mark}"

--{mark}
Content-Type: text/plain; charset=us-ascii

This is the mail system at host {host}.

Your message could not be delivered to one or more recipients.

<{rcpt}>: host mailbox.{DOMAIN} said: 550 5.1.1 User unknown

--{mark}
Content-Type: message/delivery-status

Reporting-MTA: dns; {host}
Arrival-Date: {date}

Final-Recipient: rfc822; {rcpt}
Original-Recipient: rfc822; {rcpt}
Action: failed
Status: 5.1.1
Remote-MTA: dns; mailbox.{DOMAIN}
Diagnostic-Code: smtp; 550 5.1.1 User unknown

--{mark}
Content-Type: text/rfc822-headers

{_head(mail)}

--{mark}--
"""


def _arf(mail: Accepted, host: str, date: str) -> str:
    mark = uuid4().hex
    return f"""\
From: Feedback loop <feedback@{host}>
To: <{mail.reverse_path}>
Subject: Complaint about message from {mail.peer}
Date: {date}
Message-ID: <{mark}@{host}>
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="{mark}"

--{mark}
Content-Type: text/plain; charset=us-ascii

This is an email abuse report for a message received from IP {mail.peer}
on {mail.at}.

--{mark}
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: simulator/1.0
Version: 1
Original-Mail-From: <{mail.reverse_path}>
Original-Rcpt-To: <{mail.forward_paths[0]}>
Arrival-Date: {date}
Source-IP: {mail.peer}
Reporting-MTA: dns; {host}

--{mark}
Content-Type: message/rfc822

{_head(mail)}

(the text was left out)
--{mark}--
"""


def _vacation(mail: Accepted, host: str, date: str) -> str:
    return f"""\
From: <{mail.forward_paths[0]}>
To: <{mail.reverse_path}>
Subject: Out of office: {_line(mail.subject)}
Date: {date}
Message-ID: <{uuid4().hex}@{host}>
In-Reply-To: {_line(mail.message_id)}
Auto-Submitted: auto-replied
Precedence: bulk
MIME-Version: 1.0
Content-Type: text/plain; charset=us-ascii

I am away until Monday and read no mail until then.
"""


def _head(mail: Accepted) -> str:
    """The header section as it came, in ASCII, with lines cut to a safe length."""
    head = mail.octets.partition(b"\r\n\r\n")[0].decode("ascii", "replace")
    return "\n".join(_line(line) for line in head.split("\r\n"))


def _line(text: str) -> str:
    return re.sub(r"[^\x20-\x7e\t]", "?", text)[:_MAX_LINE]
