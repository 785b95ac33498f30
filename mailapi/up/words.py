"""What `up` says: one line on standard error for a refusal, plain lines on standard output for progress."""

from __future__ import annotations

import sys


class Refusal(Exception):
    """`up` cannot go on for a reason that is not our bug. The text is the one line that the user reads."""


class Stopped(Exception):
    """SIGINT, SIGTERM or SIGHUP asked for an orderly stop."""


def say(line: str) -> None:
    """One line of progress, at once."""
    print(line, flush=True)


def complain(line: str) -> None:
    """One line about what went wrong."""
    print(f"manage.py: {line}", file=sys.stderr, flush=True)
