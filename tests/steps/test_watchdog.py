"""A deliver process that stands still says where, and ends; nobody else does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.db import connection

from deliveries.deliver.watchdog import Watchdog

#: the tests' database is made where a test asks for one
pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[2]

#: the engine of a real process, in which something then stands still
BEGIN = """
import django
django.setup()
from deliveries import deliver, queue
from deliveries.models.sql import execute
engine = deliver.engine()
"""
LOOP = """
import threading, time
def dawdle(): time.sleep(600)
engine._loop.call_soon_threadsafe(dawdle)
threading.Event().wait(120)
"""
LOCK_HOLDER = """
import re, threading
def search(): re.match(r'(a|a)+$', 'a' * 60 + 'b')
engine._loop.call_soon_threadsafe(search)
threading.Event().wait(120)
"""
PUMP = "queue.claim = lambda *a, **k: execute('SELECT pg_sleep(25)'); deliver.run()\n"
BUSY = """
import threading, time
def stretch():
    end = time.monotonic() + 0.7
    while time.monotonic() < end: pass
    engine._loop.call_soon(stretch)
engine._loop.call_soon_threadsafe(stretch)
threading.Event().wait(9)
print("still here")
"""


CASES = {"loop": LOOP, "pump": PUMP, "lock": LOCK_HOLDER, "busy": BUSY}


@pytest.fixture(scope="module")
def ended(django_db_setup, django_db_blocker) -> dict[str, tuple[int, str, str]]:
    """Exit code, output and errors of deliver processes on the tests' database, all at once, with little patience."""
    with django_db_blocker.unblock():
        facts = connection.settings_dict
    url = f"postgres://{facts['USER']}:{facts['PASSWORD']}@{facts['HOST']}:{facts['PORT']}/{facts['NAME']}"
    env = os.environ | {
        "DJANGO_SETTINGS_MODULE": "mailapi.settings", "MAILAPI_ROLE": "deliver", "WATCHDOG_S": "3", "DATABASE_URL": url,
    }  # fmt: skip
    running = {
        name: subprocess.Popen(
            [sys.executable, "-c", BEGIN + code], cwd=ROOT, env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for name, code in CASES.items()
    }  # fmt: skip
    try:
        outputs = {name: process.communicate(timeout=150) for name, process in running.items()}
    finally:
        for process in running.values():
            process.kill()
    return {name: (running[name].returncode, *said) for name, said in outputs.items()}


@pytest.mark.parametrize(
    ("case", "who", "where"),
    [("loop", "event-loop", "in dawdle"), ("pump", "pump", "in _claim")],
    ids=["a blocked loop", "a dead database call"],
)
def test_a_process_that_stands_still_tells_the_stack_and_ends(ended, case: str, who: str, where: str) -> None:
    code, _, errors = ended[case]
    assert code == os.EX_SOFTWARE, errors
    assert f"{who} has stood still for" in errors and where in errors


def test_a_call_that_lets_nobody_else_run_ends_the_process_too(ended) -> None:
    code, _, errors = ended["lock"]
    assert code == 1 and "Timeout (0:00:06)!" in errors and "in search" in errors, errors


def test_a_loop_that_is_only_busy_is_left_alone(ended) -> None:
    code, output, errors = ended["busy"]
    assert (code, output) == (0, "still here\n"), errors


def test_a_thread_without_work_and_one_that_gives_signs_are_left_alone() -> None:
    ends: list[int] = []
    watchdog = Watchdog(5, ends.append)
    for _ in range(10):
        watchdog.tick()
    with watchdog.working("pump"):
        for _ in range(10):
            watchdog.tick()
            watchdog.beat("pump")
        for _ in range(5):
            watchdog.tick()
        assert not ends
        watchdog.tick()
    assert ends == [os.EX_SOFTWARE]


def test_a_loop_is_asked_at_every_tick_and_may_answer_late() -> None:
    ends: list[int] = []
    asked: list[object] = []
    watchdog = Watchdog(3, ends.append)
    watchdog.follow("event-loop", threading.get_ident(), asked.append)
    for _ in range(3):
        watchdog.tick()
    asked.pop()()  # type: ignore[operator]
    for _ in range(3):
        watchdog.tick()
    assert not ends and len(asked) == 5
    watchdog.tick()
    assert ends == [os.EX_SOFTWARE]
