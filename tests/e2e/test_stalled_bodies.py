"""Bodies that do not come, from real sockets, at a real web process: nobody else notices, they end with 408."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections import Counter
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlsplit

import pytest

from deliveries.models import Message
from mailapi.up.serve import WEB_SPARE
from tests.fakes.web import web
from tests.steps.api import Client, make_tenant

pytestmark = pytest.mark.django_db(transaction=True)
STALLED = 200


@pytest.fixture(scope="module")
def server(django_db_setup, django_db_blocker, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    with django_db_blocker.unblock(), web(folder, BODY_S="4", WEB_THREADS="2", METRICS_TOKEN="0123456789abcdef") as url:
        yield url


@pytest.fixture
def account(transactional_db, server):
    return Client(make_tenant())


def head(account, length: int, *more: str) -> bytes:
    lines = ("POST /emails HTTP/1.1", "Host: localhost", f"Authorization: Bearer {account.secret}",
             "Content-Type: application/json", f"Content-Length: {length}", *more)  # fmt: skip
    return "\r\n".join((*lines, "", "")).encode()


def answer_of(peer: socket.socket) -> tuple[HTTPResponse, dict]:
    answer = HTTPResponse(peer, method="POST")
    answer.begin()
    return answer, json.loads(answer.read())


def closes(answer: HTTPResponse) -> bool:
    return answer.headers["Connection"] == "close"


def test_two_hundred_bodies_that_do_not_come_keep_nobody_out(server, account) -> None:
    where = urlsplit(server)
    mail = json.dumps(account.mail()).encode()
    ways = (head(account, 1000), head(account, 1000) + b"{", head(account, 1000, "Expect: 100-continue"),
            head(account, 300_000) + b"{" * 100_000)  # fmt: skip
    with ExitStack() as held:
        stalled = []
        for n in range(STALLED):
            peer = held.enter_context(socket.create_connection((where.hostname, where.port), timeout=60))
            peer.sendall(ways[n % len(ways)])
            stalled.append(peer)
        for _ in range(10):
            other = HTTPConnection(where.netloc, timeout=60)
            for _ in range(3):
                other.request("POST", "/emails", mail, {"Authorization": f"Bearer {account.secret}"})
                answer = other.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()
            other.close()
        answers = [answer_of(peer) for peer in stalled]
    assert Counter(answer.status for answer, _ in answers) == {408: STALLED}
    for answer, body in answers:
        assert closes(answer)
        assert (body["statusCode"], body["name"], body["errors"][0]["code"]) == (408, "request_timeout", "body_timeout")
        assert body["request_id"] == answer.headers["X-Request-Id"]
    assert Message.objects.filter(tenant_id=account.tenant.id).count() == 30


def test_a_body_that_drips_ends_too_and_a_slow_one_that_moves_on_is_taken(server, account) -> None:
    where = urlsplit(server)
    mail = json.dumps(account.mail(text="x" * 600_000)).encode()
    with (
        socket.create_connection((where.hostname, where.port), timeout=60) as drip,
        socket.create_connection((where.hostname, where.port), timeout=60) as slow,
    ):
        drip.settimeout(0.2)
        drip.sendall(head(account, 1000))
        slow.sendall(head(account, len(mail), "Connection: close"))
        sent, answered, end = 0, b"", time.monotonic() + 60
        while not answered and time.monotonic() < end:
            drip.send(b"{")
            slow.sendall(mail[sent : sent + 25_000])
            sent += 25_000
            try:
                answered = drip.recv(100)
            except TimeoutError:
                continue
        assert answered.startswith(b"HTTP/1.1 408"), answered
        slow.sendall(mail[sent:])
        answer, body = answer_of(slow)
    assert answer.status == 200, body


def test_a_refusal_leaves_the_connection_to_the_next_request(server, account) -> None:
    """A client with a pool posts on; what was answered before its body was read cost it the connection at times."""
    where = urlsplit(server)
    client = HTTPConnection(where.netloc, timeout=60)
    client.connect()
    first = client.sock
    for size in (10, 70_000, 1_000_000) * 20:
        client.request("POST", "/emails", b"x" * size, {"Authorization": "Bearer re_wrong"})
        answer = client.getresponse()
        assert answer.status == 403
        answer.read()
        assert client.sock is first
    client.close()


def test_a_body_that_is_too_long_is_refused_and_the_connection_says_that_it_ends(server, account) -> None:
    where = urlsplit(server)
    length = 41 * 1024 * 1024
    with socket.create_connection((where.hostname, where.port), timeout=60) as asks:
        asks.sendall(head(account, length, "Expect: 100-continue"))
        told = asks.recv(100)
        assert told.startswith(b"HTTP/1.1 413"), told  # and no 100
    with socket.create_connection((where.hostname, where.port), timeout=60) as sends:
        sends.sendall(head(account, length))
        for _ in range(41):
            sends.sendall(b"x" * 1024 * 1024)
        answer, body = answer_of(sends)
    assert answer.status == 413 and closes(answer)
    assert body["name"] == "payload_too_large"


def test_a_mail_or_form_that_breaks_off_in_its_chunks_is_not_taken_for_a_whole_one(server, account) -> None:
    """Chunked JSON and multipart forms show their end; of these a part would have been sent."""
    where, key = urlsplit(server), f"Bearer {account.secret}"
    basic = "Basic " + base64.b64encode(f"api:{account.secret}".encode()).decode()
    half = f"From: a@{account.domain}\r\nTo: b@simulator.test\r\nSubject: x\r\n\r\nUp to he".encode()
    form = f"from=a@{account.domain}&to=b@simulator.test&subject=x&text=Up+to+he".encode()
    for path, kind, credential, octets in (
        ("/emails/mime", "message/rfc822", key, half),
        (f"/compat/mailgun/v3/{account.domain}/messages", "application/x-www-form-urlencoded", basic, form),
    ):
        with socket.create_connection((where.hostname, where.port), timeout=60) as peer:
            lines = (f"POST {path} HTTP/1.1", "Host: localhost", f"Authorization: {credential}",
                     f"Content-Type: {kind}", "Transfer-Encoding: chunked")  # fmt: skip
            peer.sendall("\r\n".join((*lines, "", f"{len(octets):x}", "")).encode() + octets + b"\r\n")
            peer.shutdown(socket.SHUT_WR)
            answer, body = answer_of(peer)
        assert answer.status == 411 and "Content-Length" in body["message"], (path, body)
    assert not Message.objects.filter(tenant_id=account.tenant.id).exists()


def test_a_chunked_body_is_taken_like_any_other(server, account) -> None:
    client = HTTPConnection(urlsplit(server).netloc, timeout=60)
    mail = json.dumps(account.mail(text="x" * 100_000)).encode()
    pieces = [mail[n : n + 30_000] for n in range(0, len(mail), 30_000)]
    client.request("POST", "/emails", iter(pieces), {"Authorization": f"Bearer {account.secret}"}, encode_chunked=True)
    answer = client.getresponse()
    assert answer.status == 200, answer.read()
    client.close()


def test_more_connections_than_spare_threads_are_only_a_pause(server, account) -> None:
    where = urlsplit(server)
    with ExitStack() as held:
        for _ in range(WEB_SPARE + 100):
            peer = held.enter_context(socket.create_connection((where.hostname, where.port), timeout=60))
            peer.sendall(head(account, 1000) + b"{")
        other = HTTPConnection(where.netloc, timeout=60)
        other.request("GET", "/health/live")
        assert other.getresponse().status == 200
        other.close()
