"""One mail sent by every door is one mail on the wire, but for ids and dates."""

from __future__ import annotations

import base64
import email
import json
import re
import time
from collections.abc import Iterator
from email import policy

import pytest
from django.test import Client

from deliveries import deliver
from deliveries.sandbox.lab import Lab
from tests.fakes.house import House, build
from tests.fakes.labs import fresh_pump, running_lab

pytestmark = pytest.mark.django_db(transaction=True)

TO, CC, BCC = "Änne <delivered@simulator.test>", "delivered+cc@simulator.test", "delivered+bcc@simulator.test"
SUBJECT, TEXT = "Grüße 🎉 and a subject that is so long that it has to be folded somewhere on its way", "Hi Änne\n"
HTML = '<p>Hi Änne <img src="cid:logo.png"></p>'
FILE, IMAGE = base64.b64encode(b"attached").decode(), base64.b64encode(b"png").decode()
#: what is made anew for each mail or each recipient
OWN = {"message-id", "date", "dkim-signature", "received"}


def native(http: Client, house: House) -> int:
    body = {
        "from": house.sender, "to": TO, "cc": CC, "bcc": BCC, "reply_to": "help@simulator.test", "subject": SUBJECT,
        "text": TEXT, "html": HTML, "headers": {"X-Order": "17"},
        "attachments": [
            {"filename": "a.txt", "content": FILE, "content_type": "text/plain"},
            {"filename": "logo.png", "content": IMAGE, "content_type": "image/png", "content_id": "logo.png"},
        ],
    }  # fmt: skip
    return _json(http, "/emails", body, HTTP_AUTHORIZATION=f"Bearer {house.secret}")


def postmark(http: Client, house: House) -> int:
    body = {
        "From": house.sender, "To": TO, "Cc": CC, "Bcc": BCC, "ReplyTo": "help@simulator.test", "Subject": SUBJECT,
        "TextBody": TEXT, "HtmlBody": HTML, "Headers": [{"Name": "X-Order", "Value": "17"}],
        "Attachments": [
            {"Name": "a.txt", "Content": FILE, "ContentType": "text/plain"},
            {"Name": "logo.png", "Content": IMAGE, "ContentType": "image/png", "ContentID": "cid:logo.png"},
        ],
    }  # fmt: skip
    return _json(http, "/compat/postmark/email", body, HTTP_X_POSTMARK_SERVER_TOKEN=house.secret)


def sendgrid(http: Client, house: House) -> int:
    people = {
        "to": [{"email": "delivered@simulator.test", "name": "Änne"}],
        "cc": [{"email": CC}],
        "bcc": [{"email": BCC}],
    }
    body = {
        "personalizations": [people], "from": {"email": f"app@{house.domain.name}", "name": "App"},
        "reply_to": {"email": "help@simulator.test"}, "subject": SUBJECT, "headers": {"X-Order": "17"},
        "content": [{"type": "text/plain", "value": TEXT}, {"type": "text/html", "value": HTML}],
        "attachments": [
            {"filename": "a.txt", "content": FILE, "type": "text/plain"},
            {
                "filename": "logo.png", "content": IMAGE, "type": "image/png", "disposition": "inline",
                "content_id": "logo.png",
            },
        ],
    }  # fmt: skip
    return _json(http, "/compat/sendgrid/v3/mail/send", body, HTTP_AUTHORIZATION=f"Bearer {house.secret}")


def mailgun(http: Client, house: House) -> int:
    fields = {
        "from": house.sender, "to": TO, "cc": CC, "bcc": BCC, "h:Reply-To": "help@simulator.test", "subject": SUBJECT,
        "text": TEXT, "html": HTML, "h:X-Order": "17",
    }  # fmt: skip
    parts = [f'name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()]
    parts.append(b'name="attachment"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\nattached')
    parts.append(b'name="inline"; filename="logo.png"\r\nContent-Type: image/png\r\n\r\npng')
    octets = b"".join(b"--cut\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--cut--\r\n"
    basic = base64.b64encode(f"api:{house.secret}".encode()).decode()
    return http.post(
        f"/compat/mailgun/v3/{house.domain.name}/messages", octets,
        content_type="multipart/form-data; boundary=cut", HTTP_AUTHORIZATION=f"Basic {basic}",
    ).status_code  # fmt: skip


def _json(http: Client, path: str, body: dict, **headers: str) -> int:
    return http.post(path, json.dumps(body), content_type="application/json", **headers).status_code


def structure(octets: bytes) -> list[object]:
    """Every header field and every part as it stands on the wire, without what is a mail's own."""
    boundaries = re.findall(rb'boundary="?([^";\r\n]+)', octets)
    for number, boundary in enumerate(dict.fromkeys(boundaries)):
        octets = octets.replace(boundary, b"boundary-%d" % number)
    whole = email.message_from_bytes(octets, policy=policy.compat32)
    return [
        [(n, v) for n, v in part.items() if n.lower() not in OWN and not n.lower().startswith("x-mailapi-")]
        + [None if part.is_multipart() else part.get_payload()]
        for part in whole.walk()
    ]


@pytest.fixture
def lab(settings) -> Iterator[Lab]:
    with running_lab() as lab, fresh_pump():
        settings.MAIL_ROUTE, settings.SANDBOX_SMTP = "sandbox", lab.address
        yield lab


def test_the_same_content_by_each_door_is_the_same_mail_on_the_wire(lab: Lab) -> None:
    house, http, seen = build(), Client(), {}
    for door in (native, postmark, sendgrid, mailgun):
        already = len(lab.messages)
        assert door(http, house) in (200, 202), door.__name__
        end = time.monotonic() + 60
        while len(lab.messages) < already + 3:
            assert time.monotonic() < end, door.__name__
            deliver.run()
        came = {m.forward_paths[0]: structure(m.octets) for m in lab.messages[already:]}
        assert len(came) == 3 and b"delivered+bcc" not in lab.messages[-1].octets.split(b"\r\n\r\n")[0]
        seen[door.__name__] = came
    for name, came in seen.items():
        assert came == seen["native"], name
    (one, *_) = seen["native"].values()
    assert [len(part) > 1 for part in one] and len(one) == 7  # mixed, alternative, text, related, html, image, file
