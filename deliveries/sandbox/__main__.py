"""`python -m deliveries.sandbox`: the receiver lab as a process; says one line when it listens, ends on SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from pathlib import Path

import uvloop

from deliveries.sandbox.behaviours import BEHAVIOURS, DOMAIN
from deliveries.sandbox.lab import Lab


def main() -> None:
    known = "\n".join(f"  {b.name + '@' + DOMAIN:28} {b.tells}" for b in BEHAVIOURS.values())
    parser = argparse.ArgumentParser(
        prog="deliveries.sandbox",
        description="A receiver that behaves by recipient address.",
        epilog=f"addresses (any +label allowed):\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--listen", type=_endpoint, default=("127.0.0.1", 2525), metavar="HOST:PORT")
    parser.add_argument("--bounce-to", type=_endpoint, metavar="HOST:PORT", help="where DSNs, ARF and notes go")
    parser.add_argument("--badcert-listen", type=_endpoint, metavar="HOST:PORT", help="with an expired certificate")
    parser.add_argument("--helo", default="lab.simulator.test", metavar="NAME")
    parser.add_argument("--keep", type=int, default=200, metavar="N", help="mails kept (200)")
    parser.add_argument("--spool", type=Path, metavar="DIR", help="kept mails as files too")
    parser.add_argument("--spool-log", type=Path, metavar="FILE", help="one JSON line per accepted mail, no cap")
    parser.add_argument("--cert-out", type=Path, metavar="FILE", help="the lab's certificate, PEM")
    parser.add_argument("--slow", type=float, default=2.0, metavar="S", help="pause of slow@ per answer (2)")
    parser.add_argument("--any-domain", action="store_true", help="mail of every domain is taken, not only the lab's")
    uvloop.run(_run(parser.parse_args()))  # the lab shares its processors with what it measures


async def _run(options: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    lab = Lab(
        options.listen,
        bounce_to=options.bounce_to,
        badcert_listen=options.badcert_listen,
        helo=options.helo,
        keep=options.keep,
        spool=options.spool,
        spool_log=options.spool_log,
        slow_s=options.slow,
        any_domain=options.any_domain,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await lab.start()
    if options.cert_out:
        options.cert_out.write_bytes(lab.certificate)
    print("receiver lab for {} on {}:{}".format(DOMAIN, *lab.address), flush=True)
    await stop.wait()
    await lab.stop()


def _endpoint(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError("expected HOST:PORT")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    main()
