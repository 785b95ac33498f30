"""The Postgres and broker of one test run: started once by pytest's controlling process, gone with it.

Order of use: `Stack()` chooses ports and passwords at once, so that settings can be read; `start()` when a test needs
the database; `stop()`. The servers stand under mailapi/up's guards: a killed pytest leaves none behind. Which they are,
TEST_POSTGRES (18, 15) and TEST_BROKER (valkey, redis, rabbitmq) say.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from mailapi.up import postgres
from mailapi.up.files import keep_ports, keep_secrets, make_var
from mailapi.up.stack import PORTS, POSTGRES, ROOT, VALKEY, Address, Plan
from mailapi.up.supervisor import Supervisor
from tests.fakes import servers

TEMPLATE = "mailapi_template"
HAS_TEMPLATE = "MAILAPI_TEST_TEMPLATE"  # set for the xdist workers, which inherit our environment
READY_S = 240


class Stack:
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mailapi-test-"))
        self.folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
        make_var(self.folder)
        self.plan = Plan(
            var=self.folder,
            web=Address("127.0.0.1", 1),
            ports=keep_ports(self.folder, PORTS),
            secrets=keep_secrets(self.folder),
            database_url=None,
            broker_url=None,
            redis_url=None,
            mail_route="sandbox",
        )
        self.postgres = os.environ.get("TEST_POSTGRES") or servers.OURS
        self.broker = os.environ.get("TEST_BROKER") or servers.VALKEY
        assert self.broker in servers.BROKERS, f"TEST_BROKER is none of {', '.join(servers.BROKERS)}"
        self.rabbitmq = servers.RabbitMq(self.folder / "rabbitmq") if self.broker == "rabbitmq" else None
        self.supervisor = Supervisor(self.folder / "log")
        self.started_by = os.getpid()

    def environ(self) -> dict[str, str]:
        """What settings need. No mail server is behind these addresses: a test that sends starts its own."""
        return {
            "DATABASE_URL": self.plan.postgres_url("mailapi"),
            "BROKER_URL": self.rabbitmq.url if self.rabbitmq else self.plan.valkey_url(0),
            "REDIS_URL": self.plan.valkey_url(0),
            "MAIL_ROUTE": "sandbox",
            "SANDBOX_SMTP": "127.0.0.1:1",
            **{name: self.plan.secrets[name] for name in ("SECRET_KEY", "FIELD_KEYS", "VERP_KEYS")},
        }

    def start(self) -> None:
        env = dict(os.environ)
        where = servers.postgres_place(self.postgres, self.folder, postgres.SYSTEM)
        postgres.initialise(self.supervisor, where, self.plan.secrets["postgres_password"], env)
        admin_url = self.plan.postgres_url("postgres")
        # nobody reads what a checkpoint at the end would write
        self.supervisor.start(replace(postgres.child(where, admin_url, env, POSTGRES), stop_signal=signal.SIGQUIT))
        password = self.plan.secrets["valkey_password"]
        children = [
            servers.redis_child(self.broker, self.folder / "valkey", self.plan.ports["valkey"], password, env, VALKEY)
        ]
        if self.rabbitmq:
            children.append(self.rabbitmq.child(env, VALKEY))
        for child in children:
            self.supervisor.start(child)
        self.supervisor.wait_ready(
            ["postgres", *(c.name for c in children)], servers.RABBITMQ_S if self.rabbitmq else READY_S
        )
        postgres.make_database(admin_url, postgres.NAME)

    def make_template(self) -> None:
        """A migrated database that each xdist worker copies, instead of migrating one of its own."""
        postgres.make_database(self.plan.postgres_url("postgres"), TEMPLATE)
        env = os.environ | {"DATABASE_URL": self.plan.postgres_url(TEMPLATE)}
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=env, check=True)

    def stop(self) -> None:
        if os.getpid() != self.started_by:
            return  # a fork of ours ends
        self.supervisor.stop()
        if self.rabbitmq:
            self.rabbitmq.bury()
        data = self.folder / "postgres"
        if data.is_symlink():  # the folder for temporary files was closed to the database's user
            shutil.rmtree(data.resolve().parent, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
