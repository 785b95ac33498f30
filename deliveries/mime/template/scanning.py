"""Where the tags of a template stand, found in one pass whatever it holds.

A regular expression that looks for the end of each `{{` reads on to the end of the text at every one that is never
closed: half a megabyte of opening braces took minutes, in which the process served nobody else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tag:
    """`kind`: value, raw (three braces), block, comment, escaped. `inner` is what stands between the signs; of an
    escaped one the tag without its backslash. `left`, `right`: the white space on that side goes."""

    start: int
    end: int
    kind: str
    inner: str = ""
    left: bool = False
    right: bool = False


class Ends:
    """Where the next closing sign stands; each place of the text is looked at once per sign."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._next: dict[str, int] = {}

    def find(self, sign: str, at: int) -> int:
        """The first place from `at` on, which never goes back; -1 where there is none."""
        known = self._next.get(sign, 0)
        if 0 <= known < at or sign not in self._next:
            known = self._next[sign] = self._text.find(sign, at)
        return known

    def first(self, signs: tuple[str, ...], at: int) -> tuple[int, str]:
        """The nearest of several."""
        found = [(place, sign) for sign in signs if (place := self.find(sign, at)) >= 0]
        return min(found, default=(-1, ""))


Read = Callable[[str, Ends, int], Tag | None]


def scan(text: str, opens: re.Pattern[str], read: Read) -> Iterator[Tag]:
    """The tags in order: `read` makes one of what `opens` found, or None where nothing closes it."""
    ends, at = Ends(text), 0
    while opened := opens.search(text, at):
        tag = read(text, ends, opened.start())
        if tag is not None:
            yield tag
        at = opened.start() + 1 if tag is None else tag.end
