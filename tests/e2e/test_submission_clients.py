"""Programs that people send with, unmodified, against the doors for submission: swaks and nodemailer."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from deliveries.models import Message, MessageContent
from tests.fakes.desk import desk
from tests.fakes.house import House, build
from tests.fakes.node import node

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def ports(authority: trustme.CA) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    with desk(authority) as where:
        yield where


def mails(house: House) -> list[Message]:
    return list(Message.objects.filter(tenant=house.tenant).order_by("id"))


def swaks(where: tuple[str, int], ca: str, *words: str, tls: str = "--tls") -> tuple[int, str]:
    """(exit code, the conversation)."""
    if not shutil.which("swaks"):
        if os.environ.get("REQUIRE_ALL"):
            pytest.fail("REQUIRE_ALL=1, and there is no swaks")
        pytest.skip("no swaks on this machine")
    done = subprocess.run(
        ["swaks", "--server", where[0], "--port", str(where[1]), tls, "--tls-verify", "--tls-ca-path", ca,
         "--from", "app@client.test", "--timeout", "60", *words],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("tls", ["--tls", "--tls-on-connect"])
def test_swaks_submits_by_each_kind_of_tls_and_of_login(ports, ca: str, tls: str, mechanism: str) -> None:
    house = build()
    code, said = swaks(
        ports[tls == "--tls-on-connect"], ca, "--to", "ann@one.test,ben@one.test", "--auth", mechanism,
        "--auth-user", "apikey", "--auth-password", house.secret, "--header", f"From: {house.sender}",
        "--header", "X-Tag: welcome", "--body", "Hello", tls=tls,
    )  # fmt: skip
    assert code == 0, said
    (message,) = mails(house)
    assert f"250 2.6.0 Ok: queued as {message.id}" in said
    assert sorted(d.recipient for d in message.deliveries.all()) == ["ann@one.test", "ben@one.test"]
    assert message.tags == [{"name": "welcome", "value": ""}]


def test_swaks_is_refused_a_wrong_key_a_foreign_from_and_every_way_around_the_login(ports, ca: str) -> None:
    house = build()
    right = ("--auth", "PLAIN", "--auth-user", "apikey", "--auth-password", house.secret)
    to = ("--to", "ann@one.test")
    own = ("--header", f"From: {house.sender}")
    for words, reply in (
        ((*to, *own, "--auth", "PLAIN", "--auth-user", "apikey", "--auth-password", "re_wrong"), "535 5.7.8"),
        ((*to, *right, "--header", "From: x@elsewhere.test"), "550 5.7.1"),
        ((*to, *own), "530 5.7.0"),
        (("--to", "a%elsewhere.test@one.test", *own, *right), "550 5.7.1"),
        (("--to", "@one.test:a@elsewhere.test", *own, *right), "550 5.7.1"),
    ):
        code, said = swaks(ports[0], ca, *words)
        assert code != 0 and reply in said, said
    assert mails(house) == []


def test_nodemailer_submits_and_is_refused_as_it_should(ports, ca: str) -> None:
    house = build()
    said = node(
        "nodemailer.mjs", starttls=ports[0][1], tls=ports[1][1], ca=ca, key=house.secret, domain=house.domain.name
    )
    made = mails(house)
    assert [said[how]["response"] for how in ("starttls", "tls")] == [
        f"250 2.6.0 Ok: queued as {message.id}" for message in made
    ]
    for message in made:
        assert (message.subject, message.to, message.cc, message.bcc) == (
            "Grüße 🎉", ["Ann <ann@one.test>", "ben@one.test"], ["cleo@one.test"], ["dan@one.test"],
        )  # fmt: skip
        assert message.deliveries.count() == 4
        assert message.metadata == {"order": "17"}
        raw = bytes(MessageContent.objects.get(id=message.id).raw)
        assert b"dan@one.test" not in raw and b"X-Tag" not in raw
    assert said["wrong"]["code"] == "EAUTH"
    assert "550 5.7.1" in said["foreign"]["message"]
