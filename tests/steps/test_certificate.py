"""The certificate that smtpd shows: read, renewed, made for the sandbox, and refused in one line."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command

from deliveries import certificate


def issued(folder: Path, authority: trustme.CA, name: str) -> tuple[str, str]:
    made = authority.issue_cert(name)
    key, chain = folder / "key.pem", folder / "cert.pem"
    made.private_key_pem.write_to_path(str(key))
    chain.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    return str(chain), str(key)


def shown(context: ssl.SSLContext, trust: ssl.SSLContext, name: str) -> bool:
    """Whether a client that expects `name` is content, without a network."""
    server = context.wrap_bio(left := ssl.MemoryBIO(), right := ssl.MemoryBIO(), server_side=True)
    client = trust.wrap_bio(right, left, server_hostname=name)
    for _ in range(10):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return client.version() is not None


def test_a_renewed_certificate_is_shown_without_a_restart(tmp_path: Path, monkeypatch) -> None:
    authority = trustme.CA()
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    chain, key = issued(tmp_path, authority, "old.test")
    cert = certificate.Certificate(chain, key)
    assert shown(cert.context, trust, "old.test") and not shown(cert.context, trust, "new.test")
    monkeypatch.setattr(certificate, "RENEW_S", 0.01)

    async def renewed() -> bool:
        task = asyncio.create_task(cert.renew())
        (tmp_path / "key.pem").write_text("half a file")  # as long as it is being written
        await asyncio.sleep(0.1)
        assert shown(cert.context, trust, "old.test")
        issued(tmp_path, authority, "new.test")
        for _ in range(500):
            await asyncio.sleep(0.02)
            if shown(cert.context, trust, "new.test"):
                break
        task.cancel()
        return shown(cert.context, trust, "new.test")

    assert asyncio.run(renewed())


def test_the_sandbox_makes_one_and_keeps_it(settings, tmp_path: Path) -> None:
    settings.SANDBOX, settings.SMTPD_CERT_FILE, settings.VAR = True, "", tmp_path / "var"
    settings.SMTPD_SUBMISSION, settings.SMTPD_SUBMISSIONS = ("127.0.0.1", 0), None
    settings.HELO_NAME = "mail.sandbox.test"
    first = certificate.load()
    made = (tmp_path / "var" / certificate.SANDBOX_PEM).read_bytes()
    assert first is not None and certificate.load() is not None
    assert (tmp_path / "var" / certificate.SANDBOX_PEM).read_bytes() == made
    assert (tmp_path / "var" / certificate.SANDBOX_PEM).stat().st_mode & 0o777 == 0o600
    trust = ssl.create_default_context(cafile=str(tmp_path / "var" / certificate.SANDBOX_CA))
    for name in ("mail.sandbox.test", "localhost", "127.0.0.1"):
        assert shown(first.context, trust, name)


def test_without_one_there_is_no_submission_outside_of_the_sandbox(settings) -> None:
    settings.SANDBOX, settings.SMTPD_CERT_FILE = False, ""
    settings.SMTPD_SUBMISSION, settings.SMTPD_SUBMISSIONS = None, None
    assert certificate.load() is None  # inbound alone needs none
    settings.SMTPD_SUBMISSION = ("127.0.0.1", 587)
    with pytest.raises(ImproperlyConfigured, match="SMTPD_CERT_FILE"):
        certificate.load()
    settings.SMTPD_AUTH_WITHOUT_TLS = True
    assert certificate.load() is None
    settings.SMTPD_SUBMISSIONS = ("127.0.0.1", 465)
    with pytest.raises(CommandError, match="SMTPD_CERT_FILE"):
        call_command("smtpd")


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_a_file_that_is_no_certificate_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImproperlyConfigured, match="no certificate with its key"):
        certificate.Certificate(str(path))
