"""A real web process on the database of the tests: granian with the WSGI application, as `up` starts it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from django.db import connection

from mailapi.up import serve
from mailapi.up.addresses import Address
from tests.fakes.ports import free_port

ROOT = Path(__file__).resolve().parent.parent.parent


@contextmanager
def web(folder: Path, **environ: str) -> Iterator[str]:
    """Its URL; the process logs into `folder` and ends with the block."""
    db = connection.settings_dict
    port = free_port()
    environ = {
        **os.environ,
        "DATABASE_URL": f"postgres://{db['USER']}:{db['PASSWORD']}@{db['HOST']}:{db['PORT']}/{db['NAME']}",
        "MAILAPI_ROLE": "web",
        "WEB_THREADS": "4",
        "BROKER_URL": "redis://127.0.0.1:1/0",  # nobody is to be woken, and no mail needs it
        "PYTHONPATH": str(ROOT),
        "BASE_URL": f"http://127.0.0.1:{port}",
        **environ,
    }
    log = folder / "granian.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            serve.web(Address("127.0.0.1", port), workers=1, threads=int(environ["WEB_THREADS"])),
            env=environ, cwd=folder, stdout=out, stderr=out,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 240
        while True:
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            try:
                urlopen(f"{url}/health/live", timeout=30).close()
                break
            except (URLError, OSError):
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(120)
