"""Posts that wait at the same moment go in one statement, and each has its own answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.db import OperationalError, connection

from deliveries import accept as accepting
from deliveries import keys
from deliveries.accept import Accepted, accept
from deliveries.accept.gather import SMALL_OCTETS
from deliveries.errors import BadInput, KeyRefused
from deliveries.mime.address import parse_address
from deliveries.models import Delivery, Message
from tests.fakes.house import House, build

pytestmark = pytest.mark.django_db(transaction=True)


class Statements:
    """Every statement of accept; the first one waits until `together` have come behind it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, together: int) -> None:
        self.mails: list[int] = []
        self._execute = accepting._execute
        self._together = together
        self.begun = threading.Event()
        monkeypatch.setattr(accepting, "_execute", self)
        # nobody is called stuck, however slow this machine is
        monkeypatch.setattr("deliveries.accept.gather.STUCK_S", 3600)

    def __call__(self, params: dict[str, Any]) -> dict[str, Any]:
        self.mails.append(len(params["m_id"]))
        if len(self.mails) == 1:
            self.begun.set()
            end = time.monotonic() + 30
            while len(accepting._gatherer._waiting) < self._together:
                assert time.monotonic() < end, "they never came"
                time.sleep(0.01)
        return self._execute(params)


def together(first: Callable[[], Any], others: list[Callable[[], Any]], statements: Statements) -> list[Any]:
    """`first`, then all the others while its statement is under way; results or exceptions, in order."""
    ended: list[Any] = [None] * (len(others) + 1)

    def run(index: int, call: Callable[[], Any]) -> None:
        try:
            ended[index] = call()
        except Exception as e:
            ended[index] = e
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(i, call)) for i, call in enumerate([first, *others])]
    threads[0].start()
    assert statements.begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(60)
    return ended


def post(house: House, *to: str, **fields: Any) -> Callable[[], Accepted]:
    return lambda: accept(keys.hash_of(house.secret), [house.draft(address, **fields) for address in to])


def test_those_who_wait_share_a_statement_and_each_gets_its_own_ids(monkeypatch) -> None:
    house = build()
    statements = Statements(monkeypatch, together=6)
    calls = [post(house, f"u{n}@one.test", f"v{n}@one.test") for n in range(6)]
    ended = together(post(house, "first@one.test"), calls, statements)
    assert statements.mails == [1, 12]
    for n, accepted in enumerate(ended[1:]):
        to = [Delivery.objects.get(message_id=ident).recipient for ident in accepted.ids]
        assert to == [f"u{n}@one.test", f"v{n}@one.test"]
    assert Message.objects.filter(tenant=house.tenant).count() == 13


def test_an_error_names_its_own_mail_and_harms_no_other(monkeypatch) -> None:
    house = build()
    statements = Statements(monkeypatch, together=3)
    draft = replace(house.draft("x@one.test"), sender=parse_address("a@not-ours.test"))
    stranger = lambda: accept(keys.hash_of(house.secret), [draft])  # noqa: E731
    ended = together(
        post(house, "first@one.test"), [post(house, "a@one.test"), stranger, post(house, "b@one.test")], statements
    )
    assert [type(e) for e in ended] == [Accepted, Accepted, BadInput, Accepted]
    assert ended[2].faults[0].code == "domain_not_verified" and ended[2].faults[0].index is None
    assert statements.mails == [1, 3, 1, 1, 1]
    assert Message.objects.filter(tenant=house.tenant).count() == 3


def test_keys_are_checked_each_for_itself(monkeypatch) -> None:
    one, other = build(), build()
    statements = Statements(monkeypatch, together=4)
    unknown = lambda: accept(keys.hash_of("re_unknown"), [one.draft("x@one.test")])  # noqa: E731
    calls = [post(one, "a@one.test"), post(other, "b@one.test"), unknown, post(one, "c@one.test")]
    ended = together(post(one, "first@one.test"), calls, statements)
    assert [type(e) for e in ended] == [Accepted, Accepted, Accepted, KeyRefused, Accepted]
    assert Message.objects.get(id=ended[2].ids[0]).tenant_id == other.tenant.id
    assert Message.objects.filter(tenant=one.tenant).count() == 3


def test_where_nobody_knows_whether_it_was_stored_it_is_not_asked_again(monkeypatch) -> None:
    house = build()
    statements = Statements(monkeypatch, together=2)
    execute = statements._execute

    def lost(params: dict[str, Any]) -> dict[str, Any]:
        row = execute(params)
        if len(params["m_id"]) == 2:
            raise OperationalError("the connection was lost in the commit")
        return row

    statements._execute = lost
    ended = together(post(house, "first@one.test"), [post(house, "a@one.test"), post(house, "b@one.test")], statements)
    assert [type(e) for e in ended] == [Accepted, OperationalError, OperationalError]
    assert statements.mails == [1, 2]
    assert Message.objects.filter(tenant=house.tenant).count() == 3  # once, as it happens


def test_a_large_mail_holds_up_nobody(monkeypatch) -> None:
    house = build()
    statements = Statements(monkeypatch, together=1)
    large = post(house, "large@one.test", text="x" * (SMALL_OCTETS + 1))
    ended = together(post(house, "first@one.test"), [large, post(house, "a@one.test")], statements)
    assert [type(e) for e in ended] == [Accepted] * 3
    assert sorted(statements.mails) == [1, 1, 1]
