"""When each step of a mail's way happened, for benchmarks/wire.py: wrappers around the steps, in every process of the
service, where BENCH_STAMPS names a folder. One line each, `monotonic seconds, step, mark`, in a file of its process.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from django.apps import AppConfig

_KEPT_S = 2.0


class Stamps(AppConfig):
    name = "benchmarks.stamps"
    label = "stamps"

    def ready(self) -> None:
        if folder := os.environ.get("BENCH_STAMPS"):
            _wrap_all(folder)


class _Pen:
    """Keeps lines in memory, and writes them when a later one comes seconds after the first: no step waits for it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.lines: list[tuple[float, str]] = []

    def write(self, step: str) -> None:
        now = time.monotonic()
        lines = self.lines
        lines.append((now, step))
        if now - lines[0][0] > _KEPT_S:
            self.lines = []
            with open(f"{self.folder}/{os.environ.get('PGAPPNAME', 'other')}-{os.getpid()}", "a") as out:
                out.writelines(f"{at:.6f} {one}\n" for at, one in lines)


def _wrap_all(folder: str) -> None:
    pen = _Pen(folder).write
    role = os.environ.get("MAILAPI_ROLE")

    def around(owner: Any, name: str, before: str = "", after: str = "") -> None:
        inner: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(inner)
        def wrapped(*args: Any, **words: Any) -> Any:
            if before:
                pen(before)
            found = inner(*args, **words)
            if after:
                pen(after)
            return found

        setattr(owner, name, wrapped)

    def around_async(owner: Any, name: str, before: str = "", after: str = "") -> None:
        inner: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(inner)
        async def wrapped(*args: Any, **words: Any) -> Any:
            if before:
                pen(before)
            found = await inner(*args, **words)
            if after:
                pen(after)
            return found

        setattr(owner, name, wrapped)

    if role == "web":
        from deliveries import accept, bell
        from deliveries.accept.gather import Gatherer
        from mailapi import bodies

        around(bodies.Gate, "__call__", "web: granian calls the gate", "web: answer ready")
        around(bodies.Watch, "read", "", "web: body read")
        around(Gatherer, "accept", "web: accept called (view and checks done)", "")
        around(accept, "_execute", "web: statement sent", "web: committed")
        around(bell._Line, "say", "", "web: bell rung")
    elif role == "deliver":
        from deliveries import bell, claim, queue
        from deliveries.deliver import jobs
        from deliveries.smtp import session
        from deliveries.smtp.connection import Wire

        engines = sys.modules["deliveries.deliver.engine"]  # the package's `engine` is a function

        around(bell.Ear, "heard", "pump: awake", "pump: bell heard")
        around(claim, "_candidates", "", "pump: destinations asked")
        around(claim, "take", "", "pump: claimed")
        around(jobs, "take", "pump: asks for it", "pump: claimed with its content")
        around(jobs, "load", "", "pump: prepared")
        around_async(engines.Engine, "_deliver", "loop: begun", "")
        around(engines, "finish", "loop: routed", "loop: composed and signed")
        around_async(session.SmtpSession, "_envelope", "loop: connected; envelope written", "loop: 354 heard")
        around(queue, "start", "ledger: asked", "ledger: on disk")
        around(Wire, "write_data", "loop: final dot written")
