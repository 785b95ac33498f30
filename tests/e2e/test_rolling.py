"""An upgrade under load: every process is replaced, and the tables grow, while mail goes on to be sent through Caddy.

ROLLING_MAILS=20000 is the full size; the default is short.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.fakes.deployment import Deployment

MAILS = int(os.environ.get("ROLLING_MAILS", "300"))
#: programs that send at the same time, each on connections of its own
CLIENTS = 4 if MAILS > 1000 else 2
#: between two mails of one program; the full size has no pause
PAUSE_S = 0.2 if MAILS <= 1000 else 0.0
#: places of the Caddyfile that lead to web
PROXIES = 2
GROWING = {"DJANGO_SETTINGS_MODULE": "tests.fakes.growing.settings"}


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    # whoever is told to stop may take its time, and nobody loses a lease to a busy machine
    deployment = Deployment("redis", DRAIN_S="60", LEASE_S="60")
    try:
        deployment.build()
        yield deployment
    finally:
        deployment.tear_down()


class Senders:
    """Programs that ask once and never again: what is not a 2xx is counted as it came."""

    def __init__(self, town: Deployment) -> None:
        self._town = town
        self._trust = ssl.create_default_context(cafile=str(town.authority))
        self._lock = threading.Lock()
        self._over = threading.Event()
        self.ids: list[str] = []
        self.failures: Counter[str] = Counter()
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """At least MAILS were sent, and the last ones after whatever was done meanwhile."""
        self._town.until(lambda: len(self.ids) + self.failures.total() >= MAILS, "enough mail was sent", 600)
        self._over.set()
        for thread in self._threads:
            thread.join(120)
            assert not thread.is_alive()

    def _send(self, number: int) -> None:
        connection: http.client.HTTPSConnection | None = None
        sent = 0
        while not self._over.is_set():
            try:
                if connection is None:
                    port = self._town.https_port
                    connection = http.client.HTTPSConnection("localhost", port, timeout=120, context=self._trust)
                ident = self._ask(connection, f"{number}.{sent}")
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                connection = None
                with self._lock:
                    self.failures[f"{type(error).__name__}: {error}"[:200]] += 1
            else:
                with self._lock:
                    self.ids.append(ident)
            sent += 1
            time.sleep(PAUSE_S)
        if connection is not None:
            connection.close()

    def _ask(self, connection: http.client.HTTPSConnection, subject: str) -> str:
        who = "slow" if subject.endswith("7") else "delivered"
        mail = {
            "from": self._town.sender,
            "to": f"{who}+{subject}@simulator.test",
            "subject": subject,
            "text": "x" * 400,
        }
        headers = {"Authorization": f"Bearer {self._town.key}", "Content-Type": "application/json"}
        connection.request("POST", "/emails", json.dumps(mail), headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise ValueError(f"{answer.status} {body[:150]!r}")
        return str(json.loads(body)["id"])


class Doors:
    """Somebody who knocks at smtpd's ports all the time: a door that nobody holds open refuses the connection."""

    def __init__(self, *ports: int) -> None:
        self._ports = ports
        self._over = threading.Event()
        self.refused = self.greeted = 0
        self._thread = threading.Thread(target=self._knock)
        self._thread.start()

    def finish(self) -> None:
        self._over.set()
        self._thread.join(120)
        assert not self._thread.is_alive()

    def _knock(self) -> None:
        while not self._over.wait(0.05):
            for port in self._ports:
                try:
                    with socket.create_connection(("127.0.0.1", port), 60) as peer:
                        self.greeted += peer.recv(3) == b"220"
                except ConnectionRefusedError:
                    self.refused += 1
                except OSError:  # let in by the one that was just leaving: a client comes again
                    pass


def back(town: Deployment, port: int) -> int:
    """How often Caddy has said that the web process there answers again."""
    return len(re.findall(rf'"host is up","host":"127.0.0.1:{port}"', town.said("caddy")))


def roll(town: Deployment) -> None:
    """Expand, replace every process, contract: the order that docs/operations.md tells."""
    town._manage("migrate", "growing", "0002", "-v0", **GROWING)
    for name, port in (("web", town.web_port), ("web2", town.web2_port)):
        ups = back(town, port)
        town.stop(name)
        town.start(name)
        seen = ups + PROXIES  # each looks for itself, and 2.6 refuses a POST at once while one of them knows of no web
        town.until(lambda port=port, seen=seen: back(town, port) >= seen, f"all of Caddy has seen that {name} is back")
    for name in ("deliver1", "deliver2"):
        town.stop(name)
        town.start(name)
        town.until(lambda name=name: bool(town.leases(name)), f"{name} is back")
    town.stop("jobs")
    town.start("jobs")
    town.stop("beat")
    town.start("beat")
    for new, old in (("smtpd2", "smtpd"), ("smtpd", "smtpd2")):
        town.start(new)
        town.until(lambda new=new: "submission over TLS listens" in town.said(new), f"{new} listens beside {old}")
        town.stop(old)
    town._manage("migrate", "growing", "0003", "-v0", **GROWING)


def test_an_upgrade_under_load_is_noticed_by_nobody(deployment: Deployment) -> None:
    town = deployment
    town.until(lambda: town.answers(town.https_port) and town.answers(town.web2_port), "Caddy and both web")
    town.until(lambda: town.answers(town.smtpd_port) and town.answers(town.submission_port), "smtpd")
    senders = Senders(town)
    town.until(lambda: len(senders.ids) > 20, "mail flows")
    doors = Doors(town.smtpd_port, town.submission_port)
    try:
        roll(town)
    finally:
        doors.finish()
        senders.finish()
    assert doors.refused == 0 < doors.greeted, town.tails()
    assert senders.failures == Counter(), town.tails()
    assert len(set(senders.ids)) == len(senders.ids) >= MAILS

    town.until(lambda: town.sql("SELECT count(*) FROM queued")[0][0] == 0, "all of it is sent", 240 + MAILS / 10)
    rows = town.sql(
        "SELECT m.id::text, m.message_id, d.status, d.unknowns FROM delivery d JOIN message m ON m.id = d.message_id"
    )
    assert {r[0] for r in rows} == set(senders.ids) and len(rows) == len(senders.ids)
    assert Counter((r[2], r[3]) for r in rows) == {("delivered", 0): len(rows)}
    town.until(lambda: sum(town.copies().values()) >= len(rows), "the receiver has them")
    assert town.copies() == Counter(r[1] for r in rows)  # each once, and nothing else
    print(f"{len(rows)} mails during the upgrade: each accepted at the first try, and delivered once")
    unsettled = "SELECT count(*) FROM delivery WHERE settled_at IS NULL"
    town.until(lambda: town.sql(unsettled)[0][0] == 0, "all of it is delivered")
    sent = town.sql("SELECT message_id::text FROM delivery WHERE status = 'delivered'")
    assert {row[0] for row in sent} == set(senders.ids), town.tails()
