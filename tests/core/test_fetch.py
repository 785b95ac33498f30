"""The HTTP client that goes where users tell it, and nowhere inside."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from deliveries.errors import AddressRefused, FetchFailed
from deliveries.fetch import Fetched, Kept, check_url, fetch, not_public

Serve = Callable[[socket.socket, bytes], None]

_REFUSED = """
http://127.0.0.1/  http://127.0.0.1.:{port}/  http://127.1/  http://127.0.1/  http://2130706433/
http://017700000001/  http://0x7f000001/  http://0x7f.0.0.1/  http://0X7F.1/  http://0177.0.0.1/
http://0177.0.0.01/  http://0/  http://0.0.0.0/  http://00.0.0.0/  http://127.0.0.1:{port}/  http://127.255.255.254/
http://127.0.0.256/  http://10.0.0.1/  http://10.255.255.255/  http://172.16.0.1/  http://172.31.255.255/
http://192.168.0.1/  http://169.254.169.254/latest/meta-data/  http://100.64.0.1/  http://100.127.255.255/
http://192.0.0.192/  http://192.0.2.1/  http://198.18.0.1/  http://198.51.100.1/  http://203.0.113.1/
http://192.88.99.1/  http://224.0.0.1/  http://239.255.255.255/  http://240.0.0.1/  http://255.255.255.255/
http://[::1]/  http://[::]/  http://[0:0:0:0:0:0:0:1]/  http://[::1]:{port}/  http://[::ffff:127.0.0.1]/
http://[::ffff:7f00:1]/  http://[::ffff:10.0.0.1]/  http://[::ffff:8.8.8.8]/  http://[::127.0.0.1]/
http://[64:ff9b::7f00:1]/  http://[64:ff9b::a00:1]/  http://[64:ff9b::169.254.169.254]/  http://[64:ff9b:1::1]/
http://[2002:7f00:1::]/  http://[2002:a00:1::1]/  http://[2001:0:7f00:1::]/  http://[2001:db8::1]/
http://[3fff::1]/  http://[fc00::1]/  http://[fd00:ec2::254]/  http://[fe80::1]/  http://[fe80::1%25lo]/
http://[fe80::1%lo]/  http://[fec0::1]/  http://[ff02::1]/  http://[100::1]/  http://[::1  http://[]/
http://[127.0.0.1]/  http://[v1.a]/  http://localhost/  http://LOCALHOST:{port}/  http://localhost./
http://a.localhost/  http://printer.local/  http://db.internal/  http://router.lan/  http://nas.home.arpa/
http://postgres:{port}/  http://redis/  http://①②⑦.⓪.⓪.①/  http://１２７.０.０.１/  http://127。0。0。1/  http://127.0.0.①/
http://ⓛocalhost/  http://ʟocalhost/  http://127.0.0.%31/  http://%31%32%37.0.0.1/  http://user@127.0.0.1/
http://a:b@example.com/  http://@example.com/  http://example.com@127.0.0.1:{port}/
http://127.0.0.1:{port}@example.com/  http://example.com%2f@127.0.0.1/  http://example.com\\@127.0.0.1/
http://127.0.0.1\\.example.com/  http:\\\\127.0.0.1/  http:/127.0.0.1/  http:127.0.0.1  http:///127.0.0.1/
//127.0.0.1/  127.0.0.1  http://  https://  http://./  http://../  http://-.com/  http://a..b.com/
ftp://example.com/  file:///etc/passwd  gopher://127.0.0.1:{port}/  dict://127.0.0.1/  ldap://127.0.0.1/  data:,x
javascript:alert(1)  unix:///var/run/docker.sock  ws://example.com/  jar:http://127.0.0.1!/  http://example.com:25/
http://example.com:22/  http://example.com:6379/  http://example.com:5432/  http://example.com:11211/
http://example.com:0/  http://example.com:65536/  http://example.com:-1/  http://example.com:99999999999/
http://example.com:8o/  http://example.com:+80/  http://1.2.3.4.5/  http://1.2.3/  http://0x8.8.8.8/
http://8.8.8.08/  http://999.1.1.1/  http://1e3/  http://a.0x7f/
"""
REFUSED_FORMS = _REFUSED.split()
WITH_SPACE = [
    "http://127.0.0.1 /",
    " http://127.0.0.1/",
    "http://exa\tmple.com/",
    "http://e.com/\r\nHost: x",
    "http://e.com\x00/",
]

FINE = [
    "https://example.com", "http://example.com/hook?a=1&b=%20", "https://Example.COM:8443/x", "https://8.8.8.8/",
    "https://[2606:4700:4700::1111]/", "https://bücher.example.com/ü", "https://xn--bcher-kva.example/", "http://a_b.example.com/",
    "https://[64:ff9b::808:808]/", "https://example.com./", "https://1e100.net/", "https://1.2.3.4.example.com/",
]  # fmt: skip


@contextlib.contextmanager
def server(serve: Serve, tls: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[str]]]:
    """A listener on loopback that hands each connection and its request head to `serve`; (port, connections)."""
    listener = socket.create_server(("127.0.0.1", 0))
    came: list[str] = []
    stop = threading.Event()

    def one(conn: socket.socket) -> None:
        with contextlib.suppress(OSError), conn:
            conn.settimeout(10)
            stream = tls.wrap_socket(conn, server_side=True) if tls else conn
            with stream:
                head = b""
                while b"\r\n\r\n" not in head and (got := stream.recv(65536)):
                    head += got
                serve(stream, head)

    def run() -> None:
        while not stop.is_set():
            try:
                conn, peer = listener.accept()
            except OSError:
                return
            came.append(f"{peer}")
            threading.Thread(target=one, args=(conn,), daemon=True).start()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], came
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def reply(head: str, body: bytes = b"") -> Serve:
    def serve(conn: socket.socket, request: bytes) -> None:
        conn.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)

    return serve


def resolver(*rounds: Sequence[str]) -> Callable[[str, int], Awaitable[Sequence[str]]]:
    """Answers with each round in turn, then with the last one for ever: a rebinding name server."""
    answers = itertools.chain(rounds, itertools.repeat(rounds[-1]))

    async def resolve(host: str, port: int) -> Sequence[str]:
        return next(answers)

    return resolve


def get(url: str, **options: Any) -> Fetched:
    return asyncio.run(fetch("GET", url, **options))


@pytest.mark.parametrize("form", REFUSED_FORMS + WITH_SPACE)
def test_a_url_that_leads_inside_or_nowhere_is_refused_by_its_form(form: str) -> None:
    with pytest.raises(AddressRefused):
        check_url(form.replace("{port}", "8000"))


@pytest.mark.parametrize("url", FINE)
def test_a_public_url_is_accepted(url: str) -> None:
    check_url(url)


def test_500_tries_to_reach_a_tripwire_make_no_connection() -> None:
    tries = 0

    def refused(url: str, **options: Any) -> None:
        nonlocal tries
        tries += 1
        with pytest.raises((AddressRefused, FetchFailed)):
            get(url, timeout_s=2, **options)

    with server(reply("HTTP/1.1 200 OK\nContent-Length: 0")) as (port, came):
        for form in REFUSED_FORMS + WITH_SPACE:
            refused(form.replace("{port}", str(port)), resolve=resolver(["127.0.0.1"]))
        # the same hosts at the tripwire's own port
        for form in REFUSED_FORMS:
            host = form.partition("://")[2].partition("/")[0]
            if "{port}" not in form and "@" not in host:
                refused(f"http://{host}:{port}/", resolve=resolver(["127.0.0.1"]))
        inside = ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "10.0.0.1", "169.254.169.254", "fe80::1%1"]
        public = ["8.8.8.8", "2606:4700:4700::1111"]
        # a name that resolves inside, or to an inside address among public ones, in any place
        for address, name in itertools.product(inside, ["hook.example.com", "localtest.me", "a.b.c.example.org"]):
            for addresses in ([address], [address, *public], [*public, address], [public[0], address, public[1]]):
                for scheme in ("http", "https"):
                    refused(f"{scheme}://{name}:{port}/", resolve=resolver(addresses))
        while tries < 500:
            refused(f"http://n{tries}.example.com:{port}/", resolve=resolver(["127.0.0.1"], ["8.8.8.8"]))
    assert tries >= 500
    assert came == []


def test_a_name_that_is_rebound_after_the_check_is_not_asked_again() -> None:
    asked = 0

    async def rebinding(host: str, port: int) -> Sequence[str]:
        nonlocal asked
        asked += 1
        return ["192.0.2.1"] if asked == 1 else ["127.0.0.1"]

    # allow_private lets the first address pass the check; the connection must go there and nowhere else
    with server(reply("HTTP/1.1 200 OK\nContent-Length: 0")) as (port, came), pytest.raises(FetchFailed):
        get(f"http://rebind.example.com:{port}/", resolve=rebinding, allow_private=True, timeout_s=0.5)
    assert asked == 1
    assert came == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_never_followed(status: int) -> None:
    with server(reply("HTTP/1.1 200 OK\nContent-Length: 0")) as (tripwire, came):
        head = f"HTTP/1.1 {status} Moved\nLocation: http://127.0.0.1:{tripwire}/\nContent-Length: 0"
        with server(reply(head)) as (port, _):
            fetched = get(f"http://127.0.0.1:{port}/", allow_private=True)
    assert fetched.status == status
    assert came == []


def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        server(reply("HTTP/1.1 200 OK\nContent-Length: 0")) as (proxy, came),
        server(reply("HTTP/1.1 204 No Content")) as (port, _),
    ):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        assert get(f"http://127.0.0.1:{port}/", allow_private=True).status == 204
    assert came == []


def test_the_answer_is_told_whole() -> None:
    heads: list[bytes] = []

    def serve(conn: socket.socket, head: bytes) -> None:
        heads.append(head)
        reply("HTTP/1.1 202 Accepted\nX-Two: a\nX-Two: b\nContent-Length: 5", b"hello")(conn, head)

    with server(serve) as (port, _):
        fetched = asyncio.run(
            fetch(
                "POST",
                f"http://hook.example.com:{port}/päth?q=ü&r=%41",
                headers={"Webhook-Id": "msg_1", "Content-Type": "application/json"},
                content=b"{}",
                resolve=resolver(["127.0.0.1"]),
                allow_private=True,
            )
        )
    assert (fetched.status, fetched.body, fetched.truncated, fetched.address) == (202, b"hello", False, "127.0.0.1")
    assert [v for k, v in fetched.headers if k == "x-two"] == ["a", "b"]
    assert fetched.header("X-Two") == "a" and fetched.header("absent") == ""
    lines = heads[0].decode().split("\r\n")
    assert lines[0] == "POST /p%C3%A4th?q=%C3%BC&r=%41 HTTP/1.1"
    assert f"host: hook.example.com:{port}" in lines
    assert {"webhook-id: msg_1", "content-length: 2", "accept-encoding: identity"} <= {line.lower() for line in lines}


def test_an_endless_chunked_body_is_cut() -> None:
    def serve(conn: socket.socket, _: bytes) -> None:
        conn.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            conn.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")

    with server(serve) as (port, _):
        fetched = get(f"http://127.0.0.1:{port}/", allow_private=True, max_octets=10_000)
    assert fetched.truncated
    assert len(fetched.body) == 10_000


def test_a_compressed_bomb_stays_small() -> None:
    with server(reply("HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Length: 4", b"\x1f\x8b\x08\x00")) as (port, _):
        fetched = get(f"http://127.0.0.1:{port}/", allow_private=True)
    assert fetched.body == b"\x1f\x8b\x08\x00"


@pytest.mark.parametrize("where", ["head", "body"])
def test_a_slow_drip_ends_at_the_time_limit(where: str) -> None:
    drips = 0

    def serve(conn: socket.socket, _: bytes) -> None:
        nonlocal drips
        conn.sendall(b"HTTP/1.1 200 OK\r\n" if where == "head" else b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        while True:
            conn.sendall(b"x")
            drips += 1
            time.sleep(0.05)

    with server(serve) as (port, _), pytest.raises(FetchFailed, match=r"no complete answer within 0\.5 s"):
        get(f"http://127.0.0.1:{port}/", allow_private=True, timeout_s=0.5)
    assert drips < 50, "each drip starts no new time limit"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nA" + b"a" * 300_000,
    ],
)
def test_what_is_not_http_fails_with_a_text(answer: bytes) -> None:
    with server(lambda conn, _: conn.sendall(answer)) as (port, _), pytest.raises(FetchFailed) as failed:
        get(f"http://127.0.0.1:{port}/", allow_private=True, timeout_s=5)
    assert str(failed.value).startswith("127.0.0.1: ") and len(str(failed.value)) > 15


def test_a_refused_connection_and_an_unknown_name_fail_with_a_text() -> None:
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    with pytest.raises(FetchFailed, match=r"cannot connect to 127\.0\.0\.1"):
        get(f"http://127.0.0.1:{port}/", allow_private=True)

    async def nothing(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(FetchFailed, match="cannot be resolved: Name or service not known"):
        get("http://gone.example.com/", resolve=nothing)


def test_the_next_address_is_tried_when_one_is_dead() -> None:
    with server(reply("HTTP/1.1 204 No Content")) as (port, _):
        fetched = get(
            f"http://two.example.com:{port}/", resolve=resolver(["127.0.0.2", "127.0.0.1"]), allow_private=True
        )
    assert fetched.address == "127.0.0.1"


def test_a_server_that_says_nothing_to_a_handshake_ends_with_a_text() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(FetchFailed, match="no answer in time"):
            get(url, allow_private=True, timeout_s=0.6)


class TestTls:
    @pytest.fixture
    def ca(self, tmp_path: Path) -> tuple[trustme.CA, str]:
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        return ca, str(tmp_path / "ca.pem")

    def context(self, ca: trustme.CA, name: str, seen: list[str] | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(name).configure_cert(context)
        if seen is not None:
            context.sni_callback = lambda _sock, sni, _ctx: seen.append(sni)
        return context

    def test_the_certificate_is_checked_for_the_name_and_sni_says_it(self, ca: tuple[trustme.CA, str]) -> None:
        sni: list[str] = []
        with server(reply("HTTP/1.1 204 No Content"), self.context(ca[0], "hook.example.com", sni)) as (port, _):
            url = f"https://hook.example.com:{port}/"
            fetched = get(url, resolve=resolver(["127.0.0.1"]), allow_private=True, ca_file=ca[1])
        assert fetched.status == 204
        assert sni == ["hook.example.com"]

    def test_another_name_is_refused(self, ca: tuple[trustme.CA, str]) -> None:
        tls = self.context(ca[0], "other.example.com")
        with (
            server(reply("HTTP/1.1 204 No Content"), tls) as (port, _),
            pytest.raises(FetchFailed, match=r"(?i)certificate verify failed"),
        ):
            url = f"https://hook.example.com:{port}/"
            get(url, resolve=resolver(["127.0.0.1"]), allow_private=True, ca_file=ca[1])

    def test_an_unknown_authority_is_refused(self, ca: tuple[trustme.CA, str]) -> None:
        tls = self.context(ca[0], "hook.example.com")
        with (
            server(reply("HTTP/1.1 204 No Content"), tls) as (port, _),
            pytest.raises(FetchFailed, match=r"(?i)certificate verify failed"),
        ):
            get(f"https://hook.example.com:{port}/", resolve=resolver(["127.0.0.1"]), allow_private=True)


def test_header_injection_is_refused_before_anything_is_sent() -> None:
    with server(reply("HTTP/1.1 204 No Content")) as (port, came):
        with pytest.raises(FetchFailed):
            get(f"http://127.0.0.1:{port}/", allow_private=True, headers={"X-A": "b\r\nX-C: d"})
        assert len(came) <= 1


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2a00:1450:4001::1", "64:ff9b::808:808"]
)
def test_addresses_of_the_public_internet_are_public(address: str) -> None:
    assert not_public(address) is None


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"])
def test_a_lab_does_not_ask_where_clouds_keep_their_secrets(host: str) -> None:
    with pytest.raises(AddressRefused, match="link-local"):
        get(f"http://{host}/latest/meta-data/", allow_private=True)
    with pytest.raises(AddressRefused, match="link-local"):
        get("http://metadata.lab.test/", resolve=resolver([host.strip("[]")]), allow_private=True)


class TestKept:
    """Connections that are used again."""

    ASKED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    @staticmethod
    def post_many(url: str, times: int, **options: Any) -> list[Fetched]:
        async def run() -> list[Fetched]:
            keep = Kept()
            try:
                return [
                    await fetch("POST", url, content=b"{}", allow_private=True, keep=keep, **options)
                    for _ in range(times)
                ]
            finally:
                keep.close()

        return asyncio.run(run())

    def serve_many(self, answer: bytes) -> Serve:
        """Answers each request of a connection."""

        def serve(conn: socket.socket, head: bytes) -> None:
            got = head
            while got:
                while not got.endswith(b"{}"):
                    got += conn.recv(65536)
                conn.sendall(answer)
                got = conn.recv(65536)

        return serve

    def test_a_connection_carries_one_request_after_another(self) -> None:
        with server(self.serve_many(self.ASKED)) as (port, came):
            got = self.post_many(f"http://127.0.0.1:{port}/", 20)
        assert [(g.status, g.body, g.address) for g in got] == [(200, b"ok", "127.0.0.1")] * 20
        assert len(came) == 1

    def test_by_tls_the_certificate_is_asked_for_once(self, tmp_path: Path) -> None:
        ca = trustme.CA()
        ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("hook.example.com").configure_cert(tls)
        with server(self.serve_many(self.ASKED), tls) as (port, came):
            options = {"resolve": resolver(["127.0.0.1"]), "ca_file": str(tmp_path / "ca.pem")}
            got = self.post_many(f"https://hook.example.com:{port}/", 5, **options)
        assert [g.status for g in got] == [200] * 5 and len(came) == 1

    @pytest.mark.parametrize(
        ("answer", "options"),
        [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", {}),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", {}),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok, so far", {"max_octets": 2}),
            # what follows is nobody's answer, and least of all that to the next request
            (ASKED + b"HTTP/1.1 500 Planted\r\nContent-Length: 0\r\n\r\n", {}),
        ],
    )
    def test_a_connection_that_cannot_be_asked_again_is_not(self, answer: bytes, options: dict[str, Any]) -> None:
        with server(self.serve_many(answer)) as (port, came):
            got = self.post_many(f"http://127.0.0.1:{port}/", 3, **options)
        assert [(g.status, g.body) for g in got] == [(200, b"ok")] * 3
        assert len(came) == 3

    def test_a_request_is_sent_anew_where_the_kept_connection_was_closed_meanwhile(self) -> None:
        def serve(conn: socket.socket, head: bytes) -> None:
            conn.sendall(self.ASKED)
            if len(came) == 1:
                conn.recv(65536)  # the first one hears a second request, and goes without a word

        with server(serve) as (port, came):
            got = self.post_many(f"http://127.0.0.1:{port}/", 3)
        assert [g.status for g in got] == [200] * 3
        assert len(came) == 3

    def test_a_request_that_was_half_answered_is_not_sent_anew(self) -> None:
        def serve(conn: socket.socket, head: bytes) -> None:
            conn.sendall(self.ASKED)
            conn.recv(65536)
            conn.sendall(b"HTTP/1.1 200")

        with server(serve) as (port, came), pytest.raises(FetchFailed):
            self.post_many(f"http://127.0.0.1:{port}/", 2)
        assert len(came) == 1

    def test_a_connection_to_one_name_serves_no_other_and_each_new_one_is_checked(self) -> None:
        async def run(port: int) -> None:
            keep = Kept()
            options: dict[str, Any] = {"content": b"{}", "keep": keep}
            inside = resolver(["127.0.0.1"])
            await fetch("POST", f"http://a.example.com:{port}/", resolve=inside, allow_private=True, **options)
            for url, private in (
                (f"http://a.example.com:{port}/", False),  # was checked by laxer rules
                (f"http://b.example.com:{port}/", False),
            ):
                with pytest.raises(AddressRefused):
                    await fetch("POST", url, resolve=inside, allow_private=private, **options)
            keep.close()

        with server(self.serve_many(self.ASKED)) as (port, came):
            asyncio.run(run(port))
        assert len(came) == 1

    @pytest.mark.parametrize("bound", ["IDLE_S", "AGE_S", "MOST"])
    def test_no_connection_is_kept_for_long_and_not_any_number(
        self, bound: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Kept, bound, 0)
        with server(self.serve_many(self.ASKED)) as (port, came):
            self.post_many(f"http://127.0.0.1:{port}/", 3)
        assert len(came) == 3
