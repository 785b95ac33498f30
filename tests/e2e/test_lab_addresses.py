"""The whole road against the receiver lab: each address ends in the state it is named for, and webhooks tell it."""

from __future__ import annotations

import json
import os
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.fakes.town import Town

#: local part → final status, and what must be true of the story
ENDS = {
    "delivered": "delivered",
    "greylist": "delivered",
    "slow": "delivered",
    "tls": "delivered",
    "badcert": "delivered",
    "complained": "delivered",
    "autoreply": "delivered",
    "bounced": "bounced",
    "blocked": "bounced",
    "latedsn": "bounced",
    "nobody-we-know": "bounced",
    "mailboxfull": "expired",
    "deferred": "expired",
    "drop": "expired",
    "421": "expired",
    "dropdot": "unknown",
}


class Receiver(BaseHTTPRequestHandler):
    """An application that hears webhooks; keeps headers and octets as they came."""

    heard: list[tuple[dict[str, str], bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).heard.append(({k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def receiver() -> Iterator[str]:
    Receiver.heard = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    town = Town(RETRY_SCHEDULE="1,2", UNKNOWN_WAIT_S="2")
    try:
        town.build()
        yield town
    finally:
        town.tear_down()


def call(town: Town, method: str, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        town.env["BASE_URL"] + path,
        json.dumps(body).encode() if body is not None else None,
        {"Authorization": f"Bearer {town.key}", "Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def story(town: Town, receiver: str) -> tuple[dict[str, str], str]:
    """Every address was written to and came to its end: message ids by local part, and the webhook's secret."""
    secret = call(town, "POST", "/webhooks", {"endpoint": receiver, "events": []})["signing_secret"]
    ids = {}
    for who, end in ENDS.items():
        mail: dict[str, Any] = {"from": town.sender, "to": f"{who}@simulator.test", "subject": who, "text": "x"}
        # the others have all the time that a busy machine takes
        ids[who] = town.post(mail | ({"deliver_before": 12} if end == "expired" else {}), key=who)
    seen: set[str] = set()

    def ended() -> bool:
        rows = dict(town.sql("SELECT message_id::text, status FROM delivery"))
        seen.add(rows[ids["dropdot"]])
        at_rest = town.sql("SELECT count(*) FROM delivery WHERE settled_at IS NULL")[0][0] == 0
        return at_rest and rows[ids["latedsn"]] == "bounced"

    town.until(ended, "every address comes to its end")
    assert "unknown" in seen  # visible before its end
    return ids, secret


def test_each_address_ends_in_the_state_it_is_named_for(town: Town, story: tuple[dict[str, str], str]) -> None:
    ids, _ = story
    rows = dict(town.sql("SELECT message_id::text, status FROM delivery"))
    assert {who: rows[ident] for who, ident in ids.items()} == ENDS
    assert call(town, "GET", f"/emails/{ids['latedsn']}")["last_event"] == "bounced"


def test_no_reply_after_the_dot_made_at_most_two_copies(town: Town, story: tuple[dict[str, str], str]) -> None:
    ids, _ = story
    message_id = call(town, "GET", f"/emails/{ids['dropdot']}")["message_id"].strip("<>")
    town.until(lambda: message_id in town.copies(), "the lab's log")
    assert town.copies()[message_id] <= 2


def test_bounces_suppress_and_the_next_mail_says_so(town: Town, story: tuple[dict[str, str], str]) -> None:
    listed = {s["email"] for s in call(town, "GET", "/suppressions?limit=100")["data"]}
    assert {"bounced@simulator.test", "latedsn@simulator.test"} <= listed
    assert not listed & {"blocked@simulator.test", "mailboxfull@simulator.test", "autoreply@simulator.test"}
    again = town.post({"from": town.sender, "to": "latedsn@simulator.test", "subject": "s", "text": "x"}, key="again")
    assert call(town, "GET", f"/emails/{again}")["last_event"] == "suppressed"


def test_a_complaint_is_told_and_suppresses(town: Town, story: tuple[dict[str, str], str]) -> None:
    ids, _ = story
    town.until(
        lambda: call(town, "GET", f"/emails/{ids['complained']}")["last_event"] == "complained", "the complaint is read"
    )
    again = town.post({"from": town.sender, "to": "complained@simulator.test", "subject": "s", "text": "x"}, key="c2")
    assert call(town, "GET", f"/emails/{again}")["last_event"] == "suppressed"


def test_webhooks_tell_the_bounces_and_the_verifier_accepts_them(town: Town, story: tuple[dict[str, str], str]) -> None:
    _, secret = story

    def told() -> dict[str, set[str]]:
        types: dict[str, set[str]] = {}
        for headers, body in list(Receiver.heard):
            event = Webhook(secret).verify(body, headers)
            types.setdefault(event["type"], set()).add(event["data"].get("recipient", ""))
        return types

    wanted = {f"{who}@simulator.test" for who, end in ENDS.items() if end == "bounced"}
    town.until(lambda: wanted <= told().get("email.bounced", set()), "the bounces are told")
    assert "delivered@simulator.test" in told()["email.delivered"]
    svix = {k.replace("svix-", "webhook-"): v for k, v in Receiver.heard[0][0].items() if k.startswith("svix-")}
    Webhook(secret).verify(Receiver.heard[0][1], svix)


def test_what_tells_applications_gives_way_to_what_serves_mail(town: Town, story: tuple[dict[str, str], str]) -> None:
    def weights(part: str) -> set[int]:
        """Of all processes of a part, without its guard."""
        pids, found = [town.procs[part].pid], set()
        while pids:
            pids = [int(p) for pid in pids for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
            found |= {os.getpriority(os.PRIO_PROCESS, pid) for pid in pids}
        return found

    (mail,) = weights("deliver1") | weights("web")
    assert weights("jobs") == {max(5, mail)}
