"""When a webhook is tried again, and how it is signed."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from uuid import uuid4

import pytest
from standardwebhooks import Webhook

from deliveries.notify import foreign
from deliveries.notify.body import BOUNCE_TYPES, bounce
from deliveries.notify.post import WAITS_S, Posted, Telling, headers, post, retry_after, wait_after
from deliveries.states import SUPPRESSING, Category
from tests.core.test_fetch import REFUSED_FORMS, reply, server

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def telling(tries: int = 0, secrets: str = SECRET) -> Telling:
    return Telling(uuid4(), uuid4(), uuid4(), uuid4(), "https://example.com/", secrets, '{"type":"email.sent"}', tries)


def posted(tries: int, status: int | None, retry_after_s: float = 0.0) -> Posted:
    return Posted(telling(tries), NOW, 5, status, retry_after_s=retry_after_s)


class Middle(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def test_failures_are_tried_again_by_the_schedule_and_given_up_after_the_eighth() -> None:
    waits = [wait_after(posted(made, 500), Middle()) for made in range(8)]
    assert waits == [*WAITS_S, None]
    assert sum(WAITS_S) / 3600 == pytest.approx(27.6, abs=0.1)


def test_waits_are_spread_by_a_tenth() -> None:
    waits = {wait_after(posted(2, None)) for _ in range(200)}
    assert len(waits) > 100 and min(waits) >= 1620 and max(waits) <= 1980


def test_a_2xx_and_a_410_end_it() -> None:
    assert wait_after(posted(0, 200)) is wait_after(posted(0, 204)) is wait_after(posted(0, 410)) is None
    assert wait_after(posted(0, 302)) is not None


def test_a_longer_retry_after_is_honoured_up_to_ten_hours() -> None:
    assert wait_after(posted(0, 429, 600), Middle()) == 600
    assert wait_after(posted(3, 503, 10), Middle()) == 7200
    assert retry_after("120", NOW) == 120
    assert retry_after("999999999999", NOW) == 36000
    assert retry_after(format_datetime(NOW + timedelta(minutes=7), usegmt=True), NOW) == 420
    assert [retry_after(v, NOW) for v in ("", "-5", "soon", "1e9", "٣", format_datetime(NOW - timedelta(days=1)))] == [
        0
    ] * 6
    absurd = ["Mon, 01 Jan 2024 00:00:00 +99999999999999999999", "1 Jan 9444449999 00:00:00 GMT"]
    assert [retry_after(v, NOW) for v in absurd] == [0, 0]


def test_while_a_secret_is_changed_both_verify() -> None:
    other = "whsec_" + "C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
    asked = telling(secrets=f"{other} {SECRET}")
    made = headers(asked, int(datetime.now(UTC).timestamp()))
    for secret in (other, SECRET):
        assert Webhook(secret).verify(asked.body, made) == {"type": "email.sent"}


def test_every_category_has_a_bounce_type_and_only_dead_addresses_are_permanent() -> None:
    assert set(BOUNCE_TYPES) == set(Category)
    assert {c for c, (kind, _) in BOUNCE_TYPES.items() if kind == "Permanent"} == SUPPRESSING
    assert bounce({"reply": "550 5.1.1 gone", "category": "bad_mailbox"}) == {
        "type": "Permanent",
        "subType": "NoEmail",
        "message": "550 5.1.1 gone",
        "diagnosticCode": ["smtp; 550 5.1.1 gone"],
    }
    assert bounce({})["type"] == "Undetermined"


@pytest.mark.parametrize(
    ("told", "dead"),
    [
        ({"rule": "unknown-user"}, True),
        ({}, True),  # events from before rules were told
        ({"rule": "thin-unknown"}, False),
        ({"rule": "unknown-user-of-another"}, False),
        ({"rule": "unknown-user", "enhanced": "4.1.1"}, False),
        ({"rule": "inactive-suspended", "category": "inactive"}, False),
        ({"rule": "domain-unknown", "category": "bad_domain"}, True),
    ],
)
def test_no_format_calls_an_address_dead_that_gets_mail_again(told: dict, dead: bool) -> None:
    told = {"category": "bad_mailbox", "reply": "550 said so", **told}
    row = defaultdict(str, type="email.bounced", id=uuid4(), created_at=datetime.now(UTC), tags="[]")
    assert bounce(told)["type"] == ("Permanent" if dead else "Transient")
    postmark = json.loads(foreign.body("postmark", row, told))
    assert postmark["Type"] == ("HardBounce" if dead else "SoftBounce")
    # a domain is believed at the second sight
    assert postmark["Inactive"] == (dead and told["category"] != "bad_domain")
    (sendgrid,) = json.loads(foreign.body("sendgrid", row, told))
    assert sendgrid["type"] == ("bounce" if dead else "blocked")


def test_500_posts_that_are_sent_inside_or_redirected_there_never_reach_a_tripwire() -> None:
    """Refused by the form of the URL, or answered by a redirect to such a form: neither is gone to."""

    async def tell(url: str, allow_private: bool) -> Posted:
        return await post(dataclasses.replace(telling(), url=url), allow_private, timeout_s=5)

    made = 0
    with server(reply("HTTP/1.1 200 OK\nContent-Length: 0")) as (tripwire, came):
        inside = [f.replace("{port}", str(tripwire)) for f in REFUSED_FORMS]
        inside += [f"http://127.0.0.1:{tripwire}/", f"//127.0.0.1:{tripwire}/", f"http://localhost:{tripwire}/"]
        for form in inside:
            refused = asyncio.run(tell(form, allow_private=False))
            assert refused.status is None and refused.error
            made += 1
        locations = [form for form in inside if form.isascii() and form.isprintable()]
        for status, location in itertools.cycle(itertools.product((301, 302, 303, 307, 308), locations)):
            if made == 500:
                break
            head = f"HTTP/1.1 {status} Moved\nLocation: {location}\nContent-Length: 0"
            with server(reply(head)) as (port, _):
                answer = asyncio.run(tell(f"http://127.0.0.1:{port}/", allow_private=True))
            assert (answer.status, answer.ok) == (status, False) and "is not followed" in answer.error
            made += 1
    assert came == []
