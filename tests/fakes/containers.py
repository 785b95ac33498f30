"""The deployment with each part of ours in a container of the image, as docker/compose.yaml says: by podman.

User 10001 without capabilities, on a read-only file system, with secrets in files. The network is the machine's, where
the servers of the test are.
"""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

from tests.fakes.daemon import need
from tests.fakes.deployment import Deployment, filled_in

PODMAN, TINI, RUNC = Path("/usr/bin/podman"), Path("/usr/bin/tini"), Path("/usr/sbin/runc")
UID = 10001
_SECRETS = "/run/secrets"
_NOT_TOLD = ("PATH", "LANG", "HOME", "PYTHONPATH", "DJANGO_SETTINGS_MODULE")


class Contained(Deployment):
    """`image` is one that podman has (docker/try-build). Parts are started, stopped and killed by their names."""

    def __init__(self, image: str, broker: str, **settings: str) -> None:
        need(PODMAN, TINI, RUNC)
        super().__init__(broker, **settings)
        self.image, self.mark = image, self.folder.name
        self.backups = "/var/lib/mailapi/backups"
        del self.env["ALIVE_FILE"]  # the image says it
        secrets = str(self.folder / "secrets")
        self.env = {name: value.replace(secrets, _SECRETS) for name, value in self.env.items()}
        home = self.folder / "caddy"
        home.mkdir()
        os.chown(home, UID, UID)

    def health(self, name: str) -> subprocess.CompletedProcess[str]:
        """What the health check of the compose file says of a running part."""
        kind, *words = self.services[name.rstrip("0123456789")]["healthcheck"]["test"]
        words = [filled_in(word, {}) for word in words]
        if kind == "CMD-SHELL":
            words = ["sh", "-c", *words]
        if name == "web":  # each has an address of its own in the compose file
            words = [word.replace(":8000/", f":{self.web_port}/") for word in words]
        if name == "smtpd":
            words = [word.replace("2525", str(self.smtpd_port)) for word in words]
        return self.inside(name, *words)

    def inside(self, name: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A command in the container of a running part."""
        return self._podman("exec", self._called(name), *words)

    def tear_down(self) -> None:
        found = self._podman("ps", "-aq", "--filter", f"label=town={self.mark}").stdout.split()
        if found:
            self._podman("rm", "-f", "-t", "0", *found)
        super().tear_down()
        self._podman("volume", "rm", "-f", self._volume)

    def _part(self, name: str, settings: list[str], words: list[str]) -> tuple[str, ...]:
        return (*self._run(self._called(name), *settings), self.image, *words)

    def _command(self, name: str) -> tuple[tuple[str, ...], str]:
        words, role = super()._command(name)
        if name == "caddy":
            words = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *words)
        return words, role

    def _manage(self, *words: str, **settings: str) -> str:
        pairs = [f"{name}={value}" for name, value in settings.items()]
        done = subprocess.run(
            [*self._run(f"{self.mark}-once", *pairs), self.image, *words],
            env=self.env, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    @property
    def _volume(self) -> str:
        return f"{self.mark}-state"

    def _called(self, name: str) -> str:
        return f"{self.mark}-{name}"

    def _run(self, called: str, *settings: str) -> tuple[str, ...]:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2  # podman asks for more than some machines give
        ours = [name for name in self.env if name not in _NOT_TOLD]
        return (
            *(str(PODMAN), "--runtime", str(RUNC), "--cgroup-manager", "cgroupfs", "run", "--rm", "--replace"),
            *("--name", called, "--label", f"town={self.mark}", "--network", "host", "--pull", "never"),
            *("--ulimit", f"nofile={most}:{most}", "--ulimit", "nproc=4096:4096", "--log-driver", "none"),
            *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            *("--init", "--init-path", str(TINI), "--volume", f"{self._volume}:/var/lib/mailapi"),
            *("--volume", f"{self.folder / 'secrets'}:{_SECRETS}:ro", "--volume", f"{self.folder}:{self.folder}:ro"),
            *(word for name in ours for word in ("--env", name)),
            *(word for pair in settings for word in ("--env", pair)),
        )

    def _podman(self, *words: str) -> subprocess.CompletedProcess[str]:
        whole = [str(PODMAN), "--runtime", str(RUNC), "--cgroup-manager", "cgroupfs", *words]
        return subprocess.run(whole, capture_output=True, text=True, timeout=120, check=False)
