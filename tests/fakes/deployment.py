"""docker/compose.yaml without Docker: the same commands and environment as plain processes, beside servers of Debian.

Postgres 15, Redis or RabbitMQ, and Caddy in front, with docker/Caddyfile. What differs from the containers is what
must: addresses on loopback, ports of the kernel, and the sandbox instead of the Internet.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.fakes import servers
from tests.fakes.daemon import need
from tests.fakes.ports import free_port
from tests.fakes.town import PYTHON, ROOT, Town

DOCKER = ROOT / "docker"
CADDY = Path("/usr/bin/caddy")
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}|\$(\$)")


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((DOCKER / "compose.yaml").read_text()))


def filled_in(text: str, variables: dict[str, str]) -> str:
    """`${NAME}`, `${NAME:-default}`, `${NAME:?why}` as Compose reads them."""

    def value(found: re.Match[str]) -> str:
        name, sign, rest, dollar = found.groups()
        if dollar:
            return "$"
        if found := variables.get(name, ""):
            return found
        assert sign != "?", f"{name}: {rest}"
        return rest or ""

    return _VARIABLE.sub(value, str(text))


class Deployment(Town):
    """A town of the production parts. `https` is its address; `authority` is the file of Caddy's own authority."""

    def __init__(self, broker: str, **settings: str) -> None:
        need(CADDY)
        super().__init__(pg=servers.DEBIANS, broker=broker)
        self.http_port, self.https_port, self.web2_port = free_port(), free_port(), free_port()
        self.https = f"https://localhost:{self.https_port}"
        self.backups = str(self.folder / "backups")
        self.authority = self.folder / "caddy" / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        self.services = compose()["services"]
        self._settle_environment(settings)

    def _settle_environment(self, settings: dict[str, str]) -> None:
        """What compose.yaml gives every part; secrets come from files, as there."""
        secrets = self.folder / "secrets"
        secrets.mkdir()
        for name, value in {
            "database_url": self.database_url,
            "broker_url": self.env["BROKER_URL"],
            "secret_key": self.env["SECRET_KEY"],
            "field_keys": self.env["FIELD_KEYS"],
            "verp_keys": self.env["VERP_KEYS"],
        }.items():
            (secrets / name).write_text(value + "\n")
        variables = {
            "WEB_NAME": "localhost",
            "HELO_NAME": "mx.example.net",
            "BOUNCE_DOMAIN": "bounce.example.net",
            "MAIL_ROUTE": "sandbox",
            "DRAIN_S": "5",
        }
        declared = self.services["web"]["environment"]
        given = {name: filled_in(value, variables) for name, value in declared.items()}
        given = {name: value.replace("/run/secrets", str(secrets)) for name, value in given.items()}
        if self.broker == "rabbitmq":
            del given["REDIS_URL_FILE"]
            given["REDIS_URL"] = self.redis_url
        kept = ("PATH", "LANG", "HOME", "PYTHONPATH", "DJANGO_SETTINGS_MODULE", "SANDBOX_SMTP", "SMTPD_INBOUND")
        # `localhost` has the port of the test in it
        self.env = {k: self.env[k] for k in kept if k in self.env} | given | {
            "BASE_URL": self.https,
            "PYTHONUNBUFFERED": "1",
            "LEASE_S": "10",
            "ALIVE_FILE": str(self.folder / "alive"),
            **settings,
        }  # fmt: skip
        certificates = self.folder / "caddy" / "caddy" / "certificates" / "local"
        self.certificate = certificates / "localhost" / "localhost.crt"
        self.submission_port, self.submissions_port = free_port(), free_port()
        self.for_smtpd = {
            "SMTPD_SUBMISSION": f"127.0.0.1:{self.submission_port}",
            "SMTPD_SUBMISSIONS": f"127.0.0.1:{self.submissions_port}",
            "SMTPD_CERT_FILE": str(self.certificate),
            "SMTPD_KEY_FILE": str(self.certificate.with_suffix(".key")),
        }
        assert set(self.for_smtpd) < set(self.services["smtpd"]["environment"])

    def before_the_parts(self) -> None:
        self.start("web2")
        self.start("caddy")
        self.until(self.certificate.exists, "Caddy made its certificates")

    def _command(self, name: str) -> tuple[tuple[str, ...], str]:
        match name:
            case "caddy":
                return (
                    "env",
                    *self._caddy_words(),
                    str(CADDY),
                    "run",
                    "--config",
                    str(DOCKER / "Caddyfile"),
                ), "command"
            case "lab" | "postgres" | "valkey" | "rabbitmq":
                return super()._command(name)
        service = name if name in self.services else name.rstrip("0123456789")
        words = self.services[service]["command"]
        extra = {
            "web": [f"WEB_LISTEN=127.0.0.1:{self.web_port}"],
            "web2": [f"WEB_LISTEN=127.0.0.1:{self.web2_port}"],
            "smtpd": [f"{name}={value}" for name, value in self.for_smtpd.items()],
        }.get(service, [])
        return self._part(name, [*extra, f"PART_NAME={name}"], words), words[1]

    def _part(self, name: str, settings: list[str], words: list[str]) -> tuple[str, ...]:
        """`manage.py words…` with settings of its own beside those that all parts share."""
        beat = f"BEAT_SCHEDULE={self.folder / 'beat'}"
        return ("env", *settings, beat, PYTHON, str(ROOT / "manage.py"), *words)

    def _caddy_words(self) -> list[str]:
        options = f"http_port {self.http_port}\nhttps_port {self.https_port}\nskip_install_trust\nadmin off"
        return [
            *(f"XDG_DATA_HOME={self.folder}/caddy", f"XDG_CONFIG_HOME={self.folder}/caddy", f"HOME={self.folder}"),
            *("ACME_EMAIL=nobody@example.net", "WEB_NAME=localhost", "HELO_NAME=mx.localhost"),
            *(f"WEB_UPSTREAM=127.0.0.1:{self.web_port} 127.0.0.1:{self.web2_port}", f"CADDY_OPTIONS={options}"),
            f"TLS_ASK=http://127.0.0.1:{self.web_port}/tls/ask",
            "TLS_ISSUER=issuer internal",
            "WEB_BUFFERS=buffer_requests\nmax_buffer_size 1MB",  # Debian's Caddy is 2.6.2
        ]
