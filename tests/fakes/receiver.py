"""A receiver of webhooks on loopback: keeps what came, answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Came:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """`answer` gives (status, headers) for what came; it may wait for `let_go`, as a hanging server does."""

    port: int = 0
    came: list[Came] = field(default_factory=list)
    answer: Callable[[Came], tuple[int, dict[str, str]]] = lambda came: (200, {})
    let_go: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    at_once: int = 0
    most_at_once: int = 0
    connections: int = 0

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def hang(self, came: Came) -> tuple[int, dict[str, str]]:
        self.let_go.wait(120)
        return 200, {}


@contextmanager
def receiver(keeps: bool = False) -> Iterator[Receiver]:
    """With `keeps` it speaks HTTP/1.1, and its connections stay open for the next request."""
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1" if keeps else "HTTP/1.0"

        def setup(self) -> None:
            super().setup()
            with state.lock:
                state.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            came = Came(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            with state.lock:
                state.came.append(came)
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
            try:
                status, headers = state.answer(came)
            finally:
                with state.lock:
                    state.at_once -= 1
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"ok")
            except OSError:
                pass  # the sender had enough

        def do_GET(self) -> None:
            raise AssertionError("a redirect was followed")

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        state.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()
