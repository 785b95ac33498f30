"""Settings, Postgres and Valkey for every test; nothing has to be prepared or running.

This file is imported before any other of the tests', so Django is set up here: the addresses are chosen at import, the
servers start when the run begins, unless only tests/core is asked for, which knows no database. A DATABASE_URL that is
set already is used as it is.
"""

from __future__ import annotations

import atexit
import os
import signal
from pathlib import Path

import django
import hypothesis
import pytest
from django.conf import settings
from django.db import connection, transaction
from django.test import TransactionTestCase

from deliveries import valkey
from tests.fakes.stack import HAS_TEMPLATE, TEMPLATE, Stack

CORE = Path(__file__).parent / "core"
#: octets of a table from which on it is truncated and no longer emptied row by row
LARGE = 256 * 1024
#: what migrating made, and no test changes
MADE = {"django_content_type", "auth_permission"}

# the same examples in every run, however slow the machine; HUNT=1 looks for new ones
hypothesis.settings.register_profile(
    "tests", deadline=None, database=None, derandomize=os.environ.get("HUNT") != "1",
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)  # fmt: skip
hypothesis.settings.load_profile("tests")

stack: Stack | None = None
if not os.environ.get("DATABASE_URL"):
    stack = Stack()
    atexit.register(stack.stop)  # pytest may give up before it configures anything
    os.environ |= {name: value for name, value in stack.environ().items() if name not in os.environ}
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mailapi.settings")
django.setup()
# a test's threads stand for clients or processes, each with its own connection: none may wait for another to end
settings.DATABASES["default"]["OPTIONS"]["pool"]["max_size"] = 20
# on a busy machine Valkey is slow to answer, and away only where a test says so
valkey.PATIENCE_S = 60.0


def pytest_configure(config: pytest.Config) -> None:
    if stack is None or not needs_database(config):
        return
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell starts background jobs with it ignored
        signal.signal(number, _interrupt)
    stack.start()
    if config.getoption("numprocesses", None):
        stack.make_template()
        os.environ[HAS_TEMPLATE] = "1"


def pytest_unconfigure(config: pytest.Config) -> None:
    if stack is not None:
        stack.stop()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """xdist's workers take whole files, in this order: what leans on this process alone before what starts others, and
    the many short ones last, so that no worker is alone with a long one.
    """
    if not hasattr(config, "workerinput"):
        return
    rooms = ("steps", "browser", "e2e", "core")

    def turn(item: pytest.Item) -> tuple[int, Path]:
        room = item.path.parent.name
        return (rooms.index(room) if room in rooms else len(rooms), item.path)

    items.sort(key=turn)


def needs_database(config: pytest.Config) -> bool:
    if config.option.collectonly or config.getoption("version") or config.getoption("help"):
        return False
    paths = [(config.invocation_params.dir / word.split("::")[0]).resolve() for word in config.args]
    return not paths or not all(path.is_relative_to(CORE) for path in paths)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt  # pytest then ends in order, and so does the database


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> None:
    if os.environ.get(HAS_TEMPLATE):
        from django.db import connections

        connections["default"].settings_dict["TEST"]["TEMPLATE"] = TEMPLATE


#: tables of these, and partitions of such, that have held a row since they were truncated
WRITTEN = """
SELECT coalesce(part.relid, name::regclass)::text, pg_relation_size(coalesce(part.relid, name::regclass)) AS size
  FROM unnest(%s::text[]) AS name LEFT JOIN LATERAL pg_partition_tree(name::regclass) AS part ON true
 WHERE coalesce(part.isleaf, true) AND pg_relation_size(coalesce(part.relid, name::regclass)) > 0
"""


def _empty(_case: TransactionTestCase) -> None:
    """Deletes what a test has committed. Django truncates every table and partition and makes the permissions anew,
    which takes longer than most tests; few are written to, and those hold a few rows.
    """
    names = sorted(set(connection.introspection.django_table_names(only_existing=True, include_views=False)) - MADE)
    tables = ", ".join(map(connection.ops.quote_name, names))
    with transaction.atomic(), connection.cursor() as cursor:
        # as TRUNCATE would: whoever still writes is waited for
        cursor.execute(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE")
        cursor.execute(WRITTEN, [names])
        written = dict(cursor.fetchall())
        if any(size > LARGE for size in written.values()):
            cursor.execute(f"TRUNCATE {tables}")
        elif written:
            cursor.execute("; ".join(f"DELETE FROM {name}" for name in written))


TransactionTestCase._fixture_teardown = _empty  # type: ignore[method-assign]
