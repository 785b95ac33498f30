"""The certificate that smtpd shows: the one of SMTPD_CERT_FILE, taken again when it was renewed; in the sandbox one of
our own making, kept in the var folder, so that clients can be tried with TLS at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from deliveries.sandbox.certificate import make_pem

log = logging.getLogger(__name__)

#: how soon a renewed certificate is shown
RENEW_S = 60.0
#: key and certificate of the sandbox, and what a client may trust
SANDBOX_PEM, SANDBOX_CA = "smtpd.pem", "smtpd-ca.pem"


class Certificate:
    """A context for servers (TLS 1.2 and newer, RFC 8996) and the files behind it."""

    def __init__(self, cert_file: str, key_file: str = "") -> None:
        """ImproperlyConfigured where the files cannot be read or do not fit each other."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._files = [cert_file, key_file or cert_file]
        try:
            self._load()
        except OSError as e:  # ssl.SSLError is one
            raise ImproperlyConfigured(
                f"SMTPD_CERT_FILE={cert_file!r}: no certificate with its key can be read: {e.strerror or e}"
            ) from None

    def _load(self) -> None:
        self._stamp = self._now()
        self.context.load_cert_chain(*self._files)

    def _now(self) -> list[tuple[int, int]]:
        return [(s.st_mtime_ns, s.st_ino) for s in map(os.stat, self._files)]

    async def renew(self) -> None:
        """For ever: new connections see a renewed certificate; a broken one is told, and the old one stays."""
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                if self._now() != self._stamp:
                    self._load()
                    log.info("the certificate of %s was renewed", self._files[0])
            except OSError as e:
                log.error("the renewed certificate of %s cannot be used: %s", self._files[0], e)


def load() -> Certificate | None:
    """What the settings name; for submission in the sandbox our own; else None, and TLS is not offered."""
    if settings.SMTPD_CERT_FILE:
        return Certificate(settings.SMTPD_CERT_FILE, settings.SMTPD_KEY_FILE)
    if not (settings.SMTPD_SUBMISSION or settings.SMTPD_SUBMISSIONS):
        return None
    if settings.SANDBOX:
        return Certificate(str(_own(Path(settings.VAR))))
    if settings.SMTPD_SUBMISSIONS or not settings.SMTPD_AUTH_WITHOUT_TLS:
        raise ImproperlyConfigured("Submission needs TLS: SMTPD_CERT_FILE is not set.")
    return None


def _own(var: Path) -> Path:
    """The sandbox's key and certificate, made once."""
    path = var / SANDBOX_PEM
    if not path.exists():
        var.mkdir(mode=0o700, parents=True, exist_ok=True)
        key, certificate = make_pem(settings.HELO_NAME, "localhost", "127.0.0.1")
        (var / SANDBOX_CA).write_bytes(certificate)
        fresh = var / f".{SANDBOX_PEM}.{os.getpid()}"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as f:
            f.write(key + certificate)
        fresh.replace(path)
    return path
