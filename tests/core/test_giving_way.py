"""The jobs worker gives way to what serves mail, and to nobody else's work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
AUTOGROUP = Path("/proc/self/autogroup")
#: what a part does first; then it and a process that it forks tell their weight and their session's
GIVE = """
import os
from mailapi.giving_way import give_way
give_way({nice})
print(os.getpriority(os.PRIO_PROCESS, 0), open("/proc/self/autogroup").read().split()[-1], flush=True)
if os.fork() == 0:
    print(os.getpriority(os.PRIO_PROCESS, 0), open("/proc/self/autogroup").read().split()[-1], flush=True)
    os._exit(0)
os.wait()
"""
SHARED = """
import subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
"""

WEIGHED = os.access(AUTOGROUP, os.W_OK) and Path("/proc/sys/kernel/sched_autogroup_enabled").read_text().strip() == "1"

pytestmark = pytest.mark.skipif(not WEIGHED, reason="sessions have no weights here")


def given(*words: str) -> list[list[int]]:
    """(process, session) as nice values, of a process that gives way and of its child, in a session of the test's own:
    whoever runs the tests may have none that has a weight."""
    command = [sys.executable, "-c", *words]
    done = subprocess.run(command, cwd=ROOT, start_new_session=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [[int(word) for word in line.split()] for line in done.stdout.splitlines()]


def test_a_session_of_its_own_gives_way_with_all_that_it_forks():
    mine = max(7, os.getpriority(os.PRIO_PROCESS, 0))
    assert given(GIVE.format(nice=7)) == [[mine, 7], [mine, 7]]


def test_a_session_that_others_share_is_left_as_it_is():
    mine = max(7, os.getpriority(os.PRIO_PROCESS, 0))
    assert given(SHARED, GIVE.format(nice=7)) == [[mine, 0], [mine, 0]]


def test_a_part_that_was_made_nicer_stays_so():
    nicer = min(15, os.getpriority(os.PRIO_PROCESS, 0) + 8)
    told = given(f"import os; os.setpriority(os.PRIO_PROCESS, 0, {nicer})\n{GIVE.format(nice=0)}")
    assert [process for process, _ in told] == [nicer, nicer]
