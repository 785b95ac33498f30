"""The servers that the parts stand on, by name: a Postgres of the wheel or of Debian; Valkey, Redis or RabbitMQ.

`TEST_POSTGRES=15` and `TEST_BROKER=redis` or `rabbitmq` choose for a whole run of pytest; a Town is told.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mailapi.up import postgres, valkey
from mailapi.up.addresses import tcp_answers
from mailapi.up.supervisor import Child
from tests.fakes.daemon import missing, need
from tests.fakes.ports import free_port

POSTGRES_15 = Path("/usr/lib/postgresql/15")
REDIS = Path("/usr/bin/redis-server")
RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
OURS, DEBIANS = "18", "15"
VALKEY, BROKERS = "valkey", ("valkey", "redis", "rabbitmq")
RABBITMQ_S = 240


def postgres_place(version: str, folder: Path, system: Path) -> postgres.Place:
    """Where this run's cluster lives, in `folder` if it is open to the user that Postgres runs as, else in `system`."""
    if version == OURS:
        return postgres.place(folder, system)
    assert version == DEBIANS, f"no Postgres {version} is known here"
    need(POSTGRES_15 / "bin" / "postgres")
    return postgres.Place(POSTGRES_15, folder / "postgres", postgres.unprivileged() if os.geteuid() == 0 else None)


def redis_child(broker: str, folder: Path, port: int, password: str, env: Mapping[str, str], stage: int = 0) -> Child:
    """Limits and signs of life, and the broker unless that is RabbitMQ. Redis reads Valkey's configuration."""
    child = valkey.child(folder, port, password, env, stage)
    if broker == VALKEY:
        return child
    need(REDIS)
    return replace(child, argv=(str(REDIS), *child.argv[1:]))


class RabbitMq:
    """Ports and home of one; Erlang's name server is its own too, and leaves every session: `bury` ends it."""

    def __init__(self, folder: Path) -> None:
        need(RABBITMQ)
        if os.geteuid() != 0:
            missing("RabbitMQ of Debian is started as root here")
        self.folder = folder
        self.port, self._dist_port, self._epmd_port = (free_port() for _ in range(3))
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def child(self, env: Mapping[str, str], stage: int = 0) -> Child:
        home = self.folder
        home.mkdir(exist_ok=True)
        (home / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")
        words = {
            "HOME": home,
            "RABBITMQ_MNESIA_BASE": home,
            "RABBITMQ_LOG_BASE": home,
            "RABBITMQ_NODENAME": f"town{self.port}@localhost",
            "RABBITMQ_DIST_PORT": self._dist_port,
            "ERL_EPMD_PORT": self._epmd_port,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_PID_FILE": home / "pid",
            "RABBITMQ_CONFIG_FILE": home / "rabbitmq",
            "RABBITMQ_ENABLED_PLUGINS_FILE": home / "plugins",
        }
        argv = ("env", *(f"{name}={value}" for name, value in words.items()), str(RABBITMQ))
        ready = lambda: tcp_answers("127.0.0.1", self.port)  # noqa: E731
        return Child("rabbitmq", argv, env, home, stage, stop_s=20, ready=ready)

    def bury(self) -> None:
        subprocess.run(["epmd", "-port", str(self._epmd_port), "-kill"], capture_output=True, check=False)
