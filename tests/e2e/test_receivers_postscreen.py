"""Postscreen with its deep protocol tests: the strictest door that a mail from a new address meets.

It greets in two lines with a pause between them (who speaks first is a robot), listens for commands sent too early,
and tells everybody once to come again (450 4.3.2), on this connection for good.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from deliveries.models import Attempt
from tests.e2e.postbox import Postbox, posting, signed_by_us
from tests.fakes.postfix import Postfix, running_postfix

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def postfix() -> Iterator[Postfix]:
    with running_postfix() as postfix:
        yield postfix


@pytest.fixture
def postbox(postfix: Postfix, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Postbox]:
    with posting(postfix, settings, monkeypatch) as postbox:
        postbox.point(SMTP_PORT=postfix.screened_port)
        yield postbox


def test_a_stranger_is_told_to_come_again_and_the_next_connection_is_let_in(postbox: Postbox, postfix: Postfix) -> None:
    first, second = postbox.send("anna@mx.test"), postbox.send("anna@equal.test")
    assert (first.status, first.attempts) == ("delivered", 2)
    told, let_in = Attempt.objects.filter(delivery=first).order_by("id")
    assert (told.status, told.enhanced, told.stage) == ("deferred", "4.3.2", "rcpt")
    assert told.tls.startswith("TLSv1.3") and let_in.tls.startswith("TLSv1.3")
    # known by now, and on the connection that let the first one in
    assert (second.status, second.attempts) == ("delivered", 1)
    for delivery in (first, second):
        assert signed_by_us(postfix.mail(delivery.message.message_id))
    assert "PREGREET" not in postfix.log() and "PASS NEW" in postfix.log()
