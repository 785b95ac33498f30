"""The bell through Valkey: rung on a kept connection, heard on a socket, and Celery's as seldom as it may be."""

from __future__ import annotations

import select
import threading
import time
from uuid import uuid4

import pytest
from django.conf import settings
from django.test import override_settings

from deliveries import bell as bells
from deliveries import valkey
from deliveries.bell import Bell, Ear
from mailapi import celery as engine


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch):
    """Bells that nobody has heard; nobody listens here."""
    name = "mailapi-test-bell"
    monkeypatch.setattr(bells, "channel", lambda: name)
    # Valkey is not away, only slow to answer
    monkeypatch.setattr(bells, "_PATIENCE_S", 60.0)
    client = valkey.client()
    client.delete(name)
    yield lambda: client.llen(name)
    client.delete(name)


def test_a_bell_is_there_for_a_pump_that_listens_and_what_nobody_hears_is_bounded(unheard):
    bell = Bell()
    assert bell._call() == Bell.START_S and unheard() == 1
    # a pump that does not come for it may be busy, or there is none
    assert bell._call() == Bell.UNHEARD_S and unheard() == 2
    for _ in range(50):
        bell._call()
    assert unheard() == bells._MOST_UNHEARD
    assert bell.failed == 0


def test_a_kept_connection_that_has_ended_is_made_anew_and_no_bell_is_lost(unheard):
    bell = Bell()
    bell._call()
    host, port = bell._line._connection._sock.getsockname()[:2]
    valkey.client().client_kill(f"{host}:{port}")  # as a Valkey that is started again does
    assert bell._call() == Bell.UNHEARD_S and unheard() == 2
    bell._line._connection._sock.close()
    assert bell._call() == Bell.UNHEARD_S and unheard() == 3 and bell.failed == 0


def test_beat_forgets_celerys_bells_that_nobody_took_but_for_the_newest(monkeypatch):
    if not settings.BROKER_URL.startswith("redis"):
        pytest.skip("RabbitMQ forgets them by itself")
    name = f"unheard-{uuid4()}"
    monkeypatch.setattr(engine, "MOST_UNHEARD", {name: 3})
    monkeypatch.setattr(engine, "_forget_at", 0.0)
    monkeypatch.setattr(engine, "PATIENCE_S", 60.0)
    monkeypatch.setattr(settings, "ROLE", "beat")
    monkeypatch.setattr(engine, "say_that_we_live", lambda: None)  # other tests would hear of it
    with engine.app.connection_for_write() as connection:
        for n in range(5):
            engine.app.send_task("deliveries.deliver", [n], queue=name, expires=5, connection=connection)
            if not n:
                assert engine._forget_at  # it was looked at with the first one, and not again
                assert connection.default_channel.client.llen(name) == 1
        queue = connection.SimpleQueue(name)
        monkeypatch.setattr(engine, "_forget_at", 0.0)
        engine.forget_the_unheard()
        assert [queue.get(timeout=60).payload[0] for _ in range(queue.qsize())] == [[2], [3], [4]]
        queue.clear()


def test_without_valkey_celerys_bells_are_all_there_are(unheard):
    with override_settings(REDIS_URL=""):
        assert Bell()._call() == Bell.START_GAP_S
    with override_settings(REDIS_URL="redis://127.0.0.1:1/0"):
        bell = Bell()
        assert bell._call() == Bell.START_GAP_S and bell.failed == 1
        # and it is left alone for some time
        assert bell._call() == Bell.START_GAP_S and bell.failed == 1
    assert unheard() == 0


def test_a_bell_names_the_few_that_came_and_nothing_where_one_of_them_is_not_named():
    bell, ids = Bell(), [uuid4() for _ in range(5)]
    bell._thread = threading.current_thread()  # nobody takes them here, and there is no line yet
    for rung, names in (
        ([ids[:1], ids[1:3]], ids[:3]),
        ([ids[:1], ()], []),
        ([ids], []),
        ([ids[:2], ids[2:]], []),
    ):
        for ring in rung:
            bell.ring(ring)
        assert bell._names() == b"".join(ident.bytes for ident in names)
    assert not bell._named


def test_a_bell_on_a_free_line_is_rung_by_whoever_rings_and_its_answer_is_left_to_the_thread(unheard):
    bell, first, second = Bell(), uuid4(), uuid4()
    bell._call()
    bell._thread = threading.current_thread()  # nobody wakes up here
    bell.ring([first])
    until(lambda: unheard() == 2)
    # the next one waits for the answer, and for its turn after it
    bell.ring([second])
    assert list(bell._named) == [second.bytes] and bell._line.said
    assert bell._call() == Bell.UNHEARD_S and not bell._line.said and not bell._named
    assert valkey.client().lrange(bells.channel(), 0, -1) == [second.bytes, first.bytes, b""]


def test_a_bell_whose_connection_ended_meanwhile_is_rung_again_by_the_thread(unheard):
    bell, ident = Bell(), uuid4()
    bell._call()
    bell._thread = threading.current_thread()
    host, port = bell._line._connection._sock.getsockname()[:2]
    valkey.client().client_kill(f"{host}:{port}")
    bell.ring([ident])
    bell._call()
    assert ident.bytes in valkey.client().lrange(bells.channel(), 0, -1) and bell.failed == 0


def test_a_bell_in_other_words_than_ours_names_nothing_and_the_ear_goes_on(unheard):
    ident, ear = uuid4(), Ear()
    valkey.client().lpush(bells.channel(), b"of another version", ident.bytes)
    assert heard(ear) == () and heard(ear) == (ident,)
    # one that came and was not heard is for others
    ear.fileno()
    valkey.client().lpush(bells.channel(), ident.bytes)
    until(lambda: unheard() == 0)
    assert ear.close() == (ident,) and ear.close() is None


def test_an_ear_whose_connection_ends_leaves_valkey_alone_for_a_while_and_hears_again(unheard, monkeypatch):
    monkeypatch.setattr(bells, "_AWAY_S", 1.5)
    ident, ear = uuid4(), Ear()
    ear.fileno()
    host, port = ear._connection._sock.getsockname()[:2]
    valkey.client().client_kill(f"{host}:{port}")
    select.select([ear.fileno()], [], [], 60)
    assert ear.heard() is None and ear.fileno() is None
    valkey.client().lpush(bells.channel(), ident.bytes)
    until(lambda: ear.fileno() is not None)
    assert heard(ear) == (ident,)
    with override_settings(REDIS_URL="redis://127.0.0.1:1/0"):
        assert Ear().fileno() is None
    ear.close()


def heard(ear):
    assert select.select([ear.fileno()], [], [], 60)[0], "no bell came"
    return ear.heard()


def until(done):
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)
