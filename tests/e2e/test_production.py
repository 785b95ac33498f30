"""The production layout on this machine: HTTPS through Caddy, Postgres 15, RabbitMQ, `manage.py serve`.

With Redis the same layout is upgraded under load (test_rolling.py).

With the name of an image that podman has, each part also runs in a container of it, as docker/compose.yaml says (root):
    docker/try-build mailapi-try && TRY_IMAGE=mailapi-try pytest -n0 tests/e2e/test_production.py -k image
"""

from __future__ import annotations

import json
import os
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.message import EmailMessage

import pytest

from mailapi.up.serve import WEB_THREADS, WEB_WORKERS
from tests.fakes.containers import UID, Contained
from tests.fakes.deployment import Deployment, filled_in
from tests.fakes.town import PYTHON

#: Resend's SDK in a process of its own, since it takes the authorities from the environment
CLIENT = """
import json, sys, resend
resend.api_url, resend.api_key = sys.argv[1:3]
mail = {"from": sys.argv[3], "subject": "Over HTTPS", "text": "It works."}
ids = {who: resend.Emails.send({**mail, "to": f"{who}@simulator.test"})["id"] for who in ("delivered", "bounced")}
print(json.dumps(ids))
"""


IMAGE = os.environ.get("TRY_IMAGE", "")
MADE: dict[str, Callable[[], Deployment]] = {
    "rabbitmq": lambda: Deployment("rabbitmq"),
    **({"image": lambda: Contained(IMAGE, "valkey")} if IMAGE else {}),
}


@pytest.fixture(params=MADE)
def deployment(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    deployment = MADE[request.param]()
    try:
        deployment.build()
        yield deployment
    finally:
        deployment.tear_down()


def test_an_sdk_sends_over_https_and_the_mail_goes_its_way(deployment: Deployment) -> None:
    town = deployment
    for port in (town.https_port, town.submission_port, town.submissions_port):
        town.until(lambda port=port: town.answers(port), "Caddy and smtpd")
    env = {**town.env, "REQUESTS_CA_BUNDLE": str(town.authority)}
    sent = subprocess.run(
        [PYTHON, "-c", CLIENT, town.https, town.key, town.sender], env=env, capture_output=True, text=True, timeout=120
    )
    assert sent.returncode == 0, f"{sent.stderr[-2000:]}\n{town.tails()}"
    ids = json.loads(sent.stdout)

    def status(who: str) -> str:
        return town.sql("SELECT status FROM delivery WHERE message_id = %s", ids[who])[0][0]

    letter = EmailMessage()
    letter["From"], letter["To"], letter["Subject"] = town.sender, "delivered@simulator.test", "Over SMTP"
    letter.set_content("It works.")
    trust = ssl.create_default_context(cafile=str(town.authority))
    with smtplib.SMTP("localhost", town.submission_port, timeout=60) as client:
        client.starttls(context=trust)  # the certificate that Caddy serves with
        client.login("api", town.key)
        client.send_message(letter)
    with smtplib.SMTP_SSL("localhost", town.submissions_port, timeout=60, context=trust) as client:
        client.login("api", town.key)
        client.send_message(letter)
    by_smtp = (
        "SELECT count(*) FROM delivery d JOIN message m ON m.id = d.message_id WHERE m.subject = %s AND status = %s"
    )
    town.until(lambda: town.sql(by_smtp, "Over SMTP", "delivered")[0][0] == 2, "both submitted mails are delivered")
    for who in ids:
        town.until(lambda who=who: status(who) == who, f"the mail to {who}@ is {who}")
    assert town.sql("SHOW server_version_num")[0][0].startswith("15")
    login = subprocess.run(
        ["curl", "-sS", "-i", "--cacert", str(town.authority), f"{town.https}/admin/login/"],
        env=env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert " 200" in login.stdout.splitlines()[0], login.stdout[:500] + login.stderr
    cookies = [line.lower() for line in login.stdout.splitlines() if line.lower().startswith("set-cookie:")]
    assert cookies and all("secure" in cookie for cookie in cookies)
    _a_tracking_host_gets_its_certificate_at_the_first_visit_and_a_stranger_none(town)
    _nobody_is_kept_out_by_bodies_that_do_not_come(town, trust)
    town._manage("backup", town.backups)  # of Postgres 15, by the programs of 18
    assert town._manage("rehearse", town.backups).startswith("good: ")
    if isinstance(town, Contained):
        _each_part_is_shut_in_and_healthy(town)
    else:
        check = filled_in(town.services["deliver"]["healthcheck"]["test"][1], {})
        town.until(lambda: subprocess.run(["sh", "-c", check], env=town.env).returncode == 0, "the workers are healthy")


def _each_part_is_shut_in_and_healthy(town: Contained) -> None:
    """By the health checks of the compose file; then a worker is told to stop as an engine does it."""
    for name in ("web", "web2", "deliver1", "deliver2", "jobs", "beat", "smtpd"):
        who = town.inside(name, "sh", "-c", "id -u && grep CapEff /proc/1/status && touch /opt/mailapi/x")
        assert who.stdout.split() == [str(UID), "CapEff:", "0" * 16], who
        assert "Read-only file system" in who.stderr
        if "test" in town.services[name.rstrip("0123456789")]["healthcheck"]:
            town.until(lambda name=name: town.health(name).returncode == 0, f"{name} is healthy: {town.health(name)}")
    start = town.inside("web", "python", "-v", "-c", "import django, celery, deliveries.retry").stderr
    assert "bytecode is stale" not in start and "code object from /opt" not in start  # no part compiles at its start
    # the panel tells what settings do in the words of a file of the image
    assert "DRAIN_S" in town.inside("web", "cat", "docs/operations.md").stdout
    told = town.inside("web", "python", "manage.py", "deploy_check", "--json")
    found = {row["name"]: row for row in map(json.loads, told.stdout.splitlines())}
    assert found["Database"]["tone"] == found["Work"]["tone"] == "good", told
    guard = town.procs["deliver1"]
    town.stop("deliver1")
    assert guard.returncode == 0, town.tails()


def _a_tracking_host_gets_its_certificate_at_the_first_visit_and_a_stranger_none(town: Deployment) -> None:
    """Only what web knows as the tracking host of a verified domain; there, only links are served."""
    name = town.sender.rpartition("@")[2]
    town.execute(
        "UPDATE sending_domain SET verified_at = now(), tracking_label = 'links',"
        " findings = jsonb_set(findings, '{tracking}', '{\"status\": \"verified\"}') WHERE name = %s", name,
    )  # fmt: skip

    def visit(host: str, path: str) -> subprocess.CompletedProcess[str]:
        where = f"{host}:{town.https_port}"
        words = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "60"]
        words += ["--cacert", str(town.authority), "--resolve", f"{where}:127.0.0.1", f"https://{where}{path}"]
        return subprocess.run(words, capture_output=True, text=True, timeout=120)

    town.until(lambda: visit(f"links.{name}", "/u/junk").returncode == 0, "a certificate")
    junk, panel = visit(f"links.{name}", "/u/junk"), visit(f"links.{name}", "/admin/login/")
    assert (junk.stdout, panel.stdout) == ("404", "404"), town.tails()

    stranger = visit(f"other.{name}", "/u/junk")
    assert stranger.returncode == 35 and stranger.stdout == "000", stranger  # the handshake fails


def _nobody_is_kept_out_by_bodies_that_do_not_come(town: Deployment, trust: ssl.SSLContext) -> None:
    """Each of more connections than web has threads says the length of a body, and sends one octet of it."""
    head = (
        f"POST /emails HTTP/1.1\r\nHost: localhost:{town.https_port}\r\nAuthorization: Bearer {town.key}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    ).encode()
    with ExitStack() as held:
        for _ in range(3 * WEB_WORKERS * WEB_THREADS):
            raw = held.enter_context(socket.create_connection(("localhost", town.https_port), timeout=60))
            held.enter_context(trust.wrap_socket(raw, server_hostname="localhost")).sendall(head)
        alive = subprocess.run(
            ["curl", "-sS", "--max-time", "60", "--cacert", str(town.authority), f"{town.https}/health/live"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert "ok" in alive.stdout, f"{alive.stderr}\n{town.tails()}"
