"""`serve web` behind a proxy: says that it leaves before it goes, so that no connection is under way to a closed door.

A server that stops listening resets whatever the kernel had taken for it and it had not yet; the proxy cannot know
whether such a request was read, and must answer 502. So SIGTERM has two parts: from then on `/health/live` answers 503,
which the proxy hears (docker/Caddyfile asks once a second), and a few seconds later, when nobody comes any more, the
server is told to stop. A second SIGTERM is believed at once. Standard library only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

_HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
#: tells the server's processes the file whose presence says that they leave
VARIABLE = "WEB_LEAVING"


def run(argv: Sequence[str], notice_s: float) -> int:
    """The server in the foreground until it ends; its exit code. SIGHUP goes through to it."""
    with tempfile.TemporaryDirectory(prefix="mailapi-web-") as folder:
        leaving = Path(folder) / "leaving"
        signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        server = subprocess.Popen(argv, env=os.environ | {VARIABLE: str(leaving)}, preexec_fn=_hear)  # noqa: S603
        end: float | None = None  # of the notice, once it was given
        while (code := server.poll()) is None:
            left = 3600.0 if end is None else max(end - time.monotonic(), 0.0)
            told = signal.sigtimedwait(_HEARD, left)
            heard = told.si_signo if told else signal.SIGALRM
            if heard == signal.SIGHUP:
                server.send_signal(signal.SIGHUP)
            elif heard in (signal.SIGTERM, signal.SIGINT) and not leaving.exists():
                leaving.touch()
                end = time.monotonic() + notice_s
            elif heard != signal.SIGCHLD and leaving.exists():
                server.terminate()
                end = None
        return code if code >= 0 else 128 - code


def _hear() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


if __name__ == "__main__":
    sys.exit(run(sys.argv[2:], float(sys.argv[1])))
