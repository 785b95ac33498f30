"""docker/ judged by the rules of others (Compose specification, hadolint, systemd) and against our own settings."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mailapi.up import postgres, serve
from tests.fakes.daemon import missing

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
BIN = Path(sys.executable).parent


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False, cwd=ROOT)


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DOCKER / "compose.yaml").read_text()))


def test_the_compose_file_keeps_to_the_specification() -> None:
    done = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DOCKER / "compose.yaml")
    assert done.returncode == 0, done.stdout


def test_the_image_passes_the_linter() -> None:
    done = run(BIN / "hadolint", DOCKER / "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_every_variable_of_the_compose_file_is_explained_and_every_explained_one_is_used() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", (DOCKER / "compose.yaml").read_text()))
    explained = set(re.findall(r"^(\w+)=", (DOCKER / ".env.example").read_text(), re.MULTILINE))
    assert used == explained


def test_the_parts_are_told_settings_that_exist() -> None:
    documented = set(re.findall(r"^\| `([A-Z0-9_]+)` \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE))
    for name, service in compose()["services"].items():
        if name in ("postgres", "valkey", "caddy"):
            continue
        told = set(service["environment"])
        assert {v for v in told if not {v, v.removesuffix("_FILE")} & documented} == set(), name


def test_postgres_of_the_compose_file_is_set_as_that_of_up_but_for_sizes_and_what_its_image_has_so_already() -> None:
    sizes = {"max_connections", "shared_buffers", "effective_cache_size", "max_wal_size"}
    given = {*postgres.SAFE, "password_encryption", "timezone", "log_timezone", "log_line_prefix"}
    embedded = dict(re.findall(r"^(\w+) = (.+)$", postgres.CONF, re.MULTILINE))
    told = dict(word.removeprefix("--").split("=") for word in compose()["services"]["postgres"]["command"][1:])
    assert {k: v for k, v in told.items() if k not in sizes} == {
        k: v for k, v in embedded.items() if k not in sizes | given
    }


def test_every_secret_that_a_part_reads_is_made_by_the_script() -> None:
    made = set(re.findall(r"^make (\w+)", (DOCKER / "secrets.sh").read_text(), re.MULTILINE))
    assert made == set(compose()["secrets"])
    for service in compose()["services"].values():
        assert set(service.get("secrets", [])) <= made


def test_a_deliver_worker_may_drain_before_it_is_killed() -> None:
    variables = dict(re.findall(r"^(\w+)=(\d+)", (DOCKER / ".env.example").read_text(), re.MULTILINE))
    assert int(variables["DELIVER_GRACE"]) >= int(variables["DRAIN_S"]) + 15
    unit = (DOCKER / "systemd" / "mailapi-deliver@.service").read_text()
    assert "TimeoutStopSec=75" in unit and "DRAIN_S=60" in (DOCKER / "systemd" / "mailapi.env.example").read_text()


def test_web_is_given_the_time_to_tell_its_proxy_and_to_end_what_it_began() -> None:
    needed = serve.NOTICE_S + serve.FINISH_S + 10
    for name in ("web", "web2"):
        assert int(compose()["services"][name]["stop_grace_period"].removesuffix("s")) >= needed
    unit = (DOCKER / "systemd" / "mailapi-web@.service").read_text()
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert int(stop) >= needed and "KillMode=mixed" in unit


def test_the_secrets_are_made_once_and_closed_to_others(tmp_path: Path) -> None:
    shutil.copy(DOCKER / "secrets.sh", tmp_path)
    assert run("sh", tmp_path / "secrets.sh").returncode == 0
    folder = tmp_path / "secrets"
    first = {p.name: p.read_text() for p in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700 and all(first.values())
    assert first["postgres_password"] in first["database_url"]
    assert run("sh", tmp_path / "secrets.sh").returncode == 0
    assert {p.name: p.read_text() for p in folder.iterdir()} == first


@pytest.mark.parametrize("unit", sorted(p.name for p in (DOCKER / "systemd").glob("*.service")))
def test_systemd_understands_the_units(unit: str, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        missing("there is no systemd-analyze")
    for source in (DOCKER / "systemd").iterdir():
        text = source.read_text().replace("/opt/mailapi/.venv/bin/python", "/bin/true")
        (tmp_path / source.name).write_text(text.replace("User=mailapi", "User=root"))
    done = run("systemd-analyze", "verify", "--man=no", tmp_path / unit.replace("@.", "@1."))
    assert done.returncode == 0 and unit.split("@")[0] not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nobody",), "invalid choice: 'nobody'"),
        ((), "required: role"),
        (("web",), "WEB_LISTEN='8000' is not host:port"),
    ],
)
def test_words_that_serve_does_not_know_are_one_clear_line(words: tuple[str, ...], said: str) -> None:
    env = {"PATH": "/usr/bin:/bin", "WEB_LISTEN": "8000"}
    done = served(*words, **env)
    assert done.returncode and said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("role", "url", "said"),
    [
        ("web", "postgres://u:p@127.0.0.1:99999/n", "DATABASE_URL is not a URL"),
        ("deliver", "", "DATABASE_URL is not set"),
    ],
)
def test_a_part_without_its_database_ends_with_one_line(role: str, url: str, said: str, tmp_path: Path) -> None:
    done = served(role, PATH="/usr/bin:/bin", DATABASE_URL=url, MAILAPI_VAR=str(tmp_path))
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"mailapi does not start: {said}")


def served(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "serve", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
