"""The web process dies under keyed posts, and clients ask again: nothing that was answered is lost, nothing is doubled.

DEATHS_MAILS=2000 is the full size; the default is short.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes.town import Town

MAILS = int(os.environ.get("DEATHS_MAILS", "150"))
CLIENTS = 6
KILLS = max(5, MAILS // 50)


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    town = Town()
    try:
        town.build()
        yield town
    finally:
        town.tear_down()


def _body(town: Town, n: int) -> dict[str, str]:
    return {"from": town.sender, "to": f"delivered+{n}@simulator.test", "subject": f"death {n}", "text": "x" * 500}


def test_web_may_die_at_any_moment_of_a_keyed_post(town: Town) -> None:
    told: dict[int, set[str]] = {n: set() for n in range(MAILS)}
    answered_since = threading.Semaphore(0)
    kills = 0

    def client(start: int) -> None:
        for n in range(start, MAILS, CLIENTS):
            told[n].add(town.post(_body(town, n), key=f"death-{n}"))
            answered_since.release()
            if n % 3 == 0:  # a client that forgot that it was answered
                told[n].add(town.post(_body(town, n), key=f"death-{n}"))

    def answered_for_a_while() -> bool:
        """Between two deaths, however slowly web starts; False when the clients have ended."""
        for _ in range(MAILS // (KILLS + 1)):
            while not answered_since.acquire(timeout=0.5):
                if all(one.done() for one in at_it):
                    return False
        return not all(one.done() for one in at_it)

    with ThreadPoolExecutor(CLIENTS) as clients:
        at_it = [clients.submit(client, n) for n in range(CLIENTS)]
        # this thread starts web: a part ends with the thread that started it
        while answered_for_a_while():
            town.restart("web")
            kills += 1
    for one in at_it:
        one.result()
    assert kills >= KILLS - 1
    # each key has one answer, however often it was asked, and each answer is a mail on disk
    assert all(len(ids) == 1 for ids in told.values())
    answered = {next(iter(ids)) for ids in told.values()}
    stored = town.sql("SELECT id::text, subject FROM message")
    assert {ident for ident, _ in stored} == answered and len(stored) == MAILS
    assert Counter(subject for _, subject in stored) == Counter(f"death {n}" for n in range(MAILS))
    town.until(
        lambda: town.sql("SELECT count(*) FROM delivery WHERE settled_at IS NULL")[0][0] == 0, "all are delivered", 240
    )
    town.until(lambda: len(town.copies()) >= MAILS, "the lab has written down each of them")
    assert set(town.copies().values()) == {1} and len(town.copies()) == MAILS


def test_many_at_once_with_one_key_make_one_mail(town: Town) -> None:
    def stored() -> set[str]:
        return {row[0] for row in town.sql("SELECT id::text FROM message")}

    town.until(lambda: town.answers(town.web_port), "web is back")
    before, answered = stored(), set()
    for round_ in range(5):
        with ThreadPoolExecutor(12) as clients:
            ids = set(clients.map(lambda _: town.post(_body(town, round_), key=f"one-{round_}"), range(12)))
        assert len(ids) == 1
        answered |= ids
    assert len(answered) == 5 and stored() - before == answered
