"""A town of several machines: Postgres, broker, web, beat, DNS and receiver on one; deliver and jobs on the others.

The machines are network namespaces (network.py). Whatever a test does after `build()` happens in the centre's: this
thread is there until `tear_down()`. Parts of a host are named `h1.deliver`, `h1.jobs`.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass

from tests.fakes.dns import FakeDns
from tests.fakes.network import Host, Network
from tests.fakes.town import PYTHON, ROOT, Town, template


@dataclass(frozen=True)
class Taken:
    """A mail that the receiver took."""

    message_id: str
    recipient: str
    peer: str
    helo: str


class Hosts(Town):
    parts = ("lab", "web", "beat")

    def __init__(self, hosts: int = 3, domains: tuple[str, ...] = ("receiver.test",), **settings: str) -> None:
        template()  # of the database outside, which is not seen from inside
        self.network = Network(hosts)
        self._closing = contextlib.ExitStack()
        self._domains = domains
        super().__init__(**settings)
        here = self.network.address
        for name in ("DATABASE_URL", "BROKER_URL", "REDIS_URL"):
            self.env[name] = self.env[name].replace("127.0.0.1", here)
        self.database_url = self.env["DATABASE_URL"]
        self.redis_url = self.env["REDIS_URL"]
        self.env |= {
            "MAIL_ROUTE": "mx",
            "SMTP_PORT": str(self.lab_port),
            "MX_ALLOW_PRIVATE": "1",
            "HELO_NAME": "out.example.net",
            "BOUNCE_DOMAIN": "bounce.example.net",
            "RETRY_SCHEDULE": "2,4,8,15",
            "BRAKES": "0",
        } | settings
        #: what is true of one host alone, by its number
        self.of_host: dict[int, dict[str, str]] = {}

    def build(self) -> None:
        self._closing.callback(self.network.remove)
        self.network.make()
        self._closing.enter_context(self.network.inside())
        table = "\n".join(f"{d} MX 10 mx.{d}\nmx.{d} A {self.network.address}" for d in self._domains)
        dns = self._closing.enter_context(FakeDns(table, host=self.network.address))
        self.env.setdefault("DNS_NAMESERVERS", "{}:{}".format(*dns.address))
        super().build()

    def start_host(self, number: int) -> None:
        for part in ("deliver", "jobs"):
            self.start(f"h{number}.{part}")

    def kill_host(self, number: int) -> None:
        for name in [n for n in self.procs if n.startswith(f"h{number}.")]:
            self.kill9(name)

    def cut(self, number: int) -> None:
        self.network.cut(self.host(number))

    def host(self, number: int) -> Host:
        return self.network.hosts[number - 1]

    def taken(self) -> list[Taken]:
        """What the receiver took, oldest first; it writes twice a second."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        found = map(json.loads, lines)
        return [
            Taken(one["message_id"].strip("<>"), one["forward_paths"][0], one["peer"], one["helo"]) for one in found
        ]

    def tear_down(self) -> None:
        with self._closing:
            super().tear_down()

    def _command(self, name: str) -> tuple[tuple[str, ...], str]:
        here = self.network.address
        match name:
            case "postgres":
                argv, role = super()._command(name)
                rules = self.folder / "hba.conf"
                rules.write_text(
                    f"host all all 127.0.0.1/32 scram-sha-256\nhost all all {self.network.net} scram-sha-256\n"
                )
                rules.chmod(0o644)
                return (*argv, "-c", "listen_addresses=*", "-c", f"hba_file={rules}"), role
            case "valkey":
                argv, role = super()._command(name)
                return (*argv, "--bind", here, "127.0.0.1"), role
            case "lab":
                argv, role = super()._command(name)
                where = argv.index("--listen") + 1
                return (*argv[:where], f"0.0.0.0:{self.lab_port}", *argv[where + 1 :], "--any-domain"), role
        if "." not in name:
            return super()._command(name)
        host, _, role = name.partition(".")
        number = int(host[1:])
        own = [f"{k}={v}" for k, v in self.of_host.get(number, {}).items()]
        # a host has a name as well as a network of its own
        as_host = ("ip", "netns", "exec", self.host(number).name, "unshare", "--uts", "sh", "-c",
                   f'hostname {host}; exec "$@"', "sh", "env", *own)  # fmt: skip
        return (*as_host, PYTHON, str(ROOT / "manage.py"), "serve", role), role
