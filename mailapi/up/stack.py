"""The parts of one machine's mailapi as processes, and what each is told through its environment.

What keeps nothing is started again where it dies; without Postgres or Valkey everything stops, as all have lost it.

The order of stages is the order of stopping: first nothing new comes in, then what runs is finished, then what it was
kept in goes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from . import serve
from .addresses import Address as Address
from .addresses import greets, http_get, listens
from .supervisor import Child
from .words import Refusal

ROOT = Path(__file__).resolve().parents[2]

DOORS, BEAT, WORKERS, LAB, VALKEY, POSTGRES = range(6)
#: kept across restarts, on 127.0.0.1
PORTS = ("postgres", "valkey", "smtpd_inbound", "smtpd_submission", "smtpd_submissions", "lab")
DRAIN_S = 10
MOST_DELIVER = 64


@dataclass(frozen=True)
class Plan:
    """What this start runs and where; made once, before anything is started."""

    var: Path
    web: Address
    ports: Mapping[str, int]
    secrets: Mapping[str, str]
    database_url: str | None  # None = embedded
    broker_url: str | None
    redis_url: str | None
    mail_route: str

    @property
    def url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.web.host, self.web.host)  # noqa: S104 – read, not bound
        return f"http://{Address(host, self.web.port)}"

    @property
    def has_lab(self) -> bool:
        return self.mail_route == "sandbox"

    @property
    def submits(self) -> bool:
        """Submission needs TLS: with a certificate, or in the sandbox with one of its own making."""
        return self.has_lab or bool(os.environ.get("SMTPD_CERT_FILE"))

    @property
    def lab(self) -> Address:
        return Address("127.0.0.1", self.ports["lab"])

    @property
    def inbound(self) -> Address:
        return Address("127.0.0.1", self.ports["smtpd_inbound"])

    def postgres_url(self, database: str) -> str:
        """The embedded Postgres'; quoted, as a password may hold anything."""
        return f"postgresql://mailapi:{quote(self.secrets['postgres_password'])}@127.0.0.1:{self.ports['postgres']}/{database}"

    def valkey_url(self, number: int) -> str:
        return f"redis://:{quote(self.secrets['valkey_password'])}@127.0.0.1:{self.ports['valkey']}/{number}"

    def environ(self, role: str) -> dict[str, str]:
        """The whole environment of a part; what the user has set wins."""
        ours = {
            "DATABASE_URL": self.database_url or self.postgres_url("mailapi"),
            "BROKER_URL": self.broker_url or self.valkey_url(0),
            "REDIS_URL": self.redis_url or self.valkey_url(0),
            "MAIL_ROUTE": self.mail_route,
            "SMTPD_INBOUND": str(self.inbound),
            "BASE_URL": self.url,
            "WEB_THREADS": str(serve.WEB_THREADS),
            "DRAIN_S": str(DRAIN_S),
        }
        if self.submits:
            for name in ("smtpd_submission", "smtpd_submissions"):
                ours[name.upper()] = str(Address("127.0.0.1", self.ports[name]))
        if self.has_lab:
            ours |= {"SANDBOX_SMTP": str(self.lab), "SANDBOX_SPOOL": str(self.var / "sandbox")}
        for name in ("SECRET_KEY", "FIELD_KEYS", "VERP_KEYS"):
            if not os.environ.get(f"{name}_FILE"):
                ours[name] = self.secrets[name]
        fixed = {
            "DJANGO_SETTINGS_MODULE": "mailapi.settings",
            "MAILAPI_VAR": str(self.var),
            "MAILAPI_ROLE": role,
            "PYTHONUNBUFFERED": "1",
        }
        return ours | {k: v for k, v in os.environ.items() if v or k not in ours} | fixed


def _python(*words: str) -> tuple[str, ...]:
    return (sys.executable, *words)


def command(plan: Plan, name: str, *words: str) -> Child:
    """A manage.py command that ends by itself."""
    return Child(name=name, argv=_python("manage.py", *words), env=plan.environ("command"), cwd=ROOT)


def judge_settings(plan: Plan) -> Child:
    """Ends with one line where a setting is no good; takes a third of a second, as it loads no models."""
    return Child(name="settings", argv=_python("-m", "mailapi.checks"), env=plan.environ("command"), cwd=ROOT)


def parts(plan: Plan) -> list[Child]:
    """Everything that needs the migrated database, ready to be started at once."""
    found = [web(plan), *deliver(plan), jobs(plan), beat(plan), smtpd(plan)]
    return [*found, lab(plan)] if plan.has_lab else found


def web(plan: Plan) -> Child:
    host = plan.url.removeprefix("http://").rsplit(":", 1)[0].strip("[]")  # never the wildcard that it may listen on
    return Child(
        name="web",
        argv=serve.web(
            plan.web, serve.number("WEB_WORKERS", serve.WEB_WORKERS), serve.number("WEB_THREADS", serve.WEB_THREADS)
        ),
        env=plan.environ("web"),
        cwd=ROOT,
        stage=DOORS,
        stop_s=serve.KILL_AFTER_S + 3,
        ready=lambda: http_get(host, plan.web.port, "/health/ready")[0] == 200,
        lacks=lambda: http_get(host, plan.web.port, "/health/ready")[1],
        again=True,
    )


def smtpd(plan: Plan) -> Child:
    return Child(
        name="smtpd",
        argv=serve.smtpd(),
        env=plan.environ("smtpd"),
        cwd=ROOT,
        stage=DOORS,
        ready=greets(plan.inbound.host, plan.inbound.port),
        again=True,
    )


def deliver(plan: Plan) -> list[Child]:
    """N processes with one thread each: a prefork child never hears SIGTERM, a thread worker does."""
    words = os.environ.get("DELIVER_PROCESSES") or "2"
    if not (words.isascii() and words.isdigit() and 1 <= int(words[:9]) <= MOST_DELIVER):
        raise Refusal(f"DELIVER_PROCESSES={words!r} is not a number from 1 to {MOST_DELIVER}")
    count = int(words)
    names = [f"deliver{number}" for number in range(1, count + 1)]
    return [
        Child(
            name=name,
            argv=serve.deliver(name),
            env=plan.environ("deliver"),
            cwd=ROOT,
            stage=WORKERS,
            stop_s=DRAIN_S + 5,
            again=True,
        )
        for name in names
    ]


def jobs(plan: Plan) -> Child:
    return Child(
        name="jobs",
        argv=serve.jobs("jobs", serve.number("JOBS", serve.JOBS)),
        env=plan.environ("jobs"),
        cwd=ROOT,
        stage=WORKERS,
        stop_s=DRAIN_S + 5,
        again=True,
    )


def beat(plan: Plan) -> Child:
    return Child(
        name="beat",
        argv=serve.beat(str(plan.var / "beat-schedule")),
        env=plan.environ("beat"),
        cwd=ROOT,
        stage=BEAT,
        again=True,
    )


def lab(plan: Plan) -> Child:
    env = plan.environ("command")
    return Child(
        name="lab",
        argv=_python(
            *("-m", "deliveries.sandbox", "--listen", str(plan.lab), "--bounce-to", str(plan.inbound)),
            *("--spool", env["SANDBOX_SPOOL"]),  # where the panel looks for what was accepted
        ),
        env=env,
        cwd=ROOT,
        stage=LAB,
        ready=listens(plan.lab.host, plan.lab.port),
        again=True,
    )
