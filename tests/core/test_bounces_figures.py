"""The bars that the readers are held to, over data from public projects (skips where ../shared/corpora is absent)."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path

import pytest

from deliveries.bounces.report import read_report
from deliveries.management.commands.read_report import line_of
from deliveries.smtp.classify import classify_text

CORPORA = Path(__file__).parent.parent.parent.parent / "shared" / "corpora"
pytestmark = pytest.mark.skipif(not (CORPORA / "score.py").is_file(), reason="no ../shared/corpora")


def rows(name: str) -> list[dict]:
    with (CORPORA / name).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


@pytest.fixture(scope="module")
def scored() -> Counter:
    spec = importlib.util.spec_from_file_location("corpora_score", CORPORA / "score.py")
    judge = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(judge)
    files = [row["file"] for row in rows("bounces.jsonl")]
    return judge.bounces([line_of(file, read_report((CORPORA / file).read_bytes())) for file in files])


def test_recipients_are_named_exactly(scored: Counter) -> None:
    assert scored["recipients exact"] >= 0.95 * scored["with recipients"]


def test_a_living_address_is_hardly_ever_called_dead(scored: Counter) -> None:
    assert scored["hard where soft"] <= 0.01 * scored["mails"]


def test_dead_addresses_are_found(scored: Counter) -> None:
    assert scored["dead addresses found"] >= 0.85 * scored["dead addresses"]


def test_the_status_is_right(scored: Counter) -> None:
    assert scored["status right"] >= 0.90 * scored["with status"]


def test_ordinary_mail_is_told_so(scored: Counter) -> None:
    assert scored["ordinary called hard"] == 0
    assert scored["ordinary not told so"] <= 0.02 * scored["ordinary"]


def test_replies_suppress_when_they_should_and_hardly_else() -> None:
    replies = rows("replies.jsonl")
    said = [classify_text(row["text"]).suppress for row in replies]
    wrong = sum(s and not row["suppress"] for s, row in zip(said, replies, strict=True))
    missed = sum(bool(row["suppress"]) and not s for s, row in zip(said, replies, strict=True))
    assert wrong <= 0.01 * len(replies)
    assert missed <= 0.20 * sum(bool(row["suppress"]) for row in replies)


def test_complaints_are_told_by_their_form() -> None:
    kinds = Counter(read_report((CORPORA / row["file"]).read_bytes()).kind for row in rows("arf.jsonl"))
    assert kinds["bounce"] == 0
    assert kinds["complaint"] >= 0.85 * sum(kinds.values()), kinds
