"""Ports for servers that are started later: nobody else comes to have one meanwhile.

A port that the kernel gave and that was closed again may be given to the next who asks, a moment before its server
binds it. So these stand outside of the range that the kernel gives from, and a name in the network namespace's list of
abstract Unix sockets keeps each for the process that chose it, as long as that lives: other processes of the tests
pass it over.
"""

from __future__ import annotations

import contextlib
import errno
import random
import socket
from pathlib import Path

#: mailapi.up takes its own from above these
_LOWEST, _HIGHEST = 10_240, 19_999
_kept: list[socket.socket] = []


def free_port() -> int:
    """A port that is free on both loopbacks, and this process' own until it ends."""
    for _ in range(1_000):
        port = random.SystemRandom().randint(_LOWEST, min(_HIGHEST, _kernels_lowest() - 1))
        if _keep(port) and _free(port):
            return port
    raise RuntimeError(f"no port from {_LOWEST} to {_HIGHEST} is free on both loopbacks")


def _keep(port: int) -> bool:
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        name.bind(f"\0mailapi-tests-port-{port}")
    except OSError:
        name.close()
        return False
    _kept.append(name)
    return True


def _free(port: int) -> bool:
    for family, loopback in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family) as probe:
                probe.bind((loopback, port))
        except OSError as e:  # a machine may do without IPv6
            if family == socket.AF_INET or e.errno == errno.EADDRINUSE:
                return False
    return True


def _kernels_lowest() -> int:
    """Where the range begins that the kernel gives from; as if there were none where it begins too low."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        if lowest > _LOWEST + 1_000:
            return lowest
    return 65_536
