"""read_report and classify_reply start as processes with no database, no broker and no settings of the house."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CORPUS = ROOT / "tests" / "corpus"


def manage(*words: str, stdin: str = "", cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    bare = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *words],
        input=stdin, cwd=cwd, env=bare, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip


def test_read_report_prints_a_line_per_mail_with_the_name_it_was_given() -> None:
    files = ["bounces/postfix-dsn-unknown.eml", "bounces/vacation-french.eml"]
    done = manage("read_report", *files, "--json", cwd=CORPUS)
    assert done.returncode == 0, done.stderr
    hard, ordinary = [json.loads(line) for line in done.stdout.splitlines()]
    assert [hard["file"], ordinary["file"]] == files
    assert (hard["kind"], hard["status"], hard["category"]) == ("hard", "5.1.1", "bad_mailbox")
    assert (ordinary["kind"], ordinary["recipients"]) == ("not_a_bounce", [])


def test_read_report_finds_files_under_a_root() -> None:
    done = manage("read_report", "bounces/exim-prose-full.eml", "--json", "--root", str(CORPUS))
    assert json.loads(done.stdout)["kind"] == "soft"


def test_read_report_says_which_file_it_cannot_read() -> None:
    done = manage("read_report", "nowhere.eml")
    assert done.returncode == 1
    assert "nowhere.eml" in done.stderr and "Traceback" not in done.stderr


def test_classify_reply_answers_in_order() -> None:
    texts = ["550 5.1.1 no such user", "452 4.2.2 mailbox full", "550 5.7.1 spam"]
    done = manage("classify_reply", stdin="".join(json.dumps({"text": t}) + "\n" for t in texts))
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [a["text"] for a in answers] == texts
    assert [(a["category"], a["suppress"]) for a in answers] == [
        ("bad_mailbox", True), ("mailbox_full", False), ("content_spam", False),
    ]  # fmt: skip


def test_classify_reply_names_the_line_it_cannot_read() -> None:
    done = manage("classify_reply", stdin='{"text": "550 x"}\nnot json\n')
    assert done.returncode == 1
    assert "line 2" in done.stderr and "Traceback" not in done.stderr
