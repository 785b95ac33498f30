"""The service as `up` runs it (tests/fakes/town.py): mail by MX through the benchmark's DNS, one webhook endpoint."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.parts import BULK, ROOT, WIRE, tree, until
from benchmarks.postfix import SENDER_DOMAIN
from tests.fakes.town import Town

#: recipient domains, each with an MX host of its own: limits per destination are for one provider, not for all mail
DOMAINS = tuple(f"d{n}.bench.test" for n in range(20))
WIRE_DOMAIN = "wire.bench.test"
SENDER = f"app@{SENDER_DOMAIN}"

#: what the local DNS server knows; every other question is answered NXDOMAIN
DNS_TABLE = "\n".join(
    [
        *(f"{domain} MX 10 mx.bulk{n}.test\nmx.bulk{n}.test A {BULK}" for n, domain in enumerate(DOMAINS)),
        f"{WIRE_DOMAIN} MX 10 mx.wire.test\nmx.wire.test A {WIRE}",
    ]
)


class Service:
    """`town.build()` and what an operator does next: a sender domain with its key, a webhook endpoint."""

    def __init__(self, dns: tuple[str, int], smtp_port: int, webhook_port: int) -> None:
        self.town = Town(
            lease_s=60,
            DJANGO_SETTINGS_MODULE="benchmarks.settings",
            MAIL_ROUTE="mx",
            DNS_NAMESERVERS=f"{dns[0]}:{dns[1]}",
            SMTP_PORT=str(smtp_port),
            MX_ALLOW_PRIVATE="1",
            HELO_NAME="out.bench.example",
            BOUNCE_DOMAIN="bounce.bench.example",
            LOG_LEVEL="WARNING",
            **{name: os.environ[name] for name in ("BENCH_STAMPS",) if name in os.environ},
        )
        self.webhook_port = webhook_port

    def build(self) -> None:
        self.town.build()
        self.inside("prepare", SENDER_DOMAIN, f"http://127.0.0.1:{self.webhook_port}/hook")

    def inside(self, *words: str) -> str:
        command = [sys.executable, "-m", "benchmarks.inside", *words]
        done = subprocess.run(command, env=self.town.env, cwd=ROOT, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise RuntimeError(done.stderr[-3000:])
        return done.stdout.strip()

    def plan(self, way: str, run: str, mails: int, connections: int = 16) -> dict[str, object]:
        """What a feeder needs to know."""
        return {
            "way": way,
            "run": run,
            "mails": mails,
            "connections": connections,
            "port": self.town.web_port,
            "key": self.town.key,
            "sender": SENDER,
            "domains": DOMAINS,
            "per_s": 50,
        }

    def pids(self) -> list[int]:
        """All that serves mail: web, workers, beat, Postgres, Valkey, smtpd; not the lab, which stands idle."""
        return [guard.pid for name, guard in self.town.procs.items() if name != "lab"]

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """The deliver processes stand still."""
        pids = [p for name in ("deliver1", "deliver2") for p in tree(self.town.procs[name].pid)[1:]]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def ring(self) -> None:
        """As accept does after its commit: one bell for each deliver process."""
        from celery import Celery

        bell = Celery(broker=self.town.env["BROKER_URL"])
        for _ in range(2):
            bell.send_task("deliveries.deliver", queue="deliver", expires=5)
        bell.close()

    def settle(self) -> None:
        """Until every outcome is recorded; what the webhooks did not get through is taken from the outbox."""
        until(lambda: self.town.sql("SELECT count(*) FROM queued")[0][0] == 0, "the queue is empty", 300)
        self.town.sql(
            "WITH d AS (DELETE FROM webhook_delivery WHERE state = 'pending' RETURNING 1) SELECT count(*) FROM d"
        )
        time.sleep(0.3)

    def safe(self) -> bool:
        """Whether Postgres writes to the disk before it says so."""
        names = ("fsync", "full_page_writes", "synchronous_commit")
        return all(self.town.sql(f"SHOW {name}")[0][0] == "on" for name in names)
