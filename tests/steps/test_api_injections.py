"""Lines that somebody smuggles into a field: refused, or harmless on the wire.

Every text field of the API × every way to begin a line × what would stand on it. What is accepted is composed, and its
header fields and parts are those of the same mail with a harmless word in that place, name by name. A sample goes the
whole way, over a real session to a receiver.
"""

from __future__ import annotations

import email.policy
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.message import Message as Parsed
from email.parser import BytesParser
from typing import Any
from uuid import uuid4

import pytest

from deliveries import deliver
from deliveries.accept import Draft
from deliveries.deliver import jobs
from deliveries.mime.compose import Mail, compose
from deliveries.models import Delivery
from deliveries.retry import Schedule
from deliveries.sandbox.lab import Lab
from mailapi import auth
from mailapi.schemas.emails import SendEmail, across_fields
from mailapi.schemas.faults import check
from tests.fakes.labs import fresh_pump, running_lab
from tests.steps.api import Client, make_tenant

#: how a line begins, for one reader or another
BREAKS = [
    "\r\n", "\n", "\r", "\0", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\r\n ", "\r\n\t", "\n\r", "\r\r\n",
    "%0d%0a", "=0D=0A", "\\r\\n", "=?utf-8?q?=0D=0A?= ", "=?utf-8?b?DQo=?=", "\ud83d\r\n", ">\r\n", "\r\n.\r\n",
]  # fmt: skip
#: what stands on it
LINES = [
    "Bcc: eve@evil.test", "To: eve@evil.test", "Content-Type: text/html", "RCPT TO:<eve@evil.test>",
    "\r\n<script>body</script>", "--=_boundary\r\nX-Part: 1",
]  # fmt: skip
PLACES: list[Callable[[str], str]] = [
    lambda p: f"safe{p}", lambda p: f"{p}safe", lambda p: f"sa{p}fe", lambda p: f'"sa{p}fe"',
]  # fmt: skip


def _file(**fields: Any) -> dict[str, Any]:
    return {"attachments": [{"filename": "a.txt", "content": "YQ==", **fields}], "html": "<p>x"}


def _merged(text: str) -> dict[str, Any]:
    return {"subject": "Hi {{{N}}}", "html": "<p>{{{N}}}", "merge": {"delivered@simulator.test": {"N": text}}}


FIELDS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "from: name": lambda x, d: {"from": f"{x} <orders@{d}>"},
    "from: local part": lambda x, d: {"from": f"{x}@{d}"},
    "from: domain": lambda x, d: {"from": f"orders@{x}.{d}"},
    "to: name": lambda x, d: {"to": [f"{x} <delivered@simulator.test>"]},
    "to: local part": lambda x, d: {"to": [f"{x}@simulator.test"]},
    "to: domain": lambda x, d: {"to": f"ann@{x}.test"},
    "cc": lambda x, d: {"cc": [f"{x} <delivered+cc@simulator.test>"]},
    "bcc": lambda x, d: {"bcc": [f"{x}@simulator.test"]},
    "reply_to": lambda x, d: {"reply_to": f"{x} <help@simulator.test>"},
    "subject": lambda x, d: {"subject": x},
    "html": lambda x, d: {"html": x},
    "text": lambda x, d: {"text": x},
    "headers: value": lambda x, d: {"headers": {"X-Order": x}},
    "headers: list": lambda x, d: {"headers": {"List-Id": x}},
    "headers: message-id": lambda x, d: {"headers": {"Message-ID": f"<{x}@{d}>"}},
    "headers: name": lambda x, d: {"headers": {f"X-{x}": "17"}},
    "filename": lambda x, d: _file(filename=x),
    "content_type": lambda x, d: _file(content_type=f"text/{x}"),
    "content_type: parameter": lambda x, d: _file(content_type=f"text/plain; name={x}"),
    "content_id": lambda x, d: _file(content_id=x),
    "tags: name": lambda x, d: {"tags": [{"name": x}]},
    "tags: value": lambda x, d: {"tags": [{"name": "a", "value": x}]},
    "metadata: key": lambda x, d: {"metadata": {x: "1"}},
    "metadata: value": lambda x, d: {"metadata": {"a": x}},
    "stream": lambda x, d: {"stream": x},
    "merge": lambda x, d: _merged(x),
    "scheduled_at": lambda x, d: {"scheduled_at": x},
}
#: fields that are never on the wire, however they are filled
_SILENT = ("bcc", "tags", "metadata", "stream", "scheduled_at")


def _mail(field: str, x: str, domain: str) -> dict[str, Any]:
    base = {"from": f"orders@{domain}", "to": "delivered@simulator.test", "subject": "Hello", "text": "Hello"}
    return {**base, **FIELDS[field](x, domain)}


def _octets(draft: Draft) -> bytes:
    mail = Mail(
        id=uuid4(), message_id="x@y.test", date=datetime(2026, 1, 1, tzinfo=UTC), from_header=draft.sender.header(),
        to=tuple(a.header() for a in draft.to), cc=tuple(a.header() for a in draft.cc),
        reply_to=tuple(a.header() for a in draft.reply_to), subject=draft.subject, html=draft.html, text=draft.text,
        headers=draft.headers, attachments=draft.attachments,
    )  # fmt: skip
    return compose(mail).octets


def _field_names(octets: bytes) -> Counter[str]:
    """The header fields of a mail, read line by line as an SMTP receiver would."""
    header, _, _ = octets.partition(b"\r\n\r\n")
    names: Counter[str] = Counter()
    for line in header.split(b"\r\n"):
        assert not re.search(rb"[\r\n\0]", line), line
        assert len(line) <= 998, line
        if line[:1] in (b" ", b"\t"):
            assert line.strip(), "a line of white space ends the header for some readers"
            continue
        name = re.match(rb"([!-9;-~]+):", line)
        assert name, line
        names[name[1].decode().lower()] += 1
    return names


def _parts(octets: bytes) -> list[tuple[str, tuple[str, ...]]]:
    """Each part's type, and what header fields it has."""
    parsed: Parsed = BytesParser(policy=email.policy.compat32).parsebytes(octets)
    return [(part.get_content_type(), tuple(sorted(k.lower() for k in part))) for part in parsed.walk()]


def _injections() -> Iterator[str]:
    for begin, line, place in itertools.product(BREAKS, LINES, PLACES):
        yield place(begin + line)


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_of_the_api_brings_a_line_of_its_own(field: str) -> None:
    domain = "shop.test"
    harmless = "safe" if field != "scheduled_at" else "in 1 hour"
    shape, faults = check(_mail(field, harmless, domain), SendEmail, across_fields)
    assert shape is not None, faults
    [baseline] = shape.drafts()
    names, parts = _field_names(_octets(baseline)), _parts(_octets(baseline))
    tried = accepted = 0
    for x in _injections():
        tried += 1
        shape, faults = check(_mail(field, x, domain), SendEmail, across_fields)
        if shape is None:
            assert faults and all(f.field and f.message for f in faults)
            continue
        accepted += 1
        for draft in shape.drafts():
            octets = _octets(draft)
            found = _field_names(octets)
            if field == "headers: name":  # a name that is accepted is the caller's own, once
                assert sum(found.values()) == sum(names.values()) and "bcc" not in found
            else:
                assert found == names, (x, found - names)
            if field.startswith("content_type"):  # the type is the caller's
                assert [p[1] for p in _parts(octets)] == [p[1] for p in parts], x
            else:
                assert _parts(octets) == parts, x
            assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", octets)
            for path in (*draft.to, *draft.cc, *draft.bcc, draft.sender):
                # RFC 5321 §4.1.2: what stands between < and > of a command; spaces and brackets only in a quoted string
                assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", path.addr_spec), x
                local = path.addr_spec.rpartition("@")[0]
                assert not re.search(r"[ <>]", path.addr_spec) or re.fullmatch(r'"(?:[^"\\]|\\.)*"', local), x
    assert tried == len(BREAKS) * len(LINES) * len(PLACES)
    if field in ("text", "html"):
        assert accepted > tried / 2  # texts may have lines


def test_there_are_more_than_five_thousand_of_them() -> None:
    assert len(BREAKS) * len(LINES) * len(PLACES) * len(FIELDS) > 5_000


# --- a sample, the whole way --------------------------------------------------------------------------------


@pytest.fixture
def lab(settings) -> Iterator[Lab]:
    with running_lab() as lab, fresh_pump():
        settings.MAIL_ROUTE, settings.SANDBOX_SMTP = "sandbox", lab.address
        settings.RETRY = Schedule(waits_s=(0.05,), max_age_s=3600, unknown_wait_s=0.3, jitter=0)
        jobs._kept.clear()
        yield lab


@pytest.mark.django_db(transaction=True)
def test_over_a_real_session_nothing_more_arrives_than_was_accepted(lab: Lab) -> None:
    auth.forget()
    api = Client(make_tenant())
    sent: dict[str, str] = {}
    fields = [f for f in FIELDS if not f.startswith((*_SILENT, "from: domain", "to: domain"))]
    for field, begin in itertools.product(fields, BREAKS):
        x = (
            f"sa{begin}{LINES[0]}\r\n.\r\nMAIL FROM:<eve@evil.test>"
            if field in ("text", "html")
            else f"sa{begin}Bcc: eve"
        )
        answer = api.post("/emails", _mail(field, x.replace("\ud83d", "é"), api.domain))
        assert answer.status_code in (200, 400, 422), answer.content
        if answer.status_code == 200:
            sent[answer.json()["id"]] = field
    assert len(sent) > 50
    for _ in range(200):
        deliver.run()
        if not Delivery.objects.filter(message_id__in=sent, settled_at=None).exists():
            break
    rows = Delivery.objects.filter(message_id__in=sent).exclude(status="bounced")
    assert {row.status for row in rows} == {"delivered"}, Counter((sent[str(r.message_id)], r.status) for r in rows)
    # the lab knows no mailbox of a name that somebody made up
    bounced = Delivery.objects.filter(message_id__in=sent, status="bounced")
    assert {sent[str(row.message_id)] for row in bounced} <= {"to: local part"}
    assert len(lab.messages) == rows.count()
    expected = {row.recipient for row in rows}
    for mail in lab.messages:
        assert set(mail.forward_paths) <= expected and len(mail.forward_paths) == 1
        names = _field_names(mail.octets)
        assert names["bcc"] == 0 and names["to"] == names["from"] == names["subject"] == 1, mail.octets
        assert set(names) <= {
            "from", "to", "cc", "reply-to", "subject", "date", "message-id", "mime-version", "content-type",
            "content-transfer-encoding", "dkim-signature", "x-mailapi-delivery", "x-order", "list-id", "received",
            "return-path", "feedback-id", "x-sa",
        } | {n for n in names if n.startswith("x-sa")}, names  # fmt: skip
