"""The jobs worker gives way to what serves mail, and to nobody else's work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
AUTOGROUP = Path("/proc/self/autogroup")
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

pytestmark = pytest.mark.skipif(not os.access(AUTOGROUP, os.W_OK), reason="sessions have no weights here")


def given(nice: int, alone: bool) -> list[list[int]]:
    """(process, session) as nice values, of a process that gives way and of its child."""
    words = [sys.executable, "-c", GIVE.format(nice=nice)]
    done = subprocess.run(words, cwd=ROOT, start_new_session=alone, capture_output=True, text=True, check=True)
    return [[int(word) for word in line.split()] for line in done.stdout.splitlines()]


def test_a_session_of_its_own_gives_way_with_all_that_it_forks():
    mine = max(7, os.getpriority(os.PRIO_PROCESS, 0))
    assert given(7, alone=True) == [[mine, 7], [mine, 7]]


def test_a_session_that_others_share_is_left_as_it_is():
    mine, session = max(7, os.getpriority(os.PRIO_PROCESS, 0)), int(AUTOGROUP.read_text().split()[-1])
    assert given(7, alone=False) == [[mine, session], [mine, session]]


def test_a_part_that_was_made_nicer_stays_so():
    nicer = min(15, os.getpriority(os.PRIO_PROCESS, 0) + 8)
    code = f"import os; os.setpriority(os.PRIO_PROCESS, 0, {nicer})\n{GIVE.format(nice=0)}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[0]) == nicer
