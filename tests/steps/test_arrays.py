"""Lists go to Postgres as octets of the type that the statement names, and come back as they were."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from django.db import DataError, connection

from deliveries.models.sql import execute

pytestmark = pytest.mark.django_db

VALUES = {
    "bool": [True, False, None],
    "bytea": [b"", b"\x00\xff", None],
    "smallint": [0, -1, 32767, None],
    "int": [0, -1, 2**31 - 1, None],
    "text": ["", "a", "Ünïcødé 🎉", None],
    "timestamptz": [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(3000, 1, 1, 1, 2, 3, 999_999, tzinfo=UTC),
        datetime(2026, 6, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=30))),
        None,
    ],
    "uuid": [UUID(int=0), UUID(int=2**128 - 1), None],
}


@pytest.mark.parametrize("kind", VALUES)
def test_every_value_comes_back_as_it_was(kind):
    values = VALUES[kind]
    for some in (values, values[:-1], [None], []):
        assert execute(f"SELECT %(it)s::{kind}[] AS it", {"it": some}).fetchone()["it"] == some


@pytest.mark.parametrize("kind", VALUES)
def test_elements_are_told_from_a_null_among_them(kind):
    asked = f"SELECT count(*) AS n, count(x) AS told FROM unnest(%(it)s::{kind}[]) AS x"
    assert execute(asked, {"it": VALUES[kind]}).fetchone() == {"n": len(VALUES[kind]), "told": len(VALUES[kind]) - 1}


@pytest.mark.parametrize("kind", ["int", "text", "uuid"])
def test_whatever_is_in_a_list_the_statement_is_prepared_once(kind):
    asked = f"SELECT %(it)s::{kind}[] AS once_{kind}"
    for some in ([], [None], VALUES[kind][:1], VALUES[kind]):
        execute(asked, {"it": some})
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE %s", [f"%once_{kind}%"])
        assert cursor.fetchone() == (1,)


def test_what_no_text_can_hold_is_refused_as_data():
    with pytest.raises(DataError):
        execute("SELECT %(it)s::text[] AS it", {"it": ["a\x00b"]})
    with pytest.raises(UnicodeError):
        execute("SELECT %(it)s::text[] AS it", {"it": ["\ud800"]})


def test_what_is_of_another_kind_goes_the_drivers_way():
    ident = UUID(int=7)
    assert execute("SELECT %(it)s::uuid[] AS it", {"it": [str(ident)]}).fetchone()["it"] == [ident]
