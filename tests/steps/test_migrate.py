"""migrate beside a running service: on real locks, with a later version's migrations (tests/fakes/growing)."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

import psycopg
import pytest
from django.contrib import admin
from django.contrib.admin import sites
from django.core.management import call_command
from django.db import connection
from django.test import modify_settings

from deliveries.management.commands.migrate import ASK_MS, Command

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def other() -> Iterator[psycopg.Connection]:
    """A session of somebody else."""
    words = connection.get_connection_params()
    params = {k: words[k] for k in ("host", "port", "user", "password", "dbname") if words.get(k)}
    with psycopg.connect(**params) as session:
        yield session


@pytest.fixture(autouse=True)
def grown() -> Iterator[None]:
    panel = admin.site
    with modify_settings(INSTALLED_APPS={"append": "tests.fakes.growing"}):
        yield
        call_command("migrate", "growing", "zero", verbosity=0, stdout=StringIO())
    admin.site = sites.site = panel  # each change of INSTALLED_APPS makes an empty one


def migrate(target: str) -> str:
    out = StringIO()
    call_command("migrate", "growing", target, verbosity=0, stdout=out)
    return out.getvalue()


def test_a_table_in_use_is_asked_for_again_and_nobody_waits_behind_the_question(
    other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.execute("LOCK TABLE delivery IN ACCESS SHARE MODE")  # as a dump does
    pauses = []

    def pause(command: Command, end: float, why: str) -> None:
        # between two questions the table belongs to everybody
        with psycopg.connect(other.info.dsn, password=other.info.password, autocommit=True) as third:
            third.execute("SET lock_timeout = '5s'")
            third.execute("SELECT count(*) FROM delivery")
        pauses.append(why)
        if len(pauses) == 2:
            other.rollback()

    monkeypatch.setattr(Command, "_pause", pause)
    migrate("0001")
    assert pauses == ["A table is in use"] * 2
    with connection.cursor() as cursor:
        cursor.execute("SELECT flavour FROM delivery")
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() != (f"{ASK_MS}ms",)


def test_what_an_index_that_was_broken_off_has_left_is_taken_away(other: psycopg.Connection) -> None:
    migrate("0001")
    other.autocommit = True
    other.execute("CREATE INDEX message_flavour ON message (flavour)")
    other.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'message_flavour'::regclass")
    migrate("0002")
    assert other.execute(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'message_flavour'::regclass"
    ).fetchall() == [(True,)]


def test_two_of_them_wait_for_each_other(other: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    from deliveries.management.commands.migrate import _LOCK

    other.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
    pauses = []

    def pause(command: Command, end: float, why: str) -> None:
        pauses.append(why)
        other.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])

    monkeypatch.setattr(Command, "_pause", pause)
    migrate("0001")
    assert pauses == ["Another migrate is at work"]
