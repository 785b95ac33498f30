"""An S3-compatible server (moto) as a process of its own."""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
from datetime import UTC, datetime

from deliveries.objects import Bucket
from tests.fakes.ports import free_port


class Store:
    """`bucket` is made at start; `stop` and `start` again empties it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.bucket = Bucket(f"http://127.0.0.1:{self.port}", "bodies", "us-east-1", "AKID", "secret")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Store:
        words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while True:
            try:
                self.ask("PUT", "/bodies")
                return self
            except OSError:
                assert self.process.poll() is None and time.monotonic() < end, "moto does not answer"
                time.sleep(0.1)

    def ask(self, method: str, path: str) -> bytes:
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            line.request(method, path, headers=self.bucket.headers(method, line.host, path, b"", datetime.now(UTC)))
            return line.getresponse().read()
        finally:
            line.close()

    def listed(self) -> list[str]:
        """Of all objects, as the listing has them."""
        listing = self.ask("GET", "/bodies").decode()
        return [part.partition("</Key>")[0] for part in listing.split("<Key>")[1:]]

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)
            self.process = None
