"""How commands print: tables for a person, JSON for a program; what came from outside is text in both."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

#: columns where nobody looks (a pipe); a terminal tells its own
_PIPE_WIDTH = 160


def console(out: Any = None) -> Console:
    stream = getattr(out, "_out", out) or sys.stdout
    return Console(
        file=stream, width=None if stream.isatty() else _PIPE_WIDTH, highlight=False, emoji=False, markup=False
    )


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]], tones: Sequence[str] = ()) -> Table:
    """`tones` colours the first cell of each row; control characters (terminal escapes) do not get through."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        made.add_column(heading, overflow="fold")
    for n, row in enumerate(rows):
        cells = [plain(cell) for cell in row]
        if tones:
            cells[0].stylize(tones[n])
        made.add_row(*cells)
    return made


def plain(value: Any) -> Text:
    return Text("".join(c if c.isprintable() else "�" for c in when(value)))


def when(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return "" if value is None else str(value)


def dumps(value: Any) -> str:
    """One line of ASCII JSON; times as RFC 3339."""
    return json.dumps(value, default=lambda v: v.isoformat() if isinstance(v, datetime) else str(v))
