"""One mail sent by every door is one mail on the wire, but for ids and dates.

The HTTP doors compose, so theirs is compared as it stands. By SMTP a mail comes composed, and goes out as it came: it
is compared by what a mail program shows, and by the tree of its parts.
"""

from __future__ import annotations

import base64
import email
import json
import re
import smtplib
import ssl
import time
from collections.abc import Callable, Iterator
from email import policy
from email.message import EmailMessage

import dkim
import pytest
import trustme
from django.test import Client

from deliveries import deliver
from deliveries.deliver import jobs
from deliveries.models import SendingDomain
from deliveries.sandbox.lab import Lab
from deliveries.sandbox.spool import Accepted
from tests.fakes.desk import desk
from tests.fakes.house import House, build, dkim_pair
from tests.fakes.labs import fresh_pump, running_lab

pytestmark = pytest.mark.django_db(transaction=True)

TO, CC, BCC = "Änne <delivered@simulator.test>", "delivered+cc@simulator.test", "delivered+bcc@simulator.test"
SUBJECT, TEXT = "Grüße 🎉 and a subject that is so long that it has to be folded somewhere on its way", "Hi Änne\n"
HTML = '<p>Hi Änne <img src="cid:logo.png"> <a href="https://shop.test/">shop</a></p>\n'
FILE, IMAGE = base64.b64encode(b"attached").decode(), base64.b64encode(b"png").decode()
#: what is made anew for each mail or each recipient
OWN = {"message-id", "date", "dkim-signature", "received"}
_TOKEN = re.compile(r"(https://mail\.test/\w+/)[\w.=-]+")


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


def submission(house: House) -> int:
    """The same as Python's own library composes it, by STARTTLS; the code that answers the final dot."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Cc"], mail["Bcc"] = house.sender, TO, CC, BCC
    mail["Reply-To"], mail["Subject"], mail["X-Order"] = "help@simulator.test", SUBJECT, "17"
    mail.set_content(TEXT)
    mail.add_alternative(HTML, subtype="html")
    shown = mail.get_body(("html",))
    assert isinstance(shown, EmailMessage)
    shown.add_related(b"png", "image", "png", cid="<logo.png>", filename="logo.png", disposition="inline")
    mail.add_attachment(b"attached", "text", "plain", filename="a.txt")
    octets = mail.as_bytes(policy=policy.SMTP)
    authority = trustme.CA()
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    with desk(authority) as (where, _), smtplib.SMTP(*where, local_hostname="app.test", timeout=60) as smtp:
        smtp.starttls(context=trusted)
        smtp.login("apikey", house.secret)
        smtp.mail("app@client.test")
        for path in ("delivered@simulator.test", CC, BCC):
            smtp.rcpt(path)
        return smtp.data(octets)[0]


def as_it_stands(octets: bytes) -> list[object]:
    """Every header field and every part as it stands on the wire, without what is a mail's own."""
    boundaries = re.findall(rb'boundary="?([^";\r\n]+)', octets)
    for number, boundary in enumerate(dict.fromkeys(boundaries)):
        octets = octets.replace(boundary, b"boundary-%d" % number)
    whole = email.message_from_bytes(octets, policy=policy.compat32)
    return [
        [(n, v) for n, v in part.items() if not _own(n)] + [None if part.is_multipart() else part.get_payload()]
        for part in whole.walk()
    ]


def _own(name: str) -> bool:
    return name.lower() in OWN or name.lower().startswith("x-mailapi-")


def as_it_reads(octets: bytes) -> dict[str, object]:
    """What a mail program makes of it: the fields, and the tree of parts with their names and decoded contents."""
    whole = email.message_from_bytes(octets, policy=policy.default)
    assert isinstance(whole, EmailMessage)
    mechanics = {"mime-version", "content-type", "content-transfer-encoding", "content-disposition"}
    fields = sorted(
        (n.lower(), _TOKEN.sub(r"\1", str(v))) for n, v in whole.items() if not _own(n) and n.lower() not in mechanics
    )
    return {"fields": fields, "parts": _tree(whole), "signed": _signed(octets)}


def _tree(part: EmailMessage) -> object:
    kind = part.get_content_type()
    if part.is_multipart():
        return [kind, *(_tree(inner) for inner in part.iter_parts())]
    content = part.get_content()
    words = _TOKEN.sub(r"\1", content).replace("\r\n", "\n") if isinstance(content, str) else content
    return (kind, part.get_content_disposition(), part.get_filename(), part["Content-ID"], words)


def _signed(octets: bytes) -> set[str]:
    (field,) = (v for n, v in email.message_from_bytes(octets).items() if n == "DKIM-Signature")
    names = re.search(r"\bh=([^;]+)", field)
    assert names
    return {"".join(name.split()).lower() for name in names[1].split(":")}


def verified(octets: bytes) -> bool:
    record = f"v=DKIM1; k=rsa; p={dkim_pair()[1]}".encode()
    return bool(dkim.verify(octets, dnsfunc=lambda name, timeout=5: record))


@pytest.fixture
def lab(settings) -> Iterator[Lab]:
    with running_lab() as lab, fresh_pump():
        settings.MAIL_ROUTE, settings.SANDBOX_SMTP = "sandbox", lab.address
        settings.BASE_URL = "https://mail.test"
        jobs._kept.clear()
        yield lab


def arrived(lab: Lab, house: House, door: Callable[..., int]) -> dict[str, bytes]:
    """The mail as each of its three recipients got it, by forward-path; none of them reads of the blind copy."""
    already = len(lab.messages)
    assert (door(house) if door is submission else door(Client(), house)) in (200, 202, 250), door.__name__
    end = time.monotonic() + 60
    while len(lab.messages) < already + 3:
        assert time.monotonic() < end, door.__name__
        deliver.run()
    came: list[Accepted] = lab.messages[already:]
    assert len(came) == 3
    for mail in came:
        assert b"delivered+bcc" not in mail.octets and verified(mail.octets), door.__name__
    return {mail.forward_paths[0]: mail.octets for mail in came}


def test_the_same_content_by_each_door_is_the_same_mail(lab: Lab) -> None:
    house = build()
    seen = {door.__name__: arrived(lab, house, door) for door in (native, postmark, sendgrid, mailgun, submission)}
    stands = {name: {to: as_it_stands(octets) for to, octets in came.items()} for name, came in seen.items()}
    reads = {name: {to: as_it_reads(octets) for to, octets in came.items()} for name, came in seen.items()}
    for name in seen:
        assert reads[name] == reads["native"], name
        assert stands[name] == stands["native"] or name == "submission", name
    (one, *_) = reads["native"].values()
    image = ("image/png", "inline", "logo.png", "<logo.png>", b"png")
    assert one["parts"] == [
        "multipart/mixed",
        [
            "multipart/alternative",
            ("text/plain", None, None, None, TEXT),
            ["multipart/related", ("text/html", None, None, None, HTML), image],
        ],
        ("text/plain", "attachment", "a.txt", None, "attached"),
    ]


def test_each_door_leads_to_the_same_links_where_the_domain_asks_for_them(lab: Lab) -> None:
    house = build()
    SendingDomain.objects.filter(id=house.domain.id).update(
        open_tracking=True, click_tracking=True, unsubscribe_streams=["transactional"]
    )
    seen = {}
    for door in (native, postmark, sendgrid, mailgun, submission):
        seen[door.__name__] = {to: as_it_reads(octets) for to, octets in arrived(lab, house, door).items()}
    for name, came in seen.items():
        assert came == seen["native"], name
    (one, *_) = seen["native"].values()
    html = one["parts"][1][2][1][4]
    assert '<a href="https://mail.test/c/">' in html and '<img src="https://mail.test/o/"' in html
    assert ("list-unsubscribe", "<https://mail.test/u/>") in one["fields"]
    assert {"list-unsubscribe", "list-unsubscribe-post"} <= one["signed"]
