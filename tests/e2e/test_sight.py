"""What an operator sees of real processes: alerts of what goes wrong, a canary from outside, logs for programs."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.dovecot import PASSWORD, POLLED, Dovecot, running_dovecot
from tests.fakes.receiver import Receiver, receiver
from tests.fakes.town import PYTHON, ROOT, Town

OPS = "delivered+ops@simulator.test"
#: the certificate is for the receiver's name, which no resolver of this machine knows
CANARY = """
import runpy, socket
real = socket.getaddrinfo
socket.getaddrinfo = lambda host, *a, **k: real("127.0.0.1" if "receiver" in str(host) else host, *a, **k)
runpy.run_path("manage.py", run_name="__main__")
"""
PARTS = ("web", "deliver1", "deliver2", "jobs", "beat", "smtpd")


@pytest.fixture(scope="module")
def mailboxes() -> Iterator[Dovecot | None]:
    """None where there is none: alerts and logs are looked at all the same."""
    with ExitStack() as held:
        try:
            dovecot = held.enter_context(running_dovecot(polled=True))
        except pytest.skip.Exception:
            dovecot = None
        yield dovecot


@pytest.fixture
def dovecot(mailboxes: Dovecot | None) -> Dovecot:
    if mailboxes is None:
        pytest.skip("no Dovecot is installed")
    return mailboxes


@pytest.fixture(scope="module")
def chat() -> Iterator[Receiver]:
    with receiver() as chat:
        yield chat


@pytest.fixture(scope="module")
def town(mailboxes: Dovecot | None, chat: Receiver) -> Iterator[Town]:
    port = mailboxes.port if mailboxes else 24
    routes = {"canary.test": {"host": "127.0.0.1", "port": port, "lmtp": True, "tls": "may"}}
    town = Town(
        MAIL_ROUTE="mx", HELO_NAME="mail.sender.test", MX_ALLOW_PRIVATE="1",
        LOG_FORMAT="json", LOG_ACCEPTED="on", ALERT_EMAIL=OPS, ALERT_FROM="alerts@sandbox.test", ALERT_QUIET_S="3",
        ALERT_WEBHOOK_URL=chat.url(), MAIL_ROUTES=json.dumps(routes),
        METRICS_TOKEN="0123456789abcdef",
    )  # fmt: skip
    try:
        town.build()
        yield town
    finally:
        town.tear_down()


def told(chat: Receiver, kind: str, word: str, subject: str | None = None) -> list[dict[str, Any]]:
    return [
        alert
        for came in chat.came
        for alert in json.loads(came.body)["alerts"]
        if (alert["kind"], alert["word"]) == (kind, word) and subject in (None, alert["subject"])
    ]


def mails(town: Town, subject: str) -> list[str]:
    """Message-IDs of what the operator was mailed."""
    lines = town.log.read_text().splitlines() if town.log.exists() else []
    facts = [json.loads(line) for line in lines]
    return [f["message_id"] for f in facts if f["subject"].startswith(subject) and OPS in f["forward_paths"]]


def metrics_say(town: Town, name: str) -> set[str]:
    asked = urllib.request.Request(f"http://127.0.0.1:{town.web_port}/metrics")
    asked.add_header("Authorization", f"Bearer {town.env['METRICS_TOKEN']}")
    with urllib.request.urlopen(asked, timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[2] for line in lines if line.startswith(name)}


def test_what_goes_wrong_is_told_once_by_mail_and_webhook_and_so_is_its_end(town: Town, chat: Receiver) -> None:
    # whoever looked while they started may have missed some
    town.until(lambda: metrics_say(town, "mailapi_worker_alive{") == {"1.0"}, "all give signs of life")
    town.until(lambda: not town.sql("SELECT FROM operator_alert WHERE open OR told_open"), "nothing is amiss")
    town.execute("DELETE FROM operator_alert")  # or what was told then is not told again so soon
    chat.came.clear()
    begun, ended = (len(mails(town, f"[mailapi] {word}: role gone")) for word in ("trouble", "over"))

    def says(kind: str, word: str, subject: str | None = None) -> bool:
        town.ring("alerts")
        return bool(told(chat, kind, word, subject))

    town.kill9("beat")
    town.forget_signs("beat")
    # nobody rings: web looks by itself
    town.until(lambda: bool(told(chat, "role_gone", "begins", "beat")), "that beat is gone is told")
    town.until(lambda: len(mails(town, "[mailapi] trouble: role gone")) > begun, "and by mail")
    town.start("beat")
    town.until(lambda: says("role_gone", "ends", "beat"), "that beat is back is told")
    town.until(lambda: len(mails(town, "[mailapi] over: role gone")) > ended, "and by mail")
    assert not told(chat, "role_gone", "begins", "jobs"), "whom nobody rings for lives"

    for name in ("deliver1", "deliver2"):
        town.kill9(name)
    town.forget_signs("deliver")
    town.post({"from": town.sender, "to": "delivered@simulator.test", "subject": "waits", "text": "x"}, "waits")
    town.execute("UPDATE destination SET next_due = now() - interval '90 s' WHERE next_due IS NOT NULL")
    town.until(lambda: says("mail_waits", "begins"), "that mail waits is told")
    town.until(lambda: says("role_gone", "begins", "deliver"), "and that nobody delivers")
    for name in ("deliver1", "deliver2"):
        town.start(name)
    town.until(lambda: says("mail_waits", "ends"), "that it waits no longer is told")
    assert len(told(chat, "role_gone", "begins", "beat")) == len(told(chat, "role_gone", "ends", "beat")) == 1
    assert len(told(chat, "mail_waits", "begins")) == len(told(chat, "mail_waits", "ends")) == 1
    ids = [json.loads(came.body)["id"] for came in chat.came]
    assert len(set(ids)) == len(ids), "each post once"
    ids = mails(town, "[mailapi] trouble: role gone")
    assert len(ids) == len(set(ids)), "one mail for each"


def canary(town: Town, dovecot: Dovecot, *words: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    env = town.env | {"CANARY_KEY": town.key, "CANARY_PASSWORD": password, "SMTP_CA_FILE": ""}
    asked = ["--url", f"http://127.0.0.1:{town.web_port}", "--from", town.sender, "--to", f"{POLLED}@canary.test",
             "--ca-file", str(dovecot.certificates.ca), *words]  # fmt: skip
    command = [PYTHON, "-c", CANARY, "canary", *asked]
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("way", ["imaps", "pop3s"])
def test_a_canary_flies_to_a_mailbox_and_is_seen_there(town: Town, dovecot: Dovecot, way: str, tmp_path: Path) -> None:
    port = dovecot.imaps if way == "imaps" else dovecot.pop3s
    box = f"{way}://{POLLED}@mx.receiver.test:{port}"
    file = tmp_path / "canary.prom"
    flown = canary(town, dovecot, "--mailbox", box, "--accept", "100", "--arrival", "100", "--textfile", str(file))
    assert flown.returncode == 0, flown.stdout + flown.stderr + town.tails()
    (line,) = flown.stdout.splitlines()
    assert line.startswith("MAILAPI OK - accepted in ") and " | accept=" in line and " arrival=" in line
    assert "mailapi_canary_ok 1\n" in file.read_text() and "mailapi_canary_arrival_seconds " in file.read_text()
    assert dovecot.left(POLLED) == [], "it takes its mail away"


def test_a_canary_that_is_slow_is_a_warning_and_one_that_cannot_fly_or_land_is_critical(
    town: Town, dovecot: Dovecot
) -> None:
    box = f"imaps://{POLLED}@mx.receiver.test:{dovecot.imaps}"
    slow = canary(town, dovecot, "--mailbox", box, "--accept", "0", "--json")
    assert slow.returncode == 1 and json.loads(slow.stdout)["state"] == "WARNING", slow.stdout + slow.stderr
    closed = canary(town, dovecot, "--mailbox", box, password="wrong")
    assert closed.returncode == 2 and "the mailbox cannot be read" in closed.stdout
    refused = canary(town, dovecot, "--mailbox", box, "--from", "a@not-ours.test")
    assert refused.returncode == 2 and "not accepted: 4" in refused.stdout, refused.stdout
    lost = canary(town, dovecot, "--mailbox", box, "--to", "bounced@simulator.test", "--critical", "3")
    assert lost.returncode == 2 and "not arrived after 3 s" in lost.stdout, lost.stdout
    nonsense = canary(town, dovecot, "--mailbox", "ftp://x")
    assert nonsense.returncode == 3 and "--mailbox" in nonsense.stderr


def test_every_line_of_every_part_is_an_object_that_tells_no_address_and_no_key(town: Town) -> None:
    mail = {"from": town.sender, "to": "bounced+logs@simulator.test", "subject": "nobody reads this", "text": "x"}
    ident = town.post(mail, "logs")
    status = "SELECT status FROM delivery WHERE message_id = %s"
    town.until(lambda: town.sql(status, ident)[0][0] == "bounced", "a mail bounces")
    town.kill9("valkey")
    town.kill9("postgres")
    request = urllib.request.Request(
        f"http://127.0.0.1:{town.web_port}/emails", json.dumps(mail).encode(),
        {"Authorization": f"Bearer {town.key}", "Content-Type": "application/json", "X-Request-Id": "order-17"},
    )  # fmt: skip
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 503 and refused.value.headers["X-Request-Id"] == "order-17"
    town.start("valkey")
    town.revive_postgres()
    for name in PARTS:
        if name in town.procs:
            town.stop(name)
    lines = [(name, line) for name in PARTS for line in (town.folder / "logs" / f"{name}.log").read_text().splitlines()]
    assert {name for name, _ in lines} >= {"web", "deliver1", "jobs"}
    plain = [(name, line) for name, line in lines if not line.startswith("{")]
    assert plain == []
    for name, line in lines:
        told_ = json.loads(line)
        assert {"time", "level", "role", "host", "pid", "event", "message"} <= set(told_), line
        assert told_["role"] == name.rstrip("12")
        for secret in ("bounced+logs", "delivered+ops", "nobody reads this", town.key, town.password):
            assert secret not in line, line
    asked = [json.loads(line) for name, line in lines if name == "web" and "order-17" in line]
    (accepted,) = [told_ for _, line in lines if (told_ := json.loads(line)).get("message_id") == ident
                   and told_["event"] == "mail.accepted"]  # fmt: skip
    assert (accepted["role"], accepted["recipients"], accepted["key"]) == ("web", "1", town.key[:8])
    assert accepted["tenant"] and accepted["request_id"]
    assert {line["request_id"] for line in asked} == {"order-17"} and "error" in {line["level"] for line in asked}
