"""What the translators share: blocks that are open, and what is written for minijinja, under delimiters of our own.

A translation counts what it writes: `spend(n)` stands in every loop's body with the octets of its text, so that the
engine can stop before an output grows, not after.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from deliveries.errors import BadTemplate

#: what minijinja takes for its own; no template holds U+0001
BLOCK, BLOCK_END, VALUE, VALUE_END = "\x01%", "%\x01", "\x01{", "}\x01"
COMMENT, COMMENT_END = "\x01#", "#\x01"
#: blocks within blocks, and `else if` of one: minijinja goes into each, and its stack ends without an error
DEEPEST = 20
MOST_BRANCHES = 50


@dataclass(frozen=True, slots=True)
class Translated:
    """minijinja's source of one part, and the names that it asks its data for."""

    source: str
    names: frozenset[str]


def line_of(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


@dataclass(slots=True)
class Block:
    """An open block: its word, what closes it in minijinja, where its loop's `spend` goes and its text's octets."""

    word: str
    close: str
    place: int | None = None
    octets: int = 0
    #: the context within, for look-ups
    frame: str | None = None
    params: dict[str, str] = field(default_factory=dict)
    seen_else: bool = False
    branches: int = 0


class Writer(ABC):
    def __init__(self, text: str) -> None:
        self.text, self.out, self.open = text, list[str](), list[Block]()
        self.names: set[str] = set()
        self._fresh = 0

    def translated(self) -> Translated:
        try:
            self.read()
        except BadTemplate as bad:
            if bad.line is None:
                raise BadTemplate(bad.message, line_of(self.text, self.at)) from None
            raise
        if self.open:
            raise BadTemplate(f"`{self.open[-1].word}` is never closed.", line_of(self.text, len(self.text)))
        return Translated("".join(self.out), frozenset(self.names))

    at = 0
    #: what opens a tag
    signs: tuple[str, ...] = ("{{",)

    @abstractmethod
    def read(self) -> None:
        """Translates the whole of `text` into `out`; raises BadTemplate."""

    def between(self, text: str) -> None:
        """What stands between two tags."""
        for sign in self.signs:
            if sign in text:
                raise BadTemplate(f"`{sign}` is never closed.", line_of(self.text, self.text.rfind(sign, 0, self.at)))
        self.plain(text)

    def plain(self, text: str) -> None:
        self.out.append(text)
        for block in reversed(self.open):
            if block.place is not None:
                block.octets += len(text.encode("utf-8", "replace"))
                break

    def value(self, source: str, safe: bool = False) -> None:
        self.out.append(f"{VALUE} {'raw' if safe else 'html'}({source}) {VALUE_END}")

    def block(self, source: str) -> None:
        self.out.append(f"{BLOCK} {source} {BLOCK_END}")

    def enter(self, source: str, word: str, close: str, loop: bool = False, **more: object) -> None:
        if len(self.open) >= DEEPEST:
            raise BadTemplate(f"Blocks are nested deeper than {DEEPEST}.")
        self.block(source)
        self.open.append(Block(word, close, len(self.out) if loop else None, **more))  # type: ignore[arg-type]
        if loop:
            self.out.append("")

    def leave(self) -> Block:
        block = self.open.pop()
        if block.place is not None:
            self.out[block.place] = f"{VALUE} spend({block.octets}) {VALUE_END}"
        self.block(block.close)
        return block

    def branch(self, source: str) -> None:
        self.open[-1].branches += 1
        if self.open[-1].branches > MOST_BRANCHES:
            raise BadTemplate(f"One condition has more than {MOST_BRANCHES} branches.")
        self.block(f"elif {source}")

    def fresh(self) -> str:
        self._fresh += 1
        return f"v{self._fresh}"

    def in_loop(self) -> bool:
        return any(block.place is not None for block in self.open)
