"""A shared machine, nearly as a quiet one: runs a command whose processes the kernel prefers to everybody else's.

    python benchmarks/preferred.py python benchmarks/wire.py --beside CHECKOUT

Needs root, and a kernel that shares the processor by session (autogroup). Whoever else works here waits meanwhile: keep
it short. Caches and the disk are shared all the same.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from subprocess import Popen

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.parts import tree

_BEST = "-20"
_LOOK_S = 1.0


def main() -> int:
    command = Popen(sys.argv[1:], start_new_session=True)
    seen: set[int] = set()
    while command.poll() is None:
        for pid in set(tree(command.pid)) - seen:
            # each session once; one that has ended meanwhile needs nothing
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                Path(f"/proc/{pid}/autogroup").write_text(_BEST)
            seen.add(pid)
        time.sleep(_LOOK_S)
    return command.returncode


if __name__ == "__main__":
    sys.exit(main())
