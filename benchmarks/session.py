"""How many transactions per second one process sends to the receiver lab, pipelined and not, in one run.

    python benchmarks/session.py [--mails 5000] [--size 5000] [--concurrency 50] [--tls]

The lab runs in a process of its own. Both ways use the same session and pool; the plain one only does not look at the
word PIPELINING in the server's EHLO.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from deliveries.smtp import opening, session
from deliveries.smtp.hop import Envelope, Hop, Tls
from deliveries.smtp.outcome import Replied
from deliveries.smtp.pool import Pool
from deliveries.smtp.session import Offer, open_gate


class PlainOffer(Offer):
    """An EHLO answer whose PIPELINING is not seen."""

    def __contains__(self, keyword: str) -> bool:
        return keyword != "pipelining" and super().__contains__(keyword)


async def drain(hop: Hop, options: argparse.Namespace) -> float:
    pool = Pool(helo_name="sender.example.test", max_messages_per_connection=10_000)
    line = b"x" * 70 + b"\r\n"
    octets = b"From: a@example.test\r\nMessage-ID: <bench@example.test>\r\nSubject: bench\r\n\r\n" + line * (
        options.size // 72
    )
    left = iter(range(options.mails))

    async def courier() -> None:
        for i in left:
            envelope = Envelope(f"bounces+{i}@example.test", f"delivered+{i}@simulator.test")
            outcome = (await pool.deliver([hop], envelope, octets, open_gate))[-1].outcome
            assert isinstance(outcome, Replied) and outcome.reply.positive, outcome

    started = time.perf_counter()
    await asyncio.gather(*(courier() for _ in range(options.concurrency)))
    rate = options.mails / (time.perf_counter() - started)
    await pool.close()
    return rate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mails", type=int, default=5000)
    parser.add_argument("--size", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "deliveries.sandbox", "--listen", "127.0.0.1:0"]
    lab = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root, env=os.environ | {"PYTHONPATH": "."})
    try:
        port = int(lab.stdout.readline().rpartition(":")[2])
        hop = Hop("lab.simulator.test", "127.0.0.1", port, tls=Tls.MUST if options.tls else Tls.NONE)
        for turn in range(options.rounds):
            for name, offer in (("pipelined", Offer), ("plain", PlainOffer)):
                opening.Offer = session.Offer = offer
                rate = uvloop.run(drain(hop, options))
                print(f"round {turn + 1}  {name:10} {rate:8.0f} mails/s")
    finally:
        lab.terminate()
        lab.wait()


if __name__ == "__main__":
    main()
