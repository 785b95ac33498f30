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

from tests.fakes.stack import HAS_TEMPLATE, TEMPLATE, Stack

CORE = Path(__file__).parent / "core"

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
