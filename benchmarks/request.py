"""What a POST costs a web process: µs of processor per request, by the WSGI application without a server before it.

    python benchmarks/request.py [--requests 1000] [--rounds 5] [--profile]

Real Postgres and Valkey, no deliver processes. One thread asks, so nothing is gathered; the bell and the log of
requests have their own threads, whose time counts too. `--profile` prints where the asking thread's time goes.
"""

from __future__ import annotations

import argparse
import cProfile
import io
import json
import os
import pstats
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def inside(requests: int, rounds: int, profile: bool) -> None:
    """In a process that is a web process but for the server."""
    from benchmarks.feeder import mail
    from mailapi.wsgi import application

    key, sender = os.environ["BENCH_KEY"], os.environ["BENCH_SENDER"]
    host = os.environ["BASE_URL"].rpartition("/")[2].partition(":")[0]

    def ask(number: int, run: str) -> None:
        body = json.dumps(mail(number, run, f"d{number % 20}.bench.test", sender)[1]).encode()
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "POST", "PATH_INFO": "/emails", "SCRIPT_NAME": "", "QUERY_STRING": "",
            "SERVER_NAME": host, "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": host, "HTTP_AUTHORIZATION": f"Bearer {key}", "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body), "wsgi.url_scheme": "http",
            "wsgi.errors": sys.stderr, "wsgi.multithread": True, "wsgi.multiprocess": True,
        }  # fmt: skip
        told: list[str] = []
        answer = application(environ, lambda status, headers, exc_info=None: told.append(status))
        octets = b"".join(answer)
        answer.close()
        assert told[0].startswith("200"), (told, octets)

    def turn(run: str) -> None:
        for number in range(requests):
            ask(number, run)

    turn("warm")
    whole, own, took = [], [], []
    for number in range(rounds):
        cpu, thread, clock = time.process_time(), time.thread_time(), time.monotonic()
        turn(f"r{number}")
        whole.append((time.process_time() - cpu) / requests * 1e6)
        own.append((time.thread_time() - thread) / requests * 1e6)
        took.append((time.monotonic() - clock) / requests * 1e3)
    for name, values in (("process, µs", whole), ("of it the asking thread, µs", own), ("a request, ms", took)):
        print(f"{name:30} median {statistics.median(values):8.1f}   least {min(values):8.1f}", flush=True)
    if profile:
        profiler = cProfile.Profile(time.thread_time)
        profiler.enable()
        turn("profile")
        profiler.disable()
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(90)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(45)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options.requests, options.rounds, options.profile)
        return
    from tests.fakes.town import ROOT, Town

    class Half(Town):
        """Only what a request needs."""

        def start(self, name: str) -> None:
            if name in ("postgres", "valkey", "web", "lab"):
                super().start(name)

    town = Half(lease_s=60, LOG_LEVEL="WARNING")
    try:
        town.build()
        town.stop("web")
        env = town.env | {"BENCH_KEY": town.key, "BENCH_SENDER": town.sender, "MAILAPI_ROLE": "web"}
        words = [sys.executable, __file__, "--inside", "--requests", str(options.requests)]
        words += ["--rounds", str(options.rounds), *(["--profile"] if options.profile else [])]
        subprocess.run(words, env=env, cwd=ROOT, check=True)
    finally:
        town.tear_down()


if __name__ == "__main__":
    main()
