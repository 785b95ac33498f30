"""`manage.py up` and `manage.py test`, before and after Django can be imported. Standard library only.

up:   enter .venv → plan → Postgres, Valkey → migrate what is pending → seed beside the parts → up.json → watch → stop
test: enter .venv with tests/requirements.txt → pytest
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import signal
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from . import bootstrap, postgres, valkey
from .addresses import tcp_answers
from .files import UP, bind, keep_ports, keep_secrets, lock_var, make_var, read_json, write_private
from .stack import PORTS, POSTGRES, ROOT, VALKEY, Address, Plan, command, judge_settings, parts
from .supervisor import ChildDied, Supervisor
from .words import Refusal, Stopped, complain, say

READY_S = 240.0  # until every part answers; 10 are usual, but the machine may be busy
MIGRATE_S = 600.0
SETTINGS_S = 60.0
MIGRATED = "migrated.json"


def main(argv: Sequence[str]) -> int:
    """The exit code: 0 after an orderly stop, 1 after a refusal or a death, 2 for words we do not know."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)  # also where a shell started us in the background with SIGINT ignored
    try:
        if platform.system() != "Linux":
            raise Refusal("the embedded parts run on Linux only")
        if argv[0] == "test":
            return test(list(argv[1:]))
        asked = read_words(argv[1:])
        bootstrap.enter(tests=False)
        return up(asked)
    except Refusal as e:
        complain(str(e))
        return 1
    except Stopped:
        return 130


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


def test(words: list[str]) -> int:
    """pytest with these words; `--prepare` stops when everything that the tests need is installed."""
    bootstrap.enter(tests=True)
    if words == ["--prepare"]:
        return 0
    if not words:
        words = ["-n", str(min(4, os.cpu_count() or 1)), "--dist", "loadfile"]
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *words])  # noqa: S606 – our own words


def read_words(argv: Sequence[str]) -> argparse.Namespace:
    reader = argparse.ArgumentParser(
        prog="manage.py up",
        description="Starts everything on this machine: database, broker, API, panel, workers, SMTP, receiver lab.",
    )
    reader.add_argument("--port", type=int, default=8000, metavar="N", help="the API's and the panel's (8000; 0 = any)")
    reader.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="to listen on (127.0.0.1)")
    reader.add_argument(
        "--var",
        type=Path,
        default=Path(os.environ.get("MAILAPI_VAR") or ROOT / "var"),
        metavar="DIR",
        help="for all state (var)",
    )
    words = reader.parse_args(argv)
    if not 0 <= words.port < 65536:
        reader.error(f"--port {words.port}: a port is a number below 65536")
    return words


def up(words: argparse.Namespace) -> int:
    """Starts, watches and stops everything on one var folder; the exit code."""
    os.umask(0o077)  # whatever the parts write is their owner's
    var = words.var.absolute()
    make_var(var)
    with lock_var(var):
        up_json = var / UP
        up_json.unlink(missing_ok=True)  # of a start that was killed
        plan = make_plan(words, var)
        supervisor = Supervisor(var / "log")
        supervisor.listen()
        code = 1
        try:
            run(plan, supervisor, up_json)
        except Stopped:
            code = 0
            say("Stopping")
        except ChildDied as e:
            for line in e.last_lines[:-1]:
                print(f"  {e.name}: {line}", file=sys.stderr)
            complain(str(e))
        except Refusal as e:
            complain(str(e))
        finally:
            up_json.unlink(missing_ok=True)
            supervisor.stop()
    if code == 0:
        say("Stopped")
    return code


def make_plan(words: argparse.Namespace, var: Path) -> Plan:
    """Decides addresses and secrets. Raises Refusal for a port in use."""
    try:
        with bind(words.host, words.port) as s:
            port = s.getsockname()[1]
    except OSError as e:
        raise Refusal(
            f"cannot listen on {Address(words.host, words.port)}: {e.strerror}; choose another with --port N"
        ) from None
    broker_url = os.environ.get("BROKER_URL") or None
    redis_url = os.environ.get("REDIS_URL") or (broker_url if broker_url and broker_url.startswith("redis") else None)
    return Plan(
        var=var,
        web=Address(words.host, port),
        ports=keep_ports(var, PORTS),
        secrets=keep_secrets(var),
        database_url=os.environ.get("DATABASE_URL") or None,
        broker_url=broker_url,
        redis_url=redis_url,
        mail_route=os.environ.get("MAIL_ROUTE") or "sandbox",
    )


def run(plan: Plan, supervisor: Supervisor, up_json: Path) -> None:
    """Starts everything and watches it. Raises Stopped, ChildDied, Refusal; returns never."""
    ready_to_start = parts(plan)
    supervisor.run_once(judge_settings(plan), SETTINGS_S)
    url = start_stores(plan, supervisor)
    postgres.refuse_unsafe(url)
    migrate(plan, supervisor, url)
    say("Starting the parts")
    for child in ready_to_start:
        supervisor.start(child)
    seeded = seed(plan, supervisor)
    supervisor.wait_ready([child.name for child in ready_to_start], READY_S)
    facts = up_facts(plan, seeded)
    write_private(up_json, json.dumps(facts, indent=1))
    greet(facts)
    supervisor.watch()


def start_stores(plan: Plan, supervisor: Supervisor) -> str:
    """Starts or finds Postgres and Valkey; returns the database's URL."""
    embedded = []
    env = plan.environ("command")
    if not (plan.broker_url and plan.redis_url):
        supervisor.start(
            valkey.child(plan.var / "valkey", plan.ports["valkey"], plan.secrets["valkey_password"], env, VALKEY)
        )
        embedded.append("valkey")
    url = plan.database_url
    if url is None:
        say("Starting Postgres and Valkey")
        where = postgres.place(plan.var)
        postgres.initialise(supervisor, where, plan.secrets["postgres_password"], env)
        postgres.clear_stale_pid(where.data)
        supervisor.start(postgres.child(where, plan.postgres_url("postgres"), env, POSTGRES))
        embedded.append("postgres")
    supervisor.wait_ready(embedded, READY_S)
    if url is None:
        postgres.make_database(plan.postgres_url("postgres"), postgres.NAME)
        url = plan.postgres_url(postgres.NAME)
    for name, store in (("BROKER_URL", plan.broker_url), ("REDIS_URL", plan.redis_url)):
        if store:
            refuse_silent(name, store)
    return url


def refuse_silent(name: str, url: str) -> None:
    """Raises Refusal when nothing listens at the address of a store that the user has named."""
    try:
        parts_of = urlsplit(url)
        host, port = parts_of.hostname, parts_of.port or (5672 if parts_of.scheme.startswith("amqp") else 6379)
    except ValueError as e:
        raise Refusal(f"{name}: {e}") from None
    if host and not tcp_answers(host, port, timeout_s=5):
        raise Refusal(f"{name}: nothing answers at {host}:{port}")


def migrate(plan: Plan, supervisor: Supervisor, url: str) -> None:
    """Runs the migrations unless the last run was for this very code and this very database.

    A Django process takes two seconds to say that nothing is pending; the list of migration files and the rows of
    django_migrations say the same in twenty milliseconds.
    """
    stamp = plan.var / MIGRATED
    if read_json(stamp) == (now := migration_facts(url)):
        return
    say("Migrating the database" if now["applied"] else "Making the tables")
    supervisor.run_once(command(plan, "migrate", "migrate", "--no-input", "-v", "1"), MIGRATE_S)
    write_private(stamp, json.dumps(migration_facts(url)))


def migration_facts(url: str) -> dict[str, str]:
    """What decides whether a migration is pending: our files, the packages', and what this database has had."""
    code = hashlib.sha256((ROOT / "requirements.txt").read_bytes())
    for file in sorted(ROOT.glob("*/migrations/[0-9]*.py")):
        code.update(f"\0{file.relative_to(ROOT)}".encode())
    applied = ""
    if postgres.ask(url, "select to_regclass('django_migrations') is not null") == [["t"]]:
        rows = postgres.ask(url, "select md5(string_agg(app || '.' || name, ',' order by id)) from django_migrations")
        applied = rows[0][0]
    return {"code": code.hexdigest(), "applied": applied}


def seed(plan: Plan, supervisor: Supervisor) -> dict[str, Any]:
    """The tenant, admin, key and domain of a fresh installation; the same again on every later start."""
    said = supervisor.run_once(command(plan, "seed", "seed", "--secrets", str(plan.var / "secrets.json")), 120)
    try:
        seeded = json.loads(said.strip().splitlines()[-1])
    except (IndexError, ValueError):
        raise Refusal(f"seed: did not answer with a JSON line but with {said[-200:]!r}") from None
    return dict(seeded)


def up_facts(plan: Plan, seeded: dict[str, Any]) -> dict[str, Any]:
    """up.json: what a client, a test or another command needs to reach this service."""
    env = plan.environ("command")
    with open(ROOT / "pyproject.toml", "rb") as f:
        version = tomllib.load(f)["project"]["version"]
    return {
        "version": version,
        "pid": os.getpid(),
        "url": plan.url,
        "api_key": seeded["api_key"],
        "sender": seeded["sender"],
        "admin": {"url": f"{plan.url}/admin/", **seeded["admin"]},
        "smtp": {
            "inbound": env["SMTPD_INBOUND"],
            "submission": env.get("SMTPD_SUBMISSION") or None,
            "submissions": env.get("SMTPD_SUBMISSIONS") or None,
            "ca_file": env.get("SMTPD_CERT_FILE") or (str(plan.var / "smtpd-ca.pem") if plan.has_lab else None),
        },
        "sandbox": {
            "domain": seeded["sandbox_domain"] if plan.has_lab else None,
            "smtp": env.get("SANDBOX_SMTP") or None,
            "spool": env.get("SANDBOX_SPOOL") or None,
        },
        "mail_route": plan.mail_route,
        "database_url": env["DATABASE_URL"],
        "broker_url": env["BROKER_URL"],
        "redis_url": env["REDIS_URL"],
    }


def greet(facts: dict[str, Any]) -> None:
    say(
        f"""
mailapi {facts["version"]} answers at {facts["url"]}

  panel     {facts["admin"]["url"]}   {facts["admin"]["username"]} / {facts["admin"]["password"]}
  API key   {facts["api_key"]}
  docs      {facts["url"]}/docs/
  SMTP      {submission(facts)}

{first_mail(facts)}

Ctrl-C stops everything."""
    )


def submission(facts: dict[str, Any]) -> str:
    smtp = facts["smtp"]
    if smtp["submission"] is None:
        return "none: set SMTPD_CERT_FILE to offer submission"
    return f"{smtp['submission']} (STARTTLS), {smtp['submissions']} (TLS); any user name, the API key as password"


def first_mail(facts: dict[str, Any]) -> str:
    """A curl line that works; where no domain is verified yet, what comes first."""
    if facts["sender"] is None:
        return "  Mail goes to the recipients' own hosts. Before the first one, a domain of yours must be verified."
    body = json.dumps(
        {"from": facts["sender"], "to": "delivered@simulator.test", "subject": "Hello", "text": "It works."},
    )
    return (
        f"  curl {facts['url']}/emails -H 'Authorization: Bearer {facts['api_key']}' \\\n"
        f"       -H 'Content-Type: application/json' -d '{body}'"
    )
