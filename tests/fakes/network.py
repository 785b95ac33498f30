"""Machines of their own on one cable: network namespaces of Linux, joined by a bridge that stands in one of them.

    network = Network(3)
    try:
        network.make()
        with network.inside():       # this thread, and what it starts, lives in the centre
            ...                      # ["ip", "netns", "exec", network.hosts[0].name, ...] runs a command on a host
            network.cut(network.hosts[0])
    finally:
        network.remove()

Nothing of it is seen from outside: addresses and routes exist in the namespaces alone. Their names tell who made them,
so that the next run removes what a killed one left.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import secrets
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.daemon import missing, need_root

CLONE_NEWNET = 0x40000000
_NAME = re.compile(r"mailapi-(\d+)-[0-9a-f]{6}-\w+")
_NAMES = Path("/run/netns")


@dataclass(frozen=True)
class Host:
    """`cable` is the centre's end of what joins it."""

    name: str
    cable: str
    address: str


class Network:
    def __init__(self, hosts: int, prefix: str = "10.77.0") -> None:
        need_root()
        word = f"mailapi-{os.getpid()}-{secrets.token_hex(3)}"
        self.centre = f"{word}-centre"
        self.address = f"{prefix}.1"
        self.net = f"{prefix}.0/24"
        self.hosts = [Host(f"{word}-h{n}", f"h{n}", f"{prefix}.{10 * n}") for n in range(1, hosts + 1)]

    def make(self) -> None:
        _bury_the_dead()
        if ip("netns", "add", self.centre, check=False):
            missing("this machine gives no network namespaces (or has no `ip`)")
        self._in(self.centre, "link set lo up", "link add br0 type bridge", f"addr add {self.address}/24 dev br0",
                 "link set br0 up")  # fmt: skip
        for host in self.hosts:
            ip("netns", "add", host.name)
            self._in(self.centre, f"link add {host.cable} type veth peer name eth0 netns {host.name}",
                     f"link set {host.cable} master br0", f"link set {host.cable} up")  # fmt: skip
            self._in(host.name, "link set lo up", f"addr add {host.address}/24 dev eth0", "link set eth0 up")

    def cut(self, host: Host) -> None:
        """As if the cable were pulled: whoever talks over it hears nothing any more."""
        self._in(self.centre, f"link set {host.cable} down")

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread in the centre: its sockets, threads and processes from now on are there."""
        with (
            open(f"/proc/self/task/{threading.get_native_id()}/ns/net") as before,
            open(_NAMES / self.centre) as centre,
        ):
            _enter(centre.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def remove(self) -> None:
        """All of it, however much had been made; a namespace ends with its last process."""
        for name in self.names() & namespaces():
            ip("netns", "delete", name)

    def names(self) -> set[str]:
        return {self.centre, *(host.name for host in self.hosts)}

    @staticmethod
    def _in(name: str, *orders: str) -> None:
        for order in orders:
            ip("-n", name, *order.split())


def ip(*words: str, check: bool = True) -> int:
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        missing("there is no `ip` (Debian: iproute2)")
    assert not check or done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.returncode


def namespaces() -> set[str]:
    """Those of this kind that are there."""
    return {p.name for p in _NAMES.iterdir() if _NAME.fullmatch(p.name)} if _NAMES.exists() else set()


def _bury_the_dead() -> None:
    for name in namespaces():
        found = _NAME.fullmatch(name)
        if found and not Path(f"/proc/{found[1]}").exists():
            ip("netns", "delete", name, check=False)


def _enter(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
