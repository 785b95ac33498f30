"""The jobs worker gives way: a webhook may come a little later, a mail may not.

nice is a weight, not a rank: at 5 a process has a third of another's share where the processor is short, all of it
where it is not, and never none. Linux weighs sessions before it weighs processes (sched_autogroup_enabled, on by
default), so a session that is ours alone is told as well. Between the control groups of containers and units neither
counts; there docker/ sets `cpu_shares` and CPUWeight=.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_SESSION = Path("/proc/self/autogroup")


def give_way(nice: int) -> None:
    """To be called by the main thread before it starts others and forks: they have what it has. Never raises."""
    with contextlib.suppress(OSError):  # a higher one that somebody else has set stands
        os.setpriority(os.PRIO_PROCESS, 0, max(nice, os.getpriority(os.PRIO_PROCESS, 0)))
    if os.getsid(0) == os.getpid():  # another's session, such as a terminal's, has other work in it
        with contextlib.suppress(OSError):
            _SESSION.write_text(f"{nice}\n")
