"""Words by which bounces, auto-replies and complaints are told apart, in the languages MTAs speak (wordings.toml)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from deliveries.smtp.rules import fold

FILE = Path(__file__).with_name("wordings.toml")


@dataclass(frozen=True, slots=True)
class Wordings:
    """Folded phrases (smtp.rules.fold), matched by `in` against folded text, so that they cost linear time."""

    returned_mail: tuple[str, ...]  #: lines that announce the returned mail
    role_names: frozenset[str]  #: local parts that are never the failed recipient
    daemon_names: tuple[str, ...]  #: local parts and display names that send bounces
    bounce_subjects: tuple[str, ...]
    delivery_words: tuple[str, ...]  #: of a subject, beside
    failure_words: tuple[str, ...]  #: … one of these
    bounce_texts: tuple[str, ...]
    success_texts: tuple[str, ...]  #: of reports that a mail arrived, or was relayed where no report comes from
    delay_texts: tuple[str, ...]
    final_texts: tuple[str, ...]  #: no more tries: what was delayed before is a failure
    auto_subjects: tuple[str, ...]
    challenge_texts: tuple[str, ...]  #: of filters that hold a mail until its sender answers
    auto_texts: tuple[str, ...]
    complaint_subjects: tuple[str, ...]


@cache
def wordings() -> Wordings:
    """The house's wordings, read once per process. Raises on a missing or unknown key."""
    with FILE.open("rb") as file:
        table = tomllib.load(file)
    if set(table) != {field.name for field in fields(Wordings)}:
        raise ValueError(f"wordings.toml: {sorted(set(table) ^ {field.name for field in fields(Wordings)})}")
    lists = {name: tuple(fold(text) for text in texts) for name, texts in table.items()}
    return Wordings(**{**lists, "role_names": frozenset(lists["role_names"])})  # type: ignore[arg-type]
