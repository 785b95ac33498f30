"""The rules of rules.toml: their patterns, the form of a text that patterns are written for, and the loading.

No regular expressions of the file are run over a peer's text: a pattern is a row of literals with bounded gaps, so the
work is linear in the (capped) text. `[words]` are families, `{name}` in a pattern: one line knows a sense in many
wordings and languages.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from deliveries.smtp.outcome import Stage
from deliveries.states import SUPPRESSING, Category

RULES_FILE = Path(__file__).with_name("rules.toml")

#: after the id of a rule that read what a report says of somebody else than the recipient
OF_ANOTHER = "-of-another"

#: a reply line holds ≤ 512 octets (RFC 5321 §4.5.3.1.5); DSN diagnostics quote several. Head and tail are read
HEAD_CHARS = 3_000
TAIL_CHARS = 1_000

#: the widest gap that a `*` bridges: a host name and a few words
GAP_CHARS = 100
#: the widest gap that a `~` bridges, within one clause: "for <@>", "name", "you tried to reach"
CLAUSE_CHARS = 30
#: between a family and what stands beside it: a space, a hyphen, or nothing where the script has no spaces
_NEXT_CHARS = 1
_GAPS = {"*": GAP_CHARS, "~": CLAUSE_CHARS}
#: the dots of `joe.bloggs` and `mail.example.org` end none
_CLAUSE_END = re.compile(r"[.;!?]\s")
#: how many places a first literal is tried at; a hostile text repeats it without end
MAX_STARTS = 16

#: letters that have no decomposition into a plain one and an accent
_PLAIN = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ı": "i", "\u2018": "'", "\u2019": "'"})
_ACCENTS = re.compile("[\u0300-\u036f]+")
#: an address that a reply repeats: `<database@example.org>` says nothing about a database
_ADDRESS = re.compile(r"[^\s<>@\"'(),;:\[\]]{1,64}@[\w.-]{1,255}")
#: the path of a page that a reply points to, and what parts its words: `/errors/user-unknown` says nothing of the user
_PAGE = re.compile(r"(?<=://)([^\s/]{1,255})(/\S{1,500})")
_WORD_ENDS = re.compile(r"[-_+]|%20")
#: the first code of a reply of several lines; relays run the lines together with their codes
_FIRST_LINE = re.compile(r"\b([245]\d\d)-")
#: the label of a form's field begins a clause: `Recipient: <@> Reason: it does not exist` means no recipient's reason
_LABEL = re.compile(r"\b(?:Reason|Status|due\s+to\s+the\s+following\s+reason):\s")
#: of a pattern: a gap, a family, or literal words
_TOKEN = re.compile(r"[*~]|\{[a-z]+\}|[^*~{]+[^*~{\s]|[^*~{\s]")


def fold(text: str) -> str:
    """Lower case, single spaces, no accents, straight quotes, `_` as a space, `e-mail` as `email`."""
    text = text.lower()
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text.translate(_PLAIN))
        text = _ACCENTS.sub("", text)
    return " ".join(text.replace("_", " ").replace("e-mail", "email").split())


def normalise(text: str) -> str:
    """A peer's text capped and folded, addresses as `@`, a reply of several lines as one: what patterns are held to.

    The words of a page's path run together.
    """
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]} {text[-TAIL_CHARS:]}"
    if "://" in text:
        text = _PAGE.sub(lambda page: page[1] + _WORD_ENDS.sub("x", page[2]), text)
    if "@" in text:
        text = _ADDRESS.sub("@", text)
    if first := _FIRST_LINE.search(text):
        again = rf"\b{first[1]}[- ](?:[245]\.\d{{1,3}}\.\d{{1,3}}\s)?"
        text = text[: first.end()] + re.sub(again, "", text[first.end() :])
    return fold(_LABEL.sub("; ", text))


class Pattern:
    """Literals in order; a letter or digit at the start begins a word.

    Between two: `*` for at most GAP_CHARS, `~` for at most CLAUSE_CHARS of one clause. `{name}`: any of that family,
    beside what it stands next to.
    `^` at the start: at the opening of the text, past its codes; `|` at the end: the word ends there.
    """

    __slots__ = ("_ends", "_gaps", "_opens", "_parts", "firsts")

    def __init__(self, source: str, words: Mapping[str, tuple[str, ...]] | None = None) -> None:
        text = fold(source)
        self._opens = text.startswith("^")
        self._ends = text.endswith("|")
        parts: list[tuple[str, ...]] = []
        gaps: list[int] = []
        gap = 0
        for token in _TOKEN.findall(text.removeprefix("^").removesuffix("|")):
            if token in _GAPS:
                gap = _GAPS[token]
                continue
            parts.append((words or {})[token[1:-1]] if token[0] == "{" else (token.strip(),))
            gaps.append(gap)
            gap = _NEXT_CHARS
        if not parts or not all(literal and "{" not in literal for part in parts for literal in part):
            raise ValueError(f"empty pattern or odd family in {source!r}")
        self._parts, self._gaps = tuple(parts), tuple(gaps[1:])
        #: a text without any of them cannot match: the cheap test that comes before `found_from`
        self.firsts = self._parts[0]

    def found(self, text: str) -> bool:
        """Whether `text` (normalised) holds the literals."""
        return any(self.found_from(first, text) for first in self.firsts)

    def found_from(self, first: str, text: str) -> bool:
        """Whether `text` holds the literals, the first of them being this one of `firsts`."""
        if self._opens:
            text = _opening(text)
            return text.startswith(first) and self._goes_on(text, len(first))
        start = -1
        for _ in range(MAX_STARTS):
            start = text.find(first, start + 1)
            if start < 0:
                return False
            if _begins(first, text, start) and self._goes_on(text, start + len(first)):
                return True
        return False

    def _goes_on(self, text: str, end: int) -> bool:
        for gap, part in zip(self._gaps, self._parts[1:], strict=True):
            ends = [end_ for literal in part if (end_ := _within(literal, text, end, gap)) is not None]
            if not ends:
                return False
            end = min(ends)
        return not self._ends or end >= len(text) or not text[end].isalnum()


def _begins(literal: str, text: str, at: int) -> bool:
    return not (at and literal[0].isalnum() and text[at - 1].isalnum() and text[at - 1].isascii())


def _within(literal: str, text: str, start: int, gap: int) -> int | None:
    """Where the literal ends that begins at most `gap` after `start`; None where it does not."""
    at = text.find(literal, start, start + gap + len(literal))
    if at < 0:
        return None
    if gap != GAP_CHARS and not (_begins(literal, text, at) and not _CLAUSE_END.search(text, start, at)):
        return None
    return at + len(literal)


def _opening(text: str) -> str:
    """The text without the codes that it begins with: `550 5.7.1 550-` and the like."""
    return text[:80].lstrip("0123456789.- #") + text[80:]


#: literals, and the patterns that may begin with each
_ByFirst = tuple[tuple[str, tuple[Pattern, ...]], ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of knowledge. Every condition that is given must hold; `patterns` and `unless` are alternatives."""

    id: str
    category: Category
    source: str
    patterns: tuple[Pattern, ...] = ()
    unless: tuple[Pattern, ...] = ()
    codes: frozenset[int] = frozenset()  #: reply codes; a single digit stands for its class
    enhanced: tuple[str, ...] = ()  #: `5.7.26`, `5.7.` (prefix), `.2.2` (any class), `none`
    stages: frozenset[str] = frozenset()  #: `unsaid` where no stage is known
    suppress: bool = False
    slow_down: bool = False
    ours: bool = False  #: about our account at a relay, whatever the command
    permanent: bool | None = None
    _wanted: _ByFirst = field(init=False)
    _unwanted: _ByFirst = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_wanted", _by_first(self.patterns))
        object.__setattr__(self, "_unwanted", _by_first(self.unless))

    def fits(self, text: str, code: int | None, enhanced: str, stage: Stage | None) -> bool:
        """`text` normalised; `code` and `stage` None, `enhanced` "" where they are not known."""
        if self.codes and (code is None or not (code in self.codes or code // 100 in self.codes)):
            return False
        if self.enhanced and not any(_same(enhanced, wanted) for wanted in self.enhanced):
            return False
        if self.stages and (stage or "unsaid") not in self.stages:
            return False
        if self._wanted and not _any_found(self._wanted, text):
            return False
        return not _any_found(self._unwanted, text)


def _by_first(patterns: tuple[Pattern, ...]) -> _ByFirst:
    by_first: dict[str, list[Pattern]] = {}
    for pattern in patterns:
        for first in pattern.firsts:
            by_first.setdefault(first, []).append(pattern)
    return tuple((first, tuple(begun)) for first, begun in by_first.items())


def _any_found(patterns: _ByFirst, text: str) -> bool:
    for first, begun in patterns:
        if first in text:  # a twentieth of what a call costs, and nearly always the end of it
            for pattern in begun:
                if pattern.found_from(first, text):
                    return True
    return False


def _same(enhanced: str, wanted: str) -> bool:
    if not enhanced:
        return wanted == "none"
    if wanted.startswith("."):
        return enhanced[1:] == wanted
    if wanted.endswith("."):
        return enhanced.startswith(wanted)
    return enhanced == wanted


def parse_rules(table: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules of a parsed file in order. Raises ValueError on an unknown key, category, family or pattern."""
    rules = []
    seen = set()
    words = {name: tuple(fold(text) for text in texts) for name, texts in table.get("words", {}).items()}
    for row in table["rule"]:
        row = dict(row)
        category = Category(row.pop("category"))
        rule = Rule(
            id=row.pop("id"),
            category=category,
            source=row.pop("source"),
            patterns=_patterns(row.pop("patterns", ()), words),
            unless=_patterns(row.pop("unless", ()), words),
            codes=frozenset(row.pop("codes", ())),
            enhanced=tuple(row.pop("enhanced", ())),
            stages=frozenset(s if s == "unsaid" else Stage(s) for s in row.pop("stages", ())),
            suppress=row.pop("suppress", category in SUPPRESSING),
            slow_down=row.pop("slow_down", False),
            ours=row.pop("ours", False),
            permanent=row.pop("permanent", None),
        )
        if row:
            raise ValueError(f"rule {rule.id}: unknown keys {sorted(row)}")
        if rule.id in seen:
            raise ValueError(f"rule {rule.id} stands twice")
        if rule.suppress and category not in SUPPRESSING:
            raise ValueError(f"rule {rule.id}: {category} never suppresses")
        seen.add(rule.id)
        rules.append(rule)
    return tuple(rules)


def _patterns(sources: Iterable[str], words: Mapping[str, tuple[str, ...]]) -> tuple[Pattern, ...]:
    try:
        return tuple(Pattern(s, words) for s in sources)
    except KeyError as error:
        raise ValueError(f"no family {error}") from error


@cache
def rules() -> tuple[Rule, ...]:
    """The house's rules, read once per process."""
    with RULES_FILE.open("rb") as file:
        return parse_rules(tomllib.load(file))


@cache
def unproven() -> frozenset[str]:
    """Ids of the rules that know a category of dead addresses by words that prove none dead: they suppress nobody."""
    return frozenset(rule.id for rule in rules() if rule.category in SUPPRESSING and not rule.suppress)
