"""The whole service as real processes that a test may kill: Postgres, Valkey, web, workers, beat, smtpd and lab.

Each process stands under mailapi/up/guard.py, so that nothing survives the test, however it ends.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import psycopg
import redis
from celery import Celery

from mailapi.up import postgres, serve
from mailapi.up.addresses import Address, libpq_environ
from mailapi.up.supervisor import GUARD, Supervisor
from tests.fakes import servers
from tests.fakes.ports import free_port
from tests.fakes.stack import HAS_TEMPLATE, TEMPLATE

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = sys.executable


def new_folder() -> Path:
    """A folder that the database's own user may pass, which a root's Postgres needs; pytest closes its own to others,
    also those of a run beside this one. `tear_down` removes it."""
    folder = Path(tempfile.mkdtemp(prefix="mailapi-town-"))
    folder.chmod(0o711)
    return folder


@lru_cache(maxsize=1)
def template() -> bytes | None:
    """The migrated database of this run as SQL, where there is one."""
    if not os.environ.get(HAS_TEMPLATE):
        return None
    source = libpq_environ(f"{os.environ['DATABASE_URL'].rpartition('/')[0]}/{TEMPLATE}")
    program = postgres.wheel_binaries() / "bin" / "pg_dump"
    return subprocess.run([program, "--no-owner"], env=source, capture_output=True, check=True).stdout


class Town:
    """`build()` once; `start`, `kill9`, `stop` by name; `settle()` waits; `tear_down()` always."""

    parts: tuple[str, ...] = ("lab", "smtpd", "web", "deliver1", "deliver2", "jobs", "beat")

    def __init__(
        self, lease_s: float = 3, *, pg: str = servers.OURS, broker: str = servers.VALKEY, **settings: str
    ) -> None:
        self.folder = new_folder()
        self.pg, self.broker = pg, broker
        self.rabbitmq = servers.RabbitMq(self.folder / "rabbitmq") if broker == "rabbitmq" else None
        self.lease_s = lease_s
        self.log = self.folder / "lab.jsonl"
        self.procs: dict[str, subprocess.Popen[bytes]] = {}
        self._said_before: dict[str, int] = {}  # octets in a part's log when it was started
        ports = [free_port() for _ in range(5)]
        self.web_port, self.pg_port, self.valkey_port, self.lab_port, self.smtpd_port = ports
        self.password = secrets.token_hex(16)
        self.key = "re_" + secrets.token_urlsafe(32)
        self.database_url = f"postgres://mailapi:{self.password}@127.0.0.1:{self.pg_port}/mailapi"
        self.redis_url = f"redis://:{self.password}@127.0.0.1:{self.valkey_port}/0"
        self.env = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "HOME", "SSL_CERT_FILE")} | {
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "mailapi.settings",
            "DATABASE_URL": self.database_url,
            "BROKER_URL": self.rabbitmq.url if self.rabbitmq else self.redis_url,
            "REDIS_URL": self.redis_url,
            "SECRET_KEY": secrets.token_hex(16),
            "FIELD_KEYS": base64.urlsafe_b64encode(os.urandom(32)).decode(),
            "VERP_KEYS": "1:" + base64.b64encode(os.urandom(32)).decode(),
            "MAIL_ROUTE": "sandbox",
            "SANDBOX_SMTP": f"127.0.0.1:{self.lab_port}",
            "SMTPD_INBOUND": f"127.0.0.1:{self.smtpd_port}",
            "BASE_URL": f"http://127.0.0.1:{self.web_port}",
            "LEASE_S": str(lease_s),
            "DRAIN_S": "5",
            "UNKNOWN_WAIT_S": "3",
            "MAX_AGE": "600",
            "PYTHONUNBUFFERED": "1",
            **settings,
        }

    # --- processes --------------------------------------------------------------------------------------------

    def build(self) -> None:
        (self.folder / "logs").mkdir(parents=True)
        # the database's own user must get through to its data
        for step in (self.folder, self.folder / "logs"):
            step.chmod(0o755)
        self.place = self.place_of_postgres()
        postgres.initialise(Supervisor(self.folder / "logs"), self.place, self.password, self.env)
        self.start("postgres")
        self.until(lambda: self.answers(self.pg_port) and self._sql_answers(), "postgres")
        postgres.make_database(self._url("postgres"), "mailapi")
        self.start("valkey")
        self.until(lambda: self.answers(self.valkey_port), "valkey")
        if self.rabbitmq:
            self.start("rabbitmq")
            self.until(lambda: self.answers(self.rabbitmq.port), "RabbitMQ", servers.RABBITMQ_S)
        self.before_the_parts()
        self.make_tables()
        wanted = self.folder / "seed.json"
        wanted.write_text(json.dumps({"api_key": self.key, "admin_password": secrets.token_hex(8)}))
        # the sandbox' first tenant has a domain that it may send from, and that is good for every route
        self.sender = json.loads(self._manage("seed", "--secrets", str(wanted), MAIL_ROUTE="sandbox"))["sender"]
        for name in self.parts:
            self.start(name)
        ports = [self.web_port, *([self.lab_port] if "lab" in self.parts else [])]
        self.until(lambda: all(map(self.answers, ports)), "web and lab")

    def place_of_postgres(self) -> postgres.Place:
        return servers.postgres_place(self.pg, self.folder, self.folder)

    def make_tables(self) -> None:
        """From the migrated database of this run where there is one: a dump is read in a tenth of the time."""
        if self.pg != servers.OURS or (dump := template()) is None:
            self._manage("migrate", "-v0")
            return
        words = [postgres.psql_program(), "-X", "-q", "-v", "ON_ERROR_STOP=1"]
        subprocess.run(words, env=libpq_environ(self.database_url), input=dump, capture_output=True, check=True)

    def before_the_parts(self) -> None:
        """What else has to stand before anything of ours runs."""

    def _command(self, name: str) -> tuple[tuple[str, ...], str]:
        match name:
            case "postgres":
                return postgres.child(self.place, self.database_url, self.env, 0).argv, "command"
            case "valkey":
                folder = self.folder / "valkey"
                return (
                    servers.redis_child(self.broker, folder, self.valkey_port, self.password, self.env).argv,
                    "command",
                )
            case "rabbitmq":
                assert self.rabbitmq
                return self.rabbitmq.child(self.env).argv, "command"
            case "lab":
                lab = (PYTHON, "-m", "deliveries.sandbox", "--listen", f"127.0.0.1:{self.lab_port}")
                reports = ("--bounce-to", f"127.0.0.1:{self.smtpd_port}", "--slow", "0.3")
                return (*lab, *reports, "--spool-log", str(self.log)), "command"
            case "smtpd":
                return serve.smtpd(), "smtpd"
            case "web":
                return serve.web(Address("127.0.0.1", self.web_port)), "web"
            case "jobs":
                return serve.jobs("jobs"), "jobs"
            case "beat":
                return serve.beat(str(self.folder / "beat")), "beat"
            case _:
                return serve.deliver(name), "deliver"

    def start(self, name: str) -> None:
        argv, role = self._command(name)
        owner = self.place.owner if name == "postgres" else None
        as_whom = f"{owner[0]}:{owner[1]}" if owner else "-"
        stop = signal.SIGINT if name == "postgres" else signal.SIGTERM
        if name == "postgres":
            postgres.clear_stale_pid(self.place.data)
        with open(self.folder / "logs" / f"{name}.log", "ab") as log:
            self._said_before[name] = log.seek(0, os.SEEK_END)
            self.procs[name] = subprocess.Popen(
                [PYTHON, "-I", "-S", str(GUARD), str(os.getpid()), str(int(stop)), "3", as_whom, *argv],
                env=self.env | {"MAILAPI_ROLE": role, "PGAPPNAME": name},
                cwd="/" if name == "postgres" else ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill9(self, name: str) -> None:
        """As the machine would: no chance to say good-bye."""
        guard = self.procs.pop(name)
        guard.send_signal(signal.SIGUSR2)
        guard.wait(60)

    def kill9_and_count(self, name: str) -> set[uuid.UUID]:
        """Kill a deliver process; the deliveries that it had begun and not recorded, whose final dot may be out."""
        leases = self.leases(name)
        self.kill9(name)
        # what it had asked of Postgres before it died is still done
        gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        self.until(lambda: self.sql(gone, name)[0][0] == 0, f"the sessions of {name} end")
        return self.begun(leases)

    def begun(self, leases: list[uuid.UUID]) -> set[uuid.UUID]:
        """Deliveries held under these leases and known to the crash ledger."""
        held = "SELECT delivery_id FROM queued WHERE started_at IS NOT NULL AND lease_id = ANY (%s)"
        return {row[0] for row in self.sql(held, leases)}

    def leases(self, name: str) -> list[uuid.UUID]:
        """Under which a deliver process has claimed since it was started, as its log says."""
        said = self.said(name)
        return [uuid.UUID(found) for found in re.findall(r"claiming under the lease (\S+)", said)]

    def said(self, name: str) -> str:
        """What a part has written since it was started last."""
        with open(self.folder / "logs" / f"{name}.log", "rb") as log:
            log.seek(self._said_before[name])
            return log.read().decode(errors="replace")

    def stop(self, name: str) -> None:
        """An orderly stop: SIGTERM, and as long as it takes."""
        guard = self.procs.pop(name)
        guard.send_signal(signal.SIGTERM)
        guard.wait(60)

    def crash_postgres(self) -> None:
        """An immediate shutdown: no checkpoint, sessions cut, recovery at the next start."""
        guard = self.procs.pop("postgres")
        (part,) = Path(f"/proc/{guard.pid}/task/{guard.pid}/children").read_text().split()
        os.kill(int(part), signal.SIGQUIT)
        guard.wait(60)

    def revive_postgres(self) -> None:
        """Start it until it answers: meanwhile its port may serve somebody as the near end of a connection."""
        self.start("postgres")

        def back() -> bool:
            if self.procs["postgres"].poll() is not None:
                self.start("postgres")
            return self._sql_answers()

        self.until(back, "postgres is back")

    def restart(self, name: str) -> None:
        self.kill9(name)
        self.start(name)

    def tear_down(self) -> None:
        last = ("valkey", "rabbitmq", "postgres")
        for name in [n for n in self.procs if n not in last] + [n for n in last if n in self.procs]:
            self.procs[name].send_signal(signal.SIGUSR2)
        for guard in self.procs.values():
            guard.wait(60)
        self.procs.clear()
        if self.rabbitmq:
            self.rabbitmq.bury()
        shutil.rmtree(self.folder)

    def _manage(self, *words: str, **settings: str) -> str:
        done = subprocess.run(
            [PYTHON, str(ROOT / "manage.py"), *words],
            env=self.env | settings,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def flush_broker(self) -> None:
        redis.Redis.from_url(self.redis_url).flushall()

    def ring(self, task: str) -> None:
        """As beat does when its time has come."""
        with Celery(broker=self.env["BROKER_URL"], set_as_current=False) as bells:
            bells.send_task(f"deliveries.{task}", queue="jobs", expires=5)

    def forget_signs(self, role: str) -> None:
        """The role's last sign of life, of which the dead are known 15 seconds later, is gone now."""
        with redis.Redis.from_url(self.redis_url) as valkey:
            for sign in valkey.keys(f"mailapi:*:alive:{role}"):
                valkey.delete(sign)

    # --- looking ------------------------------------------------------------------------------------------------

    @staticmethod
    def answers(port: int) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", port), 1):
                return True
        except OSError:
            return False

    def _sql_answers(self) -> bool:
        try:
            self.sql("SELECT 1", database="postgres")
        except psycopg.OperationalError:
            return False
        return True

    def sql(self, statement: str, *params: Any, database: str = "mailapi") -> list[tuple[Any, ...]]:
        with psycopg.connect(self._url(database), autocommit=True, connect_timeout=30) as db:
            return db.execute(statement, params or None).fetchall()

    def execute(self, statement: str, *params: Any) -> None:
        with psycopg.connect(self._url("mailapi"), autocommit=True) as db:
            db.execute(statement, params or None)

    def _url(self, database: str) -> str:
        return f"{self.database_url.rpartition('/')[0]}/{database}"

    def until(self, done: Callable[[], bool], what: str, seconds: float = 240) -> None:
        """Waits for an event with a generous end."""
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise AssertionError(f"{what}: not within {seconds:.0f} s\n{self.tails()}")
            time.sleep(0.1)

    def tails(self) -> str:
        logs = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"--- {p.name}\n" + "\n".join(p.read_text(errors="replace").splitlines()[-12:]) for p in logs)

    def post(self, body: dict[str, Any], key: str) -> str:
        """POST /emails as a careful client does: the same Idempotency-Key until there is a 2xx."""
        return self._post("/emails", body, key)["id"]

    def post_batch(self, bodies: list[dict[str, Any]], key: str) -> list[str]:
        return [m["id"] for m in self._post("/emails/batch", bodies, key)["data"]]

    def _post(self, path: str, body: Any, key: str, tries: int = 200) -> Any:
        data = json.dumps(body).encode()
        for _ in range(tries):
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.web_port}{path}",
                data,
                {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json", "Idempotency-Key": key},
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as e:
                if e.code < 500 and e.code != 409:
                    raise AssertionError(f"{e.code}: {e.read()[:500]!r}") from None
            except (OSError, ValueError, http.client.HTTPException):  # it died within its answer
                pass
            time.sleep(0.2)
        raise AssertionError(f"no 2xx after {tries} tries\n{self.tails()}")

    def copies(self) -> Counter[str]:
        """How often each Message-ID was taken by the lab, without angle brackets."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return Counter(json.loads(line)["message_id"].strip("<>") for line in lines)
