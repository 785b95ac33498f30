"""The house rules that no linter knows: who writes which table, how long a module may grow, what the docs promise."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("mailapi", "deliveries")
#: who may write the tables that hold the truth about a mail
WRITERS = (
    "deliveries/record/",
    "deliveries/accept/",
    "deliveries/queue.py",
    "deliveries/claim/",
    "deliveries/named.py",
)
TRUTH = ("delivery", "queued", "event")
TRUTH_MODELS = {"Delivery", "Queued", "Event"}


def sources() -> list[Path]:
    return [p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py"))]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_modules_stay_small_enough_to_be_read_in_one_sitting() -> None:
    lengths = {name(p): len(p.read_text().splitlines()) for p in sources() if "migrations" not in p.parts}
    for path, lines in lengths.items():
        if lines > 400:
            warnings.warn(f"{path} has {lines} lines: move a wall", stacklevel=1)
    assert {p: n for p, n in lengths.items() if n > 600} == {}


def test_no_module_is_a_drawer_for_everything() -> None:
    assert [name(p) for p in sources() if p.stem in {"utils", "helpers", "common", "misc"}] == []


def test_nothing_listens_to_django_signals() -> None:
    found = re.compile(
        r"^\s*from django\.(db\.models\.signals|dispatch|core\.signals)|post_save|pre_save", re.MULTILINE
    )
    assert [name(p) for p in sources() if found.search(p.read_text())] == []


SQL_WRITE = re.compile(r"\b(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+\"?(\w+)\"?", re.IGNORECASE)


def test_only_the_recorders_write_the_tables_that_hold_the_truth() -> None:
    offenders = []
    for path in sources():
        if name(path).startswith(WRITERS) or "migrations" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                offenders += [f"{name(path)}: SQL on {t}" for t in SQL_WRITE.findall(node.value) if t.lower() in TRUTH]
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr not in {"create", "bulk_create", "update", "delete", "save", "update_or_create"}:
                    continue
                words = {n.id for n in ast.walk(node.func) if isinstance(n, ast.Name)}
                offenders += [f"{name(path)}: {m}.{node.func.attr}" for m in words & TRUTH_MODELS]
    assert offenders == []


INSERT = re.compile(r"INSERT INTO (\w+) \(([^)]*)\)", re.IGNORECASE)


def test_columns_named_in_raw_inserts_exist_in_the_models_and_none_without_a_default_is_missed() -> None:
    from django.apps import apps

    tables = {m._meta.db_table: m for m in apps.get_app_config("deliveries").get_models()}
    checked = 0
    for path in sources():
        if not name(path).startswith(WRITERS):
            continue
        for table, columns in INSERT.findall(path.read_text()):
            if table not in tables:
                continue
            named = {c.strip().strip('"') for c in columns.replace("\n", " ").split(",")}
            fields = {f.column: f for f in tables[table]._meta.concrete_fields}
            assert named <= set(fields), f"{name(path)}: {table} has no {named - set(fields)}"
            needed = {c for c, f in fields.items() if not f.null and not f.primary_key}
            assert needed <= named, f"{name(path)}: the insert into {table} leaves out {needed - named}"
            checked += 1
    assert checked >= 10


def test_every_rfc_cited_in_the_code_stands_once_in_the_table_of_rfcs() -> None:
    cited = {int(n) for p in sources() for n in re.findall(r"RFC (\d{3,5})", p.read_text())}
    told = [int(n) for n in re.findall(r"^\| RFC (\d{3,5}) \|", (ROOT / "docs" / "rfc.md").read_text(), re.MULTILINE)]
    assert cited - set(told) == set()
    assert told == sorted(set(told))


def test_every_setting_that_is_read_is_documented_and_every_documented_one_is_read() -> None:
    code = (ROOT / "mailapi" / "settings.py").read_text()
    readers = "|".join(
        re.findall(r"^def (\w+)\(name: str", (ROOT / "mailapi" / "environment.py").read_text(), re.MULTILINE)
    )
    read = set(re.findall(rf'\b(?:{readers})\(\s*"([A-Z0-9_]+)"', code))
    table = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \|", table, re.MULTILINE)
    documented = set(rows)
    assert len(rows) == len(documented), "a setting is explained twice"
    assert read - documented == set()
    assert documented - read - _read_by_up() == set()


def _read_by_up() -> set[str]:
    code = "\n".join(p.read_text() for p in (ROOT / "mailapi" / "up").glob("*.py")) + (ROOT / "manage.py").read_text()
    return set(re.findall(r'"([A-Z][A-Z0-9_]+)"', code))


def test_the_documents_name_files_that_exist_and_link_to_such() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / n / "README.md" for n in (".", "docker", "benchmarks"))]
    named, missing = 0, []
    for page in pages:
        text = page.read_text()
        files = [ROOT / n for n in re.findall(r"`((?:mailapi|deliveries|tests|docs|benchmarks)/[\w./-]+)`", text)]
        links = [page.parent / n for n in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text)]
        missing += [f"{name(page)}: {file}" for file in (*files, *links) if not file.exists()]
        named += len(files)
    assert named > 100 and missing == []


@pytest.mark.django_db
def test_the_migrations_say_what_the_models_say() -> None:
    from django.core.management import call_command

    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_the_import_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
