"""A real browser: Debian's chromium under Playwright. Skipped where there is none, unless REQUIRE_ALL=1."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator

import pytest

# Playwright's synchronous API runs an event loop in this thread; Django takes that for async code
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")


class Tripwire:
    """A listener that the hosts named in mails resolve to: whoever connects has left the house."""

    def __init__(self) -> None:
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            self.connections += 1
            connection.close()

    def close(self) -> None:
        # a listener that is only closed leaves accept() waiting
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture(scope="package")
def tripwire() -> Iterator[Tripwire]:
    wire = Tripwire()
    yield wire
    wire.close()


# for this package only: while Playwright runs, no other test of this thread could call asyncio.run
@pytest.fixture(scope="package")
def chromium(tripwire) -> Iterator:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail("REQUIRE_ALL=1, and there is no chromium")
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                # the browser's own errands (updates, accounts) find nobody; what a mail names finds the tripwire
                f"--host-resolver-rules=MAP *.invalid 127.0.0.1:{tripwire.port}, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, "
                "EXCLUDE localhost",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, live_server) -> Iterator:
    """`open_page(width, height, dark)` → (page, complaints): what the console said of the panel's own pages."""
    contexts = []

    def open_(width: int = 1280, height: int = 900, dark: bool = False):
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            base_url=live_server.url,
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        appears = page.wait_for_selector

        def wait_for_selector(selector: str, **options) -> None:
            """What follows it on the page is there, too: a busy browser shows the beginning first."""
            appears(selector, **options)
            page.wait_for_load_state()

        page.wait_for_selector = wait_for_selector
        complaints: list[str] = []

        def said(message) -> None:
            # the refusals inside a preview are what its policy is for
            where = f"{message.location} {message.text}"
            if message.type == "error" and "/preview/" not in where and ".invalid/" not in where:
                complaints.append(f"{message.text} {message.location}")

        def asked(request) -> None:
            if not request.url.startswith((live_server.url, "data:", "blob:")) and ".invalid/" not in request.url:
                complaints.append(f"asked {request.url}")

        page.on("console", said)
        page.on("request", asked)
        page.on("pageerror", lambda e: complaints.append(str(e)))
        return page, complaints

    yield open_
    for context in contexts:
        context.close()
