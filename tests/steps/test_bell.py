"""The bell through Valkey: rung on a kept connection, and Celery's as seldom as it may be."""

from __future__ import annotations

import threading
from uuid import uuid4

import pytest
from django.test import override_settings

from deliveries import bell as bells
from deliveries.bell import Bell


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch):
    """Bells that nobody has heard; nobody listens here."""
    name = "mailapi-test-bell"
    monkeypatch.setattr(bells, "channel", lambda: name)
    client = bells._client()
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
    bells._client().client_kill(f"{host}:{port}")  # as a Valkey that is started again does
    assert bell._call() == Bell.UNHEARD_S and unheard() == 2
    bell._line._connection._sock.close()
    assert bell._call() == Bell.UNHEARD_S and unheard() == 3 and bell.failed == 0


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
    bell._thread = threading.current_thread()  # nobody takes them here
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


class Heard(Exception):
    """Ends an ear, which listens for ever."""


def test_a_bell_in_other_words_than_ours_names_nothing_and_the_ear_goes_on(unheard):
    ident, heard = uuid4(), []
    bells._client().lpush(bells.channel(), b"of another version", ident.bytes)

    def told(ids):
        heard.append(ids)
        if ids:
            raise Heard
        return True

    pumping = threading.Event()
    pumping.set()
    with pytest.raises(Heard):
        bells.listen(told, pumping)
    assert heard == [(), (ident,)]
