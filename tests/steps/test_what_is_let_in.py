"""What accept lets in, compose can render; and three judges agree on what comes out: the standard library's parser,
dkimpy and OpenDKIM. From the JSON of a request to the octets of a session.

MAILAPI_LET_IN=100 asks for as many lots of mails (6 by default).
"""

from __future__ import annotations

import base64
import email
import email.policy
import json
import os
import re
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import dkim as dkimpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deliveries import queue
from deliveries.deliver import jobs
from deliveries.mime.deliverable import finish
from deliveries.mime.dkim import dns_record
from deliveries.models import Delivery, DkimKey, SendingDomain
from tests.core.test_mime_compose import any_text, clean_text
from tests.fakes import opendkim
from tests.fakes.house import dkim_pair

pytestmark = pytest.mark.django_db

LOTS = int(os.environ.get("MAILAPI_LET_IN", "6"))
PLENTY = 1 << 28

local_parts = st.one_of(
    st.from_regex(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}", fullmatch=True),
    st.sampled_from(['"a b"', "jürgen", "用户", "/C=GB/ADMD= /S=z/", '"a@b"', "x" * 64, "a.b"]),
)
addresses = st.builds(
    lambda name, local, domain: (
        f"{json.dumps(name, ensure_ascii=False)} <{local}@{domain}>" if name else f"{local}@{domain}"
    ),
    st.one_of(st.just(""), clean_text.map(lambda s: s[:60]), any_text.map(lambda s: s[:60])),
    local_parts,
    st.sampled_from(["example.net", "bücher.example", "xn--bcher-kva.example", f"{'d' * 63}.example"]),
)
header_names = st.one_of(
    st.from_regex(r"X-[A-Za-z0-9-]{1,70}", fullmatch=True),
    st.sampled_from(
        ["List-Unsubscribe", "In-Reply-To", "References", "Precedence", "X-Entity-Ref-ID", "Subject", "DKIM-Signature"]
    ),
)
media_types = st.sampled_from(
    [
        None,
        "text/plain",
        "text/html; charset=utf-16",
        "message/rfc822",
        "multipart/mixed",
        "image/png",
        'a/b; c="d e"',
        "text/calendar; method=REQUEST",
    ]
)
contents = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([b"Subject: x\n\nhello\n", "Subject: x\n\nGrüße\n".encode(), b"\r\n.\r\n", b"From x\n" * 20]),
)
attachments = st.fixed_dictionaries(
    {
        "filename": any_text.map(lambda s: s[:80] or "a"),
        "content": contents.map(lambda c: base64.b64encode(c).decode()),
    },
    optional={"content_type": media_types, "content_id": st.from_regex(r"[!-;=?-~]{1,40}", fullmatch=True)},
)
bodies = st.one_of(
    any_text, st.sampled_from(["x" * 3000, ".\n..\n.", "From here\nFrom there", "a \n b\t\n", "\r", "é" * 700])
)
mails = st.fixed_dictionaries(
    {
        "from": st.just(""),
        "to": st.lists(addresses, min_size=1, max_size=3, unique=True),
        "subject": any_text,
        "text": bodies,
    },
    optional={
        "html": bodies,
        "cc": st.lists(addresses, max_size=2),
        "reply_to": st.lists(addresses, max_size=2),
        "headers": st.dictionaries(header_names, any_text.map(lambda s: s[:200]), max_size=3),
        "attachments": st.lists(attachments, max_size=2),
    },
)


@given(st.lists(st.tuples(mails, clean_text.map(lambda s: s[:40])), min_size=20, max_size=20))
@settings(max_examples=LOTS, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_let_in_can_be_rendered_and_three_judges_read_it(
    api: Any, tmp_path_factory: pytest.TempPathFactory, lot: list[tuple[dict[str, Any], str]]
) -> None:
    record = dns_record(with_key(api))
    taken = 0
    for mail, name in lot:
        answer = api.post("/emails", {**mail, "from": f"{json.dumps(name, ensure_ascii=False)} <a@{api.domain}>"})
        assert answer.status_code in (200, 400, 422), answer.content
        taken += answer.status_code == 200
    octets = rendered(api)
    print(f"{taken} of {len(lot)} let in, {len(octets)} deliveries")
    assert len(octets) >= taken
    names = {f"m1._domainkey.{api.domain}": record}
    for one in octets:
        judged_by_the_parser(one)
        assert dkimpy.verify(one, dnsfunc=lambda name, timeout=5: record.encode()), one
    if octets:
        folder = tmp_path_factory.mktemp("opendkim")
        assert all(opendkim.verified(octets, names, folder)), "OpenDKIM refuses a signature of ours"


def with_key(api: Any) -> str:
    private_key, public_key = dkim_pair()
    domain = SendingDomain.objects.get(name=api.domain)
    DkimKey.objects.get_or_create(
        domain=domain, selector="m1", defaults={"private_key": private_key, "public_key": public_key}
    )
    return public_key


def rendered(api: Any) -> list[bytes]:
    """Every waiting delivery as it would go out, claimed and loaded by the pump's own verbs; none is refused."""
    jobs._sender_cache.clear()
    lease, found = uuid4(), []
    waiting = Delivery.objects.filter(tenant_id=api.tenant.id, status="queued").count()
    while rows := queue.claim(lease, 500, PLENTY, {}, unproven=500).rows:
        loaded, refused = jobs.load(rows, lease)
        assert not refused, [r.verdict.text for r in refused]
        for job in loaded:
            found.append(finish(job.prepared, job.token, job.sender.signer, int(time.time()), job.fields))
    assert len(found) == waiting
    Delivery.objects.filter(tenant_id=api.tenant.id).update(status="delivered")
    return found


def judged_by_the_parser(octets: bytes) -> None:
    assert b"\0" not in octets and re.search(rb"\r(?!\n)|(?<!\r)\n", octets) is None
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    message = email.message_from_bytes(octets, policy=email.policy.default)
    defects = [d for part in message.walk() for d in part.defects]
    assert not defects, (defects, octets)
    for field in ("From", "To", "Subject", "Date", "Message-ID", "MIME-Version"):
        assert len(message.get_all(field, [])) == 1, (field, octets)
    for part in message.walk():
        if not part.is_multipart():
            part.get_payload(decode=True)


def test_opendkim_hears_a_mail_that_was_changed(api: Any, tmp_path: Path) -> None:
    record = dns_record(with_key(api))
    assert api.send(subject="Hello").status_code == 200
    [good] = rendered(api)
    names = {f"m1._domainkey.{api.domain}": record}
    changed = good.replace(b"Subject: Hello", b"Subject: Hallo")
    assert opendkim.verified([good, changed, good], names, tmp_path) == [True, False, True]
